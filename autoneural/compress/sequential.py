"""Weights rounded layer by layer, each making up for the errors of all layers before it.

    X  inputs in the float model,   Q  inputs in the model rounded so far,   H = Q^T Q
    W* = W + W (X - Q)^T Q (H + damping)^-1        the best float weights for the inputs as they are
    W_q = W* rounded with compensation (rounding.py),   b_q = b + mean(W x) - mean(W_q q)

GPTQ (Frantar et al. 2022, arXiv 2210.17323) towards the float model's outputs, as GPTAQ (Li et al.
2025, arXiv 2504.02692) has it, for linears and dense convolutions of 4 and 8 bits. A layer with a
bias is rounded on inputs without their mean: its bias takes the constant part of the error, which
would otherwise be in every pixel (Nagel et al. 2019, arXiv 1906.04721).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoneural.compress.fake_quant import WeightQuantizer, weight_quantizers
from autoneural.compress.observer import least_error_scale
from autoneural.compress.replay import Replay, call_order
from autoneural.compress.report import Run
from autoneural.compress.rounding import round_compensated

_DAMPING = 0.1  # of the mean diagonal: less follows the few calibration rows too closely
_WIDEST = 8  # bits; beyond that there is nothing to gain


@dataclass
class _Moments:
    """Sums over rows of inputs, in double: of the float model (x) and the rounded one (q)."""

    rows: int
    x_I: Tensor
    q_I: Tensor
    xq_II: Tensor
    qq_II: Tensor

    @classmethod
    def zeros(cls, width: int, device: torch.device) -> _Moments:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(0, zeros(width), zeros(width), zeros(width, width), zeros(width, width))

    def add(self, x_RI: Tensor, q_RI: Tensor) -> None:
        self.rows += len(x_RI)
        self.x_I += x_RI.sum(0, dtype=torch.float64)
        self.q_I += q_RI.sum(0, dtype=torch.float64)
        self.xq_II += x_RI.T @ q_RI
        self.qq_II += q_RI.T @ q_RI

    def centre(self) -> None:
        """Make the second moments those of the deviations from the mean."""
        self.xq_II -= torch.outer(self.x_I, self.q_I) / self.rows
        self.qq_II -= torch.outer(self.q_I, self.q_I) / self.rows


def round_sequentially(
    model: nn.Module,
    reference: nn.Module,
    runs: Sequence[Run],
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Fix the integers of all weights of `model` (quantised, not rounded), in place.

    `reference` is the same model in float; each of `runs` makes one forward pass. Depthwise
    convolutions, vectors and tables are rounded to nearest. `progress` is called with
    ("weights", done, total). Raises UserError naming a layer that no run reaches.
    """
    layers = _round_the_rest(model)
    order = call_order(model, list(layers), runs)
    rounded, exact = Replay(model, runs, order), Replay(reference, runs, order)
    for done, path in enumerate(order, start=1):
        module = model.get_submodule(path)
        assert isinstance(module, nn.Linear | nn.Conv2d)
        moments = _Moments.zeros(module.weight[0].numel(), module.weight.device)
        for (_, q), (_, x) in zip(rounded.inputs(path), exact.inputs(path), strict=True):
            moments.add(_rows(module, x), _rows(module, q))
        _round_layer(module, layers[path], moments)
        rounded.finish(path)
        exact.finish(path)
        if progress is not None:
            progress("weights", done, len(order))


def _round_the_rest(model: nn.Module) -> dict[str, WeightQuantizer]:
    """Round what has no statistics worth gathering; path -> quantiser of what is left."""
    left = {}
    for path, module, quantizer in weight_quantizers(model):
        dense = isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d) and module.groups == 1
        )
        if dense and quantizer.bits <= _WIDEST:
            left[path] = quantizer
        else:
            quantizer.round(module.get_parameter(quantizer.parameter))
    return left


def _rows(module: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """[rows, in]: what each output value is a product of, in the order of the weight."""
    x = x.detach().float()
    if isinstance(module, nn.Linear):
        return x.reshape(-1, module.in_features)
    if module.kernel_size == (1, 1) and module.stride == (1, 1):
        return x.permute(0, 2, 3, 1).reshape(-1, module.in_channels)
    assert not isinstance(module.padding, str)
    patches_BIL = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)
    return patches_BIL.transpose(1, 2).flatten(0, 1)


@torch.no_grad()
def _round_layer(
    module: nn.Linear | nn.Conv2d, quantizer: WeightQuantizer, moments: _Moments
) -> None:
    if module.bias is not None:
        moments.centre()
    weight_OI = module.weight.detach().double().flatten(1)
    target_OI = best_weight(weight_OI, moments.xq_II, moments.qq_II).float()
    hessian_II = moments.qq_II.float()
    scale_O = least_error_scale(target_OI, quantizer.bits, hessian_II.diagonal())
    integers_OI = round_compensated(target_OI, scale_O, quantizer.bits, hessian_II)
    quantizer.hold(module.weight, integers_OI, scale_O)
    if module.bias is not None:
        rounded_OI = module.weight.double().flatten(1)
        error_O = (weight_OI @ moments.x_I - rounded_OI @ moments.q_I) / moments.rows
        module.bias.add_(error_O.to(module.bias.dtype))


def best_weight(weight_OI: Tensor, xq_II: Tensor, qq_II: Tensor) -> Tensor:
    """Float weights whose outputs on inputs q are nearest to those of `weight_OI` on inputs x.

    `xq_II` is X^T Q and `qq_II` Q^T Q, both in double; damped towards `weight_OI`.
    """
    diagonal = qq_II.diagonal()
    damped = qq_II + torch.diag_embed(torch.full_like(diagonal, _DAMPING * float(diagonal.mean())))
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed or not torch.isfinite(lower).all():
        return weight_OI
    change = torch.cholesky_solve((weight_OI @ (xq_II - qq_II)).T, lower).T
    return weight_OI + change
