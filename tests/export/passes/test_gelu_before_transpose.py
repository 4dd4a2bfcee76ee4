"""A GELU and the turn before it change places, where nobody can tell."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoneural.export.onnx import model_bytes
from autoneural.export.passes.gelu_before_transpose import GeluBeforeTranspose
from tests.export.passes.helpers import parse

TURNED = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,4,5,3] x) => (float[1,3,4,5] y)
{
  t = Transpose <perm = [0, 3, 1, 2]> (x)
  y = Gelu <approximate = "tanh"> (t)
}
"""
READ_TWICE = TURNED.replace("(float[1,3,4,5] y)", "(float[1,3,4,5] y, float[1,3,4,5] z)").replace(
    "\n}", "\n  z = Neg (t)\n}"
)
NOT_TURNED = TURNED.replace("Transpose <perm = [0, 3, 1, 2]> (x)", "Reshape (x, shape)").replace(
    "{\n", "<int64[4] shape = {1, 3, 4, 5}>\n{\n"
)


def rewritten(text: str) -> tuple[ir.Model, ir.Model, bool]:
    before, after = parse(text), parse(text)
    return before, after, GeluBeforeTranspose()(after).modified


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model_bytes(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_the_turn_comes_last_and_the_result_is_the_same() -> None:
    before, after, modified = rewritten(TURNED)
    assert modified
    assert [node.op_type for node in after.graph] == ["Gelu", "Transpose"]
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(after, x), run(before, x))


@pytest.mark.parametrize("text", [READ_TWICE, NOT_TURNED], ids=["read twice", "not turned"])
def test_others_are_left_alone(text: str) -> None:
    before, after, modified = rewritten(text)
    assert not modified
    assert [n.op_type for n in after.graph] == [n.op_type for n in before.graph]
