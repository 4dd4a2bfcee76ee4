"""Rows of data files as the samples that calibration runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autoneural.checkpoint import find_checkpoint, load_checkpoint
from autoneural.compress.quantize import Sample
from autoneural.data.importers import open_source
from autoneural.data.loader import fit
from autoneural.data.processor import ModelInputs, Processor
from autoneural.data.tokenizer import Tokenizer
from autoneural.model.vlm import fix_image_size


def calibration_samples(checkpoint: str | Path, data: str | Path, count: int) -> list[Sample]:
    """`count` conversations spread evenly over a data file, or over train.jsonl in a folder.

    Raises UserError when the file or one of its rows is not usable.
    """
    folder = find_checkpoint(checkpoint)
    config = load_checkpoint(folder).config
    config, _ = fix_image_size(config, {}, config.vision.image_size)
    tokenizer = Tokenizer.load(folder)
    processor = Processor.of(tokenizer, config)
    source = open_source(Path(data) / "train.jsonl" if Path(data).is_dir() else data)
    picked = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).astype(int))
    limit = config.text.max_position_embeddings
    samples = []
    for index in picked.tolist():
        example = processor.training_example(source.row(index)["messages"])
        samples.append(to_sample(*fit(*example, processor, limit), tokenizer.image_id))
    return samples


def to_sample(inputs: ModelInputs, labels: NDArray[np.int64], image_id: int) -> Sample:
    """What the processor made of one conversation, as tensors."""
    return Sample(
        input_ids_BT=torch.from_numpy(inputs.input_ids)[None],
        pixels_BCHW=torch.from_numpy(inputs.pixel_values) if len(inputs.pixel_values) else None,
        image_token_id=image_id,
        labels_BT=torch.from_numpy(labels)[None],
    )
