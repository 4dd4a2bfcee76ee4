"""A past that grows in blocks: as long as the position needs, whatever came before.

Over another number of columns kernels add in another order, so what must be the same to the last
bit is asked of positions: with and without drafts, after a rewind, in a conversation that goes on.
"""

from __future__ import annotations

import dataclasses
import gc
import weakref
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from autoneural.bench.graph_work import bytes_per_token, profile_graphs
from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.export.bundle import ExportOptions, build_bundle
from autoneural.manifest import GraphSpec
from autoneural.runtime import drafting
from autoneural.runtime.engine import Engine
from autoneural.runtime.footprint import footprint
from autoneural.runtime.generation import Timings
from tests.runtime.helpers import CONVERSATIONS, answer, ask, picture, reply
from tests.runtime.test_speculation import FREE, WRONG, Oracle, assert_same_state, state

BLOCK, CONTEXT = 16, 128
LONG = CONVERSATIONS[2]  # more than one chunk of 32


def build(checkpoint: Path, name: str, block: int) -> Bundle:
    options = ExportOptions(context=CONTEXT, prefill_width=32, past_block=block, verify=False)
    out = checkpoint.parent / name
    return build_bundle(checkpoint, out, ("cpu",), options, progress=lambda line: None)


@pytest.fixture(scope="module")
def growing(quantised: Path) -> Bundle:
    return build(quantised, "growing", BLOCK)


@pytest.fixture(scope="module")
def static(quantised: Path) -> Bundle:
    return build(quantised, "static", 0)


Seen = list[tuple[int, int]]


def watch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """(position, rows of the past) of every step from now on."""
    seen: Seen = []
    for graph in engine._sessions.decoders:

        def run(feeds: dict[str, np.ndarray], graph=graph, inner=graph.run) -> dict:
            lengths = {a.shape[2] for n, a in feeds.items() if n.startswith("past_key_values")}
            (length,) = lengths | {feeds["mask"].shape[3] - feeds["inputs_embeds"].shape[1]}
            seen.append((engine._decoder.position, length))
            return inner(feeds)

        monkeypatch.setattr(graph, "run", run)
    return seen


def belongs(position: int) -> int:
    """The length that belongs to a position."""
    return next(n for n in range(0, CONTEXT + BLOCK, BLOCK) if n >= position)


@pytest.fixture(params=[False, True], ids=["fast", "exact"])
def engine(request: pytest.FixtureRequest, growing: Bundle) -> Engine:
    engine = Engine(growing, "cpu", threads=1, exact=request.param)
    engine._costs = FREE
    return engine


def test_a_step_sees_as_much_as_its_position_needs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch(engine, monkeypatch)
    answer(engine, LONG)
    assert seen[0] == (0, 0)
    assert (32, 32) in seen  # the first chunk crossed a border
    assert max(seen)[1] == CONTEXT
    answer(engine, [*LONG[:1], reply("no"), ask("why?")], max_tokens=9, speculate="lookahead")
    answer(engine, [ask("what?")], max_tokens=40, speculate="lookahead")
    assert seen == [(position, belongs(position)) for position, _ in seen]


def test_it_answers_as_the_static_graphs_do(growing: Bundle, static: Bundle) -> None:
    ours, theirs = (Engine(bundle, "cpu", threads=1) for bundle in (growing, static))
    for messages in CONVERSATIONS:
        logits = [e._prefill(e.generate(messages)._prompt, Timings()) for e in (ours, theirs)]
        np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)
        found, wanted = (answer(e, messages) for e in (ours, theirs))
        assert found.token_ids == wanted.token_ids
    assert ours._decoder.position == ours.context - 1 == CONTEXT - 1


def test_beams_cross_borders_each_with_its_own_rows(growing: Bundle, static: Bundle) -> None:
    ours, theirs = (Engine(bundle, "cpu", threads=1) for bundle in (growing, static))
    messages = [ask("a red lamp is on. what?")]
    found, wanted = (answer(e, messages, beams=3, max_tokens=40) for e in (ours, theirs))
    assert found.token_ids == wanted.token_ids
    start, end = found.usage.prompt_tokens, ours._decoder.position
    assert belongs(end) > belongs(start)


@pytest.mark.parametrize("wrong", WRONG)
def test_drafts_across_borders_leave_no_trace(
    growing: Bundle, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    engine = Engine(growing, "cpu", threads=1, exact=True)
    engine._costs = FREE
    plain = answer(engine, LONG)
    left = state(engine)
    engine.reset()
    made = Oracle(plain.usage.prompt_tokens, plain.token_ids, WRONG[wrong])
    monkeypatch.setitem(drafting.DRAFTERS, "lookup", lambda image_id: made)
    seen = watch(engine, monkeypatch)
    found = answer(engine, LONG, speculate="lookup")
    assert found.token_ids == plain.token_ids
    assert_same_state(state(engine), left)
    # Blocks of 8 began on one side of a border and committed to the other, and went back.
    lengths = [length for _, length in seen]
    assert len(set(lengths)) > 4
    assert all(length == belongs(position) for position, length in seen)


def test_reuse_after_a_rewind_across_borders_keeps_every_bit(growing: Bundle) -> None:
    engine = Engine(growing, "cpu", threads=1, exact_reuse=True)
    follow = [*LONG, reply("a red lamp"), ask("what?", picture(4))]
    fresh = engine.logits(follow)
    for before in (LONG, follow, [ask("is it on? " * 9)], [ask("what?")]):
        engine.reset()
        answer(engine, before)  # to the end of the context, several blocks further on
        np.testing.assert_array_equal(engine.logits(follow), fresh)
    assert answer(engine, follow, max_tokens=1).usage.cached_tokens == 64


def test_what_is_committed_stays_when_the_past_shrinks_and_grows(engine: Engine) -> None:
    decoder = engine._decoder
    ids = np.random.default_rng(0).integers(5, 300, 96)
    for start in range(0, 32, 8):
        decoder.step(engine._embedding[ids[start : start + 8]], ids[start : start + 8].tolist())
    decoder.mark()
    kept = state(engine)
    decoder.step(engine._embedding[ids[32:64]], ids[32:64].tolist())
    assert {a.shape[2] for a in rows(engine).values()} == {64}
    assert decoder.rewind(ids[:40].tolist()) == 32
    assert_same_state(state(engine), kept)
    assert {a.shape[2] for a in rows(engine).values()} == {32}
    first = decoder.run(engine._embedding[[7]])
    decoder.step(engine._embedding[ids[32:64]], ids[32:64].tolist())
    assert decoder.rewind(ids[:40].tolist()) == 32
    for name, array in decoder.run(engine._embedding[[7]]).items():
        np.testing.assert_array_equal(array, first[name])


def rows(engine: Engine) -> dict[str, np.ndarray]:
    """Keys and values, as the next step will be given them."""
    feeds = engine._decoder._state.feeds()
    return {name: array for name, array in feeds.items() if name.startswith("past_key_values")}


def test_a_commit_that_is_interrupted_leaves_the_old_state(engine: Engine) -> None:
    """The arrays have grown already, the position has not moved."""
    decoder = engine._decoder
    decoder.step(engine._embedding[list(range(10, 26))], list(range(16)))
    left, outputs = state(engine), decoder.run(engine._embedding[[3]])
    outputs["present.3.value"] = np.zeros((1, 2, 0, 8), np.float32)
    with pytest.raises(ValueError, match="broadcast"):
        decoder.commit(outputs, [3])
    assert decoder.position == 16
    assert_same_state(state(engine), left)
    assert {array.shape[2] for array in rows(engine).values()} == {BLOCK}


def test_the_cache_is_handed_over_where_it_grows(
    growing: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(growing, "cpu", threads=1)
    decoder, given = engine._decoder, []
    hand_over = ort.OrtValue.ortvalue_from_numpy

    def counted(array: np.ndarray) -> ort.OrtValue:
        if array.ndim == 4 and array.shape[1] == 2:
            given.append(decoder.position)
        return hand_over(array)

    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", staticmethod(counted))
    for token in range(40):
        decoder.step(engine._embedding[[token + 5]], [token])
    assert sorted(set(given)) == [0, 1, 17, 33]
    assert len(given) == 4 * len(rows(engine)) == 16


def test_old_arrays_are_let_go(growing: Bundle) -> None:
    """Also by the graphs of other widths, which may not run again for a long time."""
    engine = Engine(growing, "cpu", threads=1)
    ids = list(range(16))
    engine._decoder.step(engine._embedding[ids], ids)
    old = [weakref.ref(array) for array in rows(engine).values()]
    engine._decoder.step(engine._embedding[[3]], [3])
    engine._decoder.step(engine._embedding[[4]], [4])
    gc.collect()
    assert [ref() for ref in old] == [None] * 4
    old = [weakref.ref(array) for array in rows(engine).values()]
    engine.reset()
    engine._decoder.step(engine._embedding[ids], ids)
    gc.collect()
    assert [ref() for ref in old] == [None] * 4


def test_a_fresh_sequence_is_small_and_each_grows_alone(growing: Bundle) -> None:
    engines = [Engine(growing, "cpu", threads=1) for _ in range(2)]
    answer(engines[0], LONG)
    sizes = [{array.shape[2] for array in rows(engine).values()} for engine in engines]
    assert sizes == [{CONTEXT}, {0}]


def test_plans_and_budgets_count_the_longest(growing: Bundle, static: Bundle) -> None:
    assert footprint(growing, "cpu") == pytest.approx(footprint(static, "cpu"), rel=0.01)
    ours, theirs = (profile_graphs(bundle, "cpu", 1) for bundle in (growing, static))
    for a, b in zip(ours, theirs, strict=True):
        assert (a.kv_bytes, a.conv_bytes, a.bytes, a.macs) == (
            *(b.kv_bytes, b.conv_bytes),
            *(b.bytes, b.macs),
        )
    assert bytes_per_token(ours, 64) == bytes_per_token(theirs, 64)


def spec(**changes: int) -> GraphSpec:
    fields = {"part": 0, "width": 1, "context": 1000, "image_size": 0, "past_block": 256, **changes}
    return GraphSpec(role="decode", file="x", inputs=(), outputs=(), **fields)


def test_lengths_are_blocks_up_to_the_context() -> None:
    lengths = [spec().past_rows(n) for n in (0, 1, 256, 257, 512, 513, 768, 769, 1000)]
    assert lengths == [0, 256, 256, 512, 512, 768, 768, 1000, 1000]
    assert [spec(past_block=0).past_rows(n) for n in (0, 999)] == [1000, 1000]


def changed(bundle: Bundle, **changes: int) -> Bundle:
    """The bundle with other facts about its decoders."""
    target = bundle.target("cpu")
    graphs = tuple(
        dataclasses.replace(graph, **changes) if graph.context else graph for graph in target.graphs
    )
    return dataclasses.replace(bundle, targets={"cpu": dataclasses.replace(target, graphs=graphs)})


def test_a_manifest_that_is_wrong_about_it_is_refused(growing: Bundle, static: Bundle) -> None:
    with pytest.raises(UserError, match="manifest and graph disagree on 'mask'"):
        Engine(changed(growing, past_block=0), "cpu", threads=1)
    with pytest.raises(UserError, match="manifest and graph disagree on 'mask'"):
        Engine(changed(static, past_block=0), "cpu", threads=1)
    with pytest.raises(UserError, match="manifest and graph disagree on 'cos"):
        Engine(changed(static, any_width=False), "cpu", threads=1)
