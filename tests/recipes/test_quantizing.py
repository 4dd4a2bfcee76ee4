"""Rows of a data file as samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from autoneural.checkpoint import load_checkpoint
from autoneural.cli import main
from autoneural.compress.precision import PRECISIONS, Precision, Rule, save_precision
from autoneural.data.importers import open_source
from autoneural.recipes import calibration_samples
from tests.conftest import TinyCheckpoint

MEASURED = ("--questions", "1", "--texts", "2")


def test_as_many_as_there_are(tiny_checkpoint: TinyCheckpoint, cockpit: Path) -> None:
    assert len(calibration_samples(tiny_checkpoint.folder, cockpit, 3)) == 3
    assert len(calibration_samples(tiny_checkpoint.folder, cockpit / "train.jsonl", 99)) == 8


def test_a_precision_file_is_taken_where_a_name_is(
    tiny_checkpoint: TinyCheckpoint, cockpit: Path, tmp_path: Path
) -> None:
    layer = "language_model.model.layers.0.feed_forward.w2"
    base = PRECISIONS["w8a16"]
    mixed = replace(base, name="mine", weights=(Rule(layer, 4), *base.weights))
    file, out = tmp_path / "precision.json", tmp_path / "int"
    save_precision(file, mixed)
    folders = [str(tiny_checkpoint.folder), "--data", str(cockpit), "-o", str(out)]
    assert main(["compress", *folders, "--samples", "1", "--precision", str(file), *MEASURED]) == 0
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
