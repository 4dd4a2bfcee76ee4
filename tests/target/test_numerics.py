"""Integer arithmetic against brute force and against its own inverse."""

import numpy as np
import onnx
import onnxruntime
import pytest

from autoneural.target.numerics import (
    Encoding,
    affine_encoding,
    dequantize_affine,
    dequantize_symmetric,
    pack_int4,
    quantize_affine,
    quantize_symmetric,
    rms_error,
    signed_range,
    sqnr_db,
    symmetric_encoding,
    symmetric_scale,
    unpack_int4,
)

SHAPES = [(1, 1), (3, 7), (4, 8), (2, 3, 3, 3), (5, 1, 3), (2, 0)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_int4_survives_packing(shape: tuple[int, ...], seed: int) -> None:
    q = np.random.default_rng(seed).integers(-8, 8, shape).astype(np.int8)
    packed = pack_int4(q)
    assert packed.shape == (shape[0], (int(np.prod(shape[1:])) + 1) // 2)
    np.testing.assert_array_equal(unpack_int4(packed, shape), q)


def test_low_nibble_comes_first() -> None:
    assert pack_int4([[1, -2, 7]]).tolist() == [[0xE1, 0x07]]


def test_packing_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"outside -8\.\.7"):
        pack_int4([[8]])
    with pytest.raises(ValueError, match="do not hold"):
        unpack_int4(np.zeros((1, 2), np.uint8), (1, 7))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("low", "high"), [(-1, 3), (0.5, 2), (-7, -2), (0, 0), (-1e-3, 1e4), (0, 1e-30)], ids=str
)
def test_encoding_covers_its_range_and_holds_zero(low: float, high: float, bits: int) -> None:
    encoding = affine_encoding(low, high, bits)
    assert 0 <= encoding.zero_point < 2**bits
    assert encoding.scale == float(np.float32(encoding.scale)) > 0
    x = np.linspace(min(low, 0), max(high, 0), 1001).astype(np.float32)
    back = dequantize_affine(quantize_affine(x, encoding), encoding)
    # The rounded zero point may cost the ends half a step beyond the usual half.
    assert np.abs(back - x).max() <= encoding.scale * 1.001
    assert dequantize_affine(quantize_affine([0.0], encoding), encoding) == 0


def test_integers_survive_a_round_trip() -> None:
    encoding = affine_encoding(-3.3, 11.7)
    q = np.arange(2**16, dtype=np.uint16)
    np.testing.assert_array_equal(quantize_affine(dequantize_affine(q, encoding), encoding), q)


def test_rounds_half_to_even_and_saturates() -> None:
    encoding = Encoding(bits=8, scale=1.0, zero_point=10)
    x = [0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9]
    assert quantize_affine(x, encoding).tolist() == [10, 12, 12, 10, 8, 255, 0]


def test_symmetric_encoding_holds_both_ends() -> None:
    encoding = symmetric_encoding(1.0)
    q = quantize_affine([-1.0, 0.0, 1.0], encoding)
    assert q.tolist() == [1, 32768, 65535]
    assert dequantize_affine(q, encoding).tolist() == [-1.0, 0.0, 1.0]
    assert encoding.low < -1
    assert encoding.high == pytest.approx(1, rel=1e-8)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("low", "high"), [(-3.3, 7.1), (0, 0.017), (-1e3, 1e-3)], ids=str)
def test_equals_onnx_runtime_to_the_bit(low: float, high: float, bits: int) -> None:
    encoding = affine_encoding(low, high, bits)
    x = np.random.default_rng(0).uniform(1.2 * low - 0.1, 1.2 * high, 50_000).astype(np.float32)
    ties = ((np.arange(-50, 50) + 0.5) * encoding.scale).astype(np.float32)
    x = np.concatenate((x, ties, np.float32([0, 1e30, -1e30])))
    q, back = _onnx_runtime(x, encoding)
    np.testing.assert_array_equal(quantize_affine(x, encoding), q)
    np.testing.assert_array_equal(dequantize_affine(q, encoding), back)


def _onnx_runtime(x: np.ndarray, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    dtype = {8: np.uint8, 16: np.uint16}[encoding.bits]
    integer = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        "round_trip",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [
            onnx.helper.make_tensor_value_info("q", integer, x.shape),
            onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, x.shape),
        ],
        [
            onnx.numpy_helper.from_array(np.array(encoding.scale, np.float32), "s"),
            onnx.numpy_helper.from_array(np.array(encoding.zero_point, dtype), "z"),
        ],
    )
    opset = onnx.helper.make_opsetid("", 23)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    q, back = session.run(None, {"x": x})
    return np.asarray(q), np.asarray(back)


@pytest.mark.parametrize("range_", [(float("nan"), 1), (0, float("inf")), (2, 1)], ids=str)
def test_not_a_range(range_: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="not a range"):
        affine_encoding(*range_)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_symmetric_weights_are_within_half_a_step(bits: int) -> None:
    w = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    w[2] = 0
    scale = symmetric_scale(np.abs(w).max((1, 2)), bits)
    q = quantize_symmetric(w, scale, bits)
    low, high = signed_range(bits)
    assert low <= q.min()
    assert q.max() == high
    error = np.abs(dequantize_symmetric(q, scale) - w)
    assert (error <= scale[:, None, None] * 0.5001).all()
    assert q[2].any() == 0


def test_int4_reaches_minus_eight_and_int8_does_not() -> None:
    assert quantize_symmetric([-9.0, 9.0], 1.0, 4).tolist() == [-8, 7]
    assert quantize_symmetric([-129.0, 129.0], 1.0, 8).tolist() == [-127, 127]


def test_sqnr_and_rms_are_one_measurement() -> None:
    reference = np.array([3.0, 4.0])
    assert rms_error(reference, [3.0, 4.05]) == pytest.approx(0.01)
    assert sqnr_db(reference, [3.0, 4.05]) == pytest.approx(40)
    assert sqnr_db(reference, reference) == float("inf")
    assert sqnr_db([0.0], [1.0]) == float("-inf")
