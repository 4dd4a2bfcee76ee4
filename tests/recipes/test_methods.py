"""`bench methods` from end to end on a tiny model: rows, what is kept, what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoneural.bench import measure
from autoneural.bench.cpu_speed import Speed
from autoneural.bench.quality import Item
from autoneural.bundle import Bundle
from autoneural.cli import main
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.recipes import methods
from autoneural.recipes.methods import METHODS
from autoneural.recipes.steps import WAYS, Quantize, Rewrite
from tests.conftest import TinyCheckpoint


@pytest.fixture
def command(
    tiny_checkpoint: TinyCheckpoint, cockpit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    draw = measure.draw_exam
    monkeypatch.setattr(measure, "draw_exam", lambda tasks, **asked: draw(["fatigue"], **asked))
    found = ["bench", "methods", str(tiny_checkpoint.folder), "--data", str(cockpit)]
    found += ["--samples", "3", "--questions", "2", "--texts", "2"]
    return [*found, "-o", str(tmp_path / "table.json")]


def test_every_method_is_a_row_and_is_kept(
    command: list[str],
    tmp_path: Path,
    tiny_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(methods._STEPS, "smooth", (Rewrite(ways=("nonsense",)), Quantize()))
    command += ["--methods", "nearest", "smooth", "dynamic"]
    assert main([*command, "--repeats", "0"]) == 0
    said = capsys.readouterr()
    assert "smooth failed: rewrite 'nonsense': expected one of" in said.out
    assert "HTP ranges nothing at run time" in said.out
    rows = read(tmp_path)
    assert list(rows) == ["float", "ptq", "nearest", "dynamic", "smooth"]
    assert rows["smooth"]["verdict"] == "failed"
    plain = rows["ptq"]
    assert rows["float"]["weight_bytes"] > plain["weight_bytes"] == rows["nearest"]["weight_bytes"]
    assert rows["dynamic"]["perplexity"] is rows["dynamic"]["weight_bytes"] is None
    assert plain["perplexity"] is not None
    assert 0 <= rows["nearest"]["agreement"] <= 1
    assert plain["speed"] is None

    monkeypatch.setattr(methods, "_bundle", only_dynamic(methods._bundle, tiny_bundle))
    monkeypatch.setattr(methods, "compare_speed", fake_speed)
    added = ["--add", f"mine={tmp_path / 'table-run' / 'ptq' / '1-quantize'}", "--repeats", "1"]
    assert main([*command, *added]) == 0
    said = capsys.readouterr()
    assert "1-quantize: there already" in said.err
    assert "exporting" not in said.err
    assert said.err.count("measuring") == 1  # of what was added
    assert "nearest: no bundle: not this one" in said.err
    again = read(tmp_path)
    assert again["mine"]["agreement"] == plain["agreement"]
    assert again["mine"]["gains"] == ["tokens/s x 4.00"]
    assert again["mine"]["verdict"] == "pays"
    assert again["nearest"]["speed"] is again["nearest"]["bundle_bytes"] is None
    assert again["dynamic"]["bundle_bytes"] > 0


def read(folder: Path) -> dict[str, Any]:
    table = json.loads((folder / "table.json").read_text())
    return {row["name"]: row for row in table["rows"]}


def only_dynamic(real: Callable[..., Path], other: Bundle) -> Callable[..., Path]:
    """The bundle that is there already, another one in place of those that would take minutes."""

    def bundle(entry: Any, out: Path, say: Callable[[str], None]) -> Path:
        if out.name == "nearest":
            raise UserError("not this one")
        return real(entry, out, say) if entry.dynamic else other.folder

    return bundle


def fake_speed(
    bundles: dict[str, Any], items: list[Item], repeats: int, _: Any
) -> dict[str, Speed]:
    assert repeats == 1
    assert len(items) == 2
    assert list(bundles) == ["ptq", "float", "dynamic", "mine"]
    return {
        name: Speed(
            tokens_per_second=1.0, encode_ms=1.0, tokens_ratio=float(number + 1), encode_ratio=1.0
        )
        for number, name in enumerate(bundles)
    }


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


@pytest.mark.parametrize("way", ["fold", "equalize", "rotate"])
def test_a_rewrite_takes_norms_as_training_leaves_them(
    tiny_checkpoint: TinyCheckpoint, way: str
) -> None:
    model = copy.deepcopy(tiny_checkpoint.model).eval()
    ids = torch.arange(5, 17)[None]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.mul_(torch.linspace(0.5, 2, parameter.numel()).view(parameter.shape))
        before = logits(model, ids)
        WAYS[way](model, [])
        torch.testing.assert_close(logits(model, ids), before, rtol=1e-3, atol=1e-4)


def logits(model: VLM, ids_BT: torch.Tensor) -> torch.Tensor:
    return model.language_model.lm_head(model.hidden_states(ids_BT, None, image_token_id=1))
