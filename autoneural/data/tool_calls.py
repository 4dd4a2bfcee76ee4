"""Tool calls of earlier turns, in OpenAI's shape, and how LFM2 writes them.

    {"function": {"name": "wipe", "arguments": "{\\"speed\\": 2}"}}  ->  wipe(speed=2)

Format: docs.liquid.ai, "Tool Use". Reading calls out of an answer is `runtime/tools.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from autoneural.errors import UserError

CALL_START, CALL_END = "<|tool_call_start|>", "<|tool_call_end|>"
MAX_DEPTH = 32
"""Objects and lists inside each other, in the arguments of a call."""


def normalise_tool_calls(calls: Any, where: str) -> list[dict[str, Any]]:
    """[{"function": {"name": str, "arguments": dict}}] of an assistant turn's `tool_calls`.

    Arguments may be an object or its JSON text. Raises UserError naming the first wrong key.
    """
    if not isinstance(calls, list | tuple):
        raise UserError(f"{where}: expected a list")
    return [_call(call, f"{where}[{i}].function") for i, call in enumerate(calls)]


def render_calls(calls: Sequence[dict[str, Any]]) -> str:
    """'[wipe(speed=2), stop()]' of normalised calls."""
    functions = [call["function"] for call in calls]
    return f"[{', '.join(_pythonic(f['name'], f['arguments']) for f in functions)}]"


def fits(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether a JSON value is nested no deeper than `depth`."""
    if not isinstance(value, dict | list):
        return True
    inside = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(fits(item, depth - 1) for item in inside)


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise UserError(f"{where}: expected an object with name and arguments")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}.name: expected a string")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}.arguments: not JSON") from error
    if not isinstance(arguments, dict):
        raise UserError(f"{where}.arguments: expected an object")
    if not fits(arguments):
        raise UserError(f"{where}.arguments: nested deeper than {MAX_DEPTH}")
    return {"function": {"name": name, "arguments": arguments}}


def _pythonic(name: str, arguments: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={_literal(value)}' for key, value in arguments.items())})"


def _literal(value: Any) -> str:
    """A Python literal with double quotes, as LFM2 writes them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
