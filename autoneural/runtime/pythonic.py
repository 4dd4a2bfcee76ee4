"""A reader for lists of Python-like calls: `[f(a="b", n=[1, 2.5]), g()]`.

Not Python's own parser: that one refuses names such as get-weather and line ends inside strings,
which models write, and its C stack is no match for text from outside. Nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from autoneural.data.tool_calls import MAX_DEPTH

_CONSTANTS = {
    "None": None,
    "True": True,
    "False": False,
    "null": None,
    "true": True,
    "false": False,
}
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
_QUOTED = ("'''", '"""', "'", '"')
# The body of a string ends at its first quote that no backslash precedes.
_STRING = "|".join(rf"{quote}(?:[^\\]|\\.)*?{quote}" for quote in _QUOTED)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_TOKEN = re.compile(
    rf"\s*(?:(?P<string>{_STRING})"
    r"|(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<name>[^\W\d][\w.-]*)"
    r"|(?P<mark>[\[\](){},:=]))",
    re.DOTALL,
)


class Malformed(Exception):
    """Text that is no list of calls."""


def read_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, arguments) per call; one call may stand without brackets. Raises Malformed."""
    reader = _Reader(text)
    calls = reader.items("[", "]", reader.call) if reader.at("[") else [reader.call()]
    if not reader.at(""):
        raise Malformed("text after the calls")
    return calls


class _Reader:
    """Recursive descent over the tokens of a text; (kind, text) of the next one is `_next`."""

    def __init__(self, text: str) -> None:
        self._text = text.rstrip()
        self._place = 0
        self._depth = 0
        self._advance()

    def at(self, mark: str) -> bool:
        """Whether `mark` comes next; "" is the end of the text."""
        return self._next == ("mark" if mark else "end", mark)

    def call(self) -> tuple[str, dict[str, Any]]:
        name = self._take("name")
        arguments: dict[str, Any] = {}
        for key, value in self.items("(", ")", lambda: self._pair("name", "=")):
            if key in arguments:
                raise Malformed(f"{key} is given twice")
            arguments[key] = value
        return name, arguments

    def items(self, start: str, end: str, item: Callable[[], Any]) -> list[Any]:
        """What stands between two marks, separated by commas; one may trail."""
        self._expect(start)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Malformed("nested too deeply")
        found = []
        while not self.at(end):
            found.append(item())
            if not self.at(end):
                self._expect(",")
        self._expect(end)
        self._depth -= 1
        return found

    def _value(self) -> Any:
        if self.at("["):
            return self.items("[", "]", self._value)
        if self.at("("):
            return self.items("(", ")", self._value)
        if self.at("{"):
            return dict(self.items("{", "}", lambda: self._pair("string", ":")))
        kind, text = self._next
        self._advance()
        if kind == "string":
            return _string(text)
        if kind == "number":
            return _number(text)
        if kind == "name" and text in _CONSTANTS:
            return _CONSTANTS[text]
        raise Malformed(f"{text!r} is no value")

    def _pair(self, kind: str, between: str) -> tuple[str, Any]:
        key = self._take(kind)
        self._expect(between)
        return (_string(key) if kind == "string" else key), self._value()

    def _take(self, kind: str) -> str:
        found, text = self._next
        if found != kind:
            raise Malformed(f"{text!r} is no {kind}")
        self._advance()
        return text

    def _expect(self, mark: str) -> None:
        if not self.at(mark):
            raise Malformed(f"{self._next[1]!r} where {mark} should be")
        self._advance()

    def _advance(self) -> None:
        if self._place == len(self._text):
            self._next = ("end", "")
            return
        match = _TOKEN.match(self._text, self._place)
        if match is None or match.lastgroup is None:
            raise Malformed(f"{self._text[self._place : self._place + 20]!r} cannot be read")
        self._next = (match.lastgroup, match[match.lastgroup])
        self._place = match.end()


def _string(text: str) -> str:
    quote = next(quote for quote in _QUOTED if text.startswith(quote))
    value = _ESCAPE.sub(_unescape, text[len(quote) : -len(quote)])
    # Halves of a letter, as JSON escapes them, become whole; half a letter alone becomes U+FFFD.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 1:
        # Unknown ones stay, as in Python: models write "\d" in patterns.
        return _LETTERS.get(code, code if code in "\\'\"/" else match[0])
    number = int(code[1:], 16)
    return chr(number) if number < 0x110000 else "\ufffd"


def _number(text: str) -> int | float:
    try:
        value = int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError as error:
        raise Malformed("a number that cannot be read") from error
    if value in (float("inf"), float("-inf")):
        raise Malformed("a number that is too large")
    return value
