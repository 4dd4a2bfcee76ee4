"""Ways of decoding side by side: the same questions, ratios per answer, counts of equal tokens."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from autoneural.bench.quality import Item
from autoneural.bench.speculation import PROFILES, WAYS, measure_speculation, print_speculation
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
        (profile, speculate) for profile in PROFILES for speculate in WAYS
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


def test_one_question_is_too_few(tiny_bundle: Bundle) -> None:
    with pytest.raises(UserError, match="1 questions, but the first only warms up"):
        measure_speculation(tiny_bundle, "float", items(1))
