"""Rows of a data file as samples."""

from __future__ import annotations

from pathlib import Path

from autoneural.data.importers import open_source
from autoneural.recipes import calibration_samples
from tests.conftest import TinyCheckpoint


def test_as_many_as_there_are(tiny_checkpoint: TinyCheckpoint, cockpit: Path) -> None:
    assert len(calibration_samples(tiny_checkpoint.folder, cockpit, 3)) == 3
    assert len(calibration_samples(tiny_checkpoint.folder, cockpit / "train.jsonl", 99)) == 8


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
