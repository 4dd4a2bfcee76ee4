import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoneural.compress.quantize import IntegerWeight
from autoneural.export.passes.pack_matmul_nbits import PackMatMulNBits, block_size, pack_blocks
from autoneural.target.numerics import dequantize_symmetric

MODEL = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,2,48] x) => (float[1,2,8] y)
<float[48,8] w>
{
  y = MatMul (x, w)
}
"""


def parse() -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(MODEL.replace("<float[48,8] w>", "")))
    weight = ir.val("w", const_value=ir.tensor(np.zeros((48, 8), np.float32), name="w"))
    model.graph.register_initializer(weight)
    model.graph[0].replace_input_with(1, weight)
    model.graph[0].metadata_props["module"] = "w1"
    return model


def frozen(bits: int) -> IntegerWeight:
    rng = np.random.default_rng(bits)
    high = 2 ** (bits - 1) - 1
    values = rng.integers(-high, high + 1, (8, 48)).astype(np.int8)
    return IntegerWeight(values=values, scale=rng.random(8, np.float32) / high, bits=bits)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_packed_kernel_multiplies_with_the_dequantised_weights(bits: int):
    weight, model = frozen(bits), parse()
    PackMatMulNBits({"w1.weight": weight}, accuracy_level=1)(model)
    assert [node.op_type for node in model.graph] == ["MatMulNBits"]
    assert list(model.graph.initializers) == ["w1.weight.packed", "w1.weight.scales"]
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(1, 2, 48)).astype(np.float32)
    expected = x @ dequantize_symmetric(weight.values, weight.scale).T
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, atol=2e-5)


@pytest.mark.parametrize(("bits", "asked", "level"), [(4, 0, 0), (8, 0, 4), (8, 1, 1), (4, 4, 4)])
def test_weights_of_eight_bits_get_the_kernel_they_have(bits: int, asked: int, level: int):
    weight, model = frozen(bits), parse()
    PackMatMulNBits({"w1.weight": weight}, asked)(model)
    assert model.graph[0].attributes["accuracy_level"].as_int() == level
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(1, 2, 48)).astype(np.float32)
    expected = x @ dequantize_symmetric(weight.values, weight.scale).T
    error = np.asarray(session.run(None, {"x": x})[0]) - expected
    assert np.square(error).mean() < 1e-3 * np.square(expected).mean()  # 30 dB


def test_packing_puts_the_first_weight_in_the_low_nibble():
    packed = pack_blocks(np.array([[-8, 7] + [0] * 14], np.int8), 4, 16)
    assert packed.shape == (1, 1, 8)
    assert packed[0, 0].tolist() == [0xF0] + [0x88] * 7


def test_block_is_the_largest_power_of_two_that_divides():
    assert [block_size(k) for k in (256, 640, 768, 48)] == [256, 128, 256, 16]
    with pytest.raises(ValueError, match="24 is not a multiple of 16"):
        block_size(24)


def test_a_layer_without_a_frozen_weight_is_named():
    with pytest.raises(KeyError, match=r"w1\.weight"):
        PackMatMulNBits({})(parse())
