"""Decoder graphs cut into parts answer as the whole ones do."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import onnx_ir as ir
import pytest

from autoneural.bundle import Bundle, write_bundle
from autoneural.manifest import GraphSpec
from autoneural.runtime.chain import GraphChain
from autoneural.runtime.engine import Engine
from tests.runtime.helpers import CONVERSATIONS, answer

CUT = 2  # the second part begins with this layer


@pytest.fixture(scope="module")
def in_parts(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`tiny_bundle` with every decoder graph cut before layer 2."""
    folder = tmp_path_factory.mktemp("parts") / "bundle"
    shutil.copytree(tiny_bundle.folder, folder)
    target = tiny_bundle.target("float")
    graphs = [part for graph in target.graphs for part in cut(folder, graph)]
    manifest = {k: v for k, v in tiny_bundle.manifest.items() if k != "files"}
    entry = {**manifest["targets"]["float"], "graphs": [dataclasses.asdict(g) for g in graphs]}
    return write_bundle(folder, {**manifest, "targets": {"float": entry}})


def cut(folder: Path, spec: GraphSpec) -> list[GraphSpec]:
    if spec.role in ("vision", "head"):
        return [spec]
    path = folder / spec.file
    first = half(path, spec, 0)
    second = half(path, spec, 1)
    path.unlink()
    return [first, second]


def half(path: Path, spec: GraphSpec, part: int) -> GraphSpec:
    """One part of the graph, saved beside it. What each takes is looked up, not computed."""
    graph = ir.load(path).graph
    stream = _stream_into_layer(graph)
    link = dataclasses.replace(spec.inputs[0], name=f"hidden.{CUT - 1}")
    own = [t for t in spec.inputs[4:] if (int(t.name.split(".")[1]) >= CUT) == bool(part)]
    new = [t for t in spec.outputs[1:] if (int(t.name.split(".")[1]) >= CUT) == bool(part)]
    inputs = (link if part else spec.inputs[0], *spec.inputs[1:4], *own)
    outputs = (spec.outputs[0] if part else link, *new)
    names = [str(stream.name) if t is link else t.name for t in (*inputs, *outputs)]
    piece = ir.convenience.extract(graph, names[: len(inputs)], names[len(inputs) :])
    piece.name = "part"
    for value, tensor in zip((*piece.inputs, *piece.outputs), (*inputs, *outputs), strict=True):
        value.name = tensor.name
    file = f"{spec.file.removesuffix('.onnx')}-part{part}.onnx"
    ir.save(ir.Model(piece, ir_version=10), path.parent / Path(file).name)
    return dataclasses.replace(spec, part=part, file=file, inputs=inputs, outputs=outputs)


def _stream_into_layer(graph: ir.Graph) -> ir.Value:
    """The residual stream before layer CUT: what the norm ahead of its convolution takes."""
    window = next(value for value in graph.outputs if value.name == f"conv_window.{CUT}")
    node = window.producer()
    while node is not None and node.op_type != "RMSNormalization":
        values = [value for value in node.inputs if value is not None]
        node = next(p for value in values if (p := value.producer()) is not None)
    assert node is not None
    assert node.inputs[0] is not None
    return node.inputs[0]


def test_parts_answer_as_the_whole(in_parts: Bundle, tiny_bundle: Bundle) -> None:
    engines = [Engine(bundle, "float", threads=1) for bundle in (in_parts, tiny_bundle)]
    for messages in CONVERSATIONS:
        cut_, whole = (answer(engine, messages, max_tokens=12).token_ids for engine in engines)
        assert cut_ == whole


def test_a_chain_looks_like_the_whole_graph(in_parts: Bundle, tiny_bundle: Bundle) -> None:
    chains = Engine(in_parts, "float", threads=1)._sessions.decoders
    wholes = Engine(tiny_bundle, "float", threads=1)._sessions.decoders
    for chain, whole in zip(chains, wholes, strict=True):
        assert isinstance(chain, GraphChain)
        assert chain.inputs == whole.inputs
        assert chain.outputs == whole.outputs
        assert (chain.spec.width, chain.spec.context) == (whole.spec.width, whole.spec.context)


def test_the_report_has_a_row_per_part(in_parts: Bundle) -> None:
    report = Engine(in_parts, "float", threads=1).provider_report()
    assert [(row["role"], row["part"], row["width"]) for row in report] == [
        ("vision", 0, 0),
        *[(role, part, w) for role, w in _DECODERS for part in (0, 1)],
        ("head", 0, 1),
    ]
    assert all(sum(row["nodes"].values()) > 0 for row in report)


_DECODERS = (("decode", 1), ("prefill", 8), ("prefill", 32))


def test_verify_graphs_take_part_as_decoders(exported: Bundle) -> None:
    engine = Engine(exported, "qdq", threads=1)
    roles = [(graph.spec.role, graph.spec.width) for graph in engine._sessions.decoders]
    assert roles == [("decode", 1), ("verify", 8), ("prefill", 16)]
    assert [engine._sessions.decoder_for(n).spec.width for n in (1, 2, 8, 9, 99)] == [
        1,
        8,
        8,
        16,
        16,
    ]
