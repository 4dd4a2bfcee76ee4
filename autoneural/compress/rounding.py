"""Weight rounding: nearest, or error-compensating with second-order statistics (GPTQ class).

    minimise |X (W_q - W)^T|^2:  round one input column at a time and push its error onto the
    columns not yet rounded, weighted by the inverse of H = X^T X.

Frantar et al. 2022 (arXiv 2210.17323), with fixed per-channel scales, so columns may be taken in
any order: the most active inputs first, while there are columns left to absorb their error.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from autoneural.target.numerics import signed_range

# How `calibrate` rounds weights: each to the nearest integer; 4-bit linears with compensation; or
# every dense layer with compensation of its own error and of all that came before it.
Rounding = Literal["nearest", "compensated", "sequential"]


def round_nearest(weight_OI: Tensor, scale_O: Tensor, bits: int) -> Tensor:
    """Integers (float dtype) of each weight on its own."""
    low, high = signed_range(bits)
    return (weight_OI.float() / scale_O[:, None]).round_().clamp_(low, high)


def round_compensated(
    weight_OI: Tensor, scale_O: Tensor, bits: int, hessian_II: Tensor, damping: float = 0.01
) -> Tensor:
    """Integers (float dtype) that keep the layer's output on the inputs behind `hessian_II`.

    Falls back to nearest rounding when the statistics cannot be inverted or do not help.
    """
    nearest = round_nearest(weight_OI, scale_O, bits)
    order = hessian_II.diagonal().argsort(descending=True)
    inverse = _inverse_factor(hessian_II[order][:, order].double(), damping)
    if inverse is None:
        return nearest
    low, high = signed_range(bits)
    work = weight_OI[:, order].double()
    scale = scale_O.double()
    rounded = torch.empty_like(work)
    for column in range(work.shape[1]):
        rounded[:, column] = (work[:, column] / scale).round().clamp(low, high)
        error = (work[:, column] - rounded[:, column] * scale) / inverse[column, column]
        work[:, column + 1 :] -= error[:, None] * inverse[column, column + 1 :]
    compensated = torch.empty_like(nearest)
    compensated[:, order] = rounded.float()
    errors = [output_error(weight_OI, q, scale_O, hessian_II) for q in (compensated, nearest)]
    return compensated if errors[0] < errors[1] else nearest


def output_error(weight_OI: Tensor, q_OI: Tensor, scale_O: Tensor, hessian_II: Tensor) -> float:
    """Squared error of the layer's output: trace(E H E^T)."""
    error = (q_OI * scale_O[:, None] - weight_OI).double()
    return float(((error @ hessian_II.double()) * error).sum())


def _inverse_factor(hessian_II: Tensor, damping: float) -> Tensor | None:
    """Upper Cholesky factor of the damped inverse; None when it does not exist."""
    diagonal = hessian_II.diagonal()
    damped = hessian_II + torch.eye(len(diagonal), device=diagonal.device) * (
        damping * diagonal.mean() + 1e-12
    )
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed or not torch.isfinite(lower).all():
        return None
    upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    return None if failed else upper
