"""Conversations on disk: one JSON file of messages and their pictures, whole or not at all.

    {"format": "autoneural-conversation", "version": 1, "messages": [{"role", "content"}, ...]}

Messages are those of `data.messages`; a picture is a PNG as a data URL. Data, not code: nothing in
such a file names another one, or is believed before it is checked.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from autoneural.data.messages import Message, image_parts, normalise_messages
from autoneural.data.processor import Processor
from autoneural.errors import UserError
from autoneural.files import write_text

FORMAT, VERSION = "autoneural-conversation", 1
MAX_BYTES = 256 * 2**20
_PNG = "data:image/png;base64,"


def save_conversation(path: Path, messages: Sequence[Message]) -> None:
    """Write messages whose pictures are PIL images, flushed to the disk.

    Whatever happens meanwhile, `path` is what it was or all of the new. UserError where it cannot.
    """
    turns = [_turn(message) for message in normalise_messages(list(messages))] if messages else []
    text = json.dumps({"format": FORMAT, "version": VERSION, "messages": turns}, ensure_ascii=True)
    try:
        write_text(path, text + "\n")
    except OSError as error:
        raise UserError(f"{path}: the conversation cannot be saved ({error.strerror})") from error


def load_conversation(path: Path, processor: Processor) -> list[Message]:
    """The messages of a file, their pictures as the model sees them.

    Raises UserError, one line, where it is missing, too large, damaged or of another kind.
    """
    messages = _messages(path)
    for number, part in enumerate(image_parts(messages)):
        url = part["image"]
        if not isinstance(url, str) or not url.startswith(_PNG):
            raise UserError(f"{path}: picture {number} is not a PNG as a data URL")
        try:
            data = base64.b64decode(url[len(_PNG) :], validate=True)
            part["image"] = processor.load(data)
        except (binascii.Error, UserError) as error:
            raise UserError(f"{path}: picture {number} is damaged ({error})") from error
    return messages


def _messages(path: Path) -> list[Message]:
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: over {MAX_BYTES >> 20} MiB, not a conversation of ours")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as a conversation ({error})") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{path}: not a conversation of ours")
    if found.get("version") != VERSION:
        raise UserError(f"{path}: version {found.get('version')!r} is not {VERSION}, the known one")
    if found.get("messages") == []:
        return []
    return normalise_messages(found.get("messages"), f"{path}: messages")


def _turn(message: Message) -> Message:
    return {**message, "content": [_part(part) for part in message["content"]]}


def _part(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "image", "image": _url(part["image"])} if part["type"] == "image" else part


def _url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return _PNG + base64.b64encode(file.getvalue()).decode("ascii")
