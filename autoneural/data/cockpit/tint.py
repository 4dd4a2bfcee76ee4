"""Colours of a split: the written ones, and in training their neighbours too."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoneural.data.cockpit.base import Rng, Split, chance, pick, pool
from autoneural.data.cockpit.svg import rgb

NEAR = 24.0
"""Distance in 8-bit RGB within which no training colour comes of a held-out one."""


def tint(
    rng: Rng, split: Split, common: Sequence[str], held_out: Sequence[str], *, spread: int = 48
) -> str:
    """A colour of the split's pool; in training most drift by up to `spread` per channel.

    Three masks in three colours teach that a mask is one of three colours.
    """
    color = pick(rng, pool(split, common, held_out))
    if split == "test" or chance(rng, 0.3):
        return color
    others = [rgb(other) for other in held_out]
    while True:
        steps = rng.integers(-spread, spread + 1, 3).tolist()
        drifted = tuple(
            min(max(v + step, 0), 255) for v, step in zip(rgb(color), steps, strict=True)
        )
        if all(math.dist(drifted, other) >= NEAR for other in others):
            return "#" + "".join(f"{value:02x}" for value in drifted)
