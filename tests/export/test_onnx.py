from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from autoneural.export.graphs import build_graph
from autoneural.export.onnx import WeightFile, export_graph, model_bytes, module_of, save_model
from autoneural.export.parity import compare_float, run_float, run_torch, worst
from tests.export.conftest import CONFIG, KEYS, Quantised, random_inputs


@pytest.fixture(scope="module")
def models(quantised: Quantised) -> dict[str, ir.Model]:
    plain = quantised.float_model
    return {role: export_graph(build_graph(plain, key)) for role, key in KEYS.items()}


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("role", KEYS)
def test_every_graph_computes_what_pytorch_does(
    role: str, models: dict[str, ir.Model], quantised: Quantised
):
    graph = build_graph(quantised.float_model, KEYS[role])
    inputs = random_inputs(graph, seed=5)
    got = run_float(model_bytes(models[role]), inputs)
    assert worst(compare_float(run_torch(graph, inputs), got)).sqnr_db > 100


@pytest.mark.parametrize("role", KEYS)
def test_names_ranks_and_opset_suit_an_npu(
    role: str, models: dict[str, ir.Model], quantised: Quantised
):
    model, graph = models[role], build_graph(quantised.float_model, KEYS[role])
    assert [v.name for v in model.graph.inputs] == list(graph.inputs)
    assert [v.name for v in model.graph.outputs] == list(graph.outputs)
    assert model.graph.opset_imports[""] == 23
    shapes = [value.shape for node in model.graph for value in node.outputs]
    assert all(shape is not None and shape.is_static() and len(shape) <= 5 for shape in shapes)
    assert not {"Einsum", "Erf", "Pad", "Identity", "Pow", "ReduceMean"} & set(ops(model))


def test_norms_and_activations_stay_whole_and_linears_have_one_node(
    models: dict[str, ir.Model],
):
    decoder = ops(models["decode"])
    assert decoder.count("RMSNormalization") == 2 * CONFIG.text.num_hidden_layers + 1 + 2
    vision = ops(models["vision"])
    assert vision.count("Gelu") > 5
    assert vision.count("Gemm") == 2
    assert not {"Sqrt", "Tanh"} & {*decoder, *vision}


def test_nodes_know_their_module(models: dict[str, ir.Model]):
    found = {(node.op_type, module_of(node)) for node in models["prefill"].graph}
    layer = "language_model.model.layers"
    assert ("MatMul", f"{layer}.0.conv.in_proj") in found
    assert ("Softmax", f"{layer}.1.self_attn.softmax") in found
    assert ("RMSNormalization", "language_model.model.embedding_norm") in found


def test_prefill_and_decode_share_every_weight(models: dict[str, ir.Model], tmp_path: Path):
    weights = WeightFile(tmp_path / "language.data")
    save_model(models["prefill"].clone(), tmp_path / "prefill.onnx", weights)
    size = weights.path.stat().st_size
    save_model(models["decode"].clone(), tmp_path / "decode.onnx", weights)
    grown = weights.path.stat().st_size - size
    assert size > 20_000
    assert grown < 1_000
    proto = onnx.load(tmp_path / "decode.onnx", load_external_data=False)
    locations = {
        entry.value
        for tensor in proto.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert locations == {"language.data"}
    assert str(tmp_path).encode() not in (tmp_path / "decode.onnx").read_bytes()


def test_weights_elsewhere_are_refused(models: dict[str, ir.Model], tmp_path: Path):
    weights = WeightFile(tmp_path / "other" / "language.data")
    with pytest.raises(ValueError, match="is not beside"):
        save_model(models["head"].clone(), tmp_path / "head.onnx", weights)


def test_a_saved_model_still_computes(
    models: dict[str, ir.Model], quantised: Quantised, tmp_path: Path
):
    graph = build_graph(quantised.float_model, KEYS["head"])
    inputs = random_inputs(graph)
    expected = run_float(model_bytes(models["head"]), inputs)
    save_model(models["head"].clone(), tmp_path / "head.onnx", WeightFile(tmp_path / "w.data"))
    got = run_float(tmp_path / "head.onnx", inputs)
    np.testing.assert_array_equal(got["logits"], expected["logits"])
