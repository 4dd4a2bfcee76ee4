"""Integer arithmetic of quantised tensors, in numpy: the definition every other part must match.

    affine (activations, unsigned):   q = clip(round(x / scale) + zero_point, 0, 2**bits - 1)
                                      x = (q - zero_point) * scale
    symmetric (weights, signed):      q = clip(round(w / scale), low, high),  w = q * scale

Rounding is half to even and the division is a division in fp32, as in ONNX QuantizeLinear.
4-bit weights are packed two per byte, low nibble first, two's complement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SIGNED_RANGE = {4: (-8, 7), 8: (-127, 127), 16: (-32767, 32767)}
_SIGNED_DTYPE = {4: np.int8, 8: np.int8, 16: np.int16}
_UNSIGNED_DTYPE = {8: np.uint8, 16: np.uint16}


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How one activation tensor is written as unsigned integers (`scale` is exact in fp32)."""

    bits: int
    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        """Smallest real number it can hold."""
        return -self.zero_point * self.scale

    @property
    def high(self) -> float:
        """Largest real number it can hold."""
        return (2**self.bits - 1 - self.zero_point) * self.scale


def affine_encoding(low: float, high: float, bits: int = 16) -> Encoding:
    """The encoding that covers [low, high] and holds zero exactly.

    Raises ValueError when a bound is not finite or low > high.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError(f"not a range: [{low}, {high}]")
    low, high = min(low, 0.0), max(high, 0.0)
    steps = 2**bits - 1
    # A subnormal scale would make x / scale overflow; an all-zero tensor needs some scale.
    scale = max(np.float32((high - low) / steps), np.finfo(np.float32).tiny)
    zero_point = int(np.clip(np.rint(-low / float(scale)), 0, steps))
    return Encoding(bits=bits, scale=float(scale), zero_point=zero_point)


def symmetric_encoding(maximum: float, bits: int = 16) -> Encoding:
    """The encoding of [-maximum, maximum] that holds zero and both ends exactly."""
    scale = max(np.float32(maximum / (2 ** (bits - 1) - 1)), np.finfo(np.float32).tiny)
    return Encoding(bits=bits, scale=float(scale), zero_point=2 ** (bits - 1))


def quantize_affine(x: ArrayLike, encoding: Encoding) -> NDArray[np.unsignedinteger]:
    """Real numbers -> uint8 or uint16, saturating."""
    steps = np.rint(np.asarray(x, np.float32) / np.float32(encoding.scale))
    q = np.clip(steps + np.float32(encoding.zero_point), 0, 2**encoding.bits - 1)
    return q.astype(_UNSIGNED_DTYPE[encoding.bits])


def dequantize_affine(q: ArrayLike, encoding: Encoding) -> NDArray[np.float32]:
    """uint8 or uint16 -> real numbers, fp32."""
    steps = np.asarray(q).astype(np.int32) - encoding.zero_point
    return steps.astype(np.float32) * np.float32(encoding.scale)


def signed_range(bits: int) -> tuple[int, int]:
    """Smallest and largest symmetric weight integer: -8..7 at 4 bits, else no lone negative end."""
    return _SIGNED_RANGE[bits]


def symmetric_scale(maximum: ArrayLike, bits: int) -> NDArray[np.float32]:
    """Scale that puts `maximum` (largest magnitude, per channel or whole) on the top integer."""
    scale = np.asarray(maximum, np.float32) / np.float32(signed_range(bits)[1])
    return np.where(scale > np.finfo(np.float32).tiny, scale, np.float32(1.0)).astype(np.float32)


def quantize_symmetric(w: ArrayLike, scale: ArrayLike, bits: int) -> NDArray[np.signedinteger]:
    """Weights [out, ...] with `scale` [out], or any shape with one scale -> signed integers."""
    w = np.asarray(w, np.float32)
    low, high = signed_range(bits)
    q = np.clip(np.rint(w / _per_channel(scale, w.ndim)), low, high)
    return q.astype(_SIGNED_DTYPE[bits])


def dequantize_symmetric(q: ArrayLike, scale: ArrayLike) -> NDArray[np.float32]:
    """Inverse of `quantize_symmetric`: one fp32 product per weight, nothing is rounded again."""
    q = np.asarray(q)
    return q.astype(np.float32) * _per_channel(scale, q.ndim)


def _per_channel(scale: ArrayLike, ndim: int) -> NDArray[np.float32]:
    scale = np.asarray(scale, np.float32)
    return scale if scale.ndim == 0 else scale.reshape(-1, *([1] * (ndim - 1)))


def pack_int4(q: ArrayLike) -> NDArray[np.uint8]:
    """Integers [out, ...] in -8..7 -> bytes [out, ceil(prod(rest) / 2)], low nibble first.

    An odd row is padded with zero. Raises ValueError when a value does not fit 4 bits.
    """
    q = np.asarray(q)
    if q.size and (q.min() < -8 or q.max() > 7):
        raise ValueError("pack_int4: a value is outside -8..7")
    rows = q.reshape(q.shape[0], -1).astype(np.int8)
    nibbles = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).astype(np.uint8) & np.uint8(0xF)
    return (nibbles[:, 0::2] | (nibbles[:, 1::2] << np.uint8(4))).astype(np.uint8)


def unpack_int4(packed: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Inverse of `pack_int4`, given the shape of the weights."""
    packed = np.asarray(packed, np.uint8)
    count = int(np.prod(shape[1:]))
    if packed.shape != (shape[0], (count + 1) // 2):
        raise ValueError(f"unpack_int4: bytes {packed.shape} do not hold weights {shape}")
    nibbles = np.stack([packed & 0xF, packed >> 4], axis=-1).reshape(shape[0], -1)[:, :count]
    return ((nibbles.astype(np.int8) ^ 8) - 8).reshape(shape)


def sqnr_db(reference: ArrayLike, approximation: ArrayLike) -> float:
    """Signal to quantisation noise, dB: 20 log10(|f| / |q - f|). Infinite when equal."""
    error = rms_error(reference, approximation)
    return float("inf") if error == 0 else float(-20 * np.log10(error))


def rms_error(reference: ArrayLike, approximation: ArrayLike) -> float:
    """|q - f| / |f|: the same measurement as `sqnr_db`, as a fraction."""
    reference = np.asarray(reference, np.float64)
    noise = np.linalg.norm(np.asarray(approximation, np.float64) - reference)
    signal = np.linalg.norm(reference)
    if signal == 0:
        return 0.0 if noise == 0 else float("inf")
    return float(noise / signal)
