"""Rows of activations in bytes: the arithmetic, what is shared, and what is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoneural.compress.quantize import IntegerWeight
from autoneural.export.passes.quantize_rows import QuantizeRows
from autoneural.target import rows

MODEL = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,3,48] x) => (float[1,3,8] a, float[1,3,8] b)
{
  a = MatMul (x, w)
  b = MatMul (x, v)
}
"""


def parse() -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(MODEL))
    for node, name in zip(list(model.graph), "wv", strict=True):
        weight = ir.val(name, const_value=ir.tensor(np.zeros((48, 8), np.float32), name=name))
        model.graph.register_initializer(weight)
        node.replace_input_with(1, weight)
        node.metadata_props["module"] = name
    return model


def frozen(bits: int) -> IntegerWeight:
    rng = np.random.default_rng(bits)
    most = 2 ** (bits - 1) - 1
    values = rng.integers(-most, most + 1, (8, 48)).astype(np.int8)
    return IntegerWeight(values=values, scale=rng.random(8, np.float32) / most, bits=bits)


def rewritten(bits: dict[str, int]) -> tuple[ir.Model, dict[str, IntegerWeight]]:
    model, weights = parse(), {f"{name}.weight": frozen(n) for name, n in bits.items()}
    QuantizeRows(weights)(model)
    return model, weights


def test_every_row_has_a_range_of_its_own() -> None:
    model, weights = rewritten({"w": 4, "v": 4})
    x = np.random.default_rng(0).normal(size=(1, 3, 48)).astype(np.float32)
    x[0, 1] *= 1000
    x[0, 2] = 0
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    got = session.run(None, {"x": x})
    step = np.maximum(np.abs(x).max(-1, keepdims=True) / 127, 1e-30)
    rounded = np.rint(x / step)
    for name, found in zip("wv", got, strict=True):
        weight = weights[f"{name}.weight"]
        expected = rounded @ weight.values.T.astype(np.float32) * weight.scale * step
        # Half of a byte's step may go the other way, by how the division is rounded.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * step.max())
        assert not np.asarray(found)[0, 2].any()


def test_who_reads_the_same_rows_shares_their_range() -> None:
    model, _ = rewritten({"w": 4, "v": 4})
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("QuantizeLinear") == kinds.count("ReduceMax") == 1
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert "MatMul" not in kinds
    assert not {"w", "v"} & model.graph.initializers.keys()
    assert model.graph.opset_imports["com.microsoft"] == 1


def test_weights_without_integers_are_left_to_other_passes() -> None:
    model, _ = rewritten({"w": 4})
    [left] = [node for node in model.graph if node.op_type == "MatMul"]
    assert left.inputs[1] is not None
    assert left.inputs[1].name == "v"


PICTURE = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,16,4,5] x) => (float[1,8,4,5] y)
{
  y = Conv (x, w, b)
}
"""


def picture(shape: tuple[int, ...], **attributes: list[int] | int) -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(PICTURE))
    [node] = model.graph
    bias = np.arange(8, dtype=np.float32)
    for index, (name, array) in enumerate((("w", np.zeros(shape, np.float32)), ("b", bias)), 1):
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        model.graph.register_initializer(value)
        node.replace_input_with(index, value)
    for name, value in attributes.items():
        node.attributes[name] = ir.convenience.convert_attribute(name, value)
    node.metadata_props["module"] = "w"
    return model


def run(model: ir.Model, x: np.ndarray, bits: int) -> np.ndarray:
    """As a processor with, or without, VNNI would open it."""
    options = ort.SessionOptions()
    shared = {n: ort.OrtValue.ortvalue_from_numpy(v) for n, v in rows.SEVEN_BITS.items()}
    for name, value in shared.items() if bits == 7 else ():
        options.add_initializer(name, value)
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("bits", [8, 7])
def test_every_pixel_is_a_row_of_eight_bits_or_seven(bits: int) -> None:
    model, random = picture((8, 16, 1, 1)), np.random.default_rng(0)
    values = random.integers(-127, 128, (8, 16, 1, 1)).astype(np.int8)
    scale = random.random(8, np.float32) / 127
    QuantizeRows({"w.weight": IntegerWeight(values=values, scale=scale, bits=8)})(model)
    x = random.normal(size=(1, 16, 4, 5)).astype(np.float32)
    x[:, :, 2, 3] *= 100
    got = run(model, x, bits)
    step = np.abs(x).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
    weight = values[:, :, 0, 0].astype(np.float32) * scale[:, None]
    real = np.einsum("nc,bchw->bnhw", weight, np.rint(x / step) * step)
    np.testing.assert_allclose(got - np.arange(8)[:, None, None], real, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((8, 16, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((8, 4, 1, 1), {"group": 4}),
        ((8, 16, 1, 1), {"strides": [2, 2]}),
    ],
)
def test_other_convolutions_are_left_alone(shape: tuple[int, ...], attributes: dict) -> None:
    model = picture(shape, **attributes)
    values = np.ones(shape, np.int8)
    weight = IntegerWeight(values=values, scale=np.ones(8, np.float32), bits=8)
    QuantizeRows({"w.weight": weight})(model)
    assert [node.op_type for node in model.graph] == ["Conv"]
