"""Post-training quantisation of a model that is never in memory whole.

    mapped file (bf16) --one layer at a time--> fp32 --round--> integers (a byte each) in memory
    every forward pass: a layer's weights appear when it runs, from the file or from the integers

What stays is the embedding table in fp32, vectors, and the integers; the arithmetic is that of
`calibrate`, and so is the result. Compensated rounding keeps a matrix of statistics per linear
beside: 6 GB at 1.2 billion parameters, and hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoneural.checkpoint import check_weights
from autoneural.compress.derive import FloatCheckpoint, refuse_itself, save_derived
from autoneural.compress.fake_quant import WeightQuantizer
from autoneural.compress.precision import Precision, bits_for
from autoneural.compress.quantize import calibrate, frozen_tensors
from autoneural.compress.report import Run
from autoneural.compress.rounding import Rounding
from autoneural.errors import UserError
from autoneural.model.placeholders import hollow_model, may_be_hollow, store
from autoneural.model.vlm import VLM


def quantize_streamed(
    source: FloatCheckpoint,
    samples: Sequence[Run],
    out: str | Path,
    *,
    precision: Precision,
    rounding: Rounding = "nearest",
    facts: Mapping[str, Any] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Quantise `source` into the folder `out`; `facts` are added to its recipe.

    Memory: about a byte per parameter, the embedding table in fp32, and one layer. The result is
    not measured here. Raises UserError as `post_training_quantize` does.
    """
    refuse_itself(out, source)
    if rounding == "sequential":
        raise UserError(
            "rounding 'sequential': needs the model in memory twice; nearest or "
            "compensated, or `autoneural compress`"
        )
    if not samples:
        raise UserError("calibration: no samples; give training rows with images and text")
    model = stream_model(source, precision)
    encodings = calibrate(model, samples, precision, progress, rounding=rounding)
    done = {
        "stage": "quantize",
        "precision": precision.to_dict(),
        "rounding": rounding,
        "calibration_samples": len(samples),
        **(facts or {}),
    }
    save_derived(out, frozen_tensors(model), source.config, source, done, encodings)


def stream_model(source: FloatCheckpoint, precision: Precision) -> VLM:
    """The float model of `source`; weights that `precision` rounds are in memory as they run.

    Raises UserError when tensors are missing, unknown or misshapen.
    """
    with torch.device("meta"):
        expected = VLM(source.config).state_dict()
    tensors = check_weights(expected, source.state_dict, source.folder)
    stored = {
        name: tensors.pop(name)
        for name in may_be_hollow(source.config)
        if bits_for(precision.weights, name.removesuffix(".weight")) is not None
    }
    model = hollow_model(source.config, tensors)
    for name, tensor in stored.items():
        module = model.get_submodule(name.removesuffix(".weight"))
        store(module, partial(_weight, module, tensor))
    return model


def _weight(module: nn.Module, tensor: Tensor) -> Tensor:
    """What `module` computes with: its frozen integers, or the weight of the file before."""
    for child in module.children():
        if isinstance(child, WeightQuantizer) and child.integers is not None:
            assert child.scale is not None
            shape = (-1, *[1] * (tensor.ndim - 1)) if child.scale.ndim else ()
            return child.integers * child.scale.reshape(shape)
    return tensor.float()
