"""Boxes of a row -> what stands where, cell by cell: a target for every place of a picture.

    {"plate.char 1": [0.31, 0.62, 0.36, 0.71], ...} -> int64 [G, G], -100 nowhere, -1 background

A cell holds the label of the box whose centre lies in it. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from autoneural.errors import UserError

CELL = 8
"""Pixels from cell to cell."""
UNKNOWN, BACKGROUND = -100, -1


def check_boxes(boxes: Any, where: str) -> None:
    """UserError naming `where` unless `boxes` is {"task.name": [left, top, right, bottom]}."""
    if not isinstance(boxes, dict):
        raise UserError(f"{where}: boxes: expected an object of [left, top, right, bottom]")
    for name, box in boxes.items():
        if "." not in name:
            raise UserError(f"{where}: boxes.{name}: expected a key like task.{name}")
        numbers = isinstance(box, list | tuple) and all(isinstance(v, int | float) for v in box)
        if not (numbers and len(box) == 4 and box[0] <= box[2] and box[1] <= box[3]):
            raise UserError(
                f"{where}: boxes.{name}: expected [left, top, right, bottom] as fractions of the "
                f"picture, got {box!r}"
            )


def box_label(row: Mapping[str, Any], name: str) -> str:
    """What the box called `name` shows: the value of the attribute of that name, if there is one.

    A character is the same anywhere ("K"); other values keep their name ("mouth yawning").
    """
    short, value = name.rpartition(".")[2], (row.get("attributes") or {}).get(name, "")
    return value if len(value) == 1 else f"{short} {value}".strip()


def box_vocabulary(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """All labels of boxes in `rows`, sorted; empty where no row has any."""
    return tuple(sorted({box_label(row, name) for row in rows for name in row.get("boxes") or ()}))


def cell_targets(
    row: Mapping[str, Any], labels: Sequence[str], num_images: int, image_size: int
) -> np.ndarray:
    """int64 [num_images, G, G], G = image_size // CELL: number of the label, or what is said above.

    Boxes belong to a row's only picture, which fills the square that the model sees. Raises
    UserError for a label that is not one of `labels`.
    """
    side = image_size // CELL
    boxes: Mapping[str, Sequence[float]] = row.get("boxes") or {}
    targets = np.full((num_images, side, side), BACKGROUND if boxes else UNKNOWN, dtype=np.int64)
    for name, (left, top, right, bottom) in boxes.items():
        label = box_label(row, name)
        if label not in labels:
            raise UserError(f"boxes.{name}: {label!r} is not one of the {len(labels)} labels")
        column, line = int((left + right) / 2 * side), int((top + bottom) / 2 * side)
        if 0 <= column < side and 0 <= line < side:
            targets[:, line, column] = labels.index(label)
    return targets
