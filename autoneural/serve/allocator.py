"""Memory of large pictures goes back to the system when they are done with."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
_LARGE = 4 * 2**20


def give_back_large_blocks() -> bool:
    """Whether the C library now returns blocks from 4 MiB up as soon as they are freed.

    glibc begins so, and stops once it has seen such a block freed: from then on each thread keeps
    the parts of its largest picture, up to 150 MiB. Said once, its limit stays. Other libraries are
    left as they are. `mallopt(3)`.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _LARGE) == 1
