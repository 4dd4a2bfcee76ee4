"""Scenes -> rows of the canonical `messages` schema, without drawing anything.

Row i of a (task, split, seed) is a pure function of i, so any slice can be made anywhere. Every
function yields `(row, scenes)`: the row names its images, `scenes` is what to render for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from itertools import count
from typing import Any
from zlib import crc32

from autoneural.data.cockpit.base import (
    RARE_KINDS,
    Question,
    Rng,
    Scene,
    Split,
    Task,
    chance,
    pick,
    rng_for,
    which_picture,
)
from autoneural.data.cockpit.clips import FRAMES, clip, clip_questions
from autoneural.data.cockpit.clips import KINDS as CLIP_KINDS
from autoneural.data.cockpit.fatigue import Fatigue
from autoneural.data.cockpit.steps import steps
from autoneural.data.cockpit.tasks import DRAWN, TASKS
from autoneural.errors import UserError

Row = dict[str, Any]
RARE_SHARE = 0.25
"""Share of conversations that hold each rare kind (sentence, JSON)."""
COMPARE_SHARE = 0.08
"""Share of rows that are one question about two pictures."""
CLIP_SHARE = {Fatigue.name: 0.2}
"""Share of a task's rows that are questions about a clip."""
SPAN = 10**9
"""Rows per base seed and lane."""
PARTNER, EVAL, EVAL_PARTNER = 1, 2, 3
SOURCE = "autoneural-cockpit"
PAIR_KINDS = ("one of two", "compare")
PLACED = ("in the {place} picture: {prompt}", "{place} picture: {prompt}")
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


def _turns(pictures: Sequence[Any], questions: Sequence[Question]) -> Row:
    """`messages` and `kinds` of a conversation; the first question carries the pictures."""
    messages: list[dict[str, Any]] = []
    parts = [{"type": "image", "image": picture} for picture in pictures]
    for index, question in enumerate(questions):
        content = [*(parts if index == 0 else ()), _text(question.prompt)]
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": [_text(question.answer)]})
    return {"messages": messages, "kinds": [question.kind for question in questions]}


def _row(scenes: Sequence[Scene], questions: Sequence[Question]) -> Row:
    """Attributes and boxes only for a single picture."""
    first = scenes[0]
    row: Row = {
        "id": "+".join(f"{scene.task}-{scene.split}-{scene.seed}" for scene in scenes),
        "task": first.task,
        "source": SOURCE,
        **_turns([image_name(scene) for scene in scenes], questions),
    }
    if len(scenes) == 1:
        row["attributes"] = {f"{first.task}.{k}": v for k, v in first.attributes.items()}
        boxes = {f"{first.task}.{k}": box for k, box in _boxes(first).items()}
        row |= {"boxes": boxes} if boxes else {}
    return row


def _boxes(scene: Scene) -> dict[str, list[float]]:
    """Fractions of the side to a tenth of a pixel."""
    boxes = DRAWN[scene.task].boxes(scene)
    return {k: [round(edge, 4) for edge in astuple(box)] for k, box in boxes.items()}


def conversation(scene: Scene) -> Row:
    """Every question of a picture as turns in seeded order; the rare kinds only now and then.

    In training the steps that lead to an answer are asked for as well.
    """
    rng = rng_for(scene.task, scene.split, scene.seed, "conversation")
    questions = [
        question
        for question in DRAWN[scene.task].questions(scene)
        if question.kind not in RARE_KINDS or chance(rng, RARE_SHARE)
    ]
    questions += steps(scene)
    return _row([scene], [questions[i] for i in rng.permutation(len(questions)).tolist()])


def describe(row: Row) -> str:
    """The description of a row's only picture, from its `attributes` alone.

    Raises UserError for a task that is not one of ours.
    """
    return _task(row).caption(Scene(row["task"], 0, "train", _plain(row), {}))


def _task(row: Row) -> Task:
    if row["task"] not in DRAWN:
        raise UserError(f"task {row['task']!r}: no words for it; one of {', '.join(DRAWN)}")
    return DRAWN[row["task"]]


def _pictures(row: Row) -> list[Any]:
    return [
        part["image"]
        for message in row["messages"]
        for part in message["content"]
        if part["type"] == "image"
    ]


def about_two(a: Row, b: Row) -> Row:
    """Two rows of one picture each as one conversation about both pictures.

    Turns: some questions of either row, told apart by "In the first picture: ...", and some about
    which of the two. Rows of one task, with `attributes`. Raises UserError for a task that is not
    one of ours.
    """
    task, name = _task(a), f"{a.get('id')}+{b.get('id')}"
    rng = rng_for(task.name, "train", crc32(name.encode()), "about two")
    questions = [
        *_of_one(a, "first", 2, rng),
        *_of_one(b, "second", 2, rng),
        *_some(which_picture(task, _plain(a), _plain(b)), 3, rng),
    ]
    row = _turns(_pictures(a) + _pictures(b), _some(questions, len(questions), rng))
    return {"id": name, "task": task.name, "source": a.get("source"), **row}


def _of_one(row: Row, place: str, count: int, rng: Rng) -> list[Question]:
    texts = {"user": list[str](), "assistant": list[str](), "system": list[str]()}
    for message in row["messages"]:
        parts = (part["text"] for part in message["content"] if part["type"] == "text")
        texts[message["role"]].append("".join(parts))
    turns = zip(texts["user"], texts["assistant"], strict=False)
    asked = [_placed(Question(prompt, answer, ""), place, rng) for prompt, answer in turns]
    return _some(asked, count, rng)


def _placed(question: Question, place: str, rng: Rng) -> Question:
    """The question about one of two pictures, named by its place."""
    words = pick(rng, PLACED).format(place=place, prompt=question.prompt)
    return Question(words[0].upper() + words[1:], question.answer, "one of two")


def _some(questions: Sequence[Question], count: int, rng: Rng) -> list[Question]:
    return [questions[i] for i in rng.permutation(len(questions))[:count].tolist()]


def _plain(row: Row) -> dict[str, str]:
    """Attributes without the task in front."""
    return {name.split(".", 1)[1]: value for name, value in row["attributes"].items()}


def _compare(scene: Scene, seed: int, index: int) -> tuple[Row, tuple[Scene, ...]] | None:
    task = DRAWN[scene.task]
    partner = task.sample(scene_seed(seed, index, PARTNER), scene.split)
    questions = which_picture(task, scene.attributes, partner.attributes)
    if not questions:
        return None
    rng = rng_for(scene.task, scene.split, scene.seed + partner.seed, "compare")
    return _row([scene, partner], [pick(rng, questions)]), (scene, partner)


def _clip(seed: int, split: Split, index: int, lane: int = 0) -> tuple[Scene, ...]:
    """Its pictures lie in the second half of a lane."""
    return clip(scene_seed(seed, SPAN // 2 + FRAMES * index, lane), split)


def rows(
    task: str,
    split: Split,
    start: int,
    stop: int,
    seed: int = 0,
) -> Iterator[tuple[Row, tuple[Scene, ...]]]:
    """Rows start..stop-1: conversations, about 8 % questions about two pictures, and clips."""
    for index in range(start, stop):
        scene = DRAWN[task].sample(scene_seed(seed, index), split)
        share = CLIP_SHARE.get(task, 0)
        if share and chance(rng_for(task, split, scene.seed, "clips"), share):
            frames = _clip(seed, split, index)
            yield _row(frames, clip_questions(frames)), frames
            continue
        paired = chance(rng_for(task, split, scene.seed, "mix"), COMPARE_SHARE)
        pair = _compare(scene, seed, index) if paired else None
        yield pair or (conversation(scene), (scene,))


def eval_rows(
    task: str, n: int, seed: int = 0, split: Split = "test"
) -> Iterator[tuple[Row, tuple[Scene, ...]]]:
    """`n` rows of one question about one picture, going round over the kinds of the task.

    A scene where the kind has no answer (a gaze behind closed eyes) is passed over.
    """
    kinds = DRAWN[task].kinds
    fresh = count()
    for index in range(n):
        kind = kinds[index % len(kinds)]
        while True:
            scene = DRAWN[task].sample(scene_seed(seed, next(fresh), EVAL), split)
            asked = [q for q in DRAWN[task].questions(scene) if q.kind == kind]
            if asked:
                yield _row([scene], asked), (scene,)
                break


def eval_pairs(
    n: int, seed: int = 0, split: Split = "test"
) -> Iterator[tuple[Row, tuple[Scene, ...]]]:
    """`n` rows of one question about two pictures of a task, going round over tasks and kinds.

    Pairs that nothing tells apart are passed over.
    """
    turns = [(TASKS[name], kind) for kind in PAIR_KINDS for name in TASKS]
    fresh = count()
    for index in range(n):
        task, kind = turns[index % len(turns)]
        while True:
            number = next(fresh)
            a = task.sample(scene_seed(seed, number, EVAL), split)
            b = task.sample(scene_seed(seed, number, EVAL_PARTNER), split)
            asked = _asked_of_two(a, b, kind)
            if asked:
                yield _row([a, b], asked), (a, b)
                break


def eval_clips(
    n: int, seed: int = 0, split: Split = "test"
) -> Iterator[tuple[Row, tuple[Scene, ...]]]:
    """`n` rows of one question about a clip, going round over the kinds."""
    for index in range(n):
        frames = _clip(seed, split, index, EVAL)
        asked = [q for q in clip_questions(frames) if q.kind == CLIP_KINDS[index % len(CLIP_KINDS)]]
        yield _row(frames, asked), frames


def _asked_of_two(a: Scene, b: Scene, kind: str) -> list[Question]:
    """One question about two pictures; none where the answer would be the same for either."""
    rng = rng_for(a.task, a.split, a.seed, kind)
    if kind == "compare":
        return _some(which_picture(TASKS[a.task], a.attributes, b.attributes), 1, rng)
    place, scene, other = pick(rng, (("first", a, b), ("second", b, a)))
    elsewhere = {q.kind: q.answer for q in TASKS[a.task].questions(other)}
    telling = [
        question
        for question in TASKS[a.task].questions(scene)
        if question.kind not in RARE_KINDS
        and elsewhere.get(question.kind, question.answer) != question.answer
    ]
    return [_placed(question, place, rng) for question in _some(telling, 1, rng)]
