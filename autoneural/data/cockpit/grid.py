"""Words for where a box lies: the cell of a 3 x 3 grid that holds its centre."""

from __future__ import annotations

from autoneural.data.cockpit.base import Box

GRID = (
    "top left", "top", "top right",
    "left", "centre", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip


def cell(box: Box) -> str:
    """The word of `GRID` for the centre of `box`."""
    column, row = ((a + b) * 1.5 for a, b in ((box.left, box.right), (box.top, box.bottom)))
    return GRID[3 * min(int(row), 2) + min(int(column), 2)]
