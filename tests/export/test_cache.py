"""The decoder's state between steps: integers of one encoding, converted once where made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import ShapeInferencePass

from autoneural.bundle import Bundle
from autoneural.bundle_graphs import state_names
from autoneural.errors import UserError
from autoneural.export.graphs import build_graph
from autoneural.export.onnx import export_graph, model_bytes
from autoneural.export.parity import compare_integer, exact_session, on_grid, run_integer, run_torch
from autoneural.export.qdq import quantize_graph, resolve_encodings
from autoneural.manifest import GraphSpec
from autoneural.npu.partition import plan_parts
from autoneural.target.numerics import Encoding
from tests.export.conftest import KEYS, Quantised, random_inputs

DECODERS = ("prefill", "decode")
IntegerModels = dict[str, tuple[ir.Model, dict[str, Encoding]]]

CONCAT = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,2] past, float[1,1] x) => (float[1,3] y, float[1,1] z)
{
  new = Sigmoid (x)
  y = Concat <axis = 1> (past, new)
  z = Neg (OTHER)
}
"""


@pytest.fixture(scope="module")
def models(quantised_kv8: Quantised) -> IntegerModels:
    found = {}
    for role in DECODERS:
        model = export_graph(build_graph(quantised_kv8.frozen_model, KEYS[role]))
        found[role] = model, quantize_graph(model, quantised_kv8.quantization)
    return found


@pytest.mark.parametrize("role", DECODERS)
def test_an_8_bit_cache_computes_what_fake_quant_does(
    role: str, quantised_kv8: Quantised, models: IntegerModels
):
    model, encodings = models[role]
    graph = build_graph(quantised_kv8.model, KEYS[role])
    inputs = on_grid(random_inputs(graph, seed=9), encodings)
    got = run_integer(exact_session(model_bytes(model)), inputs, encodings)
    for parity in compare_integer(run_torch(graph, inputs), got, encodings):
        assert parity.lsb <= 1, parity
        assert parity.moved < 0.02, parity
        assert parity.sqnr_db > 60, parity


@pytest.mark.parametrize("role", DECODERS)
def test_only_the_cache_has_8_bits(role: str, models: IntegerModels):
    proto = ir.to_proto(models[role][0])
    onnx.checker.check_model(proto, full_check=True)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*proto.graph.input, *proto.graph.output)
    }
    narrow = {name for name, kind in types.items() if kind == onnx.TensorProto.UINT8}
    assert narrow == {
        f"{stem}.1.{part}" for stem in ("past_key_values", "present") for part in ("key", "value")
    }
    assert set(types.values()) == {onnx.TensorProto.UINT8, onnx.TensorProto.UINT16}


def test_the_cache_is_symmetric_and_its_rows_are_computed_in_16_bits(quantised_kv8: Quantised):
    activations = quantised_kv8.quantization.activations
    layer = "language_model.model.layers.1.self_attn"
    for rows, cache in (("key_rows", "keys"), ("value_rows", "values")):
        assert activations[f"{layer}.{rows}"] == activations[f"{layer}.{cache}"]
        found = activations[f"{layer}.{cache}"]
        assert (found.bits, found.zero_point) == (8, 128)
    assert {activations[f"{layer}.{p}"].bits for p in ("k_rotary.add", "v_proj", "scores")} == {16}


@pytest.mark.parametrize("role", DECODERS)
def test_both_products_of_attention_read_the_cache_in_8_bits(role: str, models: IntegerModels):
    graph = models[role][0].graph
    products = [
        node
        for node in graph
        if node.op_type == "MatMul" and node.metadata_props["module"].endswith(("scores", "mix"))
    ]
    assert len(products) == 2
    for node in products:
        assert [_bits(value) for value in node.inputs] == [16, 8]
        assert _bits(node.outputs[0].uses()[0].node.outputs[0].uses()[0].node.outputs[0]) == 16


@pytest.mark.parametrize("role", DECODERS)
@pytest.mark.parametrize("part", ["key", "value"])
def test_rows_are_converted_once_and_the_cache_never(role: str, part: str, models: IntegerModels):
    graph = models[role][0].graph
    past = next(value for value in graph.inputs if value.name == f"past_key_values.1.{part}")
    present = next(value for value in graph.outputs if value.name == f"present.1.{part}")
    cache = next(n for n in graph if n.op_type == "Concat" and _reads(n, past))
    # Into the concatenation: the cache as it came, the rows as they leave.
    assert [_before(value) for value in cache.inputs] == [past, present]
    assert {_encoding(v) for v in (*cache.inputs, _after(cache))} == {_encoding(cache.inputs[0])}
    convert = present.producer()
    assert convert is not None
    wide = convert.inputs[0].producer()
    assert (convert.op_type, wide.op_type) == ("QuantizeLinear", "DequantizeLinear")
    assert _bits(convert.inputs[0]) == 16


def _reads(node: ir.Node, source: ir.Value) -> bool:
    return any(_before(value) is source for value in node.inputs)


def _before(value: ir.Value | None) -> ir.Value:
    """What a dequantised value was before."""
    assert value is not None
    node = value.producer()
    assert node is not None
    assert node.op_type == "DequantizeLinear"
    assert node.inputs[0] is not None
    return node.inputs[0]


def _after(node: ir.Node) -> ir.Value:
    """A node's result, rounded and dequantised."""
    quantize = node.outputs[0].uses()[0].node
    return quantize.outputs[0].uses()[0].node.outputs[0]


def _encoding(value: ir.Value | None) -> tuple[float, int]:
    assert value is not None
    node = value.producer()
    assert node is not None
    scale, zero_point = (ir.convenience.get_const_tensor(v) for v in node.inputs[1:3] if v)
    return float(scale.numpy()), int(zero_point.numpy())


def _bits(value: ir.Value | None) -> int:
    return 8 * np.dtype(_before(value).dtype.numpy()).itemsize


def without_conversion(other: str) -> ir.Graph:
    model = ir.from_proto(onnx.parser.parse_model(CONCAT.replace("OTHER", other)))
    ShapeInferencePass()(model)
    for node, module in zip(model.graph, ("rows", "keys", "neg"), strict=True):
        node.metadata_props["module"] = module
    return model.graph


WIDE = Encoding(bits=16, scale=1 / 65535, zero_point=0)
NARROW = Encoding(bits=8, scale=1 / 127, zero_point=128)
ACTIVATIONS = {"rows": WIDE, "keys": NARROW, "neg": WIDE}


def test_what_enters_a_cache_is_written_wide_and_read_narrow():
    graph = without_conversion("x")
    graph.inputs[1].name = "mask"  # an input that has an encoding of its own
    activations = {**ACTIVATIONS, "language_model.model.mask": WIDE}
    read, written = resolve_encodings(graph, activations)
    assert (read["new"], written) == (NARROW, {"new": WIDE})
    assert (read["past"], read["y"], read["z"]) == (NARROW, NARROW, WIDE)


def test_rows_that_are_read_in_two_widths_are_an_error():
    graph = without_conversion("new")
    graph.inputs[1].name = "mask"
    with pytest.raises(UserError, match=r"keys: new has 16 bits, not 8, and is read by a Neg too"):
        resolve_encodings(graph, {**ACTIVATIONS, "language_model.model.mask": WIDE})


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return Bundle.load("cockpit-tiny")


def test_state_has_one_encoding_in_every_width(embedded: Bundle):
    decoders = [g for g in embedded.target("qdq").graphs if g.role not in ("vision", "head")]
    assert [graph.role for graph in decoders] == ["prefill", "verify", "decode"]
    _require_one_encoding(embedded, decoders)


def test_state_has_one_encoding_in_every_part(embedded: Bundle):
    qdq = embedded.target("qdq")
    language = tuple(g for g in qdq.graphs if g.role not in ("vision", "head"))
    alone = replace(embedded, targets={"qdq": replace(qdq, graphs=language)})
    parts = plan_parts(alone, max_bytes=1_000_000)
    assert len(parts) > 2
    _require_one_encoding(embedded, [graph.spec for part in parts for graph in part.graphs])
    streams = [
        {t for t in (*g.spec.inputs, *g.spec.outputs) if t.name.startswith("hidden.")}
        for part in parts
        for g in part.graphs
        if g.spec.role == "decode"
    ]
    assert all(len(a & b) == 1 for a, b in zip(streams, streams[1:], strict=False))


def _require_one_encoding(bundle: Bundle, graphs: list[GraphSpec]) -> None:
    found: dict[str, set[tuple[str, float | None, int]]] = {}
    for graph in graphs:
        for tensor in (*graph.inputs, *graph.outputs):
            encoding = tensor.dtype, tensor.scale, tensor.zero_point
            found.setdefault(tensor.name, set()).add(encoding)
    pairs = [pair for layer in bundle.state for pair in state_names(layer)]
    assert len(pairs) == 9
    for past, present in pairs:
        assert len(found[past] | found[present]) == 1, (past, present)
