"""From a checkpoint and a data file to a quantised checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoneural.checkpoint import load_checkpoint
from autoneural.cli import main
from autoneural.compress.precision import PRECISIONS, Precision, Rule, save_precision
from autoneural.data.importers import open_source
from autoneural.errors import UserError
from autoneural.recipes import calibration_samples, quantize_checkpoint
from tests.conftest import TinyCheckpoint


def test_from_a_data_file(tiny_checkpoint: TinyCheckpoint, cockpit: Path, tmp_path: Path) -> None:
    float_folder, out = tiny_checkpoint.folder, tmp_path / "int"
    report = quantize_checkpoint(float_folder, cockpit / "train.jsonl", out, samples=3)
    assert len(calibration_samples(float_folder, cockpit, 99)) == 8
    assert len(report.modules) > 50
    assert load_checkpoint(out).recipe["calibration_samples"] == 3
    with pytest.raises(UserError, match="precision 'w2'"):
        quantize_checkpoint("x", "y", "z", precision="w2")


def test_a_precision_file_is_taken_where_a_name_is(
    tiny_checkpoint: TinyCheckpoint, cockpit: Path, tmp_path: Path
) -> None:
    layer = "language_model.model.layers.0.feed_forward.w2"
    base = PRECISIONS["w8a16"]
    mixed = replace(base, name="mine", weights=(Rule(layer, 4), *base.weights))
    file, out = tmp_path / "precision.json", tmp_path / "int"
    save_precision(file, mixed)
    folders = [str(tiny_checkpoint.folder), "--data", str(cockpit), "-o", str(out)]
    assert main(["compress", *folders, "--samples", "1", "--precision", str(file)]) == 0
    checkpoint = load_checkpoint(out)
    assert checkpoint.encodings is not None
    widths = {name: entry["bits"] for name, entry in checkpoint.encodings["weights"].items()}
    assert [name for name, bits in widths.items() if bits == 4] == [f"{layer}.weight"]
    assert Precision.from_dict(checkpoint.recipe["precision"]) == mixed


def test_samples_know_their_answers(tiny_checkpoint: TinyCheckpoint, cockpit: Path) -> None:
    for sample in calibration_samples(tiny_checkpoint.folder, cockpit, 3):
        assert sample.labels_BT is not None
        answered = sample.labels_BT != -100
        assert 0 < answered.sum() < answered.numel()
        assert torch.equal(sample.labels_BT[answered], sample.input_ids_BT[answered])


def test_the_float_checkpoint_is_not_overwritten(
    tiny_checkpoint: TinyCheckpoint, cockpit: Path
) -> None:
    folder = tiny_checkpoint.folder
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="is the float checkpoint itself"):
        quantize_checkpoint(folder, cockpit, folder, samples=1)
    assert (folder / "model.safetensors").read_bytes() == before


def test_long_conversations_lose_their_last_turns(
    tiny_checkpoint: TinyCheckpoint, cockpit: Path
) -> None:
    limit = tiny_checkpoint.model.config.text.max_position_embeddings
    rows = open_source(cockpit / "train.jsonl").rows
    texts = [
        " ".join(part.get("text", "") for m in row["messages"] for part in m["content"])
        for row in rows
    ]
    assert max(len(tiny_checkpoint.tokenizer.encode(text)) for text in texts) > limit
    for sample in calibration_samples(tiny_checkpoint.folder, cockpit, 8):
        assert sample.input_ids_BT.shape[1] <= limit
        assert sample.pixels_BCHW is not None
