"""Targets of a bundle made by the exporter: `qdq` is the fake-quant model, integer for integer."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from autoneural.bundle import Bundle
from autoneural.compress.quantize import load_quantized
from autoneural.model.language_model import rotary_tables
from autoneural.model.vlm import VLM
from autoneural.runtime.engine import Engine
from autoneural.runtime.session import encode
from autoneural.runtime.step_inputs import rope_tables
from autoneural.runtime.threads import physical_cores
from tests.runtime.helpers import CONVERSATIONS, answer


def reference_tokens(model: VLM, engine: Engine, messages: list) -> list[int]:
    inputs = engine.processor(messages)
    pixels = torch.from_numpy(inputs.pixel_values)
    return model.generate(
        torch.from_numpy(inputs.input_ids),
        pixels if len(pixels) else None,
        image_token_id=engine.tokenizer.image_id,
        eos_id=engine.tokenizer.eos_id,
        max_new_tokens=12,
    )


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=range(len(CONVERSATIONS)))
@pytest.mark.parametrize("target", ["qdq", "cpu"])
def test_tokens_are_those_of_the_quantised_model(
    exported: Bundle, quantised: Path, target: str, messages: list
) -> None:
    engine = Engine(exported, target, threads=1)
    model = load_quantized(quantised, activations=target == "qdq")
    found = answer(engine, messages, max_tokens=12).token_ids
    assert list(found) == reference_tokens(model, engine, messages)


def test_qdq_keeps_integers_between_graphs(exported: Bundle) -> None:
    engine = Engine(exported, "qdq", threads=1)
    answer(engine, CONVERSATIONS[0], max_tokens=3)
    state = engine._decoder._state
    assert {array.dtype for array in state.feeds().values()} == {np.dtype(np.uint16)}
    assert engine._embedding.dtype == np.uint16


def test_pixels_become_exact_integers(exported: Bundle) -> None:
    graph = next(g for g in exported.target("qdq").graphs if g.role == "vision")
    pixels = np.arange(256, dtype=np.float32) / np.float32(255)
    assert encode(pixels, graph.inputs[0]).tolist() == [257 * value for value in range(256)]


def test_rotary_tables_are_those_of_the_model(tiny_config) -> None:
    wanted = rotary_tables(tiny_config.text, torch.arange(200))
    for found, table in zip(rope_tables(tiny_config.text, 200), wanted, strict=True):
        np.testing.assert_allclose(found, table[0, 0].numpy(), rtol=0, atol=2e-5)


def test_default_threads_are_physical_cores() -> None:
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)
