"""How far away and how far aside a thing stands that fills the pictures of the test.

A row of warning lights that is always at one of three heights is counted at those heights only;
seen from further away as well, it is counted wherever it is.
"""

from __future__ import annotations

from autoneural.data.cockpit.base import Rng, Split, chance, uniform

Framing = list[float]
"""Share of the full size; shift of the centre right and down, in user units."""
WHOLE: Framing = [1.0, 0.0, 0.0]
_HALF = 128.0


def draw_framing(rng: Rng, split: Split, least: float) -> Framing:
    """The full size in the test and half of the time; else down to `least` of it, all in view."""
    if split == "test" or chance(rng, 0.5):
        return WHOLE
    share = uniform(rng, least, 1.0)
    slack = _HALF * (1 - share)
    return [share, uniform(rng, -slack, slack), uniform(rng, -slack, slack)]
