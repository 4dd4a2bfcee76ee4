"""Linears with activations ranged at run time: ONNX Runtime computes what numpy says."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoneural.compress.quantize import IntegerWeight
from autoneural.export.passes.dynamic_quantize import DynamicQuantize

MATMUL = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,5,48] x) => (float[1,5,8] y, float[1,5,8] y2)
{
  y = MatMul (x, x)
  y2 = MatMul (x, x)
}
"""
GEMM = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[5,48] x) => (float[5,8] y)
{
  y = Gemm <transB = 1> (x, x, x)
}
"""


def frozen(bits: int, seed: int = 0) -> IntegerWeight:
    rng = np.random.default_rng(seed)
    high = 2 ** (bits - 1) - 1
    values = rng.integers(-high - 1, high + 1, (8, 48)).astype(np.int8)
    return IntegerWeight(values=values, scale=rng.random(8, np.float32) / high, bits=bits)


def build(text: str, bias: np.ndarray | None = None) -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(text))
    shape = (8, 48) if bias is not None else (48, 8)
    for index, node in enumerate(model.graph):
        node.metadata_props["module"] = f"w{index}"
        arrays = [np.zeros(shape, np.float32), *([] if bias is None else [bias])]
        for place, array in enumerate(arrays, start=1):
            value = ir.val(
                f"c{index}{place}", const_value=ir.tensor(array, name=f"c{index}{place}")
            )
            model.graph.register_initializer(value)
            node.replace_input_with(place, value)
    return model


def run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, {"x": x})]


def expected(x: np.ndarray, weight: IntegerWeight) -> np.ndarray:
    """The definition: one range for all of x, zero inside it; sums of integers are exact."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = np.float32(np.float32(high - low) / np.float32(255))
    zero = np.rint(np.clip(-low / scale, 0, 255))
    q = np.clip(np.rint(x / scale) + zero, 0, 255)
    sums = (q - zero).astype(np.int64) @ weight.values.astype(np.int64).T
    return sums.astype(np.float32) * (scale * weight.scale)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shift", [0.0, 3.0, -9.0])
def test_a_matmul_is_its_definition(bits: int, shift: float) -> None:
    weights = {f"w{i}.weight": frozen(bits, i) for i in (0, 1)}
    model, x = build(MATMUL), _activations(shift)
    DynamicQuantize(weights)(model)
    operators = [node.op_type for node in model.graph]
    assert operators.count("DynamicQuantizeLinear") == 1
    assert operators.count("MatMulInteger") == 2
    assert not {"MatMul", "Gemm"} & set(operators)
    for found, weight in zip(run(model, x), weights.values(), strict=True):
        np.testing.assert_allclose(found, expected(x, weight), rtol=1e-5, atol=1e-5)


def test_a_gemm_keeps_its_bias_in_floating_point() -> None:
    bias = np.linspace(-1, 1, 8, dtype=np.float32)
    model, x, weight = build(GEMM, bias), _activations(0.5)[0], frozen(8)
    DynamicQuantize({"w0.weight": weight})(model)
    (found,) = run(model, x)
    np.testing.assert_allclose(found, expected(x, weight) + bias, rtol=1e-5, atol=1e-5)


def test_nothing_saturates() -> None:
    """Two products of 255 x 127 are more than 16 bits hold."""
    x = np.full((1, 5, 48), 1.0, np.float32)
    full = IntegerWeight(
        values=np.full((8, 48), 127, np.int8), scale=np.ones(8, np.float32), bits=8
    )
    model = build(MATMUL)
    DynamicQuantize({"w0.weight": full, "w1.weight": full})(model)
    np.testing.assert_allclose(run(model, x)[0], 48 * 127, rtol=1e-5)


def test_it_stays_near_the_float_layer() -> None:
    weight, x = frozen(8), _activations(0.0)
    real = x @ (weight.values * weight.scale[:, None]).T
    error = expected(x, weight) - real
    assert 0 < np.sqrt((error**2).sum() / (real**2).sum()) < 0.02


def test_what_cannot_be_done_is_named() -> None:
    with pytest.raises(KeyError, match=r"w0\.weight: no frozen weight"):
        DynamicQuantize({})(build(MATMUL))
    wide = IntegerWeight(values=np.zeros((8, 48), np.int16), scale=np.ones(8, np.float32), bits=16)
    with pytest.raises(ValueError, match=r"w0\.weight: its weights have 16 bits"):
        DynamicQuantize({"w0.weight": wide, "w1.weight": wide})(build(MATMUL))


def _activations(shift: float) -> np.ndarray:
    noise = np.random.default_rng(7).normal(size=(1, 5, 48))
    return (noise + shift).astype(np.float32)
