"""How the matrix engine of Qualcomm's HTP computes with 16-bit activations, in numpy.

A MatMul, Gemm or Conv of 16-bit activations x (uint16) and 4- or 8-bit weights w takes the
activations as two bytes, drops the lower byte's last eight bits, and scales what is left:

    t = floor(sum(x * w) / 256)         raw x, its zero point still inside
    v73 and later   y = round((t - c + trunc(b / 256)) * 256 * m + zy)
    v68, v69        y = round((t - c + floor(round(b + zy / m) / 256)) * 256 * m11)

with m = sx * sw / sy per output channel, m11 = m with a significand of 11 bits, b the bias in
steps of sx * sw, and c = floor(zx * sum(w) / 256 + 1/2). The "per-channel offset of A16 layers"
that users meet on SA8295P is m11: the rounding of the multiplier times the zero points. Where m has
11 bits already there is none (`snap_weight_scale`).

The second operand of a MatMul of two activations is rounded to 8 bits first (`htp_product.py`).

Found by comparing inputs and outputs of the emulator in onnxruntime-qnn 2.7.0 (QNN 2.51), never
by looking inside; docs/log.md has the figures. Emulated, not measured on a chip. Strided depthwise
convolutions do not use the engine, and other operators compute as ONNX defines them, to a few LSB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoneural.target.numerics import Encoding

_BYTE = 256


@dataclass(frozen=True, kw_only=True)
class MatrixEngine:
    """What differs between generations: the significand of the multiplier.

    None where it is as good as exact; the output's zero point is added after it then.
    """

    multiplier_bits: int | None


_COARSE = MatrixEngine(multiplier_bits=11)
_EXACT = MatrixEngine(multiplier_bits=None)


def matrix_engine(htp: int) -> MatrixEngine:
    """The engine of an HTP generation (68, 73, ...)."""
    return _COARSE if htp < 73 else _EXACT


def round_significand(m: ArrayLike, bits: int) -> NDArray[np.float64]:
    """`m` with its significand rounded to `bits` bits, the leading one included."""
    fraction, exponent = np.frexp(np.asarray(m, np.float64))
    return np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits)


def snap_weight_scale(
    scale: ArrayLike, x_scale: float, y_scale: float, bits: int = 11
) -> NDArray[np.float32]:
    """Weight scales, moved by 2**-bits of themselves at most, with which m needs `bits` bits only.

    The integers stay: every weight of a channel changes by the same factor.
    """
    ratio = np.float64(x_scale) / np.float64(y_scale)
    snapped = round_significand(np.asarray(scale, np.float64) * ratio, bits) / ratio
    return snapped.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Requantization:
    """y = clip(round((t + shift) * gain + offset)); `shift` and `gain` are [channels]."""

    shift: NDArray[np.float64]
    gain: NDArray[np.float64]
    offset: float

    def __call__(self, accumulated: ArrayLike, bits: int) -> NDArray[np.unsignedinteger]:
        """sum(x * w), integers [..., channels], raw x -> output integers."""
        t = np.floor(np.asarray(accumulated, np.float64) / _BYTE)
        y = np.clip(np.rint((t + self.shift) * self.gain + self.offset), 0, 2**bits - 1)
        return y.astype(np.uint8 if bits == 8 else np.uint16)


def requantization(
    engine: MatrixEngine,
    *,
    x: Encoding,
    weight_scale: ArrayLike,
    weight_sum: ArrayLike,
    y: Encoding,
    bias: ArrayLike = 0,
) -> Requantization:
    """What the engine does with sum(x * w), per output channel.

    weight_sum: sum of the channel's integers; bias: integers in steps of x.scale * weight_scale.
    """
    m = np.asarray(weight_scale, np.float64) * x.scale / y.scale
    centre = np.floor(x.zero_point * np.asarray(weight_sum, np.float64) / _BYTE + 0.5)
    bias = np.asarray(bias, np.float64)
    if engine.multiplier_bits is None:
        shift, used = np.trunc(bias / _BYTE) - centre, m
        offset = float(y.zero_point)
    else:
        # In fp32 and in this order: one channel in some hundreds would be a unit off otherwise.
        single = np.float32(x.scale) / np.float32(y.scale) * np.asarray(weight_scale, np.float32)
        zero = (np.float32(y.zero_point) / single).astype(np.float64)
        shift = np.floor(np.rint(bias + zero) / _BYTE) - centre
        used, offset = round_significand(m, engine.multiplier_bits), 0.0
    return Requantization(shift=shift, gain=_BYTE * used, offset=offset)


def narrow(encoding: Encoding) -> Encoding:
    """The 8-bit encoding that a 16-bit second operand is rounded to."""
    if encoding.bits == 8:
        return encoding
    return Encoding(
        bits=8,
        scale=encoding.scale * 257,
        zero_point=int(np.rint(encoding.zero_point / 257)),
    )
