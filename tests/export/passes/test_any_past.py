"""Attention over a past of any length, made of attention over a past of one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from autoneural.export.passes.any_past import AnyPast
from autoneural.export.passes.attend_in_place import AttendInPlace
from tests.export.passes.helpers import parse
from tests.export.passes.test_attend_in_place import ATTENTION, run

AXES = {"mask": 3, "past_key": 2, "past_value": 2}
PAST, NEW = 5, 3

# As traced: scores per query head, for the mask, and back to rows per key head.
RESHAPED = {
    "(float[1,2,6,4] q, float[1,1,6,8] mask": "(float[1,2,6,4] q, float[1,1,3,8] mask",
    "{\n": "<int64[4] per_head = {1, 4, 3, -1}, int64[4] per_key = {1, 2, -1, 8}>\n{\n",
    "masked = Add (scores, mask)": "split = Reshape (scores, per_head) masked = Add (split, mask)",
    "y = MatMul (weights": "joined = Reshape (weights, per_key) y = MatMul (joined",
}


@pytest.fixture
def model() -> ir.Model:
    text = ATTENTION
    for old, new in RESHAPED.items():
        assert old in text
        text = text.replace(old, new, 1)
    return parse(text)


def feeds(past: int) -> dict[str, np.ndarray]:
    """Random; the first two rows of the past are open."""
    rng = np.random.default_rng(0)
    shapes = {"q": 6, "new_key": NEW, "new_value": NEW, "past_key": PAST, "past_value": PAST}
    found = {
        name: rng.standard_normal((1, 2, rows, 4)).astype(np.float32)
        for name, rows in shapes.items()
    }
    for name in ("past_key", "past_value"):
        longer = np.full((1, 2, max(past, PAST), 4), 7.0, np.float32)
        longer[:, :, :PAST] = found[name]
        found[name] = np.ascontiguousarray(longer[:, :, :past])
    found["mask"] = np.zeros((1, 1, NEW, past + NEW), np.float32)
    found["mask"][..., 2:past] = -1e4
    return found


@pytest.mark.parametrize("past", [2, 3, 5, 8, 64])
def test_what_is_masked_may_be_left_out_or_there(model: ir.Model, past: int) -> None:
    (wanted,) = run(model, feeds(PAST))
    AttendInPlace()(model)
    assert AnyPast(AXES)(model).modified
    (found,) = run(model, feeds(past))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_only_what_grows_is_open(model: ir.Model) -> None:
    AttendInPlace()(model)
    AnyPast(AXES)(model)
    shapes = {v.name: [str(n) for n in v.shape] for v in model.graph.inputs if v.shape is not None}
    assert shapes == {
        "q": ["1", "2", "6", "4"],
        "mask": ["1", "1", "3", "past_and_new"],
        "past_key": ["1", "2", "past", "4"],
        "past_value": ["1", "2", "past", "4"],
        "new_key": ["1", "2", "3", "4"],
        "new_value": ["1", "2", "3", "4"],
    }
    assert not {"per_key", "per_head"} & model.graph.initializers.keys()


def test_a_graph_without_a_past_is_left_alone(model: ir.Model) -> None:
    assert not AnyPast({"other": 2})(model).modified
