"""Operations as modules: each one that yields a range of values has a name in the module tree.

Quantisation encodings are keyed by module path and hold for the module's output, so an addition, a
gate or an attention matmul is a module here and not an operator in the middle of a `forward`. Pure
data movement (reshape, transpose, slice, split, padding with zeros) yields no new range and stays
plain code.

Shape suffixes, here and in the other files of this package:
    B batch, T new tokens, S past + new tokens, D hidden width, V vocabulary, N visual tokens,
    h heads, d head width, C channels, H W rows and columns, M attended keys
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Add(nn.Module):
    """a + b."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Mul(nn.Module):
    """a * b, element by element."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class Scale(nn.Module):
    """x * factor, a constant known when the model is built."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class Range(nn.Module):
    """Identity that gives an input's range a name."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class MatMul(nn.Module):
    """a @ b, batched over the leading dimensions; b may be read in a range of its own, `second`."""

    def __init__(self) -> None:
        super().__init__()
        self.second = Range()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ self.second(b)


class Softmax(nn.Module):
    """Softmax over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x, dim=-1)


class Concat(nn.Module):
    """Joins tensors along `dim`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, dim=self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Sigmoid(nn.Module):
    """1 / (1 + exp(-x)); silu(x) is written Mul(x, Sigmoid(x))."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


class Gelu(nn.Module):
    """GELU: its tanh form, or `exact` (by the error function)."""

    def __init__(self, *, exact: bool = False) -> None:
        super().__init__()
        self.approximate = "none" if exact else "tanh"

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate}"


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension; statistics in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        if x.dtype == torch.bfloat16 and torch.is_grad_enabled():
            return _rms_norm_bf16(x, weight, self.eps)
        return F.rms_norm(x, weight.shape, weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


def _rms_norm_bf16(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    # F.rms_norm trains eight times slower than this in bf16 on a CPU: its backward is not fused.
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    inverse = torch.rsqrt(norm.square() / x.shape[-1] + eps)
    return x * inverse.to(x.dtype) * weight


class RMSNorm2d(RMSNorm):
    """RMSNorm over the channels of each pixel, on BCHW."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # Under channels_last both permutations are views.
        return super().forward(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LayerScale2d(nn.Module):
    """x * gamma, one factor per channel of BCHW."""

    def __init__(self, channels: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), init))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.gamma.to(x_BCHW.dtype).view(1, -1, 1, 1)


class SamePad(nn.Module):
    """Zero padding of a strided convolution as TensorFlow's 'SAME': the odd row goes last."""

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        top, bottom = self._pads(x_BCHW.shape[2])
        left, right = self._pads(x_BCHW.shape[3])
        return F.pad(x_BCHW, (left, right, top, bottom))

    def _pads(self, size: int) -> tuple[int, int]:
        steps = -(-size // self.stride)
        total = max((steps - 1) * self.stride + self.kernel_size - size, 0)
        return total // 2, total - total // 2

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class Resize2d(nn.Module):
    """To size x size: average pool where the size divides, bilinear where it does not."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x_BCHW: Tensor) -> Tensor:
        height, width = x_BCHW.shape[2:]
        if (height, width) == (self.size, self.size):
            return x_BCHW
        if height % self.size or width % self.size:
            return F.interpolate(x_BCHW, size=(self.size, self.size), mode="bilinear")
        return F.avg_pool2d(x_BCHW, (height // self.size, width // self.size))

    def extra_repr(self) -> str:
        return f"size={self.size}"


class Rotary(nn.Module):
    """Rotary positions: x * cos + swap_halves(x) * sin, the sign of rotate-half inside `sin`."""

    def __init__(self) -> None:
        super().__init__()
        self.mul_cos = Mul()
        self.mul_sin = Mul()
        self.add = Add()

    def forward(self, x_BhTd: Tensor, cos_11Td: Tensor, sin_11Td: Tensor) -> Tensor:
        half = x_BhTd.shape[-1] // 2
        swapped = torch.cat((x_BhTd[..., half:], x_BhTd[..., :half]), dim=-1)
        return self.add(self.mul_cos(x_BhTd, cos_11Td), self.mul_sin(swapped, sin_11Td))


def pixel_unshuffle(x_BTC: Tensor, rows: int, factor: int) -> Tensor:
    """Tokens of a picture of that many rows, squares of `factor` x `factor` joined into one.

    [B,T,C] -> [B,T/factor^2,C*factor^2] in LFM2-VL's order: row, column, channel.
    """
    if factor == 1:
        return x_BTC
    # In two steps, because the direct form has rank 6 and an NPU stops at 5.
    batch, columns = x_BTC.shape[0], x_BTC.shape[1] // rows // factor
    x_BHWC = x_BTC.reshape(batch, rows, columns, -1)
    x_BWHC = x_BHWC.transpose(1, 2).reshape(batch, columns, rows // factor, -1)
    return torch.flatten(x_BWHC.transpose(1, 2), 1, 2)
