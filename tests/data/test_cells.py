"""Boxes of rows as targets for every cell of a picture."""

from __future__ import annotations

import numpy as np
import pytest

from autoneural.data.cells import BoxVocabulary, box_vocabulary, cell_targets, check_boxes
from autoneural.errors import UserError

ROW = {
    "attributes": {"plate.char 1": "K", "fatigue.mouth": "yawning"},
    "boxes": {"plate.char 1": [0.5, 0.25, 0.53, 0.28], "plate.badge": [0.0, 0.9, 0.2, 1.0]},
}


def test_a_label_is_the_attribute_or_the_name() -> None:
    found = box_vocabulary([ROW, {"boxes": None}, {}])
    assert found == BoxVocabulary(("K", "badge"), ("badge", "char 1"))
    yawn = {**ROW, "boxes": {"fatigue.mouth": [0, 0, 1, 1]}}
    assert box_vocabulary([yawn]).labels == ("mouth yawning",)


def test_a_cell_holds_what_has_its_centre_there() -> None:
    cells = cell_targets(ROW, box_vocabulary([ROW]), 1, 256)
    assert cells.shape == (1, 2, 32, 32)
    assert np.argwhere(cells[0, 0] >= 0).tolist() == [[8, 16], [30, 3]]
    assert cells[0, :, 8, 16].tolist() == [0, 1]
    assert cells[0, :, 30, 3].tolist() == [1, 0]
    assert cells[0, :, 0, 0].tolist() == [-1, -1]


def test_without_boxes_nothing_is_known() -> None:
    assert (cell_targets({}, BoxVocabulary(("K",), ("char 1",)), 2, 256) == -100).all()


def test_a_box_outside_the_picture_counts_for_nothing() -> None:
    row = {"boxes": {"t.x": [1.1, 0.2, 1.3, 0.4]}}
    assert (cell_targets(row, box_vocabulary([row]), 1, 64) == -1).all()


def test_a_new_label_is_an_error() -> None:
    with pytest.raises(UserError, match=r"boxes\.plate\.char 1: 'K' is not in the vocabulary"):
        cell_targets(ROW, BoxVocabulary(("badge",), ("badge",)), 1, 256)


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([1], "expected an object"),
        ({"badge": [0, 0, 1, 1]}, "expected a key like task.badge"),
        ({"t.badge": [0, 0, 1]}, "expected .left, top, right, bottom."),
        ({"t.badge": [0.5, 0, 0.2, 1]}, "expected .left, top, right, bottom."),
        ({"t.badge": [0, "a", 1, 1]}, "expected .left, top, right, bottom."),
    ],
)
def test_malformed_boxes_are_named(boxes: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_boxes(boxes, "train.jsonl:3")
