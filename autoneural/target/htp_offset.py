"""What HTP's matrix engine adds to an output channel whatever the data.

The engine drops the lower eight bits of every sum, rounds its constants to whole steps of 256, and
on v68 and v69 the multiplier too (target/htp.py). On average a channel is off by up to one and a
half of these steps, which are 256 * m steps of the output: 20 and more where weights have 4 bits. A
bias enters before the multiplier, in the same steps, so it cannot remove the offset; it can bring
it below half a step, at no cost. In numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoneural.target.htp import Requantization

_BYTE = 256
_MEAN_DROPPED = (_BYTE - 1) / _BYTE / 2


def mean_offset(plan: Requantization, raw_sum: ArrayLike, exact: ArrayLike) -> NDArray[np.float64]:
    """How many output steps the engine is above `exact` on average, where sum(x * w) is `raw_sum`.

    The average is over the eight bits that are dropped, all equally likely.
    """
    t = np.asarray(raw_sum, np.float64) / _BYTE - _MEAN_DROPPED
    return (t + plan.shift) * plan.gain + plan.offset - np.asarray(exact, np.float64)
