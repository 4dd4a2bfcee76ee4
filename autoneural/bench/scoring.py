"""When two answers are the same, shares of them, and how uncertain those are."""

from __future__ import annotations

import math

Z95 = 1.959964


def normalise(text: str) -> str:
    """Lower case, no white space around it, no full stop at its end."""
    return text.strip().lower().removesuffix(".").rstrip()


def ratio(part: float, whole: int) -> float:
    """`part` of `whole`; 0 of nothing."""
    return part / whole if whole else 0.0


def wilson(correct: int, n: int) -> list[float]:
    """Wilson's 95 % interval [low, high] of `correct` in `n` trials."""
    if n == 0:
        return [0.0, 1.0]
    p, z2 = correct / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return [centre - half, centre + half]
