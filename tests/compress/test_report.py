"""The error table."""

import json
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from autoneural.compress.report import ModuleError, Report, compare


def _row(path: str, sqnr: float) -> ModuleError:
    return ModuleError(
        path=path,
        kind="Linear",
        sqnr_db=sqnr,
        rms_error=10 ** (-sqnr / 20),
        weight_bits=4,
        activation_bits=16,
    )


def test_compare_measures_each_module_over_all_runs() -> None:
    reference, changed = nn.Sequential(nn.Identity()), nn.Sequential(nn.Hardtanh(-1, 1))
    inputs = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.5])]
    runs = [lambda model, x=x: model(x) for x in inputs]
    sqnr, rms = compare(reference, changed, ["0"], runs)["0"]
    assert rms == pytest.approx(math.sqrt((1 + 4) / (1 + 4 + 9 + 0.25)))
    assert sqnr == pytest.approx(-20 * math.log10(rms))
    assert compare(reference, reference, ["0"], runs)["0"] == (math.inf, 0.0)


def test_json_holds_no_infinity(tmp_path: Path) -> None:
    report = Report((_row("a", 20.0), _row("b", math.inf)))
    report.save(tmp_path / "report.json")
    rows = json.loads((tmp_path / "report.json").read_text())["modules"]
    assert [row["sqnr_db"] for row in rows] == [20.0, None]
    assert report.summary() == {"worst": 20.0, "median": 20.0}


def test_table_shows_the_worst_first() -> None:
    console = Console(width=100)
    with console.capture() as captured:
        Report((_row("first", 20.0), _row("second", 40.0))).print(console, rows=1)
    text = captured.get()
    assert "first" in text
    assert "w4a16" in text
    assert "20.0" in text
    assert "10.000%" in text
    assert "second" not in text
