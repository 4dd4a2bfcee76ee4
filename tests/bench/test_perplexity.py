"""`bench perplexity`: the loss of answers, paired intervals, and the command's two outputs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from autoneural.bench.held_out import held_out_rows
from autoneural.bench.perplexity import (
    RowLoss,
    measure_perplexity,
    paired_increase,
    perplexity,
    print_perplexity,
    row_losses,
    row_samples,
)
from autoneural.cli import main
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import post_training_quantize
from autoneural.data.cockpit import Row
from autoneural.errors import UserError
from tests.conftest import TinyCheckpoint


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return held_out_rows(["fatigue", "hmi"], 3)


@pytest.fixture(scope="module")
def quantised(
    tiny_checkpoint: TinyCheckpoint, rows: list[Row], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder, out = tiny_checkpoint.folder, tmp_path_factory.mktemp("perplexity") / "int"
    samples = row_samples(folder, tiny_checkpoint.model.config, rows)
    post_training_quantize(folder, samples, out, precision=PRECISIONS["w8a16"], compared=1)
    return out


def test_rows_are_whole_conversations_of_the_tasks_in_turn(rows: list[Row]) -> None:
    assert [row["task"] for row in rows] == ["fatigue", "hmi", "fatigue"]
    assert all(len(row["messages"]) >= 2 for row in rows)
    assert held_out_rows(["fatigue", "hmi"], 2) == rows[:2]
    assert held_out_rows(["fatigue", "hmi"], 2, seed=1) != rows[:2]


def test_loss_is_cross_entropy_of_the_labelled_tokens(
    tiny_checkpoint: TinyCheckpoint, rows: list[Row]
) -> None:
    model = tiny_checkpoint.model
    samples = row_samples(tiny_checkpoint.folder, model.config, rows)
    losses = row_losses(model, rows, samples)
    assert [loss.id for loss in losses] == [row["id"] for row in rows]
    for loss, sample in zip(losses, samples, strict=True):
        assert sample.labels_BT is not None
        with torch.inference_mode():
            logits_TV = sample(model)[0, :-1]
        labels_T = sample.labels_BT[0, 1:]
        expected = torch.nn.functional.cross_entropy(logits_TV, labels_T, reduction="sum")
        assert loss.nats == pytest.approx(float(expected), rel=1e-4)
        assert loss.tokens == int((labels_T != -100).sum()) > 0


def losses(seed: int, shift: float = 0.0, rows: int = 400) -> list[RowLoss]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 40, rows)
    noise = rng.normal(0.0, 0.05, rows)
    return [
        RowLoss(
            id=str(i), nats=float(t * (0.5 + shift + (noise[i] if shift else 0))), tokens=int(t)
        )
        for i, t in enumerate(tokens)
    ]


def test_a_known_increase_is_found_inside_its_interval() -> None:
    found = paired_increase(losses(0), losses(0, shift=0.02))
    low, high = found["ci95"]
    assert low < 100 * math.expm1(0.02) < high
    assert low < found["increase"] < high
    # Of n rows with token-weighted noise of 0.05: 2 * 1.96 * 0.05 / sqrt(n), a little more.
    assert 0.9 < (high - low) / (2 * 196 * 0.05 / math.sqrt(400)) < 1.4
    assert found["perplexity"][0] == pytest.approx(math.exp(0.5))


def test_intervals_cover_as_often_as_they_say() -> None:
    hits = 0
    for seed in range(200):
        low, high = paired_increase(losses(seed, rows=60), losses(seed, 0.02, rows=60))["ci95"]
        hits += low < 100 * math.expm1(0.02) < high
    assert 180 <= hits <= 199


def test_a_model_compared_with_itself_is_no_worse() -> None:
    found = paired_increase(losses(1), losses(1))
    assert (found["increase"], found["ci95"]) == (0.0, [0.0, 0.0])


def test_what_cannot_be_paired_is_refused() -> None:
    one = losses(0)
    with pytest.raises(UserError, match="other rows, or split them into other tokens"):
        paired_increase(one, one[1:])
    with pytest.raises(UserError, match="other tokens"):
        paired_increase(one, [replace(one[0], tokens=999), *one[1:]])
    with pytest.raises(UserError, match="no rows with answers"):
        perplexity([])


def test_checkpoints_are_compared_with_the_first(
    tiny_checkpoint: TinyCheckpoint, quantised: Path, rows: list[Row]
) -> None:
    names, steps = [str(tiny_checkpoint.folder), str(quantised)], []
    report = measure_perplexity(names, rows, lambda: steps.append(1))
    first, second = report["checkpoints"]
    assert (len(steps), report["rows"]) == (6, 3)
    assert (first["increase"], first["ci95"]) == (None, None)
    expected = 100 * (second["perplexity"] / first["perplexity"] - 1)
    assert second["increase"] == pytest.approx(expected)
    assert second["increase"] != 0
    console = Console(width=300)
    with console.capture() as captured:
        print_perplexity(report, console)
    assert f"{second['increase']:+.2f} %" in captured.get()
    assert f"{report['tokens']} answer tokens of 3" in captured.get()


def test_the_command(
    tiny_checkpoint: TinyCheckpoint, quantised: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(tiny_checkpoint.folder), str(quantised)]
    assert main(["bench", "perplexity", *names, "--n", "2", "--tasks", "hmi", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in report["checkpoints"]] == names
    assert report["rows"] == 2
    assert main(["bench", "perplexity", "nowhere", "--n", "1"]) == 2
    assert "nowhere: no such checkpoint" in capsys.readouterr().err
