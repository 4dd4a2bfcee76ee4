"""Steps of a question, asked in training: their answers lead to the question's own."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from autoneural.data.cockpit import TASKS, Question, Scene
from autoneural.data.cockpit.finder_map import TURNS
from autoneural.data.cockpit.rows import conversation
from autoneural.data.cockpit.steps import HEADINGS, ORDINALS, SIDES, steps


def _asked(task: str, n: int = 200) -> list[tuple[Scene, dict[str, Question], dict[str, str]]]:
    """Scenes, their steps by kind, and the answers of the task itself."""
    scenes = [TASKS[task].sample(seed, "train") for seed in range(n)]
    return [
        (s, {q.kind: q for q in steps(s)}, {q.kind: q.answer for q in TASKS[task].questions(s)})
        for s in scenes
    ]


def test_the_way_follows_from_heading_and_bearing() -> None:
    ways = Counter[str]()
    for scene, asked, answers in _asked("finder"):
        if scene.attributes["view"] == "map":
            heading = HEADINGS.index(asked["heading"].answer)
            bearing = SIDES.index(asked["bearing"].answer)
            assert TURNS[(bearing - heading) % 4] == answers["way"]
            rotation = re.search(r"rotate\((-?\d+)\)", TASKS["finder"].svg(scene))
            assert rotation is not None
            assert int(rotation[1]) // 90 % 4 == heading
            ways[answers["way"]] += 1
    assert min(ways[turn] for turn in TURNS) > 5


def test_free_bays_of_a_row_are_part_of_all() -> None:
    counts = Counter[str]()
    for scene, asked, answers in _asked("finder"):
        if scene.attributes["view"] == "map":
            free = asked["free in row"].answer
            assert int(free) <= int(answers["free"])
            counts[free] += 1
    assert min(counts["0"], counts["1"]) > 10
    assert counts["2"] > 0


def test_free_bays_and_lit_lights_are_as_many_as_counted() -> None:
    for scene, asked, answers in _asked("finder", 60):
        if scene.attributes["view"] == "map":
            bays = re.findall(r"[A-D][1-6]", asked["free bays"].answer)
            assert len(set(bays)) == int(answers["free"])
            assert answers["bay"] not in bays
    for _, asked, answers in _asked("hmi", 60):
        names, _, count = asked["lights"].answer.partition(": ")
        assert count == answers["count"]
        if "several" in answers:
            assert set(names.split(", ")) == set(answers["several"].split(" and "))


def test_characters_of_a_plate_in_their_order() -> None:
    for _, asked, answers in _asked("plate"):
        text = answers["plate"]
        nth = next(word for word in ORDINALS if word in asked["nth"].prompt)
        if text == "cannot tell":
            assert {q.answer for q in asked.values()} == {text}
            continue
        assert asked["nth"].answer == text[ORDINALS.index(nth)]
        assert asked["only digits"].answer == re.sub(r"\D", "", text)
        assert asked["only letters"].answer in (re.sub(r"\d", "", text), "none")
        kinds = ["D" if char.isdigit() else "L" for char in text]
        assert asked["pattern"].answer == " ".join(kinds)
        assert int(asked["letters"].answer) == kinds.count("L")
        if "after" in asked:
            words = asked["after"].prompt.split()
            char = next(w for w in words if len(w) == 1 and w in text)
            assert char + asked["after"].answer in text


@pytest.mark.parametrize("task", ["plate", "finder", "hmi"])
def test_only_training_asks_for_steps(task: str) -> None:
    for split in ("val", "test"):
        scene = TASKS[task].sample(3, split)  # type: ignore[arg-type]
        assert steps(scene) == []
        assert set(conversation(scene)["kinds"]) <= set(TASKS[task].kinds)
    scenes = [TASKS[task].sample(seed, "train") for seed in range(6)]
    scene = next(scene for scene in scenes if steps(scene))
    kinds = Counter(conversation(scene)["kinds"])
    assert not Counter(q.kind for q in steps(scene)) - kinds


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"plate", "finder", "hmi"}))
def test_other_tasks_have_none(task: str) -> None:
    assert steps(TASKS[task].sample(0, "train")) == []
