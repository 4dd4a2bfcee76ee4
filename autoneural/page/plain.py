"""Text from outside as it may be shown."""

from __future__ import annotations

from markupsafe import Markup


def plain(text: str) -> str:
    """One line that shows what it holds: names come from outside, control characters with them."""
    return "".join(_visible(letter) for letter in text)


def visible(value: object) -> object:
    """`plain` of a text; markup of ours and everything else as it is."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _visible(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}"
