"""Ways of decoding side by side: the same questions, ratios per answer, counts of equal tokens."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from autoneural.bench.quality import Item
from autoneural.bench.speculation import (
    PROFILES,
    WAYS,
    measure_speculation,
    print_speculation,
    schema_of,
)
from autoneural.bundle import Bundle
from autoneural.errors import UserError


def items(count: int) -> list[Item]:
    return [
        Item(
            id=str(number),
            task="t",
            kind="k",
            messages=[{"role": "user", "content": f"is a red lamp a red lamp? {number}"}],
            expected="yes",
        )
        for number in range(count)
    ]


def test_every_way_answers_every_question(tiny_bundle: Bundle) -> None:
    steps: list[tuple[str, int, int]] = []
    report = measure_speculation(tiny_bundle, "float", items(3), lambda *a: steps.append(a))
    assert [(way["profile"], way["speculate"]) for way in report["ways"]] == [
        (profile, speculate) for profile in PROFILES for speculate in WAYS if speculate != "forced"
    ]
    assert report["answers"] == 2  # the first one warms up
    assert steps[-1] == ("answers", 3, 3)
    for way in report["ways"]:
        assert way["tokens"] == 2 * 63
        assert way["speed"] > 0
        assert way["accepted"] <= way["drafted"]
        assert (way["drafted"] == 0) == (way["speculate"] == "off") or way["given_up"]
        if way["profile"] == "exact":
            assert way["same_as_plain"] == 2
    plain = report["ways"][0]
    assert (plain["speed"], plain["same_as_plain"], plain["same_as_fast"]) == (1.0, 2, 2)
    out = io.StringIO()
    print_speculation(report, Console(file=out, width=120))
    assert "lookahead" in out.getvalue()
    assert "2 answers by tiny-test (float); a step of 8 rows takes" in out.getvalue()


def test_answers_by_a_schema_have_the_keys_of_the_right_one(tiny_bundle: Bundle) -> None:
    asked = [replace(item, expected='{"warning lamp": "oil", "on": 3}') for item in items(3)]
    report = measure_speculation(tiny_bundle, "float", asked, schema=True)
    assert report["schema"]
    ways = {(way["profile"], way["speculate"]): way for way in report["ways"]}
    assert len(ways) == len(PROFILES) * len(WAYS)
    assert ways["fast", "off"]["drafted"] == 0
    forced = ways["exact", "forced"]
    assert forced["same_as_plain"] == 2


def test_schemas_follow_the_value() -> None:
    value = {"a": "x", "b": [1, 2], "c": {"d": True, "e": None, "f": 0.5}, "g": []}
    inner = {"d": {"type": "boolean"}, "e": {"type": "null"}, "f": {"type": "number"}}
    closed = {"type": "object", "additionalProperties": False}
    assert schema_of(value) == {
        **closed,
        "required": ["a", "b", "c", "g"],
        "properties": {
            "a": {"type": "string"},
            "b": {"type": "array", "items": {"type": "integer"}},
            "c": {**closed, "required": ["d", "e", "f"], "properties": inner},
            "g": {"type": "array"},
        },
    }


def test_one_question_is_too_few(tiny_bundle: Bundle) -> None:
    with pytest.raises(UserError, match="1 questions, but the first only warms up"):
        measure_speculation(tiny_bundle, "float", items(1))
