"""The forms in which a stage can read one set of rows.

    chat       as stored: pictures, questions, answers
    caption    picture -> description
    text       the description instead of the picture, then the same questions and answers
    pair       two pictures of one task, questions about either and about both
    pair text  the descriptions instead of the two pictures

All but the first need rows with one picture and its `attributes`, and `Words`, which turn such rows
into text. Rows are made when they are read; nothing is copied.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args
from zlib import crc32

from autoneural.data.cockpit.rows import DESCRIBE
from autoneural.data.dataset import Row, Source
from autoneural.data.messages import image_parts, normalise_messages
from autoneural.errors import UserError

Form = Literal["chat", "caption", "text", "pair", "pair text"]
FORMS: tuple[Form, ...] = get_args(Form)
PAIRED: tuple[Form, ...] = ("pair", "pair text")


class Words(NamedTuple):
    """What the data knows how to say: a picture's description, a conversation about two rows."""

    describe: Callable[[Row], str]
    about_two: Callable[[Row, Row], Row]


class DerivedRows(Sequence[Row]):
    """The rows of `source` numbered `indices`, in another form."""

    def __init__(
        self, rows: Sequence[Row], indices: Sequence[int], form: Form, words: Words
    ) -> None:
        self._rows, self._indices, self._form, self._words = rows, indices, form, words
        self._partners = _partners(rows, indices) if form in PAIRED else []

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        row = self._rows[self._indices[index]]
        if self._form == "chat":
            return row
        if self._form == "caption":
            described = caption_messages(row, self._words.describe(row))
            return {**row, "messages": described, "kinds": ["caption"]}
        shown = [row]
        if self._form in PAIRED:
            shown.append(self._rows[self._partners[index]])
            row = self._words.about_two(*shown)
        if self._form == "pair":
            return row
        texts = [self._words.describe(one) for one in shown]
        return {**row, "messages": text_messages(row, texts), "attributes": None}


def derive_source(source: Source, form: Form, words: Words, tasks: Sequence[str] = ()) -> Source:
    """`source` in another form, only the rows of `tasks` (all when empty).

    Rows without attributes or a task, or with several pictures, are left out of all forms but
    `chat`; both forms of pairs leave out the only row of a task.
    Raises UserError when nothing is left.
    """
    if form not in FORMS:
        raise UserError(f"source {source.name}: form {form!r} is not one of {', '.join(FORMS)}")
    indices = list(range(len(source.rows)))
    if form != "chat" or tasks:
        indices = [index for index in indices if _fits(source.rows[index], form, tasks)]
    if form in PAIRED:
        sizes = Counter(source.rows[index]["task"] for index in indices)
        indices = [index for index in indices if sizes[source.rows[index]["task"]] > 1]
    if not indices:
        wanted = f" of {', '.join(tasks)}" if tasks else ""
        raise UserError(f"source {source.name}: no rows{wanted} in the form {form}")
    return Source(source.name, DerivedRows(source.rows, indices, form, words), source.root)


def caption_messages(row: Row, text: str) -> list[dict[str, Any]]:
    """Ask for a description of the row's picture and give it."""
    image = next(image_parts(normalise_messages(row["messages"])))
    prompt = random.Random(crc32(str(row.get("id")).encode())).choice(DESCRIBE)
    return [
        {"role": "user", "content": [image, {"type": "text", "text": prompt}]},
        {"role": "assistant", "content": [{"type": "text", "text": text}]},
    ]


def text_messages(row: Row, texts: Sequence[str]) -> list[dict[str, Any]]:
    """The conversation with a description in the place of each picture."""
    described = iter([{"type": "text", "text": f"{text}\n"} for text in texts])
    return [
        {
            **message,
            "content": [
                next(described) if part["type"] == "image" else part for part in message["content"]
            ],
        }
        for message in normalise_messages(row["messages"])
    ]


def _partners(rows: Sequence[Row], indices: Sequence[int]) -> list[int]:
    """For each row the number of another one of its task, drawn once and for all."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        groups[rows[index]["task"]].append(index)
    follower = {}
    for task, group in groups.items():
        random.Random(task).shuffle(group)
        follower.update(zip(group, group[1:] + group[:1], strict=True))
    return [follower[index] for index in indices]


def _fits(row: Mapping[str, Any], form: Form, tasks: Sequence[str]) -> bool:
    if tasks and row.get("task") not in tasks:
        return False
    if form == "chat":
        return True
    if not (row.get("attributes") and row.get("task")):
        return False
    return sum(1 for _ in image_parts(normalise_messages(row["messages"]))) == 1
