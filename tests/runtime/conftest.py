"""Engines on the tiny bundle, and the reference they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from autoneural.bundle import Bundle
from autoneural.data.messages import Message
from autoneural.runtime.engine import Engine


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
