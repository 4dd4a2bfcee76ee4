"""The bytes that `fast` graphs round a row of activations to: constants that graphs carry by name.

A byte is 128 + round(127 x / most); behind a GELU, which is never below -0.17, 32 + round(223 x /
most), with most at least 1.185, so that -0.17 is not cut off. Processors without VNNI add two
products of bytes in 16 bits: of a byte and 4 bits they stay inside, of a byte and 8 bits they may
not, and the sum is cut off without a word. There whoever opens a graph puts `SEVEN_BITS` in place
of what it carries for weights of 8 bits: 64 + round(63 x / most), 16 + round(111 x / most), whose
products stay inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

ONE = "rows.one"
LEAST = "rows.least"
GELU = "rows.gelu"
HUGE = "rows.huge"
LAST_AXIS = "rows.last_axis"


def share(bits: int, gelu: bool = False) -> str:
    """Name of the constant 1 / 127, for weights of so many bits; 1 / 223 behind a GELU."""
    return f"rows.share{bits}{'.gelu' if gelu else ''}"


def middle(bits: int, gelu: bool = False) -> str:
    """Name of the constant 128, for weights of so many bits; 32 behind a GELU."""
    return f"rows.middle{bits}{'.gelu' if gelu else ''}"


def constants(bits: int) -> dict[str, np.ndarray[Any, Any]]:
    """What a graph carries for weights of so many bits."""
    return {
        ONE: np.array(1, np.float32),
        LEAST: np.array(1e-30, np.float32),  # a row of zeros is divided by something
        HUGE: np.array(3e38, np.float32),  # divided by it any range is nothing
        GELU: np.array(1.185, np.float32),  # 0.17 / 32 * 223, and more than 0.17 / 16 * 111
        LAST_AXIS: np.array([-1], np.int64),
        share(bits): np.array(1 / 127, np.float32),
        share(bits, gelu=True): np.array(1 / 223, np.float32),
        middle(bits): np.array(128, np.uint8),
        middle(bits, gelu=True): np.array(32, np.uint8),
    }


SEVEN_BITS: Mapping[str, np.ndarray[Any, Any]] = {
    share(8): np.array(1 / 63, np.float32),
    share(8, gelu=True): np.array(1 / 111, np.float32),
    middle(8): np.array(64, np.uint8),
    middle(8, gelu=True): np.array(16, np.uint8),
}
