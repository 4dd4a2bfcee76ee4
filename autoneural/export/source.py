"""A checkpoint as export reads it: a model to trace, and what quantisation froze.

A graph that is not run beside PyTorch is traced for its shapes alone: the weights of linears and
convolutions stay in the file, as the integers that the graph gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from autoneural.checkpoint import Checkpoint, find_checkpoint, load_checkpoint, load_weights
from autoneural.compress.quantize import load_quantized
from autoneural.config import MobileNetV5Config, ModelConfig
from autoneural.errors import UserError
from autoneural.export.qdq import Quantization, load_quantization
from autoneural.model.placeholders import hollow_model, may_be_hollow
from autoneural.model.vlm import VLM

TARGETS = ("float", "cpu", "qdq")
_STRIDE = 32


@dataclass(frozen=True, kw_only=True)
class Source:
    """A loaded checkpoint, ready to trace: `model` holds the frozen weights where there are any.

    `hollow`: it has their shapes instead, but for the embedding table and vectors.
    """

    folder: Path
    checkpoint: Checkpoint
    model: VLM
    quantization: Quantization | None


def load_source(name: str | Path, targets: Sequence[str], *, hollow: bool = False) -> Source:
    """The checkpoint called `name` for `targets`; UserError where it does not serve one of them."""
    unknown = [target for target in targets if target not in TARGETS]
    if unknown or not targets:
        raise UserError(f"targets {', '.join(targets)!r}: choose from {', '.join(TARGETS)}")
    folder, checkpoint = find_checkpoint(name), load_checkpoint(name)
    if checkpoint.encodings is None:
        needy = [target for target in targets if target != "float"]
        if needy:
            raise UserError(
                f"{folder}: target {needy[0]} needs a quantised checkpoint; make one with "
                "`autoneural compress`"
            )
        model = VLM(checkpoint.config).eval().requires_grad_(False)
        load_weights(model, checkpoint.state_dict, folder)
        return Source(folder=folder, checkpoint=checkpoint, model=model, quantization=None)
    quantization = load_quantization(checkpoint)
    if hollow and "float" not in targets:
        model = _hollow(checkpoint, quantization)
    else:
        model = load_quantized(name, activations=False)
    return Source(folder=folder, checkpoint=checkpoint, model=model, quantization=quantization)


def _hollow(checkpoint: Checkpoint, quantization: Quantization) -> VLM:
    frozen, hollow = quantization.weights, may_be_hollow(checkpoint.config)
    real = {
        name: torch.from_numpy(frozen[name].dequantize()) if name in frozen else tensor
        for name, tensor in checkpoint.state_dict.items()
        if name not in hollow or name not in frozen
    }
    return hollow_model(checkpoint.config, real)


def at_sizes(source: Source, sizes: Sequence[int]) -> Source:
    """The same weights and ranges for pictures of `sizes` pixels a side, the first unless told.

    UserError as `check_sizes` says.
    """
    config = source.checkpoint.config
    check_sizes(config, sizes)
    if not sizes or sizes[0] == config.vision.image_size:
        return source
    config = replace(config, vision=replace(config.vision, image_size=sizes[0]))
    source.model.config = config
    return replace(source, checkpoint=source.checkpoint._replace(config=config))


def check_sizes(config: ModelConfig, sizes: Sequence[int]) -> None:
    """UserError naming the first image size that a static encoder of `config` cannot have."""
    own = config.vision.image_size
    if len(set(sizes)) < len(sizes):
        raise UserError(f"image sizes {' '.join(map(str, sizes))}: name each once")
    for size in sizes:
        if size != own and not isinstance(config.vision, MobileNetV5Config):
            raise UserError(
                f"image size {size}: the encoder of {config.name} takes {own} and no other; "
                "make a bundle for each size"
            )
        if size != own and size % _STRIDE:
            raise UserError(f"image size {size}: not a multiple of {_STRIDE}")
