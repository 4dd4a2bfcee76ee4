"""Rows of activations in bytes: the arithmetic, what is shared, and what is left alone."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx_ir.passes.common import ShapeInferencePass

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
    assert kinds.count("ReduceMax") == 1
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


@pytest.mark.parametrize("bits", [8, 7])
@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((3, 3), {"pads": [1, 1, 1, 1], "auto_pad": "NOTSET"}),
        ((3, 2), {"pads": [0, 1, 2, 0], "strides": [2, 1]}),
        ((1, 1), {"strides": [2, 3]}),
    ],
)
def test_windows_are_rows_that_share_the_range_of_their_picture(
    kernel: tuple[int, int], attributes: dict, bits: int
) -> None:
    model, random = picture((8, 16, *kernel), **attributes), np.random.default_rng(0)
    values = random.integers(-127, 128, (8, 16, *kernel)).astype(np.int8)
    scale = random.random(8, np.float32) / 127
    x = random.normal(size=(1, 16, 4, 5)).astype(np.float32)
    step = np.abs(x).max() / (2 ** (bits - 1) - 1)
    plain = picture(values.shape, **attributes)
    real = values * scale[:, None, None, None]
    plain.graph.initializers["w"].const_value = ir.tensor(real.astype(np.float32), name="w")
    for each in (plain, model):
        each.graph.outputs[0].shape = None
        each.graph[0].inputs[1].shape = ir.Shape(values.shape)
        ShapeInferencePass()(each)
    QuantizeRows({"w.weight": IntegerWeight(values=values, scale=scale, bits=8)})(model)
    assert "Conv" not in [node.op_type for node in model.graph]
    expected = run(plain, np.rint(x / step).astype(np.float32) * step, 8)
    np.testing.assert_allclose(run(model, x, bits), expected, rtol=1e-4, atol=1e-4)


def test_convolutions_of_one_picture_share_its_range() -> None:
    model = picture((8, 16, 3, 3), pads=[1, 1, 1, 1])
    [first] = model.graph
    second = ir.node("Conv", list(first.inputs), dict(first.attributes), name="second")
    second.metadata_props["module"] = "v"
    model.graph.append(second)
    value = second.outputs[0]
    value.name, value.shape, value.type = (
        "z",
        model.graph.outputs[0].shape,
        ir.TensorType(ir.DataType.FLOAT),
    )
    model.graph.outputs.append(value)
    values = np.ones((8, 16, 3, 3), np.int8)
    weight = IntegerWeight(values=values, scale=np.ones(8, np.float32), bits=8)
    QuantizeRows({"w.weight": weight, "v.weight": weight})(model)
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("QuantizeLinear") == 1
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert run(model, np.ones((1, 16, 4, 5), np.float32), 8).shape == (1, 8, 4, 5)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((8, 4, 1, 1), {"group": 4}),
        ((8, 16, 3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
        ((8, 16, 3, 3), {"auto_pad": "SAME_UPPER"}),
    ],
)
def test_other_convolutions_are_left_alone(shape: tuple[int, ...], attributes: dict) -> None:
    model = picture(shape, **attributes)
    values = np.ones(shape, np.int8)
    weight = IntegerWeight(values=values, scale=np.ones(8, np.float32), bits=8)
    QuantizeRows({"w.weight": weight})(model)
    assert [node.op_type for node in model.graph] == ["Conv"]


NORMED = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,16,4,5] x) => (float[1,8,4,5] y)
{
  c = Conv (x, w)
  t = Transpose <perm = [0, 2, 3, 1]> (c)
  n = RMSNormalization <epsilon = 1e-6> (t, ones)
  y = Transpose <perm = [0, 3, 1, 2]> (n)
}
"""


@pytest.mark.parametrize("read", ["by the norm alone", "by another node too"])
def test_a_norm_needs_no_scale_of_its_rows(read: str) -> None:
    random = np.random.default_rng(0)
    values = random.integers(-127, 128, (8, 16, 1, 1)).astype(np.int8)
    scale = random.random(8, np.float32) / 127
    gain = random.random(8, np.float32)

    def normed(weight: np.ndarray) -> ir.Model:
        text = (
            NORMED
            if read == "by the norm alone"
            else NORMED.replace("(n)", "(m)").replace(
                "  y =", "  z = Mul (t, none)\n  m = Add (n, z)\n  y ="
            )
        )
        model = ir.from_proto(onnx.parser.parse_model(text))
        arrays = {"w": weight, "ones": gain, "none": np.zeros(1, np.float32)}
        for name, array in arrays.items():
            value = ir.val(name, const_value=ir.tensor(array, name=name))
            for node in list(model.graph):
                for index, given in enumerate(node.inputs):
                    if given is not None and given.name == name:
                        node.replace_input_with(index, value)
                        model.graph.initializers[name] = value
        model.graph[0].metadata_props["module"] = "w"
        return model

    model = normed(np.zeros((8, 16, 1, 1), np.float32))
    QuantizeRows({"w.weight": IntegerWeight(values=values, scale=scale, bits=8)})(model)
    scaled = [node.name for node in model.graph if node.name == "w.weight.real"]
    assert scaled == ([] if read == "by the norm alone" else ["w.weight.real"])
    x = random.normal(size=(1, 16, 4, 5)).astype(np.float32)
    x[:, :, 1, 1] = 0
    step = np.maximum(np.abs(x).max(1, keepdims=True) / 127, 1e-30)
    expected = run(normed(values * scale[:, None, None, None]), np.rint(x / step) * step, 8)
    np.testing.assert_allclose(run(model, x, 8), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("bits", "steps", "below"), [(8, 223, 32), (7, 111, 16)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_behind_a_gelu_few_bytes_are_below_zero(
    bits: int, steps: int, below: int, kernel: int
) -> None:
    shape, pads = (8, 16, kernel, kernel), [kernel // 2] * 4
    model, plain = picture(shape, pads=pads), picture(shape, pads=pads)
    random = np.random.default_rng(0)
    values = random.integers(-127, 128, shape).astype(np.int8)
    plain.graph.initializers["w"].const_value = ir.tensor((values / 127).astype(np.float32))
    [conv] = model.graph
    gelu = ir.node("Gelu", [model.graph.inputs[0]], name="gelu")
    model.graph.insert_before(conv, gelu)
    conv.replace_input_with(0, gelu.outputs[0])
    weight = IntegerWeight(values=values, scale=np.full(8, 1 / 127, np.float32), bits=8)
    QuantizeRows({"w.weight": weight})(model)
    assert "ReduceMin" not in [node.op_type for node in model.graph]
    # The first pixel is near GELU's least: what that is, not the largest, bounds it.
    x = random.normal(size=(1, 16, 4, 5)).astype(np.float32) * 3
    x[:, :, 0, 0] = -0.75
    y = x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    step = np.maximum(y.max(1, keepdims=True) if kernel == 1 else y.max(), 1.185) / steps
    assert (y / step).min() >= -below
    expected = run(plain, (np.rint(y / step) * step).astype(np.float32), 8)
    # A value on the border between two bytes may go either way.
    np.testing.assert_allclose(run(model, x, bits), expected, rtol=1e-3, atol=np.max(step))
