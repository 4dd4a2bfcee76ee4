import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoneural.export.passes.matmul_add_to_gemm import MatMulAddToGemm
from tests.export.passes.helpers import parse

LINEAR = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,3,2] x) => (float[1,3,4] y)
<float[2,4] w = {1,2,3,4,5,6,7,8}, float[4] b = {1,-1,2,-2}>
{
  product = MatMul (x, w)
  y = Add (product, b)
}
"""


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("order", ["(product, b)", "(b, product)"])
def test_one_gemm_with_the_bias_inside_makes_the_same_numbers(order: str):
    text = LINEAR.replace("(product, b)", order)
    x = np.random.default_rng(0).normal(size=(1, 3, 2)).astype(np.float32)
    expected = run(parse(text), x)
    model = parse(text)
    model.graph[1].metadata_props["module"] = "projector.linear_1"
    assert MatMulAddToGemm()(model).modified
    assert [node.op_type for node in model.graph] == ["Reshape", "Gemm", "Reshape"]
    assert {node.metadata_props["module"] for node in model.graph} == {"projector.linear_1"}
    np.testing.assert_allclose(run(model, x), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Add (product, b)", "Add (product, product)"),
        ("float[4] b = {1,-1,2,-2}", "float[1,4] b = {1,-1,2,-2}"),
        ("y = Add (product, b)", "square = Mul (product, product) y = Add (product, b)"),
    ],
)
def test_an_addition_that_is_not_a_bias_stays(old: str, new: str):
    model = parse(LINEAR.replace(old, new))
    assert not MatMulAddToGemm()(model).modified
