"""Errors in OpenAI's form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

from autoneural.errors import UserError

_INVALID = "invalid_request_error"
# One for all: `json.dumps` with arguments makes another for every chunk of a stream.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
# What begins an error of the runtime about one of these names a place in the request.
_PLACE = re.compile(r"((?:messages|tools|response_format)[\w\[\].]*): (.*)")


class ApiError(Exception):
    """What a client is told, with its HTTP status. Never holds a prompt or a picture."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = _INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self._error = {"message": message, "type": kind, "param": param, "code": code}

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"error": self._error}


class Json(JSONResponse):
    """JSON in ASCII: a lone surrogate in a client's text cannot break the answer."""

    def render(self, content: Any) -> bytes:
        return to_json(content)


def to_json(value: Any) -> bytes:
    """Compact JSON, ASCII only."""
    return _ENCODER.encode(value).encode("ascii")


def error_reply(error: ApiError) -> Json:
    """The response that tells a client about `error`."""
    return Json(error.to_dict(), error.status, error.headers)


def invalid(param: str | None, message: str, code: str | None = None) -> ApiError:
    """400: the value of `param` is wrong."""
    return ApiError(400, f"{param}: {message}" if param else message, param=param, code=code)


def of_user_error(error: UserError, param: str | None, code: str | None = None) -> ApiError:
    """400 for a UserError of the runtime; a place that it names itself is kept as `param`."""
    text = " ".join(str(error).split())
    place = _PLACE.match(text)
    return invalid(place[1], place[2], code) if place else invalid(param, text, code)


def unavailable(message: str, code: str) -> ApiError:
    """503, to be tried again soon."""
    headers = {"Retry-After": "1"}
    return ApiError(503, message, kind="unavailable_error", code=code, headers=headers)


def timed_out(seconds: float) -> ApiError:
    """504: the answer took longer than the server allows."""
    message = f"no complete answer within {seconds:g} s; ask for fewer tokens or try later"
    return ApiError(504, message, kind="timeout_error", code="timeout")


def internal() -> ApiError:
    """500, without details: they go to the log."""
    return ApiError(500, "the server made an error; its log has it", kind="server_error")


def path_of(location: Sequence[str | int]) -> str:
    """('messages', 0, 'content') -> messages[0].content"""
    text = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in location)
    return text.removeprefix(".")
