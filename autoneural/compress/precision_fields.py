"""What the keys of a precision file may hold, checked one by one: an error names its key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from autoneural.compress.observer import ObserverName
from autoneural.errors import UserError

_WEIGHT_BITS = (4, 8, 16, None)
_ACTIVATION_BITS = (8, 16, None)
_Check = Callable[[Any, str], Any]


def parse_fields(data: Any, where: str) -> dict[str, Any]:
    """The fields of a `Precision`: lists become tuples, objects stay dicts.

    Raises UserError naming the first key that is unknown, missing, or not of its kind.
    """
    return _object(data, where, _FIELDS, required=("name", "weights"))


def _object(
    data: Any, where: str, checks: Mapping[str, _Check], required: tuple[str, ...] | None = None
) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: expected an object, not {data!r:.40}")
    for key in data:
        if key not in checks:
            raise UserError(f"{where}: {key}: no such key; one of {', '.join(checks)}")
    for key in checks if required is None else required:
        if key not in data:
            raise UserError(f"{where}: {key}: is missing")
    return {key: checks[key](value, f"{where}: {key}") for key, value in data.items()}


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{where}: expected a text, not {value!r:.40}")
    return value


def _one_of(choices: tuple[Any, ...]) -> _Check:
    def check(value: Any, where: str) -> Any:
        if isinstance(value, bool) or value not in choices:
            named = ", ".join("null" if choice is None else str(choice) for choice in choices)
            raise UserError(f"{where}: {value!r:.40} is not one of {named}")
        return value

    return check


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{where}: expected true or false, not {value!r:.40}")
    return value


def _maximum(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e38:
        raise UserError(f"{where}: expected a number above 0, not {value!r:.40}")
    return float(value)


def _list_of(check: _Check) -> _Check:
    def each(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: expected a list, not {value!r:.40}")
        return tuple(check(entry, f"{where}[{index}]") for index, entry in enumerate(value))

    return each


def _rule(bits: tuple[int | None, ...]) -> _Check:
    checks = {"pattern": _text, "bits": _one_of(bits)}
    return lambda value, where: _object(value, where, checks)


def _fixed(value: Any, where: str) -> dict[str, Any]:
    checks = {"pattern": _text, "maximum": _maximum, "signed": _flag}
    return _object(value, where, checks, required=("pattern", "maximum"))


def _mask(value: Any, where: str) -> dict[str, Any] | None:
    names: dict[str, _Check] = dict.fromkeys(("mask", "scores", "masked"), _text)
    return None if value is None else _object(value, where, names)


_FIELDS: dict[str, _Check] = {
    "name": _text,
    "weights": _list_of(_rule(_WEIGHT_BITS)),
    "activations": _list_of(_rule(_ACTIVATION_BITS)),
    "fixed": _list_of(_fixed),
    "symmetric": _list_of(_text),
    "ties": _list_of(_list_of(_text)),
    "entries": _list_of(_list_of(_text)),
    "mask": _mask,
    "observer": _one_of(get_args(ObserverName)),
}
