"""Rounding with a step that learns: LSQ, Esser et al. 2020 (arXiv 1902.08153).

    y = clip(round(x / s), low, high) * s
    dy/dx = 1 inside, 0 where clipped            (straight through the rounding)
    dy/ds = round(x / s) - x / s inside, low or high where clipped;   times 1 / sqrt(N * high)

Forward it is the arithmetic of `target/numerics.py` to the bit, in fp32 whatever is around it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Of a step: half of it, and what fp32 leaves of a difference of numbers 65535 steps from zero.
_INSIDE = 0.51


def round_learned(x: Tensor, scale: Tensor, low: int, high: int, factor: float) -> Tensor:
    """`x` on the grid of `scale` (broadcast over x), fp32; integers from `low` to `high`.

    `factor` multiplies the gradient of `scale` (`gradient_factor`).
    """
    return _LearnedRounding.apply(x.float(), scale, low, high, factor)  # pyright: ignore


def gradient_factor(values: int, high: int) -> float:
    """1 / sqrt(values * high): makes a step's gradient about as large as those of its values."""
    return 1 / math.sqrt(max(values * high, 1))


class _LearnedRounding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int, factor: float) -> Tensor:
        y = (x / scale).round_().clamp_(low, high).mul_(scale)
        ctx.save_for_backward(x, y, scale)
        ctx.factor = factor
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, y, scale = ctx.saved_tensors
        (gradient,) = gradients
        error = y - x
        inside = error.abs() <= _INSIDE * scale
        of_scale = None
        if ctx.needs_input_grad[1]:
            slope = torch.where(inside, error, y).mul_(gradient)
            of_scale = slope.sum_to_size(scale.shape) / scale * ctx.factor
        return gradient * inside, of_scale, None, None, None
