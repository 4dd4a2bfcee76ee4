"""JSON schemas from outside: read from a file, and kept within what is cheap to compile."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoneural.errors import UserError

MAX_BYTES = 32 * 1024
MAX_DEPTH = 32
# Letters that a pattern may stand for once its {m,n} are written out: the compiler writes out
# repetitions of fixed letters, and (a{1000}){1000} keeps it busy for seconds per token.
MAX_PATTERN = 10_000
_ATOM = re.compile(r"(\\.|\[(?:\\.|[^\]\\])*\]|[()]|.)(?:\{(\d{1,9})(?:,(\d{0,9}))?\})?", re.DOTALL)


def read_schema(path: Path) -> dict[str, Any]:
    """The schema in a JSON file. UserError when it is absent, too large or no JSON object."""
    try:
        if not path.is_file():
            raise UserError(f"{path}: no such file; it should hold a JSON schema")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES} bytes, the most that a schema may have")
    try:
        schema = json.loads(data)
    except RecursionError as error:
        raise UserError(f"{path}: {_too_deep()}") from error
    # Wrong JSON and wrong UTF-8 are both ValueErrors.
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    check_schema(schema, str(path))
    return schema


def check_schema(schema: Any, where: str) -> None:
    """Whether `schema` is small enough to be compiled; UserError naming `where` when it is not."""
    if not isinstance(schema, dict):
        raise UserError(f'{where}: a schema is a JSON object, as {{"type": "object", ...}}')
    for pointer, part in walk(schema, where):
        patterns = [part["pattern"]] if isinstance(part.get("pattern"), str) else []
        keyed = part.get("patternProperties")
        for pattern in [*patterns, *(keyed if isinstance(keyed, dict) else ())]:
            check_pattern(pattern, f"{where}: {pointer}" if pointer else where)
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: not JSON ({error})") from error
    if size > MAX_BYTES:
        raise UserError(f"{where}: {size} bytes; a schema may have {MAX_BYTES}")


def check_pattern(pattern: str, where: str) -> None:
    """UserError for a regular expression that grows too much when its {m,n} are written out."""
    if len(pattern) > MAX_PATTERN or _written_out(pattern) > MAX_PATTERN:
        raise UserError(
            f"{where}: a pattern for more than {MAX_PATTERN} characters, counting its repetitions"
        )


def walk(schema: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(JSON pointer, object) for the schema and every object within it, the outer ones first.

    Raises UserError beyond MAX_DEPTH objects and lists inside each other.
    """
    left: list[tuple[str, Any, int]] = [("", schema, 1)]
    for pointer, value, depth in left:
        if depth > MAX_DEPTH:
            raise UserError(f"{where}: {_too_deep()}")
        # A value has at least one byte. Without this, lists that share items never end here.
        if len(left) > MAX_BYTES:
            raise UserError(f"{where}: more than {MAX_BYTES} bytes; a schema may have no more")
        if isinstance(value, dict):
            yield pointer, value
        for key, item in _items(value):
            if isinstance(item, dict | list | tuple):
                name = str(key).replace("~", "~0").replace("/", "~1")
                left.append((f"{pointer}/{name}", item, depth + 1))


def _items(value: Any) -> Any:
    return value.items() if isinstance(value, dict) else enumerate(value)


def _too_deep() -> str:
    return f"nested deeper than {MAX_DEPTH}; a flatter schema, or $ref to $defs, will do"


def _written_out(pattern: str) -> int:
    """How many letters a pattern has once {m,n} are written out, about."""
    sizes = [0]
    for atom, low, high in _ATOM.findall(pattern):
        if atom == "(":
            sizes.append(0)
            continue
        inner = sizes.pop() if atom == ")" and len(sizes) > 1 else 1
        sizes[-1] += inner * int(high or low or 1)
    return sum(sizes)
