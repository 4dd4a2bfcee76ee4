"""Mixed precision: groups, what a chip lets them be, and a search that keeps its budget."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from autoneural.checkpoint import Checkpoint
from autoneural.compress import operators
from autoneural.compress.divergence import answer_logits, divergence
from autoneural.compress.fake_quant import output_quantizers, quantize
from autoneural.compress.groups import Group, find_groups, model_bytes, with_widths
from autoneural.compress.operators import Operators
from autoneural.compress.precision import PRECISIONS, bits_for
from autoneural.compress.quantize import Sample, calibrate, frozen_tensors
from autoneural.compress.search import (
    Budget,
    Found,
    Workbench,
    search,
    search_precision,
    sensitivities,
)
from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.export.graphs import GraphKey, build_graph
from autoneural.export.onnx import export_graph
from autoneural.export.qdq import load_quantization, quantize_graph
from autoneural.model.vlm import VLM
from autoneural.npu.uses import read_uses
from autoneural.target.chips import find_chip
from autoneural.target.legality import Verdict

CONTEXT = 64
W8A16 = PRECISIONS["w8a16"]
SA8295P = find_chip("SA8295P")
LAYERS = "language_model.model.layers"


@pytest.fixture(scope="module")
def vlm(config: ModelConfig) -> VLM:
    torch.manual_seed(0)
    return VLM(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def one_bench(vlm: VLM, make_sample: Callable[..., Sample]) -> Workbench:
    return Workbench(vlm, [make_sample(0)], W8A16, CONTEXT)


@pytest.fixture
def bench(one_bench: Workbench) -> Workbench:
    """As it was at the start; sensitivities that a test has measured stay known."""
    one_bench.reset()
    return one_bench


@pytest.fixture(scope="module")
def whole(one_bench: Workbench) -> Found:
    """All the way down."""
    return search(one_bench, Budget(nats=1e9))


def group(bench: Workbench, path: str) -> Group:
    return next(g for g in bench.groups if path in g.paths)


def test_modules_that_read_one_tensor_are_one_group(bench: Workbench) -> None:
    attention = f"{LAYERS}.1.self_attn"
    for path, members in {
        f"{attention}.q_proj": {f"{attention}.{name}_proj" for name in "qkv"},
        f"{LAYERS}.0.feed_forward.w1": {f"{LAYERS}.0.feed_forward.{name}" for name in ("w1", "w3")},
        f"{LAYERS}.0.feed_forward.w2": {f"{LAYERS}.0.feed_forward.w2"},
        f"{attention}.keys": {f"{attention}.key_rows", f"{attention}.keys"},
        f"{LAYERS}.2.conv.window": {f"{LAYERS}.2.conv.window"},
        "language_model.model.embed_tokens": {"language_model.model.embed_tokens"},
        "vision_encoder.blocks.2.1.attn.query.proj": {
            f"vision_encoder.blocks.2.1.attn.{name}"
            for name in ("query.proj", "key.down_conv", "value.down_conv")
        },
    }.items():
        assert set(group(bench, path).paths) == members
    paths = [path for g in bench.groups for path in g.paths]
    assert len(paths) == len(set(paths))


def test_bytes_are_those_of_what_is_stored(bench: Workbench, model: VLM) -> None:
    state = 2 * 2 * CONTEXT * 8 * 2 + 2 * 32 * 2 * 2  # keys and values, two windows, 16 bits
    quantized = quantize(model, W8A16)
    without = model_bytes(quantized, W8A16, 0)
    assert bench.bytes == model_bytes(quantized, W8A16, CONTEXT) == without + state - 2 * 32 * 2 * 2
    head = group(bench, "language_model.model.embed_tokens")
    assert (head.count, head.saved) == (320 * 32, 320 * 32 // 2)
    before = bench.bytes
    bench.set(head, 4)
    assert bench.bytes == before - head.saved


def test_the_words_are_those_of_the_exported_graphs(model: VLM, samples: list[Sample]) -> None:
    """In two precisions, so that every operator of a group was in either width."""
    config = model.config
    plain = VLM(config).eval()
    plain.load_state_dict(model.state_dict())
    for name, parameter in plain.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)  # the exporter drops zeros
    keys = [
        GraphKey(role="vision", image_size=config.vision.image_size),
        GraphKey(role="prefill", width=8, context=16),
        GraphKey(role="head", width=1),
    ]
    start = quantize(VLM(config).eval(), W8A16)
    known = Operators(start, samples)
    groups = [g for g in find_groups(start, W8A16, known, CONTEXT) if g.kind == "state"]
    for precision in (PRECISIONS["w4a16"], with_widths(W8A16, {g: 8 for g in groups}, "narrow")):
        said = known.uses(precision)
        rounded = VLM(config).eval()
        rounded.load_state_dict(plain.state_dict())
        encodings = calibrate(rounded, samples, precision, rounding="nearest")
        frozen = Checkpoint(config, frozen_tensors(rounded), {}, encodings)
        read = set()
        for key in keys:
            graph = export_graph(build_graph(plain, key))
            quantize_graph(graph, load_quantization(frozen))
            read |= set(read_uses(graph))
        assert {use for use in said - read if use.op != "Convert"} == set()
        converted = {(use.op, use.precision, use.rank) for use in said - read}
        assert converted <= {(use.op, use.precision, use.rank) for use in read}


def test_only_what_the_table_knows_is_lowered(bench: Workbench) -> None:
    refused = [g for g in bench.groups if not bench.may(g, (), SA8295P)]
    assert [g.paths for g in refused] == [(f"{LAYERS}.{i}.conv.window",) for i in (0, 2)]
    assert all(bench.may(g, (), None) for g in refused)


def test_a_table_that_refuses_4_bits_leaves_8(
    bench: Workbench, model: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(chip: object, op: str, precision: str, **form: object) -> Verdict:
        return Verdict(accepted=not (op == "Conv" and precision.startswith("w4")))

    monkeypatch.setattr(operators, "legal", refuse)
    found = search(bench, Budget(nats=1e9), chip=SA8295P)
    convolutions = [p for p, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)]
    assert {bits_for(found.precision.weights, path) for path in convolutions} == {8}
    assert bits_for(found.precision.weights, f"{LAYERS}.0.feed_forward.w2") == 4


def test_sensitivity_grows_when_bits_go(bench: Workbench) -> None:
    start = bench.measure()
    projection = group(bench, f"{LAYERS}.0.feed_forward.w1")
    (cost,) = (s.cost for s in sensitivities(bench, [projection]))
    assert cost.nats > 2 * start.nats
    assert cost.sqnr_db < start.sqnr_db - 3
    assert bench.measure() == start


def test_raising_is_measured_too(vlm: VLM, make_sample: Callable[..., Sample]) -> None:
    bench = Workbench(vlm, [make_sample(0)], PRECISIONS["w4a16"], CONTEXT)
    start = bench.measure()
    projection = group(bench, f"{LAYERS}.0.feed_forward.w1")
    assert (projection.bits, projection.other) == (4, 8)
    assert projection.saved < 0
    (cost,) = (s.cost for s in sensitivities(bench, [projection]))
    assert cost.sqnr_db > start.sqnr_db


def test_a_budget_of_bytes_is_met_with_less_harm(
    bench: Workbench, whole: Found, model: VLM
) -> None:
    sizes = [point.bytes for point in whole.front]
    assert sizes == sorted(sizes, reverse=True)
    middle = (sizes[0] + sizes[-1]) // 2
    found = search(bench, Budget(bytes=middle))
    assert found.front[-1].bytes <= middle < found.front[-2].bytes
    assert found.front[-1].cost.nats < whole.front[-1].cost.nats
    assert model_bytes(quantize(model, found.precision), found.precision, CONTEXT) == bench.bytes


@pytest.mark.parametrize("name", ["nats", "sqnr_db"])
def test_a_budget_of_harm_is_kept(name: str, bench: Workbench, whole: Found) -> None:
    start, end = (getattr(p.cost, name) for p in (whole.front[0], whole.front[-1]))
    limit = (start + end) / 2
    found = search(bench, Budget(**{name: limit}))
    assert 1 < len(found.front) < len(whole.front)
    for point in found.front:
        value = getattr(point.cost, name)
        assert value <= limit if name == "nats" else value >= limit


def test_the_model_is_left_as_it_was(model: VLM, samples: list[Sample]) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stages = []
    found = search_precision(
        model, samples[:1], Budget(nats=1e9), context=CONTEXT, progress=lambda *s: stages.append(s)
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not list(output_quantizers(model))
    rows, count = found.to_dict(), len(found.sensitivities)
    assert len(rows["front"]) == count + 1
    assert rows["front"][0]["lowered"] is None
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert {("inputs", 1, 1), ("sensitivity", count, count), ("search", count, count)} <= set(
        stages
    )


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"bytes": 10}, r"10 bytes; the least that SA8295P takes is \d+"),
        ({"nats": 0.0}, "the base precision alone is at"),
        ({"sqnr_db": 500.0}, "give a wider base or a larger budget"),
        ({}, "nothing given; give one of"),
        ({"bytes": 1, "nats": 1.0}, "bytes, nats given"),
    ],
)
def test_budgets_that_cannot_be_met(budget: dict, message: str, bench: Workbench) -> None:
    with pytest.raises(UserError, match=message):
        search(bench, Budget(**budget), chip=SA8295P)


def test_no_samples_and_no_answers_are_refused(model: VLM, samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="no samples"):
        Workbench(model, [], W8A16)
    silent = replace(samples[0], labels_BT=torch.full_like(samples[0].input_ids_BT, -100))
    with pytest.raises(UserError, match="a sample without an answer"):
        Workbench(model, [silent], W8A16)


def test_answers_are_read_where_the_labels_are(model: VLM, samples: list[Sample]) -> None:
    sample = samples[2]
    labels = torch.full_like(sample.input_ids_BT, -100)
    labels[0, 5:7] = sample.input_ids_BT[0, 5:7]
    logits = answer_logits(model, replace(sample, labels_BT=labels))
    torch.testing.assert_close(logits, sample(model)[0, 4:6])


def test_divergence_is_the_textbook_s() -> None:
    p, q = torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625, 1e-9]]), torch.full((1, 6), 1 / 6)
    expected = float((p * (p / q).log()).sum())
    found = divergence([p.log()], [q.log()])
    assert found.nats == pytest.approx(expected, rel=1e-5)
    same = divergence([p.log()], [p.log()])
    assert (same.nats, same.agreement, same.sqnr_db) == (0.0, 1.0, math.inf)
    assert same.to_dict()["sqnr_db"] is None
    turned = divergence([p.log()], [p.log().flip(-1)])
    assert turned.agreement == pytest.approx(4 / 5)
