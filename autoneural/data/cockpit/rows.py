"""Scenes -> rows of the canonical `messages` schema, without drawing anything.

Row i of a (task, split, seed) is a pure function of i, so any slice can be made anywhere. Every
function yields `(row, scenes)`: the row names its images, `scenes` is what to render for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from autoneural.data.cockpit.base import (
    RARE_KINDS,
    Question,
    Scene,
    Split,
    chance,
    rng_for,
)
from autoneural.data.cockpit.tasks import TASKS
from autoneural.errors import UserError

Row = dict[str, Any]
RARE_SHARE = 0.25
"""Share of conversations that hold each rare kind (sentence, JSON)."""
COMPARE_SHARE = 0.08
"""Share of rows that are one question about two pictures."""
SPAN = 10**9
"""Rows per base seed and lane."""
PARTNER, EVAL = 1, 2
SOURCE = "autoneural-cockpit"
DESCRIBE = (
    "Describe the picture.",
    "What do you see?",
    "Give a short description of this picture.",
    "Caption this picture.",
)


def scene_seed(seed: int, index: int, lane: int = 0) -> int:
    """The seed of a scene; lanes keep pictures of rows, their partners and the evaluation apart."""
    return (seed * 4 + lane) * SPAN + index


def image_name(scene: Scene) -> str:
    """Where the picture of a scene lies, relative to the data folder."""
    return f"images/{scene.task}-{scene.split}-{scene.seed:012d}.jpg"


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _row(scenes: Sequence[Scene], questions: Sequence[Question]) -> Row:
    """The first question carries the pictures; attributes only for a single picture."""
    messages: list[dict[str, Any]] = []
    pictures = [{"type": "image", "image": image_name(scene)} for scene in scenes]
    for index, question in enumerate(questions):
        content = [*(pictures if index == 0 else ()), _text(question.prompt)]
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": [_text(question.answer)]})
    first = scenes[0]
    row: Row = {
        "id": "+".join(f"{scene.task}-{scene.split}-{scene.seed}" for scene in scenes),
        "task": first.task,
        "source": SOURCE,
        "messages": messages,
        "kinds": [question.kind for question in questions],
    }
    if len(scenes) == 1:
        row["attributes"] = {f"{first.task}.{k}": v for k, v in first.attributes.items()}
    return row


def conversation(scene: Scene) -> Row:
    """Every question of a picture as turns in seeded order; the rare kinds only now and then."""
    rng = rng_for(scene.task, scene.split, scene.seed, "conversation")
    questions = [
        question
        for question in TASKS[scene.task].questions(scene)
        if question.kind not in RARE_KINDS or chance(rng, RARE_SHARE)
    ]
    return _row([scene], [questions[i] for i in rng.permutation(len(questions)).tolist()])


def describe(row: Row) -> str:
    """The description of a row's only picture, from its `attributes` alone.

    Raises UserError for a task that is not one of ours.
    """
    if row["task"] not in TASKS:
        raise UserError(f"task {row['task']!r}: no description known; one of {', '.join(TASKS)}")
    attributes = {name.split(".", 1)[1]: value for name, value in row["attributes"].items()}
    return TASKS[row["task"]].caption(Scene(row["task"], 0, "train", attributes, {}))


def _compare(scene: Scene, seed: int, index: int) -> tuple[Row, tuple[Scene, ...]] | None:
    task = TASKS[scene.task]
    partner = task.sample(scene_seed(seed, index, PARTNER), scene.split)
    question = task.compare(scene, partner)
    return None if question is None else (_row([scene, partner], [question]), (scene, partner))


def rows(
    task: str,
    split: Split,
    start: int,
    stop: int,
    seed: int = 0,
) -> Iterator[tuple[Row, tuple[Scene, ...]]]:
    """Rows start..stop-1: conversations, and about 8 % questions about two pictures."""
    for index in range(start, stop):
        scene = TASKS[task].sample(scene_seed(seed, index), split)
        paired = chance(rng_for(task, split, scene.seed, "mix"), COMPARE_SHARE)
        pair = _compare(scene, seed, index) if paired else None
        yield pair or (conversation(scene), (scene,))


def eval_rows(
    task: str, n: int, seed: int = 0, split: Split = "test"
) -> Iterator[tuple[Row, tuple[Scene, ...]]]:
    """`n` rows of one question about one picture, going round over the kinds of the task.

    A scene where the kind has no answer (a gaze behind closed eyes) is passed over.
    """
    kinds = TASKS[task].kinds
    fresh = count()
    for index in range(n):
        kind = kinds[index % len(kinds)]
        while True:
            scene = TASKS[task].sample(scene_seed(seed, next(fresh), EVAL), split)
            asked = [q for q in TASKS[task].questions(scene) if q.kind == kind]
            if asked:
                yield _row([scene], asked), (scene,)
                break
