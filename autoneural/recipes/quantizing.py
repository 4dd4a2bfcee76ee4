"""Rows of data files, or example pictures, as the samples that calibration runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autoneural.chat import user_message
from autoneural.checkpoint import find_checkpoint, load_checkpoint
from autoneural.compress.quantize import Sample
from autoneural.data.importers import open_source
from autoneural.data.loader import fit
from autoneural.data.messages import Message
from autoneural.data.processor import ModelInputs, Processor
from autoneural.data.tokenizer import Tokenizer
from autoneural.demo import DemoCase, load_demo
from autoneural.model.vlm import fix_image_size


def calibration_samples(
    checkpoint: str | Path, data: str | Path, count: int, image_size: int | None = None
) -> list[Sample]:
    """`count` conversations spread evenly over a data file, or over train.jsonl in a folder.

    `image_size`: pixels a side, None for the model's own. Raises UserError when the file or one of
    its rows is not usable.
    """
    source = open_source(Path(data) / "train.jsonl" if Path(data).is_dir() else data)
    picked = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).astype(int))
    rows = (source.row(index)["messages"] for index in picked.tolist())
    return _samples(checkpoint, rows, image_size)


def example_samples(
    checkpoint: str | Path, count: int, image_size: int | None = None
) -> list[Sample]:
    """`count` conversations about the drawn pictures that come with the package, one each.

    For who has no data at hand: ranges of cockpit scenes need not be those of other pictures.
    """
    cases = [case for case in load_demo() if len(case.images) == 1]
    picked = [cases[index % len(cases)] for index in range(count)]
    return _samples(checkpoint, map(_conversation, picked), image_size)


def _conversation(case: DemoCase) -> list[Message]:
    messages: list[Message] = []
    for turn in case.turns:
        pictures = [] if messages else list(case.images)
        messages.append(user_message(turn.prompt, pictures))
        answer = {"type": "text", "text": turn.expected}
        messages.append({"role": "assistant", "content": [answer]})
    return messages


def _samples(
    checkpoint: str | Path, rows: Iterable[Sequence[Message]], image_size: int | None
) -> list[Sample]:
    folder = find_checkpoint(checkpoint)
    config = load_checkpoint(folder).config
    config, _ = fix_image_size(config, {}, image_size or config.vision.image_size)
    tokenizer = Tokenizer.load(folder)
    processor, limit = Processor.of(tokenizer, config), config.text.max_position_embeddings
    return [
        to_sample(*fit(*processor.training_example(row), processor, limit), tokenizer.image_id)
        for row in rows
    ]


def to_sample(inputs: ModelInputs, labels: NDArray[np.int64], image_id: int) -> Sample:
    """What the processor made of one conversation, as tensors."""
    return Sample(
        input_ids_BT=torch.from_numpy(inputs.input_ids)[None],
        pixels_BCHW=torch.from_numpy(inputs.pixel_values) if len(inputs.pixel_values) else None,
        image_token_id=image_id,
        labels_BT=torch.from_numpy(labels)[None],
    )
