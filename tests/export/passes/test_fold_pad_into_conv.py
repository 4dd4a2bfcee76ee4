import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoneural.export.passes.fold_pad_into_conv import FoldPadIntoConv

MODEL = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,2,5,5] x) => (float[1,1,3,3] y)
<float[1,2,3,3] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9}, int64[8] pads = {PADS},
 float fill = {FILL}>
{
  padded = Pad <mode = "MODE"> (x, pads, fill)
  y = Conv <kernel_shape = [3, 3], strides = [STRIDE, STRIDE]> (padded, w)
}
"""


def model(pads: str = "0,0,0,1,0,0,2,1", fill: str = "0", mode: str = "constant") -> ir.Model:
    text = MODEL.replace("PADS", pads).replace("FILL", fill).replace("MODE", mode)
    proto = onnx.parser.parse_model(text.replace("STRIDE", "2"))
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_asymmetric_pads_move_into_the_convolution_and_nothing_else_changes():
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 5)).astype(np.float32)
    expected = run(model(), x)
    folded = model()
    assert FoldPadIntoConv()(folded).modified
    assert [node.op_type for node in folded.graph] == ["Conv"]
    assert folded.graph[0].attributes["pads"].as_ints() == (0, 1, 2, 1)
    np.testing.assert_array_equal(run(folded, x), expected)


@pytest.mark.parametrize(
    "change",
    [{"fill": "1"}, {"mode": "reflect"}, {"pads": "0,1,0,1,0,0,2,1"}, {"pads": "0,0,-1,1,0,0,2,1"}],
)
def test_other_pads_stay(change: dict[str, str]):
    kept = model(**change) if "pads" not in change else unchecked(**change)
    assert not FoldPadIntoConv()(kept).modified
    assert [node.op_type for node in kept.graph] == ["Pad", "Conv"]


def unchecked(pads: str) -> ir.Model:
    text = MODEL.replace("PADS", pads).replace("FILL", "0").replace("MODE", "constant")
    return ir.from_proto(onnx.parser.parse_model(text.replace("STRIDE", "2")))
