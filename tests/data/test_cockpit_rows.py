"""Rows: conversations, pairs, descriptions, what evaluation asks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from autoneural.data.cockpit import (
    TASKS,
    Scene,
    about_two,
    conversation,
    describe,
    eval_pairs,
    eval_rows,
    image_name,
    rows,
)
from autoneural.data.cockpit.base import which_picture
from autoneural.data.cockpit.rows import PAIR_KINDS
from autoneural.data.cockpit.steps import steps
from autoneural.errors import UserError

NAMES = tuple(TASKS)


def _scenes(task: str, n: int, split: str = "train") -> list[Scene]:
    return [TASKS[task].sample(seed, split) for seed in range(n)]  # type: ignore[arg-type]


@pytest.mark.parametrize("task", NAMES)
def test_rows_are_pure_functions_of_their_index(task: str) -> None:
    whole = [row for row, _ in rows(task, "train", 0, 40)]
    assert [row for row, _ in rows(task, "train", 10, 20)] == whole[10:20]
    assert len({row["id"] for row in whole}) == 40
    assert whole != [row for row, _ in rows(task, "train", 0, 40, seed=1)]


@pytest.mark.parametrize("task", NAMES)
def test_rows_follow_the_messages_schema(task: str) -> None:
    pairs = 0
    for row, scenes in rows(task, "train", 0, 400):
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * len(row["kinds"])
        parts = [part for message in row["messages"] for part in message["content"]]
        assert sum(part["type"] == "image" for part in parts) == len(scenes)
        assert ("attributes" in row) == (len(scenes) == 1)
        pairs += len(scenes) == 2
    assert 12 <= pairs <= 48  # about 8 % of 400, less what nothing decides


@pytest.mark.parametrize("task", NAMES)
def test_rare_kinds_are_rare_in_conversations(task: str) -> None:
    kinds = Counter(kind for s in _scenes(task, 300) for kind in conversation(s)["kinds"])
    assert 0.15 < kinds["json"] / 300 < 0.35
    assert 0.15 < kinds["sentence"] / 300 < 0.35


@pytest.mark.parametrize("task", NAMES)
def test_compare_names_the_picture_where_the_statement_holds(task: str) -> None:
    scenes, found = _scenes(task, 80), set()
    for a, b in zip(scenes[::2], scenes[1::2], strict=True):
        questions = which_picture(TASKS[task], a.attributes, b.attributes)
        mirrored = which_picture(TASKS[task], b.attributes, a.attributes)
        assert which_picture(TASKS[task], a.attributes, a.attributes) == []
        assert [q.prompt for q in questions] == [q.prompt for q in mirrored]
        for question, other in zip(questions, mirrored, strict=True):
            found.add(question.answer)
            assert {question.answer, other.answer} == {"the first", "the second"}
        for (key, value), words in TASKS[task].statements.items():
            holds = [scene.attributes[key] == value for scene in (a, b)]
            asked = [q.answer for q in questions if words in q.prompt]
            assert asked == ([] if holds[0] == holds[1] else [PLACES[holds.index(True)]])
    assert found == set(PLACES)


PLACES = ("the first", "the second")


@pytest.mark.parametrize("task", NAMES)
def test_a_conversation_about_two_rows_answers_from_the_right_one(task: str) -> None:
    kinds: Counter[str] = Counter()
    scenes = _scenes(task, 40)
    for a, b in zip(scenes[::2], scenes[1::2], strict=True):
        row = about_two(conversation(a), conversation(b))
        content = row["messages"][0]["content"]
        assert [p["image"] for p in content[:2]] == [image_name(a), image_name(b)]
        kinds.update(row["kinds"])
        truths = {
            place: {(q.prompt, q.answer) for q in [*TASKS[task].questions(scene), *steps(scene)]}
            for place, scene in (("first", a), ("second", b))
        }
        compared = {
            (q.prompt, q.answer) for q in which_picture(TASKS[task], a.attributes, b.attributes)
        }
        for question, answer in zip(row["messages"][::2], row["messages"][1::2], strict=True):
            asked, said = question["content"][-1]["text"], answer["content"][0]["text"]
            placed = re.fullmatch("(?:In the (.+?)|(.+?)) picture: (.*)", asked)
            if placed is None:
                assert (asked, said) in compared
            else:
                assert (placed[3], said) in truths[(placed[1] or placed[2]).lower()]
    assert kinds["one of two"] == 80
    assert 40 < kinds["compare"] <= 60


@pytest.mark.parametrize("task", NAMES)
def test_every_attribute_changes_the_caption(task: str) -> None:
    quiet: dict[str, list[bool]] = defaultdict(list)
    for scene in _scenes(task, 5):
        caption = TASKS[task].caption(scene)
        assert re.fullmatch(r"[A-Z].*\.", caption)
        for key, values in TASKS[task].attributes.items():
            if key == "lights":  # their number, which the caption counts itself
                continue
            others = [{**scene.attributes, key: v} for v in values if v != scene.attributes[key]]
            changed = [TASKS[task].caption(replace(scene, attributes=other)) for other in others]
            quiet[key].append(caption in changed)
    assert [key for key, silent in quiet.items() if all(silent)] == []


def test_a_row_is_described_from_its_attributes() -> None:
    scene = _scenes("hmi", 1)[0]
    assert describe(conversation(scene)) == TASKS["hmi"].caption(scene)
    with pytest.raises(UserError, match="task 'parking': no words for it; one of fatigue"):
        describe({"task": "parking", "attributes": {}})


def test_phrasings_vary() -> None:
    for task in NAMES:
        prompts: dict[str, set[str]] = defaultdict(set)
        for scene in _scenes(task, 200):
            for question in TASKS[task].questions(scene):
                prompts[question.kind].add(question.prompt)
        assert min(len(options) for options in prompts.values()) >= 2


def test_eval_rows_ask_once_per_picture_round_robin() -> None:
    kinds, seeds = [], set()
    for row, (scene,) in eval_rows("hmi", 2 * len(TASKS["hmi"].kinds)):
        kinds += row["kinds"]
        seeds.add(scene.seed)
        assert scene.split == "test"
    assert kinds == list(TASKS["hmi"].kinds) * 2
    assert len(seeds) == len(kinds)
    trained = {s.seed for _, scenes in rows("hmi", "train", 0, 50) for s in scenes}
    assert not trained & seeds


def test_eval_pairs_ask_what_only_one_picture_answers() -> None:
    seen = Counter()
    for row, (a, b) in eval_pairs(20 * len(TASKS)):
        kind, task = row["kinds"][0], TASKS[a.task]
        seen[kind, a.task] += 1
        content, (answer,) = (message["content"] for message in row["messages"])
        assert [p["image"] for p in content[:-1]] == [image_name(a), image_name(b)]
        asked = content[-1]["text"]
        if kind == "one of two":
            first, second = (
                {q.answer for q in task.questions(s) if asked.endswith(q.prompt)} for s in (a, b)
            )
            assert answer["text"] in (first if "irst picture" in asked else second)
        else:
            compared = which_picture(task, a.attributes, b.attributes)
            assert (asked, answer["text"]) in {(q.prompt, q.answer) for q in compared}
    assert set(seen.values()) == {10}
    assert {kind for kind, _ in seen} == set(PAIR_KINDS)
