"""The mask stands on the activation grid: its value is the lowest integer, zero the highest."""

from __future__ import annotations

import numpy as np
import pytest

from autoneural.bundle import Bundle
from autoneural.runtime.session import encode
from autoneural.target.numerics import dequantize_affine, quantize_affine
from tests.export.conftest import Quantised

MASK = "language_model.model.mask"
LAYER = "language_model.model.layers.1.self_attn"


def test_calibration_puts_the_mask_on_the_grid(quantised: Quantised):
    activations = quantised.quantization.activations
    value = np.float32(quantised.encodings["mask_value"])
    mask, scores, masked = (activations[p] for p in (MASK, f"{LAYER}.scores", f"{LAYER}.mask_add"))
    integers = quantize_affine([0.0, value], mask)
    assert integers.tolist() == [65535, 0]
    np.testing.assert_allclose(dequantize_affine(integers, mask), [0, value], rtol=1e-6)
    # The lowest visible score is far above every masked one, which ends at the grid's own end.
    every = np.array([scores.low, scores.high], np.float32)
    assert quantize_affine(every.min() + value, masked) == 0
    visible = dequantize_affine(quantize_affine(every, masked), masked)
    hidden = dequantize_affine(quantize_affine(every + value, masked), masked)
    assert np.exp(hidden.max() - visible.min()) < 1e-9


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return Bundle.load("cockpit-tiny")


def test_the_runtime_hands_over_the_ends_of_the_grid(embedded: Bundle):
    target = embedded.target("qdq")
    masks = [t for g in target.graphs for t in g.inputs if t.name == "mask"]
    assert len(masks) == 3
    for mask in masks:
        open_and_closed = np.array([0.0, target.mask_value], np.float32)
        assert encode(open_and_closed, mask).tolist() == [65535, 0]
        assert mask.scale is not None
        assert -mask.zero_point * mask.scale == pytest.approx(target.mask_value, rel=1e-6)
