"""Float graphs with AIMET encodings: together they are the QDQ graph again, integer for integer."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import RemoveUnusedNodesPass

from autoneural.bundle import DEFAULT_BUNDLE, Bundle
from autoneural.errors import UserError
from autoneural.npu.aimet import split_qdq
from tests.npu.kit_helpers import reference_session

GRAPHS = ("vision", "prefill", "decode", "head")


def load(name: str) -> ir.Model:
    bundle = Bundle.load(DEFAULT_BUNDLE)
    return ir.load(bundle.folder / "qdq" / f"{name}.onnx")


def split(model: ir.Model) -> tuple[ir.Model, dict]:
    """Float graph and encodings, the latter as a converter reads them: from JSON."""
    encodings = split_qdq(model, lambda name, array: ir.tensor(array, name=name))
    return model, json.loads(json.dumps(encodings.to_aimet()))


def quantise(real: np.ndarray, entry: dict, axis: int) -> np.ndarray:
    """Integers as AIMET defines them: round(x / scale) - offset, counted from the lowest one."""
    shape = [1] * real.ndim
    if entry["enc_type"] == "PER_CHANNEL":
        shape[axis] = -1
    scale = np.array(entry["scale"], np.float32).reshape(shape)
    offset = np.array(entry["offset"], np.int64).reshape(shape)
    unsigned = np.rint(real.astype(np.float64) / scale).astype(np.int64) - offset
    lowest = -(1 << (entry["bw"] - 1)) if entry["is_sym"] else 0
    assert unsigned.min(initial=0) >= 0
    assert unsigned.max(initial=0) < 1 << entry["bw"]
    return unsigned + lowest


@pytest.mark.parametrize("name", GRAPHS)
def test_weights_give_the_same_integers(name: str) -> None:
    wanted = {
        node.outputs[0].name.removesuffix(".real"): node
        for node in load(name).graph
        if node.op_type == "DequantizeLinear" and node.inputs[0].is_initializer()
    }
    model, content = split(load(name))
    entries = {entry["name"]: entry for entry in content["param_encodings"]}
    assert entries.keys() == wanted.keys()
    for key, node in wanted.items():
        integers = node.inputs[0].const_value.numpy().astype(np.int64)
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        real = model.graph.initializers[key].const_value.numpy()
        found = quantise(real, entries[key], axis)
        if entries[key]["bw"] == 32:
            # A bias has more digits than a float holds; the float is what the QDQ graph adds.
            np.testing.assert_allclose(found, integers, rtol=2.0**-23, atol=0)
        else:
            np.testing.assert_array_equal(found, integers)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_activation_keeps_its_encoding(name: str) -> None:
    wanted = {}
    for node in load(name).graph:
        if node.op_type == "QuantizeLinear" or node.inputs[0].is_graph_input():
            scale, zero = (v.const_value.numpy() for v in node.inputs[1:3])
            encoding = ([float(scale)], [-int(zero)], 8 * zero.itemsize, False)
            wanted[float_name(node)] = encoding
    model, content = split(load(name))
    found = {
        e["name"]: (e["scale"], e["offset"], e["bw"], e["is_sym"])
        for e in content["activation_encodings"]
    }
    assert found == wanted
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    assert {v.name for v in values if v.dtype == ir.DataType.FLOAT} == found.keys()
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in model.graph}


def float_name(node: ir.Node) -> str:
    """What the float graph calls the tensor that a node quantises, or a graph input it reads."""
    real, integers = node.inputs[0], node.outputs[0]
    assert real is not None
    name, producer = str(integers.name), real.producer()
    if integers.is_graph_output():
        return name
    again = producer is not None and producer.op_type == "DequantizeLinear"
    return f"{name.removesuffix('.int')}.requantized" if again else str(real.name)


def constants(stem: str, *arrays: np.ndarray) -> list[ir.Value]:
    tensors = [ir.tensor(array, name=f"{stem}.{i}") for i, array in enumerate(arrays)]
    return [ir.val(str(tensor.name), const_value=tensor) for tensor in tensors]


def requantise(model: ir.Model, content: dict) -> ir.Model:
    """The QDQ graph again, made of nothing but the float graph and its encodings."""
    graph = model.graph
    axes = {
        value.name: 1 if reader.op_type == "MatMul" else 0
        for value in graph.initializers.values()
        for reader, _ in value.uses()
    }
    for entry in content["param_encodings"]:
        weight = graph.initializers[entry["name"]]
        axis = axes[entry["name"]]
        dtype = weight_dtype(entry)
        integers = quantise(weight.const_value.numpy(), entry, axis).astype(dtype)
        per_channel = entry["enc_type"] == "PER_CHANNEL"
        scale = np.array(entry["scale"] if per_channel else entry["scale"][0], np.float32)
        lowest = (1 << (entry["bw"] - 1)) if entry["is_sym"] else 0
        zero = np.full(scale.shape, -(entry["offset"][0] + lowest)).astype(dtype)
        values = constants(f"{entry['name']}.again", integers, scale, zero)
        for value in values:
            graph.register_initializer(value)
        attributes = {"axis": axis} if per_channel else {}
        dequantize = ir.node("DequantizeLinear", values, attributes)
        for reader, place in list(weight.uses()):
            reader.replace_input_with(place, dequantize.outputs[0])
        graph.insert_before(next(iter(graph)), dequantize)
    for entry in content["activation_encodings"]:
        add_pair(graph, entry)
    RemoveUnusedNodesPass()(model)
    return model


def weight_dtype(entry: dict) -> type:
    if not entry["is_sym"]:
        return {8: np.uint8, 16: np.uint16}[entry["bw"]]
    return {4: ml_dtypes.int4, 8: np.int8, 16: np.int16, 32: np.int32}[entry["bw"]]


def add_pair(graph: ir.Graph, entry: dict) -> None:
    values = [*graph.inputs, *(v for node in graph for v in node.outputs)]
    value = next(v for v in values if v.name == entry["name"])
    dtype = {8: ir.DataType.UINT8, 16: ir.DataType.UINT16}[entry["bw"]]
    zero = np.array(-entry["offset"][0], dtype.numpy())
    parameters = constants(f"{value.name}.again", np.array(entry["scale"][0], np.float32), zero)
    for parameter in parameters:
        graph.register_initializer(parameter)
    readers, producer = list(value.uses()), value.producer()
    quantize = ir.node("QuantizeLinear", [value, *parameters])
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *parameters])
    for reader, place in readers:
        reader.replace_input_with(place, dequantize.outputs[0])
    if producer is None:
        graph.insert_before(next(iter(graph)), [quantize, dequantize])
    else:
        graph.insert_after(producer, [quantize, dequantize])
    if value in graph.outputs:
        integers = quantize.outputs[0]
        integers.type, integers.shape = ir.TensorType(dtype), value.shape
        value.name, integers.name = f"{value.name}.again", value.name
        graph.outputs[list(graph.outputs).index(value)] = integers


@pytest.mark.parametrize("name", GRAPHS)
def test_the_pair_computes_what_the_qdq_graph_computes(name: str, tmp_path: Path) -> None:
    bundle = Bundle.load(DEFAULT_BUNDLE)
    reference = reference_session(bundle.folder / "qdq" / f"{name}.onnx")
    model, content = split(load(name))
    ir.save(requantise(model, content), tmp_path / "again.onnx")
    again = reference_session(tmp_path / "again.onnx")
    entries = {entry["name"]: entry for entry in content["activation_encodings"]}
    rng, integers, reals = np.random.default_rng(0), {}, {}
    for tensor in reference.get_inputs():
        entry = entries[tensor.name]
        levels = 1 << entry["bw"]
        dtype = {8: np.uint8, 16: np.uint16}[entry["bw"]]
        drawn = rng.integers(levels // 3, 2 * levels // 3, tensor.shape).astype(dtype)
        integers[tensor.name] = drawn
        steps = drawn.astype(np.int32) + np.int32(entry["offset"][0])
        reals[tensor.name] = steps.astype(np.float32) * np.float32(entry["scale"][0])
    for wanted, found in zip(reference.run(None, integers), again.run(None, reals), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_file_has_the_keys_of_the_format() -> None:
    _, content = split(load("decode"))
    assert content["version"] == "1.0.0"
    assert {"activation_encodings", "param_encodings", "quantizer_args", "excluded_layers"} == (
        content.keys() - {"version"}
    )
    keys = {"name", "dtype", "bw", "enc_type", "is_sym", "scale", "offset"}
    for entry in (*content["activation_encodings"], *content["param_encodings"]):
        assert entry.keys() == keys
        assert len(entry["scale"]) == len(entry["offset"])
        assert entry["dtype"] == "INT"
        assert len(entry["scale"]) == 1 or entry["enc_type"] == "PER_CHANNEL"
    kinds = {(e["bw"], e["enc_type"], e["is_sym"]) for e in content["param_encodings"]}
    assert (4, "PER_CHANNEL", True) in kinds
    assert {e["offset"][0] for e in content["param_encodings"] if e["bw"] == 4} == {-8}


TWO_ENCODINGS = """
<ir_version: 10, opset_import: ["": 23]>
test (uint16[4] x) => (uint8[4] y)
<float s = {0.5}, uint16 z = {10}, float s8 = {100.0}, uint8 z8 = {3}>
{
    x_real = DequantizeLinear (x, s, z)
    v = Neg (x_real)
    v_int = QuantizeLinear (v, s, z)
    v_real = DequantizeLinear (v_int, s, z)
    y = QuantizeLinear (v_real, s8, z8)
}
"""
UNQUANTISED = """
<ir_version: 10, opset_import: ["": 23]>
test (uint16[4] x) => (uint16[4] y)
<float s = {0.5}, uint16 z = {10}>
{
    x_real = DequantizeLinear (x, s, z)
    inner = Neg (x_real)
    y_float = Neg (inner)
    y = QuantizeLinear (y_float, s, z)
}
"""


def test_a_value_in_two_encodings_gets_two_names() -> None:
    model, content = split(ir.from_onnx_text(TWO_ENCODINGS))
    scales = {entry["name"]: entry["scale"] for entry in content["activation_encodings"]}
    assert scales == {"x": [0.5], "v": [0.5], "y": [100.0]}
    assert [node.op_type for node in model.graph] == ["Neg", "Identity"]


def test_a_float_tensor_without_encoding_is_refused() -> None:
    with pytest.raises(UserError, match="inner is float and has no encoding"):
        split(ir.from_onnx_text(UNQUANTISED))
