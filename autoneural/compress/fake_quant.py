"""Fake quantisation on any model made of the supported layers, in place, by forward hooks.

    x -> Linear(dequantised weight) -> round to the output's encoding -> next module

`quantize` attaches quantisers (names and parameters of the model stay as they are), `Calibration`
lets them watch, `round_weights` and `freeze` fix the integers. From then on the model computes in
fp32 on dequantised integers, with the arithmetic of `target/numerics.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from fnmatch import fnmatchcase
from math import ceil
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from autoneural.compress.observer import Observer, ObserverName, least_error_scale, make_observer
from autoneural.compress.precision import (
    LAYER_NORM_BITS,
    VECTOR_BITS,
    FixedRange,
    MaskPaths,
    Precision,
    bits_for,
    check_paths,
    shared_ranges,
)
from autoneural.compress.rounding import Rounding, round_compensated, round_nearest
from autoneural.errors import UserError
from autoneural.model import layers
from autoneural.model.placeholders import loaded
from autoneural.target.numerics import (
    Encoding,
    affine_encoding,
    symmetric_encoding,
    symmetric_scale,
)

ModelT = TypeVar("ModelT", bound=nn.Module)
RANGE_MODULES = (
    layers.Add,
    layers.Concat,
    layers.Gelu,
    layers.LayerScale2d,
    layers.MatMul,
    layers.Mul,
    layers.Range,
    layers.Resize2d,
    layers.RMSNorm,
    layers.Scale,
    layers.Sigmoid,
    layers.Softmax,
    nn.Conv1d,
    nn.Conv2d,
    nn.Embedding,
    nn.LayerNorm,
    nn.Linear,
)
_DATA_MOVEMENT = (layers.SamePad, nn.Identity, nn.Dropout)
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
_OUTPUT, _WEIGHT = "output_quantizer", "weight_quantizer"
VERSION = 1


class OutputQuantizer(nn.Module):
    """Watches a module's output, then rounds it to an encoding. Shared where outputs are tied."""

    scale: Tensor

    def __init__(
        self, bits: int, observer_name: ObserverName = "minmax", *, symmetric: bool = False
    ) -> None:
        super().__init__()
        self.bits = bits
        self.symmetric = symmetric
        self.observer_name: ObserverName = observer_name
        self.observer: Observer = make_observer(observer_name, bits)
        self.encoding: Encoding | None = None
        self.mode: Literal["off", "observe", "round"] = "off"
        # A tensor: torch may turn division by a Python number into a product.
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def watch(self) -> None:
        """Forget what was observed and observe from now on."""
        self.observer = make_observer(self.observer_name, self.bits)
        self.mode = "observe"

    def set_encoding(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.scale.fill_(encoding.scale)

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "observe":
            self.observer.observe(x)
        if self.mode != "round" or self.encoding is None:
            return x
        return fake_quantize(x, self.encoding, self.scale)


class WeightQuantizer(nn.Module):
    """Gathers input statistics for one parameter, then holds its integers and scale."""

    def __init__(self, parameter: str, bits: int, axis: int | None) -> None:
        super().__init__()
        self.parameter = parameter
        self.bits = bits
        self.axis = axis
        self.hessian: Tensor | None = None
        self.integers: Tensor | None = None
        self.scale: Tensor | None = None

    def watch(self, x: Tensor) -> None:
        """Add one batch of inputs [..., in] to X^T X."""
        rows = x.detach().float().reshape(-1, x.shape[-1])
        product = rows.T @ rows
        self.hessian = product if self.hessian is None else self.hessian + product

    @torch.no_grad()
    def round(self, weight: Tensor, rounding: Rounding = "compensated") -> None:
        """Choose the integers, and put what they stand for into `weight`.

        "nearest" searches nothing: the largest weight of a row takes the largest integer.
        """
        rows = weight.detach().float().reshape(weight.shape[0] if self.axis == 0 else 1, -1)
        if self.bits > 8 or rounding == "nearest":
            scale = torch.from_numpy(symmetric_scale(rows.abs().amax(1).cpu().numpy(), self.bits))
            scale = scale.to(rows.device)
        else:
            importance = None if self.hessian is None else self.hessian.diagonal()
            scale = least_error_scale(rows, self.bits, importance)
        if self.hessian is None:
            integers = round_nearest(rows, scale, self.bits)
        else:
            integers = round_compensated(rows, scale, self.bits, self.hessian)
        self.hold(weight, integers, scale)

    @torch.no_grad()
    def hold(self, weight: Tensor, integers: Tensor, scale: Tensor) -> None:
        """Keep integers, rows as `weight` has them, and put what they stand for into it."""
        weight.copy_((integers * scale[:, None]).reshape(weight.shape))
        dtype = torch.int8 if self.bits <= 8 else torch.int16
        self.integers = integers.reshape(weight.shape).to(dtype)
        self.scale = scale if self.axis == 0 else scale[0]
        self.hessian = None


def fake_quantize(x: Tensor, encoding: Encoding, scale: Tensor) -> Tensor:
    """Round and come back, fp32; equal to the numpy definition to the bit."""
    q = (x / scale).round_().add_(encoding.zero_point).clamp_(0, 2**encoding.bits - 1)
    return q.sub_(encoding.zero_point).mul_(scale)


def quantize(model: ModelT, precision: Precision) -> ModelT:
    """Attach quantisers to `model`, in place; nothing is rounded yet.

    Raises UserError when a layer has no integer form here, when the model is quantised already, or
    when `precision` does not fit it.
    """
    ranges = check_layers(model)
    check_paths(precision, ranges)
    outputs = {p: b for p in ranges if (b := bits_for(precision.activations, p)) is not None}
    quantizers = {
        path: OutputQuantizer(bits, precision.observer, symmetric=precision.is_symmetric(path))
        for path, bits in outputs.items()
    }
    for group in shared_ranges(precision, outputs):
        quantizers.update(dict.fromkeys(group, quantizers[group[0]]))
    for path, quantizer in quantizers.items():
        attach_output(model.get_submodule(path), quantizer)
        for fixed in precision.fixed:
            if fnmatchcase(path, fixed.pattern):
                quantizer.set_encoding(_fixed_encoding(fixed, quantizer.bits))
    _attach_weights(model, precision)
    return model


def check_layers(model: nn.Module) -> list[str]:
    """Paths of the modules that yield a range; UserError at the first unsupported module."""
    ranges = []
    for path, module in model.named_modules():
        if isinstance(module, OutputQuantizer | WeightQuantizer):
            raise UserError(f"{path}: the model is quantised already; start from the float one")
        if isinstance(module, RANGE_MODULES):
            ranges.append(path)
        elif not _is_plain(module):
            raise UserError(
                f"{path or 'model'}: cannot quantise a {type(module).__name__}; "
                "write it with the layers of autoneural.model.layers"
            )
    return ranges


def _is_plain(module: nn.Module) -> bool:
    if isinstance(module, (*_DATA_MOVEMENT, *_CONTAINERS)):
        return True
    has_parameters = any(True for _ in module.parameters(recurse=False))
    return any(True for _ in module.children()) and not has_parameters


def _fixed_encoding(fixed: FixedRange, bits: int) -> Encoding:
    if fixed.signed:
        return symmetric_encoding(fixed.maximum, bits)
    return affine_encoding(0.0, fixed.maximum, bits)


def attach_output(module: nn.Module, quantizer: OutputQuantizer) -> None:
    """Send `module`'s output through `quantizer` from now on, instead of an earlier one."""
    reference = next(module.parameters(), None)
    if reference is not None:
        quantizer.to(reference.device)
    if _OUTPUT not in dict(module.named_children()):
        module.register_forward_hook(_through_output_quantizer)
    module.add_module(_OUTPUT, quantizer)


def _through_output_quantizer(module: nn.Module, _: Any, output: Tensor) -> Tensor:
    return module.get_submodule(_OUTPUT)(output)


def _attach_weights(model: nn.Module, precision: Precision) -> None:
    seen: set[int] = set()
    for path, module in list(model.named_modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if name == "bias" or id(parameter) in seen:  # a tied head is rounded as the embedding
                continue
            seen.add(id(parameter))
            vector = parameter.ndim == 1
            least = LAYER_NORM_BITS if isinstance(module, nn.LayerNorm) else VECTOR_BITS
            bits = least if vector else bits_for(precision.weights, path)
            if bits is not None:
                axis = None if vector or bits == VECTOR_BITS else 0
                attach_weight(module, WeightQuantizer(name, bits, axis))


def attach_weight(module: nn.Module, quantizer: WeightQuantizer) -> None:
    """Let `quantizer` hold the integers of one of `module`'s parameters."""
    module.add_module(_WEIGHT, quantizer)


def output_quantizers(model: nn.Module) -> Iterator[tuple[str, OutputQuantizer]]:
    """(path of the module, its output quantiser); a shared one comes once per module."""
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, OutputQuantizer):
            yield path.removesuffix(f".{_OUTPUT}"), module


def weight_quantizers(model: nn.Module) -> Iterator[tuple[str, nn.Module, WeightQuantizer]]:
    """(path of the module, the module, its weight quantiser)."""
    for path, module in model.named_modules():
        if isinstance(module, WeightQuantizer):
            owner = path.removesuffix(f".{_WEIGHT}")
            yield owner, model.get_submodule(owner), module


class Calibration(AbstractContextManager["Calibration"]):
    """While open, every forward of the (quantised, not frozen) model teaches it its ranges.

    Nothing is rounded meanwhile, except weights that `round_weights` has fixed. Ranges seen by an
    earlier Calibration are forgotten.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Calibration:
        for _, quantizer in output_quantizers(self._model):
            quantizer.watch()
        for path, quantizer in output_quantizers(self._model):
            module = self._model.get_submodule(path)
            if isinstance(module, nn.Embedding):
                # Rows of tokens that no sample holds are looked up one day too.
                quantizer.observer.observe(module.weight)
        for _, module, quantizer in weight_quantizers(self._model):
            if isinstance(module, nn.Linear) and quantizer.bits == 4 and quantizer.integers is None:
                self._handles.append(module.register_forward_pre_hook(_watch_input))
        return self

    def __exit__(self, *exc: object) -> None:
        for _, quantizer in output_quantizers(self._model):
            quantizer.mode = "off"
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _watch_input(module: nn.Module, args: tuple[Tensor, ...]) -> None:
    quantizer = module.get_submodule(_WEIGHT)
    assert isinstance(quantizer, WeightQuantizer)
    quantizer.watch(args[0])


def round_weights(model: nn.Module, rounding: Rounding = "compensated") -> None:
    """Fix the integers of every weight that is still in floating point.

    4-bit linears use the inputs seen by `Calibration` (UserError when they saw none), except with
    "nearest", which searches for nothing. "sequential": `round_sequentially` comes first.
    """
    for path, module, quantizer in weight_quantizers(model):
        if quantizer.integers is not None:
            continue
        wants_inputs = isinstance(module, nn.Linear) and quantizer.bits == 4
        if wants_inputs and quantizer.hessian is None and rounding != "nearest":
            raise UserError(f"{path}: no calibration data reached it; calibrate before rounding")
        with loaded(module):
            quantizer.round(module.get_parameter(quantizer.parameter), rounding)


def freeze(model: nn.Module, precision: Precision) -> dict[str, Any]:
    """Fix every range and weight, switch rounding on, return what encodings.json holds.

    Raises UserError naming the first module that no calibration data reached.
    """
    encodings = {path: observed_encoding(path, q) for path, q in output_quantizers(model)}
    round_weights(model)
    mask_value = None
    if precision.mask is not None:
        bounds = {path: q.observer.range() for path, q in output_quantizers(model)}
        mask_value = _set_mask_ranges(encodings, bounds, precision.mask)
    activations = {path: asdict(encoding) for path, encoding in encodings.items()}
    apply_encodings(model, activations)
    weights = {
        f"{path}.{q.parameter}": {"bits": q.bits, "axis": q.axis}
        for path, _, q in weight_quantizers(model)
    }
    result = {"version": VERSION, "activations": activations, "weights": weights}
    return result if mask_value is None else {**result, "mask_value": mask_value}


def observed_encoding(path: str, quantizer: OutputQuantizer) -> Encoding:
    """That of the range seen, or of the fixed one. UserError naming `path` where none was seen."""
    if quantizer.encoding is not None:
        return quantizer.encoding
    bounds = quantizer.observer.range()
    if bounds is None:
        raise UserError(
            f"{path}: no calibration data reached it; run samples with images and text "
            "inside `with Calibration(model)`"
        )
    if not np.isfinite(bounds).all():
        raise UserError(f"{path}: calibration saw {bounds}; the float model overflows here")
    if quantizer.symmetric:
        return symmetric_encoding(max(map(abs, bounds)), quantizer.bits)
    return affine_encoding(*bounds, quantizer.bits)


def _set_mask_ranges(
    encodings: dict[str, Encoding],
    bounds: Mapping[str, tuple[float, float] | None],
    paths: MaskPaths,
) -> float:
    """Choose the mask value, and the ranges it stretches.

    -2 max|score| - 24 leaves a masked key exp(-24) of the weakest visible one even after the sum
    saturates at the mask value itself, so the range of the sum need not go below it.
    """
    scores = [e for path, e in encodings.items() if fnmatchcase(path, paths.scores)]
    largest = max((max(-e.low, e.high) for e in scores), default=0.0)
    mask_value = -float(ceil(2 * largest + 24))
    for path, encoding in encodings.items():
        if fnmatchcase(path, paths.mask):
            encodings[path] = affine_encoding(mask_value, 0.0, encoding.bits)
        elif fnmatchcase(path, paths.masked):
            # Not encoding.high: over the calibration mask's range, that is on a coarse grid.
            _, high = bounds[path] or (0.0, 0.0)
            encodings[path] = affine_encoding(mask_value, high, encoding.bits)
    return mask_value


def parse_encoding(path: str, values: Mapping[str, Any]) -> Encoding:
    """One entry of encodings.json. Raises UserError naming `path` when it is not one."""
    try:
        return Encoding(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"encodings.json: {path}: {error}") from error


def apply_encodings(model: nn.Module, activations: Mapping[str, Mapping[str, Any]]) -> None:
    """Round the outputs of the named modules from now on, attaching quantisers where missing.

    Raises UserError when the model has no module of that path.
    """
    for path, values in activations.items():
        encoding = parse_encoding(path, values)
        try:
            module = model.get_submodule(path)
        except AttributeError as error:
            raise UserError(f"encodings.json: {path}: {error}") from error
        quantizer = dict(module.named_children()).get(_OUTPUT)
        if not isinstance(quantizer, OutputQuantizer):
            quantizer = OutputQuantizer(encoding.bits)
            attach_output(module, quantizer)
        quantizer.set_encoding(encoding)
        quantizer.mode = "round"
