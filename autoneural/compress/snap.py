"""Scales moved by a hair, so that the coarse multipliers of v68 and v69 hold them exactly.

    m = x scale * weight scale / y scale  ->  11 bits of significand, for every output channel

Those chips round m to 11 bits, which is what gives every channel of a 16-bit layer an offset of its
own (`target/htp.py`). A weight scale moves by 2**-12 of itself at most and the integers stay; of a
product of two activations it is the output's scale that moves. Later chips compute the same with
it and without.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from autoneural.compress.fake_quant import WeightQuantizer, output_quantizers, weight_quantizers
from autoneural.compress.report import Run
from autoneural.compress.wiring import Wiring, encodings_of, trace
from autoneural.model import layers
from autoneural.model.placeholders import is_placeholder
from autoneural.target.htp import matrix_engine, narrow, round_significand, snap_weight_scale
from autoneural.target.numerics import Encoding

_BITS = matrix_engine(68).multiplier_bits or 0


def snap_encodings(model: nn.Module, encodings: dict[str, Any], runs: Iterable[Run]) -> None:
    """Snap a frozen model and its `encodings` in place; `runs` show which module reads which."""
    moved = snap_scales(model, trace(model, runs))
    encodings["activations"] |= {path: asdict(encoding) for path, encoding in moved.items()}


@torch.no_grad()
def snap_scales(model: nn.Module, wiring: Wiring, *, write: bool = True) -> dict[str, Encoding]:
    """Snap every engine layer of a frozen model in `wiring`, in place.

    Without `write` the float weights, which are still to learn, stay what they are.
    Returns the output encodings that have moved. Outputs that share their encoding with others
    stay as they are.
    """
    weights = {id(m.get_parameter(q.parameter)): q for _, m, q in weight_quantizers(model)}
    moved = _snap_products(model, wiring)  # first: linears read what they write
    for path in wiring:
        weight = getattr(model.get_submodule(path), "weight", None)
        if weight is None:
            continue
        quantizer = weights.get(id(weight))
        if quantizer is not None and quantizer.bits <= 8:
            _snap_weight(weight, quantizer, *encodings_of(model, path, wiring), write=write)
    return moved


def _snap_weight(
    weight: torch.Tensor, quantizer: WeightQuantizer, x: Encoding, y: Encoding, *, write: bool
) -> None:
    assert quantizer.scale is not None
    assert quantizer.integers is not None
    snapped = snap_weight_scale(quantizer.scale.cpu().numpy(), x.scale, y.scale, _BITS)
    quantizer.scale = torch.from_numpy(snapped).to(weight.device)
    if write and not is_placeholder(weight):  # those are loaded from the integers
        rows = quantizer.integers.flatten(1) * quantizer.scale.reshape(-1, 1)
        weight.copy_(rows.reshape(weight.shape))


def _snap_products(model: nn.Module, wiring: Wiring) -> dict[str, Encoding]:
    quantizers = dict(output_quantizers(model))
    shared = [id(quantizer) for quantizer in quantizers.values()]
    moved = {}
    for path in wiring:
        quantizer = quantizers[path]
        if isinstance(model.get_submodule(path), layers.MatMul) and shared.count(id(quantizer)) < 2:
            first, second, y = encodings_of(model, path, wiring)
            moved[path] = _snapped_output(first, narrow(second), y)
            quantizer.set_encoding(moved[path])
    return moved


def _snapped_output(first: Encoding, second: Encoding, y: Encoding) -> Encoding:
    """`y` with the next larger scale that will do: its range still holds what it held."""
    product = first.scale * second.scale
    m = product / y.scale
    below = round_significand(m * (1 - 2.0**-_BITS), _BITS)
    return replace(y, scale=float(np.float32(product / below)))
