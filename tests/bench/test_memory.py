"""The memory plan: held against graphs and files that were really made, and counted by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

import onnx_ir as ir
import pytest

from autoneural.bench.memory import baseline_of, measure, plan_memory
from autoneural.bench.memory_plan import plan_of
from autoneural.bundle import DEFAULT_BUNDLE, EMBEDDED, Bundle
from autoneural.cli import main
from autoneural.compress.precision import PRECISIONS
from autoneural.config import ModelConfig, preset
from autoneural.manifest import DTYPE_BYTES, GraphSpec
from autoneural.model.vlm import fix_image_size
from autoneural.target.chips import find_chip
from tests.npu.kit_helpers import compiled_bundle

SA8295P, QCS6490 = find_chip("SA8295P"), find_chip("QCS6490")
W4A16KV8, W4A16 = PRECISIONS["w4a16kv8"], PRECISIONS["w4a16"]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(EMBEDDED / DEFAULT_BUNDLE)


def steps(graph: ir.Graph) -> Iterator[tuple[set[str], list[tuple[str, int]]]]:
    """(integers read, integers made and their bytes) of each operation of a QDQ graph."""
    integer = {}
    for node in graph:
        if node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
            integer[node.outputs[0].name] = str(node.inputs[0].name)
    for node in graph:
        if node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            continue
        reads = {integer[v.name] for v in node.inputs if v is not None and v.name in integer}
        made = [
            quantize.outputs[0]
            for value in node.outputs
            for quantize, _ in value.uses()
            if quantize.op_type == "QuantizeLinear"
        ]
        sizes = [(str(v.name), prod(v.shape.numpy()) * v.dtype.bitwidth // 8) for v in made]
        yield reads, sizes


def peak(bundle: Bundle, spec: GraphSpec) -> int:
    """The most bytes alive at one time in the exported graph; state inputs not counted."""
    graph = ir.load(bundle.path(spec.file)).graph
    all_steps = list(steps(graph))
    last = {name: i for i, (reads, _) in enumerate(all_steps) for name in reads}
    last |= {str(v.name): len(all_steps) for v in graph.outputs}
    alive = {
        t.name: prod(t.shape) * DTYPE_BYTES[t.dtype]
        for t in spec.inputs
        if not t.name.startswith("past")
    }
    most = 0
    for i, (_, made) in enumerate(all_steps):
        alive |= dict(made)
        most = max(most, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last.get(name, -1) > i}
    return most


def test_it_is_what_the_graphs_hold(bundle: Bundle) -> None:
    memory = plan_of(DEFAULT_BUNDLE, SA8295P).memory
    specs = {(g.role, g.width): g for g in bundle.target("qdq").graphs}
    assert [(g.role, g.width) for g in memory.graphs] == list(specs)
    for graph in memory.graphs:
        spec = specs[graph.role, graph.width]
        assert graph.activations == pytest.approx(peak(bundle, spec), rel=0.15)
        state = [t for t in spec.inputs if t.name.startswith("past")]
        assert graph.state == sum(prod(t.shape) * DTYPE_BYTES[t.dtype] for t in state)
    assert memory.context == bundle.context
    assert memory.kv + memory.conv_state == memory.graphs[-2].state
    files = bundle.manifest["files"]
    weights = files["qdq/language.data"]["bytes"] + files["qdq/vision.data"]["bytes"]
    assert memory.weights == pytest.approx(weights, rel=0.005)
    assert memory.host_embedding == files["qdq/embedding.bin"]["bytes"]
    assert memory.total == memory.weights + memory.kv + memory.conv_state + memory.activations


def test_the_papers_state_by_hand() -> None:
    """Of arXiv 2512.02924: 6 attention layers of 8 heads x 64, 10 convolutions of 2048 x 2."""
    config = without_encoder("autoneural-1.5b")
    memory = measure(config, W4A16, 4096, [64])
    assert memory.kv == memory.kv_int16 == 2 * 6 * 8 * 64 * 4096 * 2 == 50_331_648
    assert memory.kv_int8 * 2 == memory.kv_int16
    assert memory.conv_state == 10 * 2048 * 2 * 2
    assert measure(config, W4A16KV8, 4096, [64]).kv == memory.kv_int8
    other, words = baseline_of(preset("autoneural-1.5b"))
    assert words == (
        "the same decoder with attention in all 16 layers, and the encoder of vit-1.5b"
    )
    assert other.vision == preset("vit-1.5b").vision
    baseline = measure(replace(config, text=other.text), W4A16, 1024, [64])
    assert baseline.kv == 2 * 16 * 8 * 64 * 1024 * 2
    assert baseline.conv_state == 0


def without_encoder(name: str) -> ModelConfig:
    """The preset's decoder behind the small encoder, whose shapes are quick to follow."""
    return replace(preset(name), vision=preset("cockpit-tiny").vision)


def test_an_encoder_of_its_own_is_its_own_baseline() -> None:
    config = preset("lfm2-vl-450m")
    other, words = baseline_of(config)
    assert other.vision == config.vision
    assert words.endswith("and its own encoder")


def test_a_model_of_tiles_is_planned_before_and_after_it_is_made_static() -> None:
    whole = preset("lfm2-vl-450m")
    text = replace(whole.text, layer_types=whole.text.layer_types[:3])
    vision = replace(preset("lfm2-vl-450m").vision, num_hidden_layers=1)
    config = replace(whole, text=text, vision=vision)
    static, _ = fix_image_size(config, {}, 512)
    assert static.resize == "tile"
    first, second = (measure(c, W4A16KV8, 64, [512]) for c in (config, static))
    assert first == second
    heads, patches = 12, (512 // 16) ** 2
    scores = heads * patches**2 * 2
    assert first.graphs[0].activations > 2 * scores  # softmax reads one and makes another


def test_what_is_shared_is_counted_once() -> None:
    config = preset("cockpit-tiny")
    shared = plan_memory(config, W4A16KV8, SA8295P, context=64, image_sizes=(256, 512)).memory
    alone = plan_memory(config, W4A16KV8, QCS6490, context=64, image_sizes=(256, 512)).memory
    names = [graph.name for graph in shared.graphs]
    roles = ["prefill AR-64", "verify AR-8", "decode AR-1", "head"]
    assert names == ["vision 256 px", "vision 512 px", *roles]
    small, large, prefill, *_, head = (graph.weights for graph in shared.graphs)
    assert small == large
    assert shared.weights == small + prefill + head
    assert alone.weights == 2 * small + 3 * prefill + head
    assert shared.graphs[1].activations == pytest.approx(4 * shared.graphs[0].activations, rel=0.1)
    assert shared.activations == shared.graphs[1].activations


def test_a_checkpoint_and_json(
    tiny_checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["show", str(tiny_checkpoint.folder), "--memory", "--json", "--context", "128"]
    assert main([*command, "--chip", "sm8550", "--precision", "w4a16"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["chip"], plan["vtcm_mb"], plan["precision"]) == ("SM8550", 8, "w4a16")
    assert plan["kv"] == 2 * 2 * 2 * 8 * 128 * 2  # two layers of two heads x 8
    assert [memory["context"] for memory in plan["baselines"]] == [128]
    assert plan["baselines"][0]["kv"] == 2 * plan["kv"]
    assert main(["show", str(tiny_checkpoint.folder), "--memory"]) == 0
    printed = capsys.readouterr().out
    assert "tiny-test on SA8295P (HTP v68, 8 MB of VTCM), w4a16kv8" in printed
    assert "attention in all 4 layers, and its own encoder" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cockpit-tiny", "--memory", "--chip", "SA1"], "no chip called 'SA1'"),
        (
            ["cockpit-tiny", "--memory", "--context", "9999"],
            "--context 9999: cockpit-tiny has 1024",
        ),
        (["cockpit-tiny", "--memory", "--image-size", "70"], "70 is not a multiple of 32"),
        (["cockpit-tiny", "--memory", "--precision", "w4a16"], "quantised already, in w4a16kv8"),
        (["vit-tiny", "--memory", "--image-size", "250"], "--image-size 250: image_size: not a"),
        (["cockpit-tiny", "--chip", "SA8295P"], "--chip: goes with --memory"),
        (["no-such-thing", "--memory"], "no-such-thing: no such bundle folder"),
    ],
)
def test_what_cannot_be_planned(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", *words]) == 2
    assert message in capsys.readouterr().err


def test_binaries_and_unshared_weights_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(compiled_bundle(tmp_path / "compiled").folder)
    assert main(["show", folder, "--memory"]) == 0
    assert "binaries for SA8295P: " in capsys.readouterr().out
    assert main(["show", folder, "--memory", "--chip", "QCS6490"]) == 0
    told = capsys.readouterr().out
    assert "binaries" not in told
    assert "QCS6490 shares no weights among graphs" in told
