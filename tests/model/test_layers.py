"""The few layers with arithmetic of their own."""

from __future__ import annotations

import pytest
import torch

from autoneural.model.layers import RMSNorm, RMSNorm2d, SamePad


def formula(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    x, weight = x.double(), weight.double()
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 6e-3)], ids=["fp32", "bf16"]
)
def test_rms_norm_is_its_formula(dtype: torch.dtype, tolerance: float, grad: bool) -> None:
    torch.manual_seed(0)
    norm = RMSNorm(512, eps=1e-3)
    torch.nn.init.uniform_(norm.weight, 0.5, 2)
    # Squares of these overflow nothing in fp32 and lose everything if summed in bf16.
    x = (30 * torch.randn(4, 512)).to(dtype)
    with torch.set_grad_enabled(grad):
        actual = norm(x)
    expected = formula(x, norm.weight.detach(), 1e-3)
    assert actual.dtype == dtype
    assert (actual.detach().double() - expected).norm() / expected.norm() < tolerance


def test_rms_norm_2d_normalises_channels() -> None:
    norm = RMSNorm2d(8, eps=1e-6)
    x = torch.randn(2, 8, 3, 5)
    expected = formula(x.permute(0, 2, 3, 1), norm.weight.detach(), 1e-6).permute(0, 3, 1, 2)
    torch.testing.assert_close(norm(x).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "before", "after"), [(8, 3, 0, 1), (9, 3, 1, 1), (8, 5, 1, 2), (9, 5, 2, 2)]
)
def test_same_pad_puts_the_odd_row_last(size: int, kernel: int, before: int, after: int) -> None:
    padded = SamePad(kernel, stride=2)(torch.ones(1, 1, size, size))[0, 0]
    rows = padded.amax(1).tolist()
    assert rows == [0.0] * before + [1.0] * size + [0.0] * after
