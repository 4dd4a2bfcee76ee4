"""Where a box is, in words: the cell of a 3 x 3 grid that its centre lies in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple

from autoneural.data.cockpit.base import CANNOT_TELL, Box
from autoneural.data.cockpit.svg import box_around

ROWS = ("top", "", "bottom")
COLUMNS = ("left", "", "right")


def box_of(left: float, top: float, right: float, bottom: float) -> Box:
    """A box from SVG units, cut at the edges of the picture."""
    box = box_around([(left, top), (right, bottom)])
    return Box(*(round(edge, 4) for edge in astuple(box)))


def _centre(box: Box) -> tuple[float, float]:
    return (box.left + box.right) / 2, (box.top + box.bottom) / 2


def cell(box: Box) -> str:
    """ "top left", "top", ..., "centre", ..., "bottom right"."""
    x, y = _centre(box)
    return f"{ROWS[min(int(y * 3), 2)]} {COLUMNS[min(int(x * 3), 2)]}".strip() or "centre"


def whereabouts(found: Mapping[str, Box], name: str, *, hidden: bool) -> str:
    """The answer to "where is it": a cell, "nowhere", or that one cannot tell."""
    if hidden:
        return CANNOT_TELL
    return cell(found[name]) if name in found else "nowhere"


def is_clear(box: Box, margin: float = 0.025) -> bool:
    """Whether the centre keeps away from the lines of the grid, so that one word is right."""
    return all(abs(at - line / 3) > margin for at in _centre(box) for line in (1, 2))


def tellable(found: Mapping[str, Box], names: Iterable[str]) -> list[str]:
    """Those of `names` for whose place one word is right: all if there is none."""
    clear = [name for name in names if name not in found or is_clear(found[name])]
    return clear or list(names)
