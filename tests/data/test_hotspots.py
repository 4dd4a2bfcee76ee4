"""Answers that count for more."""

from __future__ import annotations

import numpy as np
import pytest

from autoneural.data.hotspots import (
    answer_weights,
    check_hotspots,
    label_weights,
    unused_hotspots,
)
from autoneural.errors import UserError

ROW = {
    "task": "sentinel",
    "kinds": ["event", "count"],
    "attributes": {"sentinel.event": "prying"},
    "messages": [{"role": role} for role in ("user", "assistant", "user", "assistant")],
}


@pytest.mark.parametrize(
    ("hotspots", "weights"),
    [
        ({}, [1.0, 1.0]),
        ({"task:sentinel": 3.0}, [3.0, 3.0]),
        ({"task:finder": 3.0, "kind:other": 2.0, "sentinel.event:passing": 5.0}, [1.0, 1.0]),
        ({"kind:count": 2.0}, [1.0, 2.0]),
        ({"sentinel.event:prying": 4.0, "task:sentinel": 0.5, "kind:event": 3.0}, [6.0, 2.0]),
    ],
)
def test_an_answer_weighs_the_product_of_what_fits(
    hotspots: dict[str, float], weights: list[float]
) -> None:
    assert answer_weights(ROW, hotspots) == weights


def test_labels_weigh_what_their_answer_does() -> None:
    labels = np.array([-100, 5, 6, 2, -100, -100, 7, 2, -100])
    assert label_weights(labels, [3.0, 0.5], 2).tolist() == [1, 3, 3, 3, 1, 1, 0.5, 0.5, 1]


@pytest.mark.parametrize(
    ("hotspots", "message"),
    [
        ({"sentinel": 2.0}, r"stage s: hotspots: 'sentinel' is not task:NAME, kind:NAME or"),
        ({"colour:red": 2.0}, "'colour:red' is not"),
        ({"task:": 2.0}, "'task:' is not"),
        ({"task:x": 0.0}, "weight of task:x is 0.0, expected more than 0"),
        ({"task:x": float("inf")}, "weight of task:x is inf"),
    ],
)
def test_what_is_no_hotspot_is_refused(hotspots: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_hotspots(hotspots, "stage s")


def test_hotspots_that_fit_nothing_are_found() -> None:
    hotspots = {"task:sentinel": 2.0, "kind:count": 2.0, "kind:plate": 2.0, "finder.x:y": 2.0}
    assert unused_hotspots(hotspots, [{"task": "hmi"}, ROW]) == ["kind:plate", "finder.x:y"]

    def rows():
        yield ROW
        raise AssertionError("everything was met in the first row")

    assert unused_hotspots({"kind:event": 1.0, "sentinel.event:prying": 1.0}, rows()) == []
