"""Scenes of every task: closed vocabularies, seeds, splits that share nothing."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from autoneural.data.cockpit import (
    TASKS,
    Scene,
    eval_rows,
)
from autoneural.data.cockpit.base import SPLITS

NAMES = tuple(TASKS)


def _answers(scene: Scene) -> dict[str, str]:
    return {q.kind: q.answer for q in TASKS[scene.task].questions(scene)}


def _scenes(task: str, n: int, split: str = "train") -> list[Scene]:
    return [TASKS[task].sample(seed, split) for seed in range(n)]  # type: ignore[arg-type]


@pytest.mark.parametrize("task", NAMES)
def test_attributes_stay_in_their_closed_vocabulary(task: str) -> None:
    vocabulary, seen = TASKS[task].attributes, defaultdict(set)
    for scene in _scenes(task, 1500):
        assert set(scene.attributes) == set(vocabulary)
        for key, value in scene.attributes.items():
            seen[key].add(value)
    assert {key: set(values) for key, values in vocabulary.items()} == dict(seen)


@pytest.mark.parametrize("task", NAMES)
def test_scene_is_a_function_of_its_seed(task: str) -> None:
    first, again = _scenes(task, 20), _scenes(task, 20)
    assert first == again
    assert [_answers(a) for a in first] == [_answers(b) for b in again]
    assert len({json.dumps(scene.params) for scene in first}) == 20
    assert first[0].params == json.loads(json.dumps(first[0].params))


@pytest.mark.parametrize("task", NAMES)
def test_guessing_the_commonest_answer_stays_poor(task: str) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row, _ in eval_rows(task, 250 * len(TASKS[task].kinds), split="train"):
        counts[row["kinds"][0]][row["messages"][1]["content"][0]["text"]] += 1
    majority = {kind: max(c.values()) / c.total() for kind, c in counts.items()}
    assert set(majority) == set(TASKS[task].kinds)
    assert max(majority.values()) < 0.6, majority  # 0.5, and 250 draws scatter by 0.03
    assert np.mean(list(majority.values())) < 0.42, majority


def _shades(task: str, split: str) -> set[str]:
    """Every colour of a thing, with what it colours; the veils of the light are no things."""
    return {
        f"{key} {value}"
        for scene in _scenes(task, 300, split)
        for key, value in scene.params.items()
        if key == "shade" or re.fullmatch("#[0-9a-f]{6}", str(value))
    }


@pytest.mark.parametrize("task", NAMES)
def test_the_test_split_has_its_own_shades_and_streams(task: str) -> None:
    test, known = _shades(task, "test"), _shades(task, "train") | _shades(task, "val")
    assert {key.split()[0] for key in test} == {key.split()[0] for key in known}
    assert not test & known
    looks = {split: {json.dumps(s.params) for s in _scenes(task, 50, split)} for split in SPLITS}
    assert not looks["train"] & looks["val"]
    assert not looks["train"] & looks["test"]


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("fatigue", "hair_style"),
        ("fatigue", "seat_style"),
        ("hmi", "layout"),
        ("hmi", "order"),
        ("boarding", "place"),
        ("child", "cabin"),
        ("child", "hair_style"),
        ("greeter", "place"),
        ("greeter", "style"),
        ("finder", "plan"),
        ("plate", "style"),
        ("plate", "grammar"),
        ("plate", "place"),
        ("sentinel", "skyline"),
        ("sentinel", "ground"),
    ],
)
def test_the_test_split_has_its_own_layouts(task: str, key: str) -> None:
    seen = {s: {str(x.params[key]) for x in _scenes(task, 100, s)} for s in SPLITS}
    assert len(seen["train"]) > 1
    assert not seen["test"] & (seen["train"] | seen["val"])


def test_fonts_are_disjoint() -> None:
    fonts = {s: {x.params["fonts"][0] for x in _scenes("hmi", 200, s)} for s in SPLITS}
    assert fonts["train"] == fonts["val"]
    assert len(fonts["test"]) > 1
    assert not fonts["test"] & fonts["train"]
