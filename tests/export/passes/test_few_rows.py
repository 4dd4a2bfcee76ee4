"""Operators of a decoder of one token: the same numbers, from what is quick for few rows."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoneural.export.passes.few_rows import FewRows
from tests.export.passes.helpers import parse

CONV = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,6,3] window) => (float[1,6,1] y)
<float[6,1,3] w = {0.1,-1,2,3,0.4,5,-6,7,8,-9,1,0,2,2,-3,4,0.5,1}>
{ y = Conv <group=6> (window, w) }
"""
SCORES = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,2,4,8] q, float[1,2,5,8] past) => (float[1,2,4,5] y)
{
  turned = Transpose <perm=[0,1,3,2]> (past)
  y = MatMul (q, turned)
}
"""


def run(model: ir.Model) -> np.ndarray:
    rng = np.random.default_rng(0)
    feeds = {
        str(value.name): rng.standard_normal(value.shape.numpy()).astype(np.float32)
        for value in model.graph.inputs
        if value.shape is not None
    }
    proto = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(proto, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        (CONV, ["Squeeze", "Mul", "ReduceSum"]),
        (SCORES, ["Transpose", "MatMul", "Transpose"]),
    ],
)
def test_the_same_numbers(text: str, operators: list[str]) -> None:
    model = parse(text)
    wanted = run(model)
    for node in model.graph:
        node.metadata_props["module"] = "self_attn"
    assert FewRows()(model).modified
    assert [node.op_type for node in model.graph] == operators
    assert all(node.metadata_props["module"] == "self_attn" for node in model.graph)
    np.testing.assert_allclose(run(model), wanted, rtol=1e-5, atol=1e-6)


OTHERS = {
    "two windows": CONV.replace("6,3] window", "6,4] window").replace("6,1] y", "6,2] y"),
    "many rows": SCORES.replace("[1,2,4,", "[1,2,17,"),
    "no graph input": SCORES.replace("> (past)", "> (kept)").replace("{", "{ kept = Abs (past)"),
}


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS.keys())
def test_others_stay(text: str) -> None:
    assert text not in (CONV, SCORES)
    model = parse(text)
    before = [node.op_type for node in model.graph]
    assert not FewRows()(model).modified
    assert [node.op_type for node in model.graph] == before
