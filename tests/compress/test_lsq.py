"""Rounding with a learned step, against its definition and the numpy arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoneural.compress.lsq import gradient_factor, round_learned
from autoneural.target.numerics import (
    affine_encoding,
    dequantize_affine,
    dequantize_symmetric,
    quantize_affine,
    quantize_symmetric,
    signed_range,
)


def test_forward_is_the_arithmetic_of_numpy_to_the_bit() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 33) * 3
    encoding = affine_encoding(-2.0, 5.0, 16)
    scale = torch.tensor(encoding.scale)
    low, high = -encoding.zero_point, 65535 - encoding.zero_point
    rounded = round_learned(x, scale, low, high, 1.0)
    assert np.array_equal(
        rounded.numpy(), dequantize_affine(quantize_affine(x, encoding), encoding)
    )
    scales = torch.rand(64) + 0.1
    rounded = round_learned(x, scales[:, None], *signed_range(4), 1.0)
    q = quantize_symmetric(x, scales, 4)
    assert np.array_equal(rounded.numpy(), dequantize_symmetric(q, scales))


def test_gradients_of_known_cases() -> None:
    # In steps of 0.5 from -2 to 1: 0.6 inside, 5 above, -9 below, 1.1 is nearest to the last one.
    x = torch.tensor([0.3, 2.5, -4.5, 0.55], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    y = round_learned(x, scale, -2, 1, 0.25)
    assert y.tolist() == [0.5, 0.5, -1.0, 0.5]
    upstream = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    y.backward(upstream)
    assert x.grad.tolist() == [1.0, 0.0, 0.0, 1000.0]
    slopes = torch.tensor([1 - 0.6, 1.0, -2.0, 1 - 1.1])
    assert float(scale.grad) == pytest.approx(float(0.25 * slopes @ upstream), rel=1e-5)


def test_gradient_of_the_scale_is_that_of_the_function_where_no_value_changes_its_integer() -> None:
    """Between two roundings y = integer * s: finite differences see exactly that, and LSQ adds the
    derivative -x/s of what is rounded straight through."""
    torch.manual_seed(1)
    x, upstream = torch.randn(200).double(), torch.randn(200).double()
    s = 0.3
    scale = torch.tensor(s, requires_grad=True)
    round_learned(x.float(), scale, -3, 3, 1.0).backward(upstream.float())
    v = x / s
    inside = (v > -3.5) & (v < 3.5)

    def loss(step: float) -> float:
        """Straight through: the integers move with x / step by less than a rounding."""
        q = v.round() + (x / step - v)
        return float((torch.where(inside, q, v.clamp(-3, 3)) * step * upstream).sum())

    slope = (loss(s + 1e-6) - loss(s - 1e-6)) / 2e-6
    assert float(scale.grad) == pytest.approx(slope, rel=1e-4)


def test_every_channel_has_its_own_gradient() -> None:
    x = torch.randn(3, 50)
    scales = torch.tensor([0.1, 0.2, 0.3], requires_grad=True)
    round_learned(x, scales[:, None], -8, 7, 1.0).sum().backward()
    for row, scale in enumerate(scales.detach()):
        alone = scale.clone().requires_grad_()
        round_learned(x[row], alone, -8, 7, 1.0).sum().backward()
        assert float(scales.grad[row]) == pytest.approx(float(alone.grad), rel=1e-4)


def test_bf16_is_rounded_in_fp32() -> None:
    x = torch.tensor([0.7001], dtype=torch.bfloat16, requires_grad=True)
    scale = torch.tensor(1 / 65535)
    y = round_learned(x, scale, 0, 65535, 1.0)
    assert y.dtype == torch.float32
    assert abs(float((y - x.float()).detach())) <= 0.51 / 65535
    y.backward(torch.ones(1))
    assert x.grad.dtype == torch.bfloat16


def test_factor() -> None:
    assert gradient_factor(100, 7) == pytest.approx(1 / 700**0.5)
    assert gradient_factor(0, 7) == 1.0
