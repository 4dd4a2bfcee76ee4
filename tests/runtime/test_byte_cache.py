"""Keys and values in bytes between the steps of a CPU: `--kv8`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoneural.bundle import Bundle
from autoneural.bundle_graphs import state_names
from autoneural.compress.precision import PRECISIONS
from autoneural.errors import UserError
from autoneural.export.bundle import ExportOptions, build_bundle
from autoneural.runtime import drafting
from autoneural.runtime.engine import Engine
from autoneural.runtime.footprint import footprint
from autoneural.runtime.session import decode
from autoneural.target.numerics import sqnr_db
from tests.conftest import TinyCheckpoint
from tests.runtime.conftest import quantise
from tests.runtime.helpers import CONVERSATIONS, answer
from tests.runtime.test_speculation import FREE, WRONG, Oracle, assert_same_state, state

CONTEXT = 128


def build(checkpoint: Path, name: str, *, kv8: bool, fast: bool = False) -> Bundle:
    options = ExportOptions(
        context=CONTEXT, prefill_width=32, past_block=16, verify=False, kv8=kv8, fast=fast
    )
    out = checkpoint.parent / name
    return build_bundle(checkpoint, out, ("cpu",), options, progress=lambda line: None)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kv8") / "checkpoint"
    return quantise(tiny_checkpoint, out, PRECISIONS["w4a16kv8"])


@pytest.fixture(scope="module")
def floats(checkpoint: Path) -> Bundle:
    return build(checkpoint, "floats", kv8=False)


@pytest.fixture(scope="module", params=[False, True], ids=["exact kernels", "fast"])
def kv8(request: pytest.FixtureRequest, checkpoint: Path) -> Bundle:
    return build(checkpoint, f"kv8-{request.param}", kv8=True, fast=request.param)


def rows(engine: Engine) -> dict[str, np.ndarray]:
    names = {
        past
        for layer in engine.bundle.state
        if layer.kind == "attention"
        for past, _ in state_names(layer)
    }
    return {name: array for name, array in state(engine).items() if name in names}


def test_the_state_is_a_quarter_and_says_what_its_bytes_mean(floats: Bundle, kv8: Bundle) -> None:
    ours, theirs = Engine(kv8, "cpu", threads=1), Engine(floats, "cpu", threads=1)
    for engine in (ours, theirs):
        answer(engine, CONVERSATIONS[0], max_tokens=4)
    small, large = rows(ours), rows(theirs)
    assert {array.dtype for array in small.values()} == {np.dtype(np.uint8)}
    assert 4 * sum(a.nbytes for a in small.values()) == sum(a.nbytes for a in large.values())
    assert kv8.target("cpu").precision["language"].endswith("kv8")
    decoder = next(graph for graph in kv8.target("cpu").graphs if graph.role == "decode")
    specs = {tensor.name: tensor for tensor in decoder.inputs}
    for name, array in small.items():
        real = decode(array, specs[name])
        if kv8.manifest["recipe"]["fast"]:
            assert sqnr_db(large[name], real) > 12
        else:
            assert sqnr_db(large[name], real) > 25


def test_memory_that_is_planned_counts_bytes(checkpoint: Path, floats: Bundle) -> None:
    kv8 = build(checkpoint, "planned", kv8=True)
    decoder = next(graph for graph in floats.target("cpu").graphs if graph.role == "decode")
    past = sum(
        4 * int(np.prod(tensor.shape))
        for tensor in decoder.inputs
        if tensor.name.startswith("past_key_values")
    )
    saved = footprint(floats, "cpu") - footprint(kv8, "cpu")
    assert saved == pytest.approx(past * 3 / 4, abs=4096)  # the graph has more nodes


def test_new_rows_are_read_as_the_next_step_will_find_them(checkpoint: Path) -> None:
    """Eight tokens in one step and in eight steps are the same but for the order of sums."""
    engine = Engine(build(checkpoint, "rounded", kv8=True), "cpu", threads=1)
    decoder, ids = engine._decoder, list(range(10, 18))
    together = decoder.run(engine._embedding[ids])["hidden_states"][0]
    apart = []
    for token in ids:
        outputs = decoder.run(engine._embedding[[token]])
        decoder.commit(outputs, [token])
        apart.append(outputs["hidden_states"][0, 0])
    assert sqnr_db(np.stack(apart), together) > 80


@pytest.mark.parametrize("wrong", WRONG)
def test_drafts_leave_no_trace(kv8: Bundle, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    engine = Engine(kv8, "cpu", threads=1, exact=True)
    engine._costs = FREE
    plain = answer(engine, CONVERSATIONS[2])
    left = state(engine)
    engine.reset()
    made = Oracle(plain.usage.prompt_tokens, plain.token_ids, WRONG[wrong])
    monkeypatch.setitem(drafting.DRAFTERS, "lookup", lambda image_id: made)
    found = answer(engine, CONVERSATIONS[2], speculate="lookup")
    assert found.token_ids == plain.token_ids
    assert_same_state(state(engine), left)


def test_a_cache_of_16_bits_is_no_cache_of_8(quantised: Path) -> None:
    with pytest.raises(UserError, match=r"--kv8: the keys of layer \d have 16 bits; compress"):
        build(quantised, "refused", kv8=True)
