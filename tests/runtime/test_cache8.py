"""A cache of 8 bits: the engine keeps its integers, and answers as the quantised model does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoneural.bundle import Bundle
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import load_quantized
from autoneural.runtime.engine import Engine
from tests.runtime.conftest import export, quantise
from tests.runtime.helpers import CONVERSATIONS, answer
from tests.runtime.test_targets import reference_tokens


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantise(
        tiny_checkpoint, tmp_path_factory.mktemp("kv8") / "tiny", PRECISIONS["w4a16kv8"]
    )


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Bundle:
    return export(checkpoint)


def test_tokens_are_those_of_the_quantised_model(bundle: Bundle, checkpoint: Path) -> None:
    engine, model = Engine(bundle, "qdq", threads=1), load_quantized(checkpoint)
    for messages in CONVERSATIONS:
        found = answer(engine, messages, max_tokens=12).token_ids
        assert list(found) == reference_tokens(model, engine, messages)


def test_the_state_is_what_the_manifest_says(bundle: Bundle) -> None:
    engine = Engine(bundle, "qdq", threads=1)
    answer(engine, CONVERSATIONS[0], max_tokens=3)
    found = {}
    for name, array in engine._decoder._state.feeds().items():
        found.setdefault(name.split(".")[0], set()).add(array.dtype)
    assert found == {
        "past_conv": {np.dtype(np.uint16)},
        "past_key_values": {np.dtype(np.uint8)},
    }
    assert bundle.target("qdq").precision["language"] == "w4a16kv8"
    assert bundle.target("cpu").precision["language"] == "w4a32"


def test_an_empty_slot_is_zero(bundle: Bundle) -> None:
    engine = Engine(bundle, "qdq", threads=1)
    rows = [a for n, a in engine._decoder._state.feeds().items() if n.endswith((".key", ".value"))]
    assert len(rows) == 4
    assert all((array == 128).all() for array in rows)
