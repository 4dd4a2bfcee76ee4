"""Single weights that go, and those that must not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from autoneural.compress.fake_quant import quantize
from autoneural.compress.input_statistics import mean_squares
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import Sample
from autoneural.compress.sparse import sparsify
from autoneural.errors import UserError
from autoneural.model.vlm import VLM

W2 = "language_model.model.layers.0.feed_forward.w2"


def test_magnitude_zeroes_the_smallest_of_the_matrix(model: VLM) -> None:
    weight = model.get_parameter(f"{W2}.weight")
    before = weight.clone()
    shares = sparsify(model, ratio=0.25, method="magnitude")
    gone = weight == 0
    assert shares[W2] == float(gone.double().mean()) == 0.25
    assert before[gone].abs().max() < before[~gone].abs().min()
    assert torch.equal(weight[~gone], before[~gone])


def test_wanda_weighs_by_the_inputs_row_by_row(model: VLM, samples: list[Sample]) -> None:
    weight = model.get_parameter(f"{W2}.weight")
    importance = weight.abs() * mean_squares(model, [W2], samples)[W2].sqrt().float()
    shares = sparsify(model, samples, ratio=0.5, layers=["*.w2"])
    assert set(shares.values()) == {0.5}
    assert set(shares) == {f"language_model.model.layers.{i}.feed_forward.w2" for i in range(3)}
    for row, kept in zip(importance, weight != 0, strict=True):
        assert int(kept.sum()) == 32
        assert row[kept].min() > row[~kept].max()


def test_two_of_four(model: VLM, samples: list[Sample]) -> None:
    sparsify(model, samples, pattern="2:4", layers=["*.conv_exp", "*.w2"])
    for path in (W2, "vision_encoder.blocks.0.0.conv_exp"):
        fours = model.get_parameter(f"{path}.weight").flatten(1).unflatten(1, (-1, 4))
        assert bool(((fours != 0).sum(-1) == 2).all())


def test_depthwise_filters_and_the_tied_matrix_are_left_alone(model: VLM) -> None:
    shares = sparsify(model, method="magnitude")
    assert "language_model.lm_head" not in shares
    assert model.language_model.model.embed_tokens.weight.count_nonzero() == 320 * 32
    assert not [path for path in shares if "dw_" in path or "down_conv" in path]
    assert {"vision_encoder.conv_stem.conv", "projector.linear_1", W2} <= shares.keys()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"ratio": 0}, "ratio 0: not between 0 and 1"),
        ({"ratio": 1.5}, "ratio 1.5: not between 0 and 1"),
        ({"method": "random"}, "sparse: random any: choose from magnitude, wanda, any, 2:4"),
        ({"pattern": "4:8"}, "sparse: wanda 4:8: choose from"),
        ({"layers": ["*.w7"]}, r"layers \*\.w7: no linear or dense convolution is called so"),
        ({}, "calibration: no samples"),
        (
            {"method": "magnitude", "pattern": "2:4", "layers": ["*conv_stem.conv"]},
            "27 inputs are not a multiple of four",
        ),
    ],
)
def test_refusals_are_one_line(model: VLM, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        sparsify(model, **options)


def test_a_quantised_model_is_refused(model: VLM) -> None:
    quantize(model, PRECISIONS["w4a16"])
    with pytest.raises(UserError, match="is quantised already"):
        sparsify(model, method="magnitude")
