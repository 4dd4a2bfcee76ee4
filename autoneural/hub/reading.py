"""What an importer is given and gives back: a config.json's values, typed; a configuration of ours.

Torch-free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.parts import PartConfig

_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A foreign model in our words.

    `rename` takes the name of one of its tensors to the name in our VLM; `has_tokenizer` says
    whether its folder brings a tokenizer, which then must be one. `convert` gets all tensors,
    renamed, and returns those that our VLM has.
    """

    config: ModelConfig | PartConfig
    rename: Callable[[str], str]
    has_tokenizer: bool
    convert: Callable[[dict[str, Any]], dict[str, Any]] = lambda tensors: tensors


class Fields:
    """Values of one config.json. Every wrong one is a UserError that names file and key.

    null counts as absent, as it does for transformers.
    """

    def __init__(self, data: dict[str, Any], where: Path) -> None:
        self._data = data
        self._where = where

    def has(self, key: str) -> bool:
        return self._data.get(key) is not None

    def keys(self) -> set[str]:
        return set(self._data)

    def integer(self, key: str, default: int | None = None, *, most: int = 2**20) -> int:
        """A whole number from 1 to `most`."""
        value = self._get(key, default)
        if type(value) is not int or not 1 <= value <= most:
            self.refuse(f"{key}: {value!r} is not a whole number from 1 to {most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive, finite number."""
        value = self._get(key, default)
        if type(value) not in (int, float) or not isfinite(value) or value <= 0:
            self.refuse(f"{key}: {value!r} is not a positive number")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            self.refuse(f"{key}: {value!r} is not true or false")
        return value

    def items(self, key: str, kind: type, *, most: int = 512) -> tuple[Any, ...]:
        """A list of at most `most` values of `kind`."""
        value = self._get(key, None)
        if not isinstance(value, list) or len(value) > most:
            self.refuse(f"{key}: not a list of at most {most}")
        if any(type(item) is not kind for item in value):
            self.refuse(f"{key}: holds something else than {kind.__name__}")
        return tuple(value)

    def inside(self, key: str) -> Fields:
        """The object under `key`; an empty one where there is none."""
        value = self._data.get(key) or {}
        if not isinstance(value, dict):
            self.refuse(f"{key}: not an object")
        return Fields(value, self._where)

    def only(self, key: str, value: Any, default: Any = _MISSING) -> None:
        """UserError where `key` is there and is not `value`: we compute nothing else."""
        found = self._data.get(key)
        found = (value if default is _MISSING else default) if found is None else found
        if found != value:
            self.refuse(f"{key}: {found!r} is not supported, only {value!r}")

    def refuse(self, message: str) -> NoReturn:
        raise UserError(f"{self._where}: {message}")

    def _get(self, key: str, default: Any) -> Any:
        value = self._data.get(key)
        value = default if value is None else value
        if value is None:
            self.refuse(f"{key}: missing")
        return value
