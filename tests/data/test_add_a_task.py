"""The task that docs/add-a-task.md shows works as it stands there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from autoneural.data.cockpit import TASKS, Task, eval_rows, render, rows
from autoneural.data.cockpit.base import SPLITS

PAGE = Path(__file__).parents[2] / "docs" / "add-a-task.md"


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, type[Task]] = {}
    exec(compile(code, PAGE.name, "exec"), names)
    monkeypatch.setitem(TASKS, "window", names["Window"]())
    return TASKS["window"]


def test_its_answers_are_in_the_picture(task: Task) -> None:
    seen: Counter[str] = Counter()
    for split in SPLITS:
        for seed in range(40):
            scene = task.sample(seed, split)
            assert all(v in task.attributes[k] for k, v in scene.attributes.items())
            answers = {q.kind: q.answer for q in task.questions(scene)}
            assert set(answers) == set(task.kinds)
            open_one = scene.attributes["window"] in ("front", "rear")
            assert (set(task.boxes(scene)) == {"window"}) == open_one
            seen[answers["window"]] += 1
    assert set(seen) == set(task.attributes["window"])


def test_it_makes_rows_and_pictures(task: Task) -> None:
    (row, scenes), *_ = rows("window", "train", 1, 3)
    assert row["task"] == "window"
    assert render(scenes[0]).dtype == np.uint8
    kinds = [row["kinds"][0] for row, _ in eval_rows("window", 12)]
    assert set(kinds) == set(task.kinds)
