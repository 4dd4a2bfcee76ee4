"""Exact match on held-out questions, beside what guessing without the picture would score.

    accuracy   the answer equals the expected one after `normalise`
    ci95       [low, high]: Wilson's 95 % interval of the accuracy
    blind      accuracy when every question is shown the pictures of another (seeded)
    majority   score of the best constant answer per kind of question, taken from these very
               questions: the most that guessing by kind could reach
    alarms, unanswerable   see `safety`

Two runs over the same questions are compared by `paired_difference`.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from autoneural.bench.safety import Alarms, alarm_scores, unanswerable
from autoneural.bench.scoring import Z95, normalise, ratio, wilson
from autoneural.data.messages import Message, image_parts, normalise_messages
from autoneural.errors import UserError
from autoneural.files import write_text

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question: the conversation up to it, and the answer that is right."""

    id: str
    task: str
    kind: str
    messages: list[Message]
    expected: str

    @property
    def prompt(self) -> str:
        """Text of the last user turn."""
        return _text(self.messages[-1])

    @property
    def images(self) -> list[Any]:
        """Pictures in reading order, as the row holds them (paths or PIL images)."""
        return [part["image"] for part in image_parts(self.messages)]


class Answerer(Protocol):
    """Anything that answers questions: a bundle's engine, a checkpoint's model, a fake."""

    def answer(self, items: Sequence[Item]) -> Iterable[str]:
        """One answer per item, in order; may yield as it goes."""
        ...


def items_of(rows: Iterable[Mapping[str, Any]]) -> list[Item]:
    """One item per assistant turn of rows in the `messages` schema; earlier turns stay as asked."""
    items = []
    for row in rows:
        messages = normalise_messages(row["messages"], f"row {row['id']}: messages")
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        for number, (turn, kind) in enumerate(zip(turns, row["kinds"], strict=True)):
            items.append(
                Item(
                    id=f"{row['id']}#{number}",
                    task=row["task"],
                    kind=kind,
                    messages=messages[:turn],
                    expected=_text(messages[turn]),
                )
            )
    return items


def shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    """The same questions, each with the pictures of another one of as many pictures.

    A question without pictures, or the only one of its picture count, has no other: it is left out.
    """
    groups: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        groups[len(item.images)].append(item)
    blind: list[Item] = []
    for count, group in sorted(groups.items()):
        if count == 0 or len(group) < 2:
            continue
        donors = _derangement(len(group), seed + count)
        blind += [
            _with_images(item, group[j].images) for item, j in zip(group, donors, strict=True)
        ]
    return blind


def majority(items: Sequence[Item]) -> float:
    """Accuracy of answering each kind with its most frequent expected answer."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        counts[item.kind][normalise(item.expected)] += 1
    return ratio(sum(c.most_common(1)[0][1] for c in counts.values()), len(items))


def evaluate(
    answerer: Answerer,
    tasks: Mapping[str, Sequence[Item]],
    *,
    seed: int = 0,
    blind: bool = True,
    alarms: Mapping[str, Alarms] | None = None,
    on_answer: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Any], list[Record]]:
    """Ask every question, and again with shuffled pictures.

    Returns the report `{"mean", "tasks": {name: {"accuracy", "n", "ci95", "blind", "majority",
    "questions", "alarms"}}, "unanswerable"}` and one record per question. `blind=False` skips the
    second pass (null in the report). `alarms` are those of each task. `on_answer` is called after
    each answer.
    """
    report: dict[str, Any] = {}
    records: list[Record] = []
    for name, items in tasks.items():
        asked = _ask(answerer, items, on_answer)
        guessed = _ask(answerer, shuffled(items, seed) if blind else [], on_answer)
        report[name] = {
            **_score(asked),
            "blind": ratio(sum(r["correct"] for r in guessed), len(guessed)) if guessed else None,
            "majority": majority(items),
            "questions": _by_kind(asked),
            "alarms": alarm_scores(asked, (alarms or {}).get(name, {})),
        }
        records += asked
    mean = ratio(sum(task["accuracy"] for task in report.values()), len(report))
    return {"mean": mean, "tasks": report, "unanswerable": unanswerable(records)}, records


def paired_difference(a: Sequence[Record], b: Sequence[Record]) -> dict[str, Any]:
    """Accuracy of `b` minus accuracy of `a` on the same questions, with its 95 % interval.

    The interval is that of the mean of per-question differences (-1, 0, 1). Raises UserError when
    the two did not answer the same questions.
    """
    left, right = ({(r["id"], r["prompt"]): bool(r["correct"]) for r in rs} for rs in (a, b))
    if left.keys() != right.keys():
        odd = next(iter(left.keys() ^ right.keys()))[0]
        raise UserError(f"the two runs answered different questions: {odd} is in one of them only")
    if not left:
        raise UserError("no records to compare: both runs are empty")
    n = len(left)
    lost = sum(left[key] and not right[key] for key in left)
    won = sum(right[key] and not left[key] for key in left)
    difference = (won - lost) / n
    half = Z95 * math.sqrt(((won + lost) / n - difference**2) / n)
    return {
        "n": n,
        "accuracy": [sum(left.values()) / n, sum(right.values()) / n],
        "difference": difference,
        "ci95": [difference - half, difference + half],
        "lost": lost,
        "won": won,
    }


def save_records(path: Path, records: Iterable[Record]) -> None:
    """One JSON object per line: id, task, kind, prompt, answer, expected, correct."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    try:
        write_text(path, "".join(lines))
    except OSError as error:
        raise UserError(f"cannot write records to {path}: {error.strerror}") from error


def load_records(path: Path) -> list[Record]:
    """Inverse of `save_records`. Raises UserError naming the line that is damaged."""
    try:
        # Not splitlines: an answer may hold a line separator of Unicode, as itself.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read records from {path}: {error}") from error
    records = []
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        try:
            record = json.loads(line)
            records.append({key: record[key] for key in ("id", "prompt", "correct")} | record)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}:{number}: not a record of `eval --records`") from error
    return records


def _ask(answerer: Answerer, items: Sequence[Item], on_answer: Callable[[], None]) -> list[Record]:
    records = []
    for item, answer in zip(items, answerer.answer(items), strict=True):
        records.append(
            {
                "id": item.id,
                "task": item.task,
                "kind": item.kind,
                "prompt": item.prompt,
                "answer": answer,
                "expected": item.expected,
                "correct": normalise(answer) == normalise(item.expected),
            }
        )
        on_answer()
    return records


def _score(records: Sequence[Record]) -> dict[str, Any]:
    correct = sum(r["correct"] for r in records)
    n = len(records)
    return {"accuracy": ratio(correct, n), "n": n, "ci95": wilson(correct, n)}


def _by_kind(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record["kind"]].append(record)
    return {
        kind: {"accuracy": ratio(sum(r["correct"] for r in group), len(group)), "n": len(group)}
        for kind, group in sorted(groups.items())
    }


def _derangement(n: int, seed: int) -> list[int]:
    """Sattolo's shuffle: one cycle through all positions, so that none keeps its own."""
    order, draw = list(range(n)), random.Random(seed)
    for i in range(n - 1, 0, -1):
        j = draw.randrange(i)
        order[i], order[j] = order[j], order[i]
    return order


def _text(message: Message) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def _with_images(item: Item, images: Sequence[Any]) -> Item:
    queue = iter(images)
    messages = [
        {
            **message,
            "content": [
                {**part, "image": next(queue)} if part["type"] == "image" else part
                for part in message["content"]
            ],
        }
        for message in item.messages
    ]
    return replace(item, messages=messages)
