"""Hot spots: which answers count for more, because the deployment depends on them. Torch-free.

    {"task:sentinel": 3, "kind:plate": 2, "sentinel.event:prying": 5}

A key is `task`, `kind` or the name of an attribute, a colon, and a value. An answer weighs the
product of all entries that its row (task, attributes) and its question (kind) fit: 1 without any.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from autoneural.data.processor import IGNORE
from autoneural.errors import UserError

Hotspots = Mapping[str, float]


def check_hotspots(hotspots: Hotspots, where: str) -> None:
    """UserError naming `where` and the first entry that is no hot spot."""
    for key, weight in hotspots.items():
        name, _, value = key.partition(":")
        if not value or not (name in ("task", "kind") or "." in name):
            raise UserError(
                f"{where}: hotspots: {key!r} is not task:NAME, kind:NAME or TASK.ATTRIBUTE:VALUE"
            )
        if not (math.isfinite(weight) and weight > 0):
            raise UserError(f"{where}: hotspots: weight of {key} is {weight}, expected more than 0")


def answer_weights(row: Mapping[str, Any], hotspots: Hotspots) -> list[float]:
    """The weight of each assistant turn of `row`."""
    whole = math.prod(weight for key, weight in hotspots.items() if _fits_row(row, key))
    answers = sum(message["role"] == "assistant" for message in row["messages"])
    kinds = row.get("kinds") or [None] * answers
    return [whole * hotspots.get(f"kind:{kind}", 1.0) for kind in kinds]


def label_weights(labels: np.ndarray, answers: Sequence[float], end_of_answer: int) -> np.ndarray:
    """float32 [T]: at each label the weight of its answer, 1 elsewhere."""
    ends = labels == end_of_answer
    # Behind the last answer the count runs over; nothing is learned there.
    number = (np.cumsum(ends) - ends).clip(max=len(answers) - 1)
    weights = np.asarray(answers, np.float32)[number]
    return np.where(labels == IGNORE, np.float32(1), weights)


def unused_hotspots(hotspots: Hotspots, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The entries that fit no answer of `rows`; reads on only until every entry has been met."""
    left = dict.fromkeys(hotspots)
    for row in rows:
        kinds = {f"kind:{kind}" for kind in row.get("kinds") or ()}
        for key in [key for key in left if key in kinds or _fits_row(row, key)]:
            del left[key]
        if not left:
            break
    return list(left)


def _fits_row(row: Mapping[str, Any], key: str) -> bool:
    name, _, value = key.partition(":")
    if name == "task":
        return row.get("task") == value
    return (row.get("attributes") or {}).get(name) == value
