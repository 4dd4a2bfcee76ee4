import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoneural.export.passes.insert_qdq import InsertQDQ
from autoneural.target.numerics import Encoding, dequantize_affine, quantize_affine

MODEL = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,4] x) => (float[1,4] y, float[1,4] z)
{
  y = Sigmoid (x)
  z = Mul (x, y)
}
"""
ENCODINGS = {
    "x": Encoding(bits=16, scale=2e-4, zero_point=30000),
    "y": Encoding(bits=16, scale=1 / 65535, zero_point=0),
    "z": Encoding(bits=16, scale=1.5e-4, zero_point=5000),
}


def parse() -> ir.Model:
    proto = onnx.parser.parse_model(MODEL)
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


def test_integers_in_and_out_and_every_value_rounded_once():
    model = parse()
    InsertQDQ(ENCODINGS)(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    ends = [*proto.graph.input, *proto.graph.output]
    assert {v.name for v in ends} == {"x", "y", "z"}
    assert {v.type.tensor_type.elem_type for v in ends} == {onnx.TensorProto.UINT16}
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([[0, 20000, 40000, 65535]], np.uint16)
    real = dequantize_affine(x, ENCODINGS["x"])
    y = quantize_affine(1 / (1 + np.exp(-real)), ENCODINGS["y"])
    z = quantize_affine(real * dequantize_affine(y, ENCODINGS["y"]), ENCODINGS["z"])
    got_y, got_z = session.run(None, {"x": x})
    assert np.abs(np.asarray(got_y, int) - y.astype(int)).max() <= 1
    assert np.abs(np.asarray(got_z, int) - z.astype(int)).max() <= 1


def test_a_value_written_in_another_encoding_is_converted_once_and_leaves_as_it_is_read():
    model, narrow = parse(), Encoding(bits=8, scale=1 / 127, zero_point=128)
    InsertQDQ({**ENCODINGS, "y": narrow}, {"y": ENCODINGS["y"]})(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    types = {v.name: v.type.tensor_type.elem_type for v in proto.graph.output}
    assert types == {"y": onnx.TensorProto.UINT8, "z": onnx.TensorProto.UINT16}
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([[0, 20000, 41000, 65535]], np.uint16)
    real = dequantize_affine(x, ENCODINGS["x"])
    wide = quantize_affine(1 / (1 + np.exp(-real)), ENCODINGS["y"])
    y = quantize_affine(dequantize_affine(wide, ENCODINGS["y"]), narrow)
    z = quantize_affine(real * dequantize_affine(y, narrow), ENCODINGS["z"])
    got_y, got_z = (np.asarray(array) for array in session.run(None, {"x": x}))
    np.testing.assert_array_equal(got_y, y)
    assert np.abs(got_z.astype(int) - z).max() <= 1


def test_a_value_without_an_encoding_is_named():
    with pytest.raises(ir.passes.PreconditionError, match="no encoding for y"):
        InsertQDQ({k: v for k, v in ENCODINGS.items() if k != "y"})(parse())
