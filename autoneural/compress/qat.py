"""Quantisation-aware training: weights, weight scales and ranges learn with the rounding in place.

    start_qat(model, precision, activations, weights)     from what PTQ found
    with rounded_weights(model): loss(model(...)).backward()
    encodings = finish_qat(model, precision)              frozen, as `freeze` leaves a model

At the start the model computes what the PTQ model computes, to the bit: a float weight that PTQ
rounded another way than to the nearest integer is moved to the edge of the integer it has. A scale
is its PTQ value times exp(log_gain), so that one learning rate fits scales of all sizes; zero
points, known ranges and what the attention mask depends on stay. Gradients: `lsq.py`.

All that learns besides the weights is in the child `ranges` of the model: a part for a stage's
`train` and `lr`, saved and averaged with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from autoneural.compress.fake_quant import (
    OutputQuantizer,
    attach_output,
    freeze,
    output_quantizers,
    quantize,
    weight_quantizers,
)
from autoneural.compress.lsq import gradient_factor, round_learned
from autoneural.compress.precision import Precision
from autoneural.compress.quantize import IntegerWeight
from autoneural.errors import UserError
from autoneural.target.numerics import Encoding, signed_range
from autoneural.train.objectives import Objective

RANGES = "ranges"
_EDGE = 0.49  # of a step: how far a weight may be from the integer that it is rounded to
ModelT = TypeVar("ModelT", bound=nn.Module)


class LearnedWeight(nn.Module):
    """Rounds one parameter to `bits`; its scale, [out] or a single number, learns."""

    scale: Tensor

    def __init__(self, scale: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.log_gain = nn.Parameter(torch.zeros_like(scale))
        self.register_buffer("scale", scale, persistent=False)

    def learned_scale(self) -> Tensor:
        return self.scale * self.log_gain.exp()

    def forward(self, weight: Tensor) -> Tensor:
        low, high = signed_range(self.bits)
        scale = _along_rows(self.learned_scale(), weight)
        factor = gradient_factor(weight.numel() // scale.numel(), high)
        return round_learned(weight, scale, low, high, factor)

    def integers(self, weight: Tensor) -> Tensor:
        scale = _along_rows(self.learned_scale(), weight)
        return (weight / scale).round_().clamp_(*signed_range(self.bits))


class LearnedOutput(OutputQuantizer):
    """Rounds to an encoding whose scale learns, or stays where `log_gain` is None."""

    def __init__(self, encoding: Encoding, log_gain: nn.Parameter | None) -> None:
        super().__init__(encoding.bits)
        super().set_encoding(encoding)
        self.zero_point = encoding.zero_point
        # In a tuple: the parameter belongs to LearnedRanges, which has it once where it is tied.
        self._log_gain = (log_gain,)

    def learned_scale(self) -> Tensor:
        (log_gain,) = self._log_gain
        return self.scale if log_gain is None else self.scale * log_gain.exp()

    def forward(self, x: Tensor) -> Tensor:
        top = 2**self.bits - 1
        factor = gradient_factor(x.numel() // max(len(x), 1), top)
        low, high = -self.zero_point, top - self.zero_point
        return round_learned(x, self.learned_scale(), low, high, factor)

    def set_encoding(self, encoding: Encoding) -> None:
        """What others read off it; what it rounds to is learned."""
        self.encoding = encoding

    def learned_encoding(self) -> Encoding:
        scale = float(self.learned_scale())
        return Encoding(bits=self.bits, scale=scale, zero_point=self.zero_point)

    def frozen(self) -> OutputQuantizer:
        """The same rounding, for good."""
        quantizer = OutputQuantizer(self.bits)
        quantizer.set_encoding(self.learned_encoding())
        return quantizer


class LearnedRanges(nn.Module):
    """What learns besides the weights, by module path and by parameter name (dots as slashes)."""

    def __init__(self) -> None:
        super().__init__()
        self.activations = nn.ParameterDict()
        self.weights = nn.ModuleDict()

    def add_activation(self, path: str) -> nn.Parameter:
        self.activations[_key(path)] = nn.Parameter(torch.zeros(()))
        return self.activations[_key(path)]

    def weight(self, name: str) -> LearnedWeight:
        found = self.weights[_key(name)]
        assert isinstance(found, LearnedWeight)
        return found

    def names(self) -> list[str]:
        """The parameters of the model that are rounded."""
        return [key.replace("/", ".") for key in self.weights]


def start_qat(
    model: ModelT,
    precision: Precision,
    activations: Mapping[str, Encoding],
    weights: Mapping[str, IntegerWeight],
) -> ModelT:
    """Make the float `model` learn from where PTQ at `precision` left it, in place.

    `activations` are by module path, `weights` by parameter name (`activation_encodings`,
    `integer_weights` of the PTQ checkpoint). Raises UserError when these are of another model or
    precision.
    """
    quantize(model, precision)
    ranges = LearnedRanges()
    paths: dict[OutputQuantizer, list[str]] = {}
    for path, quantizer in output_quantizers(model):
        paths.setdefault(quantizer, []).append(path)
    for tied in paths.values():
        encoding = _found(activations, tied[0])
        stays = any(_stays(precision, path) for path in tied)
        learned = LearnedOutput(encoding, None if stays else ranges.add_activation(tied[0]))
        for path in tied:
            attach_output(model.get_submodule(path), learned)
    for path, module, quantizer in weight_quantizers(model):
        name = f"{path}.{quantizer.parameter}"
        start = _found(weights, name)
        if start.bits != quantizer.bits:
            raise UserError(f"{name}: {start.bits} bits found, {precision.name} has another number")
        parameter = module.get_parameter(quantizer.parameter)
        scale = torch.from_numpy(np.array(start.scale, np.float32))
        _move_to_integers(parameter, torch.from_numpy(start.values), scale, start.bits)
        ranges.weights[_key(name)] = LearnedWeight(scale, start.bits)
    model.add_module(RANGES, ranges)
    return model


@contextmanager
def rounded_weights(model: nn.Module) -> Iterator[None]:
    """While open, the model computes with its weights rounded, gradients reach what they come from.

    As `torch.func.functional_call`, for calls of any method, reading a weight without calling its
    module included.
    """
    ranges = _ranges(model)
    rounded: dict[int, Tensor] = {}
    for name in ranges.names():
        parameter = model.get_parameter(name)
        rounded[id(parameter)] = ranges.weight(name)(parameter)
    places = [
        (module._parameters, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if id(parameter) in rounded
    ]
    try:
        for held, name, parameter in places:
            held[name] = rounded[id(parameter)]  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for held, name, parameter in places:
            held[name] = parameter


class RoundedObjective:
    """`objective` over a model prepared by `start_qat`: its weights are rounded for every loss.

    `follow`, where there is one, is called with the model before each.
    """

    def __init__(
        self, objective: Objective, follow: Callable[[nn.Module], None] | None = None
    ) -> None:
        self._objective = objective
        self._follow = follow
        self.modules, self.buffers = objective.modules, objective.buffers
        self.attributes, self.boxes = objective.attributes, objective.boxes

    def normaliser(self, batch: Any) -> Tensor:
        return self._objective.normaliser(batch)

    def loss(self, model: Any, batch: Any) -> Tensor:
        if self._follow is not None:
            self._follow(model)
        with rounded_weights(model):
            return self._objective.loss(model, batch)

    def figures(self) -> dict[str, Any]:
        return self._objective.figures()


@torch.no_grad()
def settle(model: nn.Module) -> None:
    """Write down what is learned so far where a frozen model has it: integers, scales, encodings.

    What the model computes and learns stays as it is.
    """
    ranges = _ranges(model)
    for _, quantizer in output_quantizers(model):
        if isinstance(quantizer, LearnedOutput):
            quantizer.set_encoding(quantizer.learned_encoding())
    for path, module, quantizer in weight_quantizers(model):
        learned = ranges.weight(f"{path}.{quantizer.parameter}")
        parameter = module.get_parameter(quantizer.parameter)
        quantizer.integers = learned.integers(parameter).to(torch.int16)
        quantizer.scale = learned.learned_scale().detach().clone()


@torch.no_grad()
def finish_qat(
    model: nn.Module, precision: Precision, mask_value: float | None = None
) -> dict[str, Any]:
    """Freeze what was learned, in place, as `freeze` does; returns what encodings.json holds.

    `mask_value` is that of the PTQ encodings. Scales are not snapped yet (`snap_encodings`).
    """
    ranges = _ranges(model)
    frozen: dict[OutputQuantizer, OutputQuantizer] = {}
    for path, quantizer in list(output_quantizers(model)):
        assert isinstance(quantizer, LearnedOutput)
        plain = frozen.setdefault(quantizer, quantizer.frozen())
        attach_output(model.get_submodule(path), plain)
    settle(model)
    for path, module, quantizer in weight_quantizers(model):
        parameter = module.get_parameter(quantizer.parameter)
        parameter.copy_(ranges.weight(f"{path}.{quantizer.parameter}")(parameter))
    delattr(model, RANGES)
    model.eval().requires_grad_(False)
    # The mask value was chosen with ranges that have stayed: there is nothing to choose again.
    encodings = freeze(model, replace(precision, mask=None))
    return encodings if mask_value is None else {**encodings, "mask_value": mask_value}


def _ranges(model: nn.Module) -> LearnedRanges:
    ranges = dict(model.named_children()).get(RANGES)
    if not isinstance(ranges, LearnedRanges):
        raise UserError("quantisation-aware training: the model was not prepared by start_qat")
    return ranges


def _stays(precision: Precision, path: str) -> bool:
    """Whether the range of this output is known, or the mask value was chosen by it."""
    patterns = [fixed.pattern for fixed in precision.fixed]
    if precision.mask is not None:
        patterns += [precision.mask.mask, precision.mask.scores, precision.mask.masked]
    return any(fnmatchcase(path, pattern) for pattern in patterns)


_V = TypeVar("_V")


def _found(entries: Mapping[str, _V], name: str) -> _V:
    if name not in entries:
        raise UserError(f"{name}: not in the PTQ encodings; they are of another model or precision")
    return entries[name]


@torch.no_grad()
def _move_to_integers(weight: Tensor, integers: Tensor, scale: Tensor, bits: int) -> None:
    """Bring every weight into reach of its integer; what saturates may stay beyond the last one."""
    low, high = signed_range(bits)
    steps = integers.to(weight)
    reach = torch.full_like(steps, _EDGE)
    least = (steps - reach).masked_fill_(steps == low, -torch.inf)
    most = (steps + reach).masked_fill_(steps == high, torch.inf)
    along = _along_rows(scale.to(weight.device), weight)
    weight.copy_((weight / along).clamp_(least, most).mul_(along))


def _along_rows(scale: Tensor, weight: Tensor) -> Tensor:
    return scale if scale.ndim == 0 else scale.reshape(-1, *[1] * (weight.ndim - 1))


def _key(name: str) -> str:
    """Names of children cannot hold dots."""
    return name.replace(".", "/")
