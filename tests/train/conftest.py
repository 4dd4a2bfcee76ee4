"""A dozen coloured pictures with questions, as a folder of rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from autoneural.data.processor import Processor
from autoneural.model.vlm import VLM
from tests.conftest import TinyCheckpoint

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 220)}


@pytest.fixture(scope="session")
def rows_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"))


def write_rows(folder: Path) -> Path:
    lines: list[str] = []
    for number in range(12):
        colour = list(COLOURS)[number % 3]
        shade = tuple(max(0, value - 2 * number) for value in COLOURS[colour])
        Image.new("RGB", (64, 64), shade).save(folder / f"{number}.png")
        question = [{"type": "image", "image": f"{number}.png"}, {"type": "text", "text": "what?"}]
        row = {
            "id": f"demo-{number}",
            "task": "demo",
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": [{"type": "text", "text": colour}]},
                {"role": "user", "content": [{"type": "text", "text": "is it on?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
            ],
            "kinds": ["colour", "on"],
            "attributes": {"demo.colour": colour},
            "boxes": {"demo.colour": [0.0, 0.5, 0.25, 1.0]},
        }
        lines.append(json.dumps(row) + "\n")
    (folder / "train.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def processor(tiny_checkpoint: TinyCheckpoint) -> Processor:
    vision = tiny_checkpoint.model.config.vision
    return Processor(tiny_checkpoint.tokenizer, vision.image_size, vision.num_tokens)


@pytest.fixture
def model(tiny_checkpoint: TinyCheckpoint) -> VLM:
    """A fresh copy that a test may train."""
    copy = VLM(tiny_checkpoint.model.config)
    copy.load_state_dict(tiny_checkpoint.model.state_dict())
    return copy
