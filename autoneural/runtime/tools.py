"""Tools an answer may call: what the prompt says of them, and calls read out of the answer.

    tools -> check_tools -> Engine.generate(tools=...) -> text -> ToolSplitter -> text, ToolCalls

LFM2 writes `<|tool_call_start|>[wipe(speed=2)]<|tool_call_end|>`, or the same as JSON:
`[{"name": "wipe", "arguments": {"speed": 2}}]` (docs.liquid.ai, "Tool Use"). Both are read.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from autoneural.data.tokenizer import Tokenizer
from autoneural.data.tool_calls import CALL_END, CALL_START, fits
from autoneural.errors import UserError
from autoneural.runtime.constraint import JSON_OPTIONS, Constraint
from autoneural.runtime.pythonic import Malformed, read_calls
from autoneural.runtime.schema import MAX_BYTES, check_schema
from autoneural.runtime.stream import undecided

MAX_TOOLS = 128
MAX_CALLS = 32
MAX_CALL_CHARS = 16 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A call that an answer asks for; nothing here runs it."""

    name: str
    arguments: dict[str, Any]
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's shape: the arguments as JSON text."""
        # In ASCII, which takes half a letter ("\\ud800") too.
        arguments = json.dumps(self.arguments)
        function = {"name": self.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


def check_tools(tools: Any, where: str = "tools") -> list[dict[str, Any]]:
    """{"name", "description", "parameters"} of each tool, as LFM2 reads them.

    Takes OpenAI's {"type": "function", "function": {...}} or what is inside. Raises UserError
    naming the first wrong key: at most 128 tools, no name twice, parameters a JSON schema.
    """
    if not isinstance(tools, list | tuple):
        raise UserError(f"{where}: expected a list")
    if len(tools) > MAX_TOOLS:
        raise UserError(f"{where}: {len(tools)} tools; at most {MAX_TOOLS}")
    checked = [_tool(tool, f"{where}[{i}]") for i, tool in enumerate(tools)]
    names = [tool["name"] for tool in checked]
    if (size := len(json.dumps(checked))) > MAX_BYTES:
        raise UserError(f"{where}: {size} bytes; all together may have {MAX_BYTES}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{where}: two of the name {twice}")
    return checked


def _tool(tool: Any, where: str) -> dict[str, Any]:
    if isinstance(tool, dict) and "function" in tool:
        tool, where = tool["function"], f"{where}.function"
    if not isinstance(tool, dict):
        raise UserError(f"{where}: expected an object with a name")
    name, description, parameters = (tool.get(k) for k in ("name", "description", "parameters"))
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"{where}.name: expected up to 64 letters, digits, _ - .")
    if description is not None and not isinstance(description, str):
        raise UserError(f"{where}.description: expected a string")
    if parameters is not None:
        check_schema(parameters, f"{where}.parameters")
        if parameters.get("type", "object") != "object":
            raise UserError(f"{where}.parameters.type: expected object, for named arguments")
    found = {"name": name, "description": description, "parameters": parameters}
    return {key: value for key, value in found.items() if value is not None}


def call_marks(tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens around calls, where the vocabulary has them."""
    pairs = [tokenizer.encode(mark) for mark in (CALL_START, CALL_END)]
    return frozenset(ids[0] for ids in pairs) & tokenizer.special_ids


def call_constraint(
    tools: Sequence[dict[str, Any]],
    tokenizer: Tokenizer,
    name: str | None = None,
    most: int = 1,
    answer: dict[str, Any] | None = None,
) -> Constraint:
    """An answer that is 1 to `most` calls of `tools` (checked ones) or of the one with `name`.

    In the JSON form, with arguments that the parameters allow and no others. JSON that
    the schema `answer` allows will do instead, if there is one. Raises UserError for parameters
    that cannot be compiled, and where the vocabulary has no tool tokens.
    """
    chosen = [tool for tool in tools if name is None or tool["name"] == name]
    if not chosen:
        raise UserError(f"tool_choice: there is no tool {name}" if name else "tools: none given")
    for tool in chosen:
        Constraint.json_schema(_arguments(tool), tokenizer, f"tools: {tool['name']}: parameters")
    start, end = tokenizer.special_id(CALL_START), tokenizer.special_id(CALL_END)
    more = f'(", " call){{0,{most - 1}}} ' if most > 1 else ""
    lines = [
        f"start: calls{' | answer' if answer is not None else ''}",
        f'calls: <[{start}]> "[" call {more}"]" <[{end}]>',
        f"call: {' | '.join(f'call{i}' for i in range(len(chosen)))}",
    ]
    if answer is not None:
        lines.append(f"answer: {_json_rule(answer)}")
    for i, tool in enumerate(chosen):
        opening = f'{{"name": {json.dumps(tool["name"])}, "arguments": '
        lines.append(f'call{i}: {json.dumps(opening)} arguments{i} "}}"')
        lines.append(f"arguments{i}: {_json_rule(_arguments(tool))}")
    return Constraint.lark("\n".join(lines), tokenizer, "tools")


def _json_rule(schema: dict[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': JSON_OPTIONS})}"


def _arguments(tool: dict[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments: an object, of the named properties alone unless told."""
    parameters = tool.get("parameters", {"properties": {}})
    closed = {"additionalProperties": False} if "properties" in parameters else {}
    return {"type": "object", **closed, **parameters}


class ToolSplitter:
    """Parts an answer into text and calls while it streams.

    Holds back what may begin a call, and a call until it is whole. What looks like a call but
    cannot be read, or is longer than MAX_CALL_CHARS, comes out as text: nothing is lost.
    """

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._calls = 0

    def push(self, text: str) -> tuple[str, list[ToolCall]]:
        """(text that may be shown now, calls that became whole)."""
        self._held += text
        shown: list[str] = []
        calls: list[ToolCall] = []
        while self._step(shown, calls):
            pass
        return "".join(shown), calls

    def flush(self) -> tuple[str, list[ToolCall]]:
        """The rest, once the answer is over; the end mark of the last call may be missing."""
        held, inside = self._held, self._inside
        self._held, self._inside = "", False
        if not inside:
            return held, []
        calls = self._read(held)
        return ("" if calls else CALL_START + held), calls

    def _step(self, shown: list[str], calls: list[ToolCall]) -> bool:
        """Work off what is held up to the next mark; False when more text is needed."""
        mark = CALL_END if self._inside else CALL_START
        before, found, rest = self._held.partition(mark)
        if self._inside and len(before) > MAX_CALL_CHARS:
            shown.append(CALL_START)
            self._inside = False
            return True
        if not found:
            if not self._inside:
                held = undecided(before, [CALL_START])
                shown.append(before[: len(before) - held])
                self._held = before[len(before) - held :]
            return False
        self._held = rest
        if not self._inside:
            shown.append(before)
        elif read := self._read(before):
            calls += read
        else:
            shown.append(CALL_START + before + CALL_END)
        self._inside = not self._inside
        return True

    def _read(self, block: str) -> list[ToolCall]:
        """The calls between two marks; none where it cannot be read or there are too many."""
        try:
            read = _read_json(block)
            calls = read_calls(block) if read is None else read
        except Malformed:
            return []
        named = all(_NAME.fullmatch(name) for name, _ in calls)
        if not named or self._calls + len(calls) > MAX_CALLS:
            return []
        self._calls += len(calls)
        return [ToolCall(name=name, arguments=arguments) for name, arguments in calls]


def _read_json(block: str) -> list[tuple[str, dict[str, Any]]] | None:
    """(name, arguments) per call of the JSON form; None for what is no JSON."""
    try:
        value = json.loads(block, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise Malformed("nested too deeply") from error
    except ValueError:
        return None
    return [_json_call(call) for call in (value if isinstance(value, list) else [value])]


def _json_call(call: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(call, dict):
        name, arguments = call.get("name"), call.get("arguments", {})
        if isinstance(name, str) and isinstance(arguments, dict) and fits(arguments):
            return name, arguments
    raise Malformed("expected name and arguments")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Malformed("a number that is too large")
    return value


def _refuse(text: str) -> float:
    raise Malformed(f"{text} is no number")
