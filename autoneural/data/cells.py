"""Boxes of a row -> what stands where, cell by cell: a target for every place of a picture.

    {"plate.char 1": [0.31, 0.62, 0.36, 0.71], ...} -> int64 [2, G, G], -100 unknown, -1 background

A cell holds the label of the box whose centre lies in it ("K"), and its name ("char 1"): what is
there, and which of several it is. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoneural.errors import UserError

CELL = 8
"""Pixels from cell to cell."""
UNKNOWN, BACKGROUND = -100, -1


@dataclass(frozen=True)
class BoxVocabulary:
    """All labels and all names of boxes, sorted."""

    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


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
    short, value = box_name(name), (row.get("attributes") or {}).get(name, "")
    return value if len(value) == 1 else f"{short} {value}".strip()


def box_name(name: str) -> str:
    """Without the task in front."""
    return name.rpartition(".")[2]


def box_vocabulary(rows: Iterable[Mapping[str, Any]]) -> BoxVocabulary:
    """Of all boxes in `rows`; empty where no row has any."""
    found = {
        (box_label(row, name), box_name(name)) for row in rows for name in row.get("boxes") or ()
    }
    labels, names = ({pair[side] for pair in found} for side in (0, 1))
    return BoxVocabulary(tuple(sorted(labels)), tuple(sorted(names)))


def cell_targets(
    row: Mapping[str, Any], vocabulary: BoxVocabulary, num_images: int, image_size: int
) -> np.ndarray:
    """int64 [num_images, 2, G, G], G = image_size // CELL: numbers of label and name.

    Boxes belong to a row's only picture, which fills the square that the model sees. Raises
    UserError for a label that is not in the vocabulary.
    """
    side = image_size // CELL
    boxes: Mapping[str, Sequence[float]] = row.get("boxes") or {}
    targets = np.full((num_images, 2, side, side), BACKGROUND if boxes else UNKNOWN, np.int64)
    for name, (left, top, right, bottom) in boxes.items():
        label, short = box_label(row, name), box_name(name)
        if label not in vocabulary.labels or short not in vocabulary.names:
            raise UserError(
                f"boxes.{name}: {label!r} is not in the vocabulary of the training rows"
            )
        column, line = int((left + right) / 2 * side), int((top + bottom) / 2 * side)
        if 0 <= column < side and 0 <= line < side:
            targets[:, 0, line, column] = vocabulary.labels.index(label)
            targets[:, 1, line, column] = vocabulary.names.index(short)
    return targets
