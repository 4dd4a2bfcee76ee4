"""Caches of 8 and of 16 bits in one model, an 8-bit window: tokens are those of the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoneural.bundle import Bundle
from autoneural.bundle_graphs import state_names
from autoneural.compress.precision import PRECISIONS, Precision, Rule
from autoneural.compress.quantize import load_quantized
from autoneural.runtime.engine import Engine
from tests.runtime.conftest import export, quantise
from tests.runtime.helpers import CONVERSATIONS, answer
from tests.runtime.test_targets import reference_tokens

LAYERS = "language_model.model.layers"
# Of two attention layers (1 and 3) the keys of one and the values of the other.
NARROW = (
    f"{LAYERS}.1.self_attn.key_rows",
    f"{LAYERS}.1.self_attn.keys",
    f"{LAYERS}.3.self_attn.value_rows",
    f"{LAYERS}.3.self_attn.values",
    f"{LAYERS}.2.conv.window",
)


def mixed() -> Precision:
    base = PRECISIONS["w4a16"]
    rules = tuple(Rule(path, 8) for path in NARROW)
    return replace(base, name="mixed", activations=(*rules, *base.activations))


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantise(tiny_checkpoint, tmp_path_factory.mktemp("mixed") / "tiny", mixed())


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Bundle:
    return export(checkpoint)


def test_tokens_are_those_of_the_quantised_model(bundle: Bundle, checkpoint: Path) -> None:
    engine, model = Engine(bundle, "qdq", threads=1), load_quantized(checkpoint)
    for messages in CONVERSATIONS:
        found = answer(engine, messages, max_tokens=12).token_ids
        assert list(found) == reference_tokens(model, engine, messages)


def test_rows_and_cache_have_one_encoding(bundle: Bundle) -> None:
    for layer in bundle.state:
        for past, present in state_names(layer):
            found = set()
            for graph in bundle.target("qdq").graphs:
                for tensor in (*graph.inputs, *graph.outputs):
                    if tensor.name in (past, present):
                        found.add((tensor.dtype, tensor.scale, tensor.zero_point))
            assert len(found) == 1, (past, present, found)


def test_each_state_has_its_own_width(bundle: Bundle) -> None:
    engine = Engine(bundle, "qdq", threads=1)
    answer(engine, CONVERSATIONS[0], max_tokens=3)
    narrow = {
        name
        for name, array in engine._decoder._state.feeds().items()
        if array.dtype == np.dtype(np.uint8)
    }
    assert narrow == {"past_key_values.1.key", "past_key_values.3.value", "past_conv.2"}
    assert bundle.target("qdq").precision["language"] == "w4a16kv8/16"
