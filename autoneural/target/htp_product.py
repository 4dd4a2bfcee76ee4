"""What HTP's matrix engine makes of the second operand of a product of two activations, in numpy.

It multiplies by signed 8-bit integers, so the operand gets there in up to two steps:

    16 bits -> 8 bits, `narrow` of target/htp.py, in integer arithmetic of 16 fractional bits
    8 bits  -> c, its steps around the zero point, -255..255, and each column on its own:
               s = max(1, max(c) / 127, max(-c) / 128),  12 bits of it;  k = round(c / s)

and each column of the output is computed with k and a weight scale larger by s. Where the zero
point is 128 (symmetric), s is always 1 and nothing is lost in the second step.

Found by comparing inputs and outputs of the emulator in onnxruntime-qnn 2.7.0 (QNN 2.51); v68 and
v73 do the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoneural.target.htp import narrow, round_significand
from autoneural.target.numerics import Encoding

STRETCH_BITS, INVERSE_BITS = 12, 16


@dataclass(frozen=True, kw_only=True)
class SecondOperand:
    """What is multiplied by: real = integers [..., K, N] (-128 to 127) * scale [..., 1, N]."""

    integers: NDArray[np.float64]
    scale: NDArray[np.float64]


def second_operand(q: ArrayLike, encoding: Encoding) -> SecondOperand:
    """The second operand as the engine has it, from its integers `q` [..., K, N]."""
    q, eight = np.asarray(q, np.int64), narrow(encoding)
    centred = (q if encoding.bits == 8 else _to_8_bits(q, encoding, eight)) - eight.zero_point
    above = np.maximum(centred.max(-2, keepdims=True), 0.0) / 127
    below = np.maximum(-centred.min(-2, keepdims=True), 0.0) / 128
    stretch = round_significand(np.maximum(np.maximum(above, below), 1.0), STRETCH_BITS)
    inverse = round_significand(1 / stretch, INVERSE_BITS)
    return SecondOperand(
        integers=np.floor(centred * inverse + 0.5).clip(-128, 127), scale=eight.scale * stretch
    )


def narrowing_offset(wide: Encoding, eight: Encoding) -> int:
    """c of (255 * q + c) >> 16: both zero points, without their lowest nine bits, and a half."""
    centre = (eight.zero_point << 16) - 255 * wide.zero_point
    return (centre | 511) + (1 << 15)


def _to_8_bits(q: NDArray[np.int64], wide: Encoding, eight: Encoding) -> NDArray[np.int64]:
    """round(q / 257 + zero points), in integers."""
    return ((255 * q + narrowing_offset(wide, eight)) >> 16).clip(0, 255)
