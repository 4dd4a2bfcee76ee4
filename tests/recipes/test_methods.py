"""`bench methods` from end to end on a tiny model: rows, what is kept, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoneural.bench import measure
from autoneural.cli import main
from autoneural.recipes import methods
from autoneural.recipes.methods import METHODS
from autoneural.recipes.steps import Quantize, Rewrite
from tests.conftest import TinyCheckpoint


@pytest.fixture
def command(
    tiny_checkpoint: TinyCheckpoint, cockpit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    draw = measure.draw_exam
    monkeypatch.setattr(measure, "draw_exam", lambda tasks, **asked: draw(["fatigue"], **asked))
    found = ["bench", "methods", str(tiny_checkpoint.folder), "--data", str(cockpit)]
    found += ["--samples", "3", "--questions", "2", "--texts", "2", "--repeats", "1"]
    return [*found, "-o", str(tmp_path / "table.json")]


def test_every_method_is_a_row_and_is_kept(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(methods._STEPS, "smooth", (Rewrite(ways=("nonsense",)), Quantize()))
    command += ["--methods", "nearest", "smooth", "dynamic"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "smooth failed: rewrite 'nonsense': expected one of" in said.out
    table = json.loads((tmp_path / "table.json").read_text())
    rows = {row["name"]: row for row in table["rows"]}
    assert list(rows) == ["float", "ptq", "nearest", "dynamic", "smooth"]
    assert rows["smooth"]["verdict"] == "failed"
    assert (
        rows["float"]["weight_bytes"]
        > rows["ptq"]["weight_bytes"]
        == rows["nearest"]["weight_bytes"]
    )
    assert rows["dynamic"]["perplexity"] is rows["dynamic"]["weight_bytes"] is None
    assert rows["dynamic"]["bundle_bytes"] != rows["ptq"]["bundle_bytes"] > 0
    assert "HTP ranges nothing at run time" in said.out
    assert rows["ptq"]["speed"]["encode_ratio"] == 1.0
    assert 0 <= rows["nearest"]["agreement"] <= 1
    assert rows["ptq"]["perplexity"] is not None

    added = ["--add", f"mine={tmp_path / 'table-run' / 'ptq' / '1-quantize'}", "--repeats", "0"]
    assert main([*command, *added]) == 0
    said = capsys.readouterr()
    assert "1-quantize: there already" in said.err
    assert "exporting" not in said.err
    assert said.err.count("measuring") == 1  # of what was added
    mine = json.loads((tmp_path / "table.json").read_text())["rows"][-2]
    assert (mine["name"], mine["agreement"]) == ("mine", rows["ptq"]["agreement"])
    assert mine["verdict"] == "does not pay"
    assert mine["speed"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "magic"], f"method 'magic': expected some of {', '.join(METHODS)}"),
        (["--add", "x"], "--add x: expected NAME=FOLDER"),
        (["--add", "prune=x"], "--add prune=...: is the name of a method; give it another"),
    ],
)
def test_what_is_refused(
    command: list[str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_every_method_names_its_steps() -> None:
    assert set(METHODS) == {*methods._STEPS, methods.DYNAMIC}
    for steps in methods._STEPS.values():
        assert any(step.name in ("quantize", "mixed") for step in steps)
