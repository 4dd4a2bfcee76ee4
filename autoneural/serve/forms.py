"""The form of an answer: `response_format` and `tools` as constraints, and calls read out of it.

Compiling may take seconds, so it has a thread of its own (`app.Server`): neither the event loop nor
the threads that decode pictures wait for a stranger's schema. What was compiled is kept.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError
from autoneural.runtime.constraint import Constraint
from autoneural.runtime.schema import check_schema
from autoneural.runtime.tools import (
    MAX_CALLS,
    ToolCall,
    ToolSplitter,
    call_constraint,
    call_marks,
    check_tools,
)
from autoneural.serve.errors import invalid, of_user_error
from autoneural.serve.schemas import ChatRequest, Generate, ResponseFormat, ToolChoice

KEPT = 32
"""Constraints per bundle, of each kind."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What an answer must look like, and how it is read: with `tools`, its calls are taken out."""

    constraint: Constraint | None = None
    tools: Sequence[dict[str, Any]] = ()
    shown: frozenset[int] = frozenset()
    """Special tokens that the text keeps: the marks around calls."""
    most_calls: int = MAX_CALLS

    def reader(self) -> Reader:
        """For one answer."""
        return Reader(ToolSplitter() if self.tools else None, self.most_calls)


PLAIN = Form()


class Reader:
    """Text of an answer, as it comes -> text to show, and calls that became whole."""

    def __init__(self, splitter: ToolSplitter | None, most: int) -> None:
        self._splitter = splitter
        self._left = most

    def push(self, text: str) -> tuple[str, Sequence[ToolCall]]:
        """What a piece of the text gives."""
        return self._first(self._splitter.push(text)) if self._splitter else (text, ())

    def flush(self) -> tuple[str, Sequence[ToolCall]]:
        """What the end of the text gives."""
        return self._first(self._splitter.flush()) if self._splitter else ("", ())

    def _first(self, found: tuple[str, list[ToolCall]]) -> tuple[str, Sequence[ToolCall]]:
        text, calls = found
        calls = calls[: self._left]
        self._left -= len(calls)
        return text, calls


class Forms:
    """The forms that are asked of one bundle. For one thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._json = functools.lru_cache(maxsize=KEPT)(self._compile_json)
        self._calls = functools.lru_cache(maxsize=KEPT)(self._compile_calls)

    def plain(self, request: Generate) -> Form:
        """The form of a completion. Raises ApiError (400) naming the field."""
        schema = _schema(request.response_format)
        return PLAIN if schema is None else Form(constraint=self._follow(schema))

    def chat(self, request: ChatRequest) -> Form:
        """The form of an answer to a conversation. Raises ApiError (400) naming the field."""
        try:
            tools = check_tools(request.tools or [])
        except UserError as error:
            raise of_user_error(error, "tools") from error
        choice = request.tool_choice or ToolChoice(type="auto")
        name = _name(choice, tools)
        if not tools or choice.type == "none":
            return self.plain(request)
        schema = _schema(request.response_format)
        constraint, parallel = None, request.parallel_tool_calls
        if choice.type != "auto":
            # Told nothing, one call: a small model that may go on does so until it is cut off.
            constraint = self._call(tools, name, MAX_CALLS if parallel else 1, None)
        elif schema is not None:
            self._follow(schema)  # for the place of a fault
            constraint = self._call(tools, None, 1 if parallel is False else MAX_CALLS, schema)
        return Form(
            constraint=constraint,
            tools=tools,
            shown=call_marks(self._tokenizer),
            most_calls=1 if parallel is False else MAX_CALLS,
        )

    def _follow(self, schema: Any) -> Constraint:
        try:
            check_schema(schema, "response_format")  # what it refuses may be too deep for `dumps`
            return self._json(json.dumps(schema))
        except UserError as error:
            raise of_user_error(error, "response_format") from error

    def _call(self, tools: Any, name: str | None, most: int, answer: Any) -> Constraint:
        try:
            return self._calls(json.dumps(tools), name, most, json.dumps(answer))
        except UserError as error:
            raise of_user_error(error, "tools") from error

    # The caches' keys are JSON texts, whose keys keep their order: answers follow it.

    def _compile_json(self, schema: str) -> Constraint:
        return Constraint.json_schema(json.loads(schema), self._tokenizer, "response_format")

    def _compile_calls(self, tools: str, name: str | None, most: int, answer: str) -> Constraint:
        return call_constraint(json.loads(tools), self._tokenizer, name, most, json.loads(answer))


def asks_for_form(request: Generate) -> bool:
    """Whether there is anything to do for `Forms`."""
    tooled = isinstance(request, ChatRequest) and (request.tools or request.tool_choice)
    return bool(tooled or request.response_format)


def _schema(form: ResponseFormat | None) -> Any:
    """The schema that a response must follow; None for any text."""
    if form is None or form.type == "text":
        return None
    schema = form.schema_ if form.json_schema is None else form.json_schema.schema_
    if form.type == "json_object":
        return {"type": "object"} if schema is None else schema
    if schema is None:
        raise invalid("response_format.json_schema.schema", "missing; expected a JSON schema")
    return schema


def _name(choice: ToolChoice, tools: Sequence[dict[str, Any]]) -> str | None:
    """The tool that must be called, where `choice` names one."""
    if choice.type in ("none", "auto"):
        return None
    if not tools:
        raise invalid("tool_choice", f"{choice.type} goes with tools")
    if choice.type == "required":
        return None
    if choice.function is None:
        raise invalid("tool_choice.function", "missing; expected an object with a name")
    name = choice.function.name
    if not any(tool["name"] == name for tool in tools):
        raise invalid("tool_choice.function.name", f"there is no tool {name!r}")
    return name
