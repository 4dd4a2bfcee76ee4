"""The table of precisions and chips."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from autoneural.bench.measure import Exam, draw_exam
from autoneural.recipes import tabling
from autoneural.recipes.steps import Workbench
from autoneural.recipes.tabling import Row, precision_table, print_table, to_json
from autoneural.target.chips import Chip, find_chip
from tests.conftest import TinyCheckpoint


@pytest.fixture
def rows(
    tiny_checkpoint: TinyCheckpoint, cockpit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Row]:
    """With a compiler that takes integers on one chip alone."""

    def compiled(_: Path, chip: Chip, context: int) -> tuple[int | None, str]:
        return (1000 + context, "") if chip.name == "SA8775P" else (None, "no such wheel")

    monkeypatch.setattr(tabling, "compiled_size", compiled)
    bench = Workbench(
        original=tiny_checkpoint.folder, data=cockpit / "train.jsonl", run=tmp_path, samples=2
    )
    exam: Exam = draw_exam(["fatigue"], questions=1, rows=2)
    chips = [find_chip(name) for name in ("SA8295P", "SA8775P")]
    return precision_table(bench, exam, chips, tmp_path / "table")


def test_a_row_for_each_precision_and_chip(rows: list[Row]) -> None:
    assert [(row.model, row.chip) for row in rows] == [
        (model, chip) for model in ("original", "int8", "int4") for chip in ("SA8295P", "SA8775P")
    ]
    assert [row.legal for row in rows] == [False, False, False, True, False, True]
    original, refused, int8, int4 = rows[0], rows[2], rows[3], rows[5]
    assert "integers" in original.why
    assert refused.why == "no such wheel"
    assert int4.weight_bytes < int8.weight_bytes
    # A cache of 16 bits against one of 8: what it holds beside the binaries.
    assert int8.memory_bytes is not None
    assert int4.memory_bytes is not None
    assert int8.memory_bytes - 1000 - int8.context > int4.memory_bytes - 1000 - int4.context > 0


def test_it_prints_and_is_json(rows: list[Row]) -> None:
    text = io.StringIO()
    print_table(rows, Console(file=text, width=80))
    assert text.getvalue().count("no such wheel\n") == 2  # int8, int4
    assert "…" not in text.getvalue()
    assert "int8 (w8a16)" in text.getvalue()
    first = json.loads(json.dumps(to_json(rows)))[0]
    assert first["latency_ms"] is None
    assert first["legal"] is False
