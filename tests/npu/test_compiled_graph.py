"""Reading what the compiler wrote: floats inside, by the names that a person knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from autoneural.bundle import DEFAULT_BUNDLE, EMBEDDED
from autoneural.npu.compile_part import not_allowed, precision
from autoneural.npu.compiled_graph import CompiledGraph, read_dumps
from autoneural.npu.layer_names import LayerNames

QDQ = EMBEDDED / DEFAULT_BUNDLE / "qdq"
FLOAT32, FLOAT16, UFIXED16, INT32, BOOL, UINT32 = 562, 534, 1046, 50, 1288, 306
INPUT, OUTPUT, NATIVE, STATIC = 0, 1, 3, 4
SCALE = "vision_encoder.blocks.2.1.layer_scale"


@pytest.fixture(scope="module")
def vision() -> LayerNames:
    return LayerNames(ir.load(QDQ / "vision.onnx").graph)


def tensor(data_type: int, kind: int = NATIVE) -> dict[str, Any]:
    return {"data_type": data_type, "type": kind}


def node(kind: str, inputs: list[str], outputs: list[str], **parameters: Any) -> dict[str, Any]:
    params = {name: {f"{name}_data": tensor(t, STATIC)} for name, t in parameters.items()}
    return {
        "type": kind,
        "input_names": inputs,
        "output_names": outputs,
        "tensor_params": params,
    }


def read(folder: Path, names: LayerNames, tensors: dict, nodes: dict) -> CompiledGraph:
    text = json.dumps({"graph": {"tensors": tensors, "nodes": nodes}})
    (folder / "QNN_1_0.json").write_text(text)
    (folder / "QNN_1_0_tensor_log.json").write_text("{}")
    return read_dumps(folder, names)


def test_integers_only(tmp_path: Path, vision: LayerNames) -> None:
    kinds = (UFIXED16, INT32, BOOL, UINT32, 1032, 790, 776, 818)
    tensors = {f"t{n}": tensor(n) for n in kinds}
    found = read(tmp_path, vision, tensors, {"node_mul": node("Mul", ["t50"], ["t790"], axes=306)})
    assert found == CompiledGraph(partitions=1, float_tensors=0, float_layers=())


@pytest.mark.parametrize("kind", [FLOAT32, FLOAT16, 0x0216 + 0x0500])
def test_a_float_is_counted_and_its_layer_named(
    tmp_path: Path, vision: LayerNames, kind: int
) -> None:
    tensors = {"a": tensor(UFIXED16), "b": tensor(kind), "c": tensor(kind)}
    nodes = {
        "node_mul_1_token_7": node("ElementWiseMultiply", ["b"], ["c"]),
        "mul_1.int.QuantizeLinear": node("Quantize", ["c"], ["a"]),
    }
    found = read(tmp_path, vision, tensors, nodes)
    assert (found.float_tensors, found.float_layers) == (2, (f"{SCALE} (Mul)",))


def test_float_ends_and_parameters_count(tmp_path: Path, vision: LayerNames) -> None:
    tensors = {"pixels": tensor(FLOAT32, INPUT), "x": tensor(UFIXED16)}
    nodes = {
        "node_mul_1": node("Mul", ["x"], ["x"], table=FLOAT32),
        "first": node("Quantize", ["pixels"], ["x"]),
    }
    found = read(tmp_path, vision, tensors, nodes)
    assert found.float_tensors == 2
    assert found.float_layers == ("graph input pixels", f"{SCALE} (Mul)")


def test_partitions_are_counted(tmp_path: Path, vision: LayerNames) -> None:
    for number in range(3):
        (tmp_path / f"{number}.json").write_text('{"graph": {"tensors": {}, "nodes": {}}}')
    assert read_dumps(tmp_path, vision).partitions == 3


def test_names_that_the_compiler_changed(vision: LayerNames) -> None:
    assert vision.layer("node_mul_1") == SCALE
    assert vision.layer("node_mul_1_token_51") == SCALE
    assert vision.layer("mul_1") == SCALE  # the tensor
    assert vision.layer("mul_1.int.QuantizeLinear") == SCALE
    assert vision.layer("mul_1.1.dequantize") == SCALE  # its constant
    assert vision.layer("no such thing") == "no such thing"
    assert vision.describe("node_mul_1_token_51") == f"{SCALE} (Mul)"


def test_nodes_without_a_module_belong_to_their_neighbour() -> None:
    decode = LayerNames(ir.load(QDQ / "decode.onnx").graph)
    graph = ir.load(QDQ / "decode.onnx").graph
    split = next(str(n.name) for n in graph if n.op_type == "Split")
    assert decode.layer(split) == "language_model.model.layers.0.conv"


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*.blocks.2.1.*"], []),
        (["node_mul_1"], []),
        ([SCALE], []),
        (["node_mul_2"], ["mul_1.int.QuantizeLinear", "node_mul_1"]),
        ([], ["mul_1.int.QuantizeLinear", "node_mul_1"]),
    ],
)
def test_only_what_a_pattern_names_may_run_on_the_cpu(
    vision: LayerNames, patterns: list[str], left: list[str]
) -> None:
    cpu = ["node_mul_1", "mul_1.int.QuantizeLinear"]
    assert not_allowed(cpu, vision, patterns) == left


def test_quantising_elsewhere_is_not_excused(vision: LayerNames) -> None:
    cpu = ["node_mul_1", "mul_1.int.QuantizeLinear", "mul_2.int.QuantizeLinear"]
    assert not_allowed(cpu, vision, ["node_mul_1"]) == ["mul_2.int.QuantizeLinear"]


@pytest.mark.parametrize(
    ("graph", "expected"), [("vision", "w8a16"), ("decode", "w4a16"), ("head", "w8a16")]
)
def test_precision_is_that_of_most_weights(graph: str, expected: str) -> None:
    assert precision(ir.load(QDQ / f"{graph}.onnx").graph) == expected
