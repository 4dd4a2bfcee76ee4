"""A quantised model that computes as a generation of HTP does, instead of as ONNX defines it.

    wiring = trace(model, runs)        compute_as(model, 68, wiring)        compute_as(model, None)

Modules of the matrix engine (linears, convolutions, products of activations) then return what
`target/htp.py` says the chip returns for the same integers; everything else stays as it is.
Forward values are the chip's, gradients those of fake quantisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from autoneural.compress.fake_quant import WeightQuantizer, weight_quantizers
from autoneural.compress.wiring import Wiring, encodings_of, engine_modules
from autoneural.errors import UserError
from autoneural.model import layers
from autoneural.target.htp import (
    MatrixEngine,
    Requantization,
    matrix_engine,
    requantization,
)
from autoneural.target.htp_offset import mean_offset
from autoneural.target.htp_product import second_operand
from autoneural.target.numerics import Encoding

_CHIP = "chip_arithmetic"
_BYTE = 256
_EXACT_FP32 = 2**24


Cancel = Literal["no", "inside", "outside"]


def compute_as(
    model: nn.Module, htp: int | None, wiring: Wiring | None = None, *, cancel: Cancel = "no"
) -> None:
    """From now on compute as HTP generation `htp` (68, 73, ...) does; None: as ONNX does.

    `cancel` models taking away what the chip adds to each channel whatever the data: "outside" by
    an Add behind every engine layer, "inside" by a bias of linears and convolutions, which can only
    take away whole steps of the accumulator. Raises UserError naming a layer that is not frozen,
    that is missing in `wiring`, or whose numbers the engine does not take.
    """
    weights = {id(m.get_parameter(q.parameter)): q for _, m, q in weight_quantizers(model)}
    for path, module in engine_modules(model).items():
        plan = None
        if htp is not None:
            encodings = _encodings(model, path, wiring or {})
            plan = _plan(path, module, weights, encodings, matrix_engine(htp))
            plan.cancel(cancel)
        _attached(module).plan = plan


class ChipArithmetic(nn.Module):
    """Replaces a module's rounded output by the chip's; does nothing without a plan."""

    plan: _Plan | None = None

    def forward(self, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.plan is None:
            return output
        with torch.no_grad():
            value = self.plan(*inputs)
        return _StraightThrough.apply(output, value) if output.requires_grad else value


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _attached(module: nn.Module) -> ChipArithmetic:
    chip = dict(module.named_children()).get(_CHIP)
    if not isinstance(chip, ChipArithmetic):
        chip = ChipArithmetic()
        module.add_module(_CHIP, chip)
        module.register_forward_hook(_through_chip)
    return chip


def _through_chip(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return module.get_submodule(_CHIP)(inputs, output)


def _encodings(model: nn.Module, path: str, wiring: Wiring) -> list[Encoding]:
    """Of the inputs, then of the output."""
    if path not in wiring:
        raise UserError(f"{path}: nothing says what it reads; trace it with a run that reaches it")
    found = encodings_of(model, path, wiring)
    if found[0].bits != 16:
        raise UserError(f"{path}: a {found[0].bits}-bit input; how chips compute is not known")
    return found


def _plan(
    path: str,
    module: nn.Module,
    weights: Mapping[int, WeightQuantizer],
    encodings: list[Encoding],
    engine: MatrixEngine,
) -> _Plan:
    if isinstance(module, layers.MatMul):
        return _TwoActivations(module, encodings, engine)
    assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
    quantizer = weights.get(id(module.weight))
    if quantizer is None or quantizer.integers is None or quantizer.scale is None:
        raise UserError(f"{path}: its weight is not frozen; quantise it first")
    if quantizer.bits > 8:
        raise UserError(f"{path}: {quantizer.bits}-bit weights; no chip multiplies by them")
    return _ConstantWeight(module, quantizer.integers, quantizer.scale, encodings, engine)


@dataclass
class _Plan:
    """How one module's output comes about; `corrected`: an Add behind it takes its offset away."""

    y: Encoding
    corrected: bool = field(default=False, init=False)

    def __call__(self, *inputs: Tensor) -> Tensor:
        raise NotImplementedError

    def cancel(self, how: Cancel) -> None:
        """Take the offset away; what depends on the data has no bias to do it inside."""
        self.corrected = how == "outside"

    def _finish(self, t: Tensor, rounding: _Rounding) -> Tensor:
        """t = floor(sum(x * w) / 256), raw x -> the output."""
        top = 2**self.y.bits - 1
        steps = (t + rounding.shift).mul_(rounding.gain).add_(rounding.offset)
        steps = steps.round_().clamp_(0, top)
        if self.corrected:
            steps = (steps - rounding.added).round_().clamp_(0, top)
        return steps.sub_(self.y.zero_point).float().mul_(self.y.scale)


@dataclass(frozen=True, kw_only=True)
class _Rounding:
    """`Requantization` as tensors, and by how many steps it misses the exact value on average."""

    shift: Tensor
    gain: Tensor
    added: Tensor
    offset: float


class _ConstantWeight(_Plan):
    """A linear or a convolution."""

    def __init__(
        self,
        module: nn.Linear | nn.Conv1d | nn.Conv2d,
        integers: Tensor,
        scale: Tensor,
        encodings: list[Encoding],
        engine: MatrixEngine,
    ) -> None:
        x, y = encodings
        super().__init__(y)
        rows = integers.double().flatten(1)
        total, scale_O = rows.sum(1).cpu().numpy(), scale.detach().cpu().numpy()
        bias = _bias_steps(module.bias, np.float32(x.scale) * scale_O)
        plan = requantization(engine, x=x, weight_scale=scale_O, weight_sum=total, y=y, bias=bias)
        m = scale_O.astype(np.float64) * x.scale / y.scale
        added = mean_offset(plan, x.zero_point * total, bias * m + y.zero_point)
        shape, device = (-1, *[1] * (integers.ndim - 2)), module.weight.device
        self.rounding = _rounding(plan, added, shape, device)
        self.centre = _tensor(x.zero_point * total, shape, device)
        self.module, self.x_scale = module, x.scale
        exact = float(rows.abs().sum(1).max()) * _BYTE < _EXACT_FP32
        self.weight = integers.to(torch.float32 if exact else torch.float64)

    def __call__(self, *inputs: Tensor) -> Tensor:
        x = (inputs[0] / self.x_scale).round_().to(self.weight.dtype)
        return self._finish(_floored_sum(x, self._multiply, self.centre), self.rounding)

    def cancel(self, how: Cancel) -> None:
        super().cancel(how)
        if how == "inside":
            self.rounding.shift.sub_((self.rounding.added / self.rounding.gain).round_())

    def _multiply(self, x: Tensor) -> Tensor:
        module = self.module
        if isinstance(module, nn.Linear):
            return F.linear(x, self.weight)
        assert not isinstance(module.padding, str)
        convolve = F.conv1d if isinstance(module, nn.Conv1d) else F.conv2d
        return convolve(
            x, self.weight, None, module.stride, module.padding, module.dilation, module.groups
        )


class _TwoActivations(_Plan):
    """A product of two activations: scales and sums of the second depend on the data."""

    def __init__(
        self, module: layers.MatMul, encodings: list[Encoding], engine: MatrixEngine
    ) -> None:
        self.x, self.second, y = encodings
        super().__init__(y)
        self.engine = engine

    def __call__(self, *inputs: Tensor) -> Tensor:
        x = (inputs[0] / self.x.scale).round_()
        # Rounded here, not by `module.second`: whoever listens to that hears one call per pass.
        steps = (inputs[1] / self.second.scale).round_().add_(self.second.zero_point)
        steps.clamp_(0, 2**self.second.bits - 1)
        second = second_operand(steps.cpu().numpy(), self.second)
        total = second.integers.sum(-2, keepdims=True)
        plan = requantization(
            self.engine, x=self.x, weight_scale=second.scale, weight_sum=total, y=self.y
        )
        centre = self.x.zero_point * total
        added = mean_offset(plan, centre, self.y.zero_point)
        exact = x.shape[-1] * _BYTE * 128 < _EXACT_FP32
        x = x if exact else x.double()
        weight = torch.from_numpy(second.integers).to(x)
        t = _floored_sum(x, lambda part: part @ weight, _tensor(centre, total.shape, x.device))
        return self._finish(t, _rounding(plan, added, total.shape, x.device))


def _rounding(
    plan: Requantization, added: ArrayLike, shape: tuple[int, ...], device: torch.device
) -> _Rounding:
    return _Rounding(
        shift=_tensor(plan.shift, shape, device),
        gain=_tensor(plan.gain, shape, device),
        added=_tensor(added, shape, device),
        offset=plan.offset,
    )


def _tensor(array: ArrayLike, shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float64).reshape(shape)).to(device)


def _floored_sum(x: Tensor, multiply: Callable[[Tensor], Tensor], centre: Tensor) -> Tensor:
    """floor((multiply(x) + centre) / 256), fp64, of integers x beyond what fp32 can add up.

    As the chip does, by the bytes of x: sums of one byte times a weight are exact.
    """
    high = (x / _BYTE).floor_()
    high_sum, low_sum = multiply(high), multiply(x - high * _BYTE)
    whole = (centre / _BYTE).floor_()
    rest = low_sum.double() + (centre - whole * _BYTE)
    return rest.div_(_BYTE).floor_() + high_sum + whole


def _bias_steps(bias: Tensor | None, step: NDArray[np.float32]) -> NDArray[np.float64]:
    """The integers that export writes for a bias."""
    if bias is None:
        return np.zeros(step.shape)
    return np.rint(bias.detach().cpu().numpy().astype(np.float64) / step)
