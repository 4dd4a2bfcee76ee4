"""Attention over a cache that is not copied: the same numbers, and nothing else is touched."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoneural.export.passes.attend_in_place import AttendInPlace
from tests.export.passes.helpers import parse

# Two query heads on each of two key heads, three new rows, five past ones.
ATTENTION = """
<ir_version: 10, opset_import: ["" : 23]>
agraph (float[1,2,6,4] q, float[1,1,6,8] mask,
        float[1,2,5,4] past_key, float[1,2,3,4] new_key,
        float[1,2,5,4] past_value, float[1,2,3,4] new_value) => (float[1,2,6,4] y)
{
  keys = Concat <axis=2> (past_key, new_key)
  values = Concat <axis=2> (past_value, new_value)
  turned = Transpose <perm=[0,1,3,2]> (keys)
  scores = MatMul (q, turned)
  masked = Add (scores, mask)
  weights = Softmax <axis=-1> (masked)
  y = MatMul (weights, values)
}
"""


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feeds)]


def feeds(model: ir.Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Random, with all but two past rows masked: what the cache holds there must not count."""
    rng = np.random.default_rng(seed)
    found = {
        str(value.name): rng.standard_normal(value.shape.numpy()).astype(np.float32)
        for value in model.graph.inputs
        if value.shape is not None
    }
    found["mask"] = np.zeros((1, 1, 6, 8), np.float32)
    found["mask"][..., 2:5] = -1e4
    return found


def test_the_same_numbers_without_a_copy() -> None:
    model = parse(ATTENTION)
    given = feeds(model)
    (wanted,) = run(model, given)
    for node in model.graph:
        node.metadata_props["module"] = f"self_attn.{node.op_type}"
    assert AttendInPlace()(model).modified
    joined = [node for node in model.graph if node.op_type == "Concat"]
    assert [node.attributes["axis"].as_int() for node in joined] == [-1]
    past = [str(v.name) for node in model.graph for v in node.inputs if v and v.is_graph_input()]
    assert past.count("past_key") == past.count("past_value") == 1
    assert all(node.metadata_props["module"].startswith("self_attn.") for node in model.graph)
    (found,) = run(model, given)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    garbage = {**given, "past_key": given["past_key"].copy()}
    garbage["past_key"][:, :, 2:] = 77.0
    assert np.array_equal(run(model, garbage)[0], found)


OUTPUTS = "(float[1,2,6,4] y, float[1,2,8,4] keys, float[1,2,8,4] values)"
ABSOLUTE = "k = Abs (past_key) v = Abs (past_value)"


@pytest.mark.parametrize(
    "changes",
    [
        {"(float[1,2,6,4] y)": OUTPUTS},
        {"turned = T": "others = Abs (keys) more = Abs (values) turned = T"},
        {"keys = C": f"{ABSOLUTE} keys = C", "(past_key, n": "(k, n", "(past_value, n": "(v, n"},
    ],
    ids=["an output", "read elsewhere", "no cache"],
)
def test_other_joins_stay(changes: dict[str, str]) -> None:
    text = ATTENTION
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    model = parse(text)
    before = [node.op_type for node in model.graph]
    assert not AttendInPlace()(model).modified
    assert [node.op_type for node in model.graph] == before
