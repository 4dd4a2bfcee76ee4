"""Schemas from outside: what is read, and what is too much."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from autoneural.errors import UserError
from autoneural.runtime.schema import MAX_BYTES, MAX_DEPTH, check_schema, read_schema, walk


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth - 1):
        schema = {"items": schema}
    return schema


def test_a_schema_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"type": "string", "const": "é"}', encoding="utf-8")
    assert read_schema(path) == {"type": "string", "const": "é"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
        (b'["a"]', "a schema is a JSON object"),
        (b"true", "a schema is a JSON object"),
        (b"[" * 20_000, "nested deeper than 32"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested deeper than 32"),
        (b'"' + b"a" * MAX_BYTES + b'"', f"larger than {MAX_BYTES} bytes"),
        (b'{"minimum": NaN}', "not JSON"),
    ],
)
def test_what_is_no_schema_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_schema(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nope.json", tmp_path):
        with pytest.raises(UserError, match="no such file"):
            read_schema(path)


def test_depth_and_size_have_a_limit() -> None:
    check_schema(nested(MAX_DEPTH), "s")
    with pytest.raises(UserError, match=r"^s: nested deeper than 32"):
        check_schema(nested(MAX_DEPTH + 1), "s")
    empty = len(json.dumps({"description": ""}))
    check_schema({"description": "x" * (MAX_BYTES - empty)}, "s")
    with pytest.raises(UserError, match=r"^s: 32769 bytes"):
        check_schema({"description": "x" * (MAX_BYTES - empty + 1)}, "s")


def test_lists_that_share_their_items_end_soon() -> None:
    shared: Any = [1]
    for _ in range(30):
        shared = [shared, shared]
    start = time.monotonic()
    with pytest.raises(UserError, match=r"more than 32768 bytes|nested deeper"):
        check_schema({"enum": shared}, "s")
    assert time.monotonic() - start < 5
    round_about: dict[str, Any] = {}
    round_about["items"] = round_about
    with pytest.raises(UserError, match="nested deeper"):
        check_schema(round_about, "s")


@pytest.mark.parametrize(
    "pattern",
    [
        "^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$",
        "(([0-9]{1,3}[.]){3}[0-9]{1,3}|([0-9a-f]{1,4}:){7}[0-9a-f]{1,4})" * 5,
        r"a\{1000\}(b[)}{]{2}){1000}",
        ".{0,9000}",
    ],
)
def test_patterns_that_people_write_pass(pattern: str) -> None:
    check_schema({"pattern": pattern}, "s")


@pytest.mark.parametrize(
    "pattern",
    [
        "(a{1000}){1000}",
        "(?:x(a{101}){10}){10}",
        "a{10001}",
        "a{1,10001}",
        "a{10001,}",
        "a{600}" * 17,
        "((((a{11}){11}){11}){11}){11}",
        "[](a{1000}){1000}]",
        "a" * 10_001,
    ],
)
def test_patterns_that_grow_are_refused(pattern: str) -> None:
    for schema, place in (
        ({"pattern": pattern}, "s: "),
        ({"properties": {"a": {"pattern": pattern}}}, "s: /properties/a: "),
        ({"patternProperties": {pattern: {}}}, "s: "),
    ):
        with pytest.raises(UserError) as caught:
            check_schema(schema, "s")
        assert str(caught.value).startswith(f"{place}a pattern for more than 10000 characters")


def test_walk_names_every_object_the_outer_ones_first() -> None:
    schema = {"anyOf": [{"items": {"a/b": {}, "c~d": {}}}, 3]}
    found = [pointer for pointer, _ in walk(schema, "s")]
    assert found == ["", "/anyOf/0", "/anyOf/0/items", "/anyOf/0/items/a~1b", "/anyOf/0/items/c~0d"]
