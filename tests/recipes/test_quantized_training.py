"""Quantisation-aware training from checkpoint to checkpoint, in slices as in one go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autoneural.checkpoint import load_checkpoint, weights_hash
from autoneural.compress.quantize import load_quantized
from autoneural.errors import UserError
from autoneural.recipes import calibration_samples, qat
from autoneural.recipes.quantized_training import default_qat_stage
from autoneural.train.trainer import RunOptions
from tests.conftest import TinyCheckpoint

OPTIONS = RunOptions(device="cpu", log_every=1)
STAGE = replace(default_qat_stage(), steps=2, batch_size=2, warmup=1)


def run(
    checkpoint: Path,
    data: Path,
    folder: Path,
    minutes: float | None = None,
    precision: str = "w4a16",
) -> bool:
    return qat(
        checkpoint,
        data,
        folder / "out",
        folder / "run",
        precision=precision,
        stage=STAGE,
        samples=2,
        options=replace(OPTIONS, minutes=minutes),
    ).finished


def test_a_run_in_slices_writes_what_a_whole_run_writes(
    tiny_checkpoint: TinyCheckpoint, coloured: Path, tmp_path: Path
) -> None:
    source, whole, pieces = tiny_checkpoint.folder, tmp_path / "whole", tmp_path / "pieces"
    assert run(source, coloured, whole)
    assert not run(source, coloured, pieces, minutes=1e-9)
    assert not (pieces / "out").exists()
    with pytest.raises(UserError, match=r"holds another run \(precision\.name was w4a16, now w8"):
        run(source, coloured, pieces, precision="w8a16")
    assert run(source, coloured, pieces)
    assert weights_hash(whole / "out") == weights_hash(pieces / "out")
    results = [load_checkpoint(folder / "out") for folder in (whole, pieces)]
    assert results[0].encodings == results[1].encodings
    start = load_checkpoint(whole / "run" / "ptq")
    assert weights_hash(whole / "out") != weights_hash(whole / "run" / "ptq")
    assert start.encodings.keys() == results[0].encodings.keys()
    assert start.state_dict.keys() == results[0].state_dict.keys()
    made = results[0].recipe
    assert (made["stage"], made["precision"]["name"]) == ("quantize", "w4a16")
    assert made["parent"] == weights_hash(source)
    assert made["metrics"]["sqnr_db"]["worst"] > 0
    assert made["licences"] == {"weights": "CC0-1.0"}
    assert made["device"] == "cpu, fp32"
    model = load_quantized(whole / "out")
    for sample in calibration_samples(source, coloured, 2):
        assert sample(model).isfinite().all()


def test_what_cannot_be_quantised_is_refused(
    tiny_checkpoint: TinyCheckpoint, coloured: Path, tmp_path: Path
) -> None:
    source = tiny_checkpoint.folder
    with pytest.raises(UserError, match="precision 'w2': expected one of"):
        run(source, coloured, tmp_path, precision="w2")
    with pytest.raises(UserError, match=r"train\.jsonl: no such file"):
        run(source, tmp_path, tmp_path)
    with pytest.raises(UserError, match="no such checkpoint folder"):
        run(tmp_path / "nobody", coloured, tmp_path)
