"""The shape of a conversation: one place that checks it, for datasets, runtime and server alike.

    {"role": "system" | "user" | "assistant" | "tool", "content": "text" | [part, ...]}
    part: {"type": "text", "text": "..."} | {"type": "image", "image": path | bytes | PIL}

`content` as a plain string is the short form of one text part. An assistant turn may have
`tool_calls` in OpenAI's shape, and then no content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from autoneural.data.tool_calls import normalise_tool_calls
from autoneural.errors import UserError

ROLES = ("system", "user", "assistant", "tool")
Message = dict[str, Any]


def normalise_messages(messages: Any, where: str = "messages") -> list[Message]:
    """The conversation with every content as a list of parts.

    Raises UserError naming the first wrong key; `where` is the prefix of that name.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise UserError(f"{where}: expected a list of at least one message")
    return [_message(message, f"{where}[{i}]") for i, message in enumerate(messages)]


def image_parts(messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    """The image parts of normalised messages, in order."""
    for message in messages:
        yield from (part for part in message["content"] if part["type"] == "image")


def is_blank(message: Message) -> bool:
    """Whether a normalised message has no image and no text but white space."""
    return not any(part["type"] == "image" or part["text"].strip() for part in message["content"])


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise UserError(f"{where}: expected an object with role and content")
    role = message.get("role")
    if role not in ROLES:
        raise UserError(f"{where}.role: {role!r} is not one of {', '.join(ROLES)}")
    content = message.get("content")
    if message.get("tool_calls"):
        calls = {"tool_calls": normalise_tool_calls(message["tool_calls"], f"{where}.tool_calls")}
        if role != "assistant":
            raise UserError(f"{where}.tool_calls: only an assistant turn can hold calls")
        return {**_message({"role": role, "content": content or ""}, where), **calls}
    if isinstance(content, str):
        return {"role": role, "content": [{"type": "text", "text": content}]}
    if not isinstance(content, list | tuple) or not content:
        raise UserError(f"{where}.content: expected a string or a list of parts")
    parts = [_part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
    if role == "assistant" and any(part["type"] == "image" for part in parts):
        raise UserError(f"{where}.content: an assistant turn cannot hold an image")
    return {"role": role, "content": parts}


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise UserError(f"{where}.text: expected a string")
        return {"type": "text", "text": part["text"]}
    if kind == "image":
        return {"type": "image", "image": part.get("image")}
    raise UserError(f"{where}.type: {kind!r} is not text or image")
