"""Engines on the tiny bundle, and the reference they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from autoneural.bundle import Bundle
from autoneural.compress.precision import PRECISIONS, Precision
from autoneural.compress.quantize import Sample, post_training_quantize
from autoneural.data.messages import Message
from autoneural.data.processor import Processor
from autoneural.export.bundle import ExportOptions, build_bundle
from autoneural.runtime.engine import Engine
from tests.runtime.helpers import CONVERSATIONS


@pytest.fixture(scope="session")
def shared_engine(tiny_bundle: Bundle) -> Engine:
    return Engine(tiny_bundle, "float", threads=1)


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """An engine without memory of earlier tests."""
    shared_engine.reset()
    return shared_engine


@pytest.fixture(scope="session")
def reference(tiny_checkpoint) -> Callable[[Engine, Sequence[Message], int], list[int]]:
    """Tokens of `VLM.generate` for the same messages."""

    def generate(engine: Engine, messages: Sequence[Message], max_tokens: int) -> list[int]:
        inputs = engine.processor(messages)
        pixels = torch.from_numpy(inputs.pixel_values)
        return tiny_checkpoint.model.generate(
            torch.from_numpy(inputs.input_ids),
            pixels if len(pixels) else None,
            image_token_id=engine.tokenizer.image_id,
            eos_id=engine.tokenizer.eos_id,
            max_new_tokens=max_tokens,
        )

    return generate


@pytest.fixture(scope="session")
def quantised(tiny_checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantise(tiny_checkpoint, tmp_path_factory.mktemp("quantised") / "tiny")


def quantise(tiny_checkpoint, out: Path, precision: Precision = PRECISIONS["w4a16"]) -> Path:
    """The tiny model, calibrated on the conversations of these tests."""
    vision = tiny_checkpoint.model.config.vision
    processor = Processor(tiny_checkpoint.tokenizer, vision.image_size, vision.num_tokens)
    samples = []
    for messages in CONVERSATIONS:
        inputs = processor(messages)
        pixels = torch.from_numpy(inputs.pixel_values)
        ids = torch.from_numpy(inputs.input_ids)[None]
        images = pixels if len(pixels) else None
        samples.append(
            Sample(
                input_ids_BT=ids, pixels_BCHW=images, image_token_id=processor.tokenizer.image_id
            )
        )
    post_training_quantize(tiny_checkpoint.folder, samples, out, precision=precision)
    return out


@pytest.fixture(scope="session")
def exported(quantised: Path) -> Bundle:
    return export(quantised)


def export(checkpoint: Path) -> Bundle:
    """A bundle beside the checkpoint, with two widths."""
    return build_bundle(
        checkpoint,
        checkpoint.parent / "bundle",
        ("cpu", "qdq"),
        ExportOptions(context=128, prefill_width=16, verify=False),
        progress=lambda line: None,
    )
