"""`autoneural infer --prompts FILE.jsonl`: every row answered by itself, one JSON line each.

    {"prompt": "what is it?", "images": ["a.png"]}      images may be missing
    {"messages": [{"role": "user", "content": ...}]}    a conversation that ends in a question

Relative image paths start at the folder of the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from autoneural.chat import Settings, opening, user_message
from autoneural.data.messages import Message, image_parts, normalise_messages
from autoneural.errors import UserError
from autoneural.files import expand
from autoneural.runtime import Engine


@dataclass(frozen=True)
class PromptRow:
    """A conversation, and the file and line that it came from."""

    where: str
    messages: list[Message]


def load_prompts(path: Path) -> list[PromptRow]:
    """All rows of a file, images unread; blank lines count but say nothing.

    Raises UserError naming file and line for the first row that is not one of the above.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from error
    rows = [
        _row(line, path.parent, f"{path}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not rows:
        raise UserError(f"{path}: no prompts in it")
    return rows


def run_prompts(
    engine: Engine,
    rows: Sequence[PromptRow],
    settings: Settings | None = None,
    out: TextIO | None = None,
) -> None:
    """Answer each row from a fresh state, so none depends on another; JSON lines on `out`.

    Raises UserError, with file and line before it, as `Engine.generate` does.
    """
    settings, out = settings or Settings(), out or sys.stdout
    for row in rows:
        engine.reset()
        has_system = row.messages[0]["role"] == "system"
        messages = row.messages if has_system else [*opening(settings), *row.messages]
        try:
            generation = settings.generate(engine, messages)
            for _ in generation:
                pass
        except UserError as error:
            raise UserError(f"{row.where}: {error}") from error
        line = json.dumps(generation.result.to_dict(), ensure_ascii=False)
        print(line, file=out, flush=True)


def _row(line: str, folder: Path, where: str) -> PromptRow:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict) or ("prompt" in row) == ("messages" in row):
        raise UserError(f"{where}: expected an object with either prompt or messages")
    if "prompt" in row:
        return PromptRow(where, [_question(row, folder, where)])
    messages = normalise_messages(row["messages"], f"{where}: messages")
    if messages[-1]["role"] == "assistant":
        raise UserError(f"{where}: the last message is an answer; leave it out to have one")
    for part in image_parts(messages):
        part["image"] = _image(part["image"], folder, where)
    return PromptRow(where, messages)


def _question(row: dict[str, Any], folder: Path, where: str) -> Message:
    prompt, images = row["prompt"], row.get("images", [])
    if not isinstance(prompt, str):
        raise UserError(f"{where}: prompt is not a text")
    if not isinstance(images, list):
        raise UserError(f"{where}: images is not a list of paths")
    return user_message(prompt, [_image(image, folder, where) for image in images])


def _image(image: Any, folder: Path, where: str) -> Path:
    if not isinstance(image, str) or not image:
        raise UserError(f"{where}: {image!r} is not the path of an image")
    return folder / expand(image)
