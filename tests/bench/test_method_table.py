"""Which methods pay: gains and losses against plain ptq, in words and as a table."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from autoneural.bench.cpu_speed import Speed
from autoneural.bench.measure import Measures
from autoneural.bench.method_table import (
    MethodRow,
    against_float,
    agreement,
    gains_and_losses,
    print_methods,
)
from autoneural.bench.perplexity import RowLoss
from autoneural.bench.quality import Record

QUESTIONS = 100


def records(right: int) -> tuple[Record, ...]:
    return tuple(
        {"id": str(n), "prompt": "?", "answer": "yes" if n < right else "no", "correct": n < right}
        for n in range(QUESTIONS)
    )


def measures(right: int = 90, nats: float = 1.0) -> Measures:
    return Measures(
        name="x",
        parameters=1,
        weight_bytes=1000,
        encode_macs=1,
        decode_macs=1,
        perplexity=1.0,
        accuracy={},
        sqnr_db={},
        compiled_bytes=None,
        not_compiled="no chip was named",
        records=records(right),
        losses=tuple(RowLoss(id=str(n), nats=nats + n % 2, tokens=4) for n in range(20)),
    )


def row(name: str = "ptq", **changes: Any) -> MethodRow:
    return MethodRow(name=name, words="", **{"weight_bytes": 1000, **changes})


@pytest.mark.parametrize(
    ("changes", "changed", "gains", "losses", "verdict"),
    [
        ({"weight_bytes": 990}, {}, (), (), "does not pay"),
        ({"weight_bytes": 700}, {}, ("weights -30 %",), (), "pays"),
        ({"binary_bytes": 3000}, {}, (), ("binaries +50 %",), "does not pay"),
        (
            {"weight_bytes": 700},
            {"right": 40},
            ("weights -30 %",),
            ("accuracy -50.0 points",),
            "trades",
        ),
        ({}, {"nats": 0.5}, ("perplexity -11.8 %",), (), "pays"),
        ({}, {"right": 91}, (), (), "does not pay"),
    ],
)
def test_gains_and_losses(
    changes: dict[str, Any],
    changed: dict[str, Any],
    gains: tuple[str, ...],
    losses: tuple[str, ...],
    verdict: str,
) -> None:
    base = row(binary_bytes=2000)
    own = row("mine", **{"binary_bytes": 2000, **changes})
    found = gains_and_losses(own, measures(**changed), base, measures())
    assert found == (gains, losses)
    assert replace(own, gains=found[0], losses=found[1]).verdict == verdict


def test_a_speed_counts_from_five_per_cent_on() -> None:
    def words(tokens: float, encode: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
        speed = Speed(
            tokens_per_second=1.0, encode_ms=1.0, tokens_ratio=tokens, encode_ratio=encode
        )
        return gains_and_losses(row("m", speed=speed), measures(), row(), measures())

    assert words(1.04, 0.96) == ((), ())
    assert words(1.5, 1.2) == (("tokens/s x 1.50",), ("encode time x 1.20",))
    assert words(0.5, 0.8) == (("encode time x 0.80",), ("tokens/s x 0.50",))


def test_against_float() -> None:
    found = against_float(measures(right=80), measures(right=90))
    assert found["difference"][1] == pytest.approx(-10.0)
    assert found["agreement"] == pytest.approx(0.9)
    assert found["perplexity"] == (0.0, 0.0, 0.0)
    silent = replace(measures(), records=(), losses=())
    assert against_float(silent, silent) == {"accuracy": None}
    assert agreement(records(50), records(50)) == 1.0


def test_the_table_names_what_does_not_pay() -> None:
    rows = [
        row("float", **against_float(measures(), measures())),
        row(),
        row("good", weight_bytes=500, gains=("weights -50 %",), seconds=1.0),
        row("idle", not_compiled="no chip was named"),
        row("dear", gains=("weights -50 %",), losses=("accuracy -9.0 points",)),
        row("lost", error="svd: no such [rank]"),
    ]
    facts = {"questions": 1234, "texts": 64, "repeats": 5}
    console = Console(width=200)
    with console.capture() as captured:
        print_methods(rows, facts, console)
    text = captured.get()
    assert "good pays: weights -50 %\n" in text
    assert "idle does not pay: nothing won\n" in text
    assert "dear trades: weights -50 %; for accuracy -9.0 points" in text
    assert "lost failed: svd: no such [rank]" in text
    assert "1,234 questions, 64 texts" in text
    assert "no training after any method" in text
    assert "no binaries: no chip was named" in text
    verdicts = [json.loads(json.dumps(one.to_dict()))["verdict"] for one in rows]
    assert verdicts == ["reference", "plain", "pays", "does not pay", "trades", "failed"]
