"""Fields that would change the answer and that this server does not do: refused, never ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autoneural.serve.errors import ApiError, invalid
from autoneural.serve.schemas import ChatRequest, Generate

_Test = Callable[[Any], bool]


def _is_more_than_text(value: Any) -> bool:
    return value != ["text"]


# field -> whether a value asks for something; None and empty values never do.
_FIELDS: dict[str, _Test] = {
    "functions": bool,
    "function_call": lambda value: value not in ("none", "auto"),
    "modalities": _is_more_than_text,
    "audio": bool,
    "logit_bias": bool,
    "best_of": lambda value: value != 1,
    "echo": bool,
    "suffix": bool,
}


def refuse_unsupported(request: Generate) -> None:
    """Raise ApiError (400) for the first field that asks for what this server does not do."""
    for name, asks in _FIELDS.items():
        value = getattr(request, name, None)
        if value not in (None, [], {}, "") and asks(value):
            raise _refusal(name)
    if isinstance(request, ChatRequest):
        for number, message in enumerate(request.messages):
            if message.function_call:
                raise _refusal(f"messages[{number}].function_call")
        if request.top_logprobs and not request.logprobs:
            raise invalid("top_logprobs", "goes with logprobs: true")
    if request.stream_options and not request.stream:
        raise invalid("stream_options", "goes with stream: true")


def _refusal(param: str) -> ApiError:
    return invalid(param, "this server does not support it; leave it out", "unsupported_parameter")
