import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoneural.compress.quantize import IntegerWeight
from autoneural.export.passes.integer_weights import IntegerWeights
from autoneural.target.numerics import Encoding, dequantize_symmetric

MODEL = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,2] x) => (float[1,3] y)
<float[2,3] w = {0,0,0,0,0,0}, float[3,3] g = {0,0,0,0,0,0,0,0,0}, float[3] b = {0.5,-0.5,0},
 float scale = {0.25}>
{
  a = MatMul (x, w)
  c = Gemm <transB = 1> (a, g, b)
  y = Mul (c, scale)
}
"""
INT4 = IntegerWeight(
    values=np.array([[-8, 7], [1, 2], [3, -4]], np.int8),
    scale=np.array([0.1, 0.2, 0.3], np.float32),
    bits=4,
)
INT8 = IntegerWeight(
    values=np.array([[127, 0, -127], [1, 2, 3], [9, 8, 7]], np.int8),
    scale=np.array([0.01, 0.02, 0.03], np.float32),
    bits=8,
)
WEIGHTS = {"w1.weight": INT4, "g": INT8}
ENCODINGS = {name: Encoding(bits=16, scale=1e-3, zero_point=32768) for name in "xacy"}


def parse() -> ir.Model:
    proto = onnx.parser.parse_model(MODEL)
    onnx.checker.check_model(proto)
    model = ir.from_proto(proto)
    for node, module in zip(model.graph, ("w1", "w2", "scale"), strict=True):
        node.metadata_props["module"] = module
    return model


def test_the_graph_computes_with_the_frozen_integers():
    model = parse()
    IntegerWeights(WEIGHTS, ENCODINGS)(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    types = {t.name: t.data_type for t in proto.graph.initializer}
    by_type = sorted(types[n.input[0]] for n in proto.graph.node if "dequantize" in n.name)
    expected_types = ("INT4", "INT8", "INT32", "UINT16")
    assert by_type == sorted(getattr(onnx.TensorProto, name) for name in expected_types)
    assert onnx.TensorProto.FLOAT not in {
        types.get(name) for n in proto.graph.node[-1:] for name in n.input
    }
    # By default ONNX Runtime turns an int4 weight into a kernel that rounds activations to int8.
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = proto.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    x = np.array([[0.5, -1.0]], np.float32)
    hidden = x @ dequantize_symmetric(INT4.values, INT4.scale).T
    expected = hidden @ dequantize_symmetric(INT8.values, INT8.scale).T + [0.5, -0.5, 0]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected * 0.25, atol=1e-5)


def test_a_frozen_vector_meets_the_activations_of_a_product_in_their_own_type():
    model = parse()
    frozen = IntegerWeight(
        values=np.array(-5, np.int16), scale=np.array(0.125, np.float32), bits=16
    )
    IntegerWeights({**WEIGHTS, "scale": frozen}, ENCODINGS)(model)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in ir.to_proto(model).graph.initializer}
    integers, zero_point = tensors["y.1.int"], tensors["y.1.zero_point"]
    assert integers.dtype == zero_point.dtype == np.uint16
    assert (int(integers) - int(zero_point)) * float(tensors["y.1.scale"]) == -0.625


def test_weight_only_leaves_biases_and_scalars_in_float():
    model = parse()
    IntegerWeights(WEIGHTS, None)(model)
    assert [n.op_type for n in model.graph].count("DequantizeLinear") == 2
    assert {"b", "scale"} <= set(model.graph.initializers)
    assert not {"w", "g"} & set(model.graph.initializers)


def test_a_layer_without_a_frozen_weight_is_named():
    with pytest.raises(KeyError, match=r"w1\.weight"):
        IntegerWeights({"g": INT8}, ENCODINGS)(parse())


def test_a_weight_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"w1\.weight: frozen \(3, 3\)"):
        IntegerWeights({"w1.weight": INT8, "g": INT8}, ENCODINGS)(parse())


def test_a_bias_too_large_for_its_scale_is_an_error_not_a_wrong_number():
    tiny = {**ENCODINGS, "a": Encoding(bits=16, scale=1e-12, zero_point=0)}
    with pytest.raises(ValueError, match="does not fit 32 bits"):
        IntegerWeights(WEIGHTS, tiny)(parse())
