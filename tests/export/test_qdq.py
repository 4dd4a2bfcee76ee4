from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from autoneural.errors import UserError
from autoneural.export.graphs import build_graph
from autoneural.export.onnx import export_graph, model_bytes
from autoneural.export.parity import (
    Parity,
    compare_float,
    compare_integer,
    exact_session,
    on_grid,
    run_float,
    run_integer,
    run_torch,
    worst,
)
from autoneural.export.qdq import pack_graph, quantize_graph
from autoneural.target.numerics import Encoding
from tests.export.conftest import KEYS, Quantised, random_inputs

IntegerModels = dict[str, tuple[ir.Model, dict[str, Encoding]]]


@pytest.fixture(scope="module")
def float_models(quantised: Quantised) -> dict[str, ir.Model]:
    frozen = quantised.frozen_model
    return {role: export_graph(build_graph(frozen, key)) for role, key in KEYS.items()}


@pytest.fixture(scope="module")
def integer_models(quantised: Quantised, float_models: dict[str, ir.Model]) -> IntegerModels:
    found = {}
    for role, exported in float_models.items():
        model = exported.clone()
        found[role] = model, quantize_graph(model, quantised.quantization)
    return found


def parities(
    role: str, quantised: Quantised, model: ir.Model, encodings: dict[str, Encoding]
) -> list[Parity]:
    """Of every output."""
    graph = build_graph(quantised.model, KEYS[role])
    inputs = on_grid(random_inputs(graph, seed=9), encodings)
    got = run_integer(exact_session(model_bytes(model)), inputs, encodings)
    return compare_integer(run_torch(graph, inputs), got, encodings)


@pytest.mark.parametrize("role", ["prefill", "decode", "head"])
def test_the_integer_graph_computes_what_fake_quant_does(
    role: str, quantised: Quantised, integer_models: IntegerModels
):
    for parity in parities(role, quantised, *integer_models[role]):
        assert parity.sqnr_db > 90, parity
        assert parity.lsb <= 1, parity
        assert parity.moved < 0.02, parity


def test_the_integer_vision_graph_differs_by_float_noise_only(
    quantised: Quantised, integer_models: IntegerModels
):
    # Sums taken in another order move a few values by one step, and forty layers spread that.
    (parity,) = parities("vision", quantised, *integer_models["vision"])
    assert parity.sqnr_db > 65
    assert parity.lsb <= 20


@pytest.mark.parametrize("role", KEYS)
def test_only_integers_go_in_and_out(role: str, integer_models: IntegerModels):
    proto = ir.to_proto(integer_models[role][0])
    onnx.checker.check_model(proto, full_check=True)
    ends = [*proto.graph.input, *proto.graph.output]
    assert {v.type.tensor_type.elem_type for v in ends} == {onnx.TensorProto.UINT16}


def test_state_goes_out_as_it_comes_in(
    integer_models: IntegerModels,
):
    prefill, decode = integer_models["prefill"][1], integer_models["decode"][1]
    assert prefill == decode
    assert decode["past_conv.0"] == decode["conv_window.0"]
    for part in ("key", "value"):
        assert decode[f"past_key_values.1.{part}"] == decode[f"present.1.{part}"]
    vision = integer_models["vision"][1]
    assert vision["image_features"] == decode["inputs_embeds"]
    assert integer_models["head"][1]["hidden_states"] == decode["hidden_states"]


def test_weights_have_the_declared_bits_and_explicit_zero_points(
    integer_models: IntegerModels,
):
    names = {onnx.TensorProto.INT4: 4, onnx.TensorProto.INT8: 8, onnx.TensorProto.INT16: 16}
    expected = {"MatMul": 4, "Conv": 8, "RMSNormalization": 16}
    model = ir.to_proto(integer_models["decode"][0])
    types = {t.name: t.data_type for t in model.graph.initializer}
    producers = {o: n for n in model.graph.node for o in n.output}
    seen = set()
    for node in model.graph.node:
        if node.op_type not in expected:
            continue
        weight = producers[node.input[1]]
        if weight.input[0] in types:
            assert names[types[weight.input[0]]] == expected[node.op_type]
            assert types[weight.input[2]] == types[weight.input[0]]
            seen.add(node.op_type)
    assert seen == set(expected)


def test_no_float_constant_is_left(
    integer_models: IntegerModels,
):
    proto = ir.to_proto(integer_models["vision"][0])
    floats = {t.name for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    for node in proto.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Resize"):
            assert not floats & set(node.input), node.name


def test_a_layer_without_an_encoding_is_named(
    quantised: Quantised, float_models: dict[str, ir.Model]
):
    path = "language_model.model.layers.0.feed_forward.sigmoid"
    kept = {k: v for k, v in quantised.quantization.activations.items() if k != path}
    model = float_models["decode"].clone()
    with pytest.raises(UserError, match=f"{path}: Sigmoid .* has no encoding"):
        quantize_graph(model, replace(quantised.quantization, activations=kept))


def test_a_weight_that_cannot_be_packed_is_one_line(
    quantised: Quantised, float_models: dict[str, ir.Model]
):
    name = "language_model.model.layers.0.feed_forward.w1.weight"
    weights = dict(quantised.quantization.weights)
    weights[name] = replace(weights[name], values=weights[name].values[:, :24])
    with pytest.raises(UserError, match=r"^[^\n]*24[^\n]*$"):
        pack_graph(float_models["decode"].clone(), weights)


def test_the_worst_output_may_be_no_number():
    good, bad = Parity(output="a", sqnr_db=50.0), Parity(output="b", sqnr_db=float("nan"))
    assert worst([good, bad]) is bad
    assert worst([bad, good]) is bad


def test_an_input_without_an_encoding_is_named(
    quantised: Quantised, float_models: dict[str, ir.Model]
):
    path = "language_model.model.mask"
    kept = {k: v for k, v in quantised.quantization.activations.items() if k != path}
    model = float_models["decode"].clone()
    with pytest.raises(UserError, match="no encoding for the input mask"):
        quantize_graph(model, replace(quantised.quantization, activations=kept))


@pytest.mark.parametrize("role", KEYS)
def test_packed_graphs_compute_with_the_frozen_weights(
    role: str, quantised: Quantised, float_models: dict[str, ir.Model]
):
    graph = build_graph(quantised.frozen_model, KEYS[role])
    model = float_models[role].clone()
    pack_graph(model, quantised.quantization.weights, accuracy_level=1)
    kinds = {node.op_type for node in model.graph}
    assert ("DequantizeLinear" if role == "vision" else "MatMulNBits") in kinds
    inputs = random_inputs(graph, seed=3)
    got = run_float(model_bytes(model), inputs)
    assert worst(compare_float(run_torch(graph, inputs), got)).sqnr_db > 90
    assert all(np.isfinite(array).all() for array in got.values())
