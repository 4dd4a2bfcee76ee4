"""A checkpoint of a preset's shape with random weights: what everything costs is in the shapes.

Real models have a few channels that are far larger than the rest. `outliers` gives a random one
such channels without changing its function: a norm weight is multiplied by 64 and the columns that
read it divided by 64, both exact in bf16.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from autoneural.bundle import DEFAULT_BUNDLE, EMBEDDED
from autoneural.checkpoint import save_checkpoint
from autoneural.config import ModelConfig, TextConfig, preset
from autoneural.errors import UserError
from autoneural.model.vlm import VLM

GAIN = 64.0


def random_checkpoint(
    name: str, out: Path, *, layers: int | None = None, seed: int = 0, outliers: int = 0
) -> ModelConfig:
    """Write the preset `name`, its first `layers` decoder layers only where told, to `out`.

    `outliers`: channels per norm of the decoder that are 64 times as large. The tokenizer is that
    of the embedded bundle. Raises UserError for an unknown preset or counts that do not fit.
    """
    config = _config(name, layers)
    if outliers > config.text.hidden_size:
        raise UserError(f"--outliers {outliers}: {name} has {config.text.hidden_size} channels")
    random = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in VLM(config).state_dict().items()}
    tensors = {key: _draw(key, shape, random) for key, shape in shapes.items()}
    _add_outliers(tensors, config.text, outliers, random)
    recipe = {
        "made_by": "autoneural init",
        "preset": name,
        "seed": seed,
        "layers": layers,
        "outliers": outliers,
        "licences": {"weights": "CC0-1.0"},
    }
    save_checkpoint(out, tensors, config, EMBEDDED / DEFAULT_BUNDLE, recipe)
    return config


def _config(name: str, layers: int | None) -> ModelConfig:
    try:
        config = preset(name)
    except ValueError as error:
        raise UserError(str(error)) from error
    text = config.text
    if layers is None:
        return config
    if layers > text.num_hidden_layers:
        raise UserError(f"--layers {layers}: {name} has {text.num_hidden_layers}")
    return replace(config, text=replace(text, layer_types=text.layer_types[:layers]))


def _draw(name: str, shape: torch.Size, random: torch.Generator) -> Tensor:
    """Matrices keep the size of what they multiply; vectors differ, or exporters merge them."""
    drawn = torch.randn(shape, generator=random, dtype=torch.bfloat16)
    if len(shape) > 1:
        return drawn.mul_(shape[1:].numel() ** -0.5)
    return drawn.mul_(0.1).add_(0.0 if name.endswith("bias") else 1.0)


def _add_outliers(
    tensors: dict[str, Tensor], text: TextConfig, count: int, random: torch.Generator
) -> None:
    attention = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    for layer, kind in enumerate(text.layer_types):
        first = ("conv.in_proj",) if kind == "conv" else attention
        readers = {"operator_norm": first, "ffn_norm": ("feed_forward.w1", "feed_forward.w3")}
        for norm, linears in readers.items():
            stem = f"language_model.model.layers.{layer}."
            chosen = torch.randperm(text.hidden_size, generator=random)[:count]
            tensors[f"{stem}{norm}.weight"][chosen] *= GAIN
            for linear in linears:
                tensors[f"{stem}{linear}.weight"][:, chosen] /= GAIN
