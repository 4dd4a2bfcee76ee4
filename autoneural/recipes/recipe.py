"""A recipe: what a training run makes, as data, and how one setting of it is changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from autoneural.errors import UserError
from autoneural.train.curriculum import Stage
from autoneural.train.sources import Form

_D = TypeVar("_D")
_OPEN = ("lr", "mixture", "hotspots")  # settings that are dicts: new keys may come in


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Rows of `file` (under the data folder) in one form, of some tasks (none named: all)."""

    file: str = "train.jsonl"
    form: Form = "chat"
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training run makes: a preset's model, taken through stages over named sources."""

    name: str
    preset: str
    data: dict[str, DataSource]
    stages: tuple[Stage, ...]
    seed: int = 0
    fresh: tuple[str, ...] = ()
    """Parts that begin at random, as the preset has them, whatever the run starts from."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what recipe.json holds."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Inverse of `to_dict`. UserError naming an unknown key."""
        sources = {
            name: _build(DataSource, f"data.{name}", {**entry, "tasks": tuple(entry["tasks"])})
            for name, entry in data["data"].items()
        }
        stages = tuple(
            _build(Stage, f"stages.{entry['name']}", {**entry, "train": tuple(entry["train"])})
            for entry in data["stages"]
        )
        fresh = tuple(data.get("fresh", ()))
        return _build(cls, "recipe", {**data, "data": sources, "stages": stages, "fresh": fresh})


def with_overrides(base: Recipe, overrides: Sequence[str]) -> Recipe:
    """`base` with `path=value` settings, in order.

    `stages.vision.steps=10`, `stages.domain.lr.projector=1e-4`, `data.chat.tasks=["hmi"]`,
    `seed=1`, `fresh=["projector"]`; `stages=vision,language` keeps only these stages. Raises
    UserError for a path that does not exist or a value of another type.
    """
    data = base.to_dict()
    for override in overrides:
        path, found, text = override.partition("=")
        if not found:
            raise UserError(f"--set {override}: expected path=value")
        if path == "stages":
            data["stages"] = [_named(data["stages"], n.strip(), override) for n in text.split(",")]
        else:
            _set(data, path.split("."), text, override)
    return Recipe.from_dict(data)


def _build(kind: type[_D], where: str, entries: Mapping[str, Any]) -> _D:
    known = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    for key in entries:
        if key not in known:
            raise UserError(f"{where}.{key}: no such setting; one of {', '.join(known)}")
    return kind(**entries)


def _named(entries: list[dict[str, Any]], name: str, override: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            return entry
    known = ", ".join(entry["name"] for entry in entries)
    raise UserError(f"--set {override}: no stage {name!r}; one of {known}")


def _set(data: dict[str, Any], path: list[str], text: str, override: str) -> None:
    target: Any = data
    for place, key in enumerate(path[:-1]):
        if isinstance(target, list):
            target = _named(target, key, override)
        elif key in target and isinstance(target[key], dict | list):
            # `lr` keys may hold dots themselves: what follows is one key.
            target = target[key]
            if path[place] in _OPEN:
                path = [*path[: place + 1], ".".join(path[place + 1 :])]
                break
        else:
            raise UserError(f"--set {override}: no setting {key!r}")
    key = path[-1]
    opens = path[-2:-1] in [[name] for name in _OPEN]
    if isinstance(target, list) or (key not in target and not opens):
        raise UserError(f"--set {override}: no setting {key!r}")
    target[key] = _parse(text, target.get(key, 0.0), override)


def _parse(text: str, old: Any, override: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(old):
        raise UserError(f"--set {override}: expected {type(old).__name__}, like {old!r}")
    return value
