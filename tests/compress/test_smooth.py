"""Smoothing leaves the function and takes outliers out of what linears read."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from autoneural.compress.fake_quant import quantize
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import Sample
from autoneural.compress.smooth import smooth
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from tests.compress.helpers import SAME, distance


def runs_of(model: VLM, make_sample: Callable[..., Sample]) -> list[Sample]:
    sample = make_sample(40)
    ids = sample.input_ids_BT
    text = ids[ids != sample.image_token_id]
    image = torch.full((model.config.vision.num_tokens,), sample.image_token_id)
    joined = torch.cat((text[:2], image, text[2:]))[None]
    return [replace(sample, input_ids_BT=joined)]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_function_stays(
    uneven: VLM,
    alpha: float,
    make_sample: Callable[..., Sample],
    answers: Callable[..., list[torch.Tensor]],
) -> None:
    before = answers(uneven)
    record = smooth(uneven, runs_of(uneven, make_sample), alpha)
    assert distance(before, answers(uneven)) < SAME
    assert "language_model.model.layers.1.operator_norm" in dict(record.pairs)
    assert record.skipped["language_model.model.embedding_norm"] == "tied head"


def test_alpha_one_makes_all_activations_equally_large(
    uneven: VLM, make_sample: Callable[..., Sample]
) -> None:
    path = "language_model.model.layers.1.ffn_norm"
    uneven.get_submodule(path).weight[7] = 500.0
    runs = runs_of(uneven, make_sample)
    smooth(uneven, runs, alpha=1.0)
    seen = []
    uneven.get_submodule(path).register_forward_hook(lambda _, __, y: seen.append(y))
    runs[0](uneven)
    largest = seen[0].abs().amax((0, 1))
    torch.testing.assert_close(largest, torch.ones_like(largest))


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_outside_its_range_is_refused(model: VLM, alpha: float) -> None:
    with pytest.raises(UserError, match="is not between 0 and 1"):
        smooth(model, [], alpha)


def test_norms_without_data_are_named(model: VLM, make_sample: Callable[..., Sample]) -> None:
    before = model.state_dict()["language_model.model.layers.0.operator_norm.weight"].clone()
    with pytest.raises(UserError, match=r"vision_encoder\.\S+: no calibration data reached it"):
        smooth(model, [make_sample(1, image=False)])
    after = model.state_dict()["language_model.model.layers.0.operator_norm.weight"]
    assert torch.equal(before, after)


def test_a_quantised_model_is_refused(model: VLM) -> None:
    quantize(model, PRECISIONS["w8a16"])
    with pytest.raises(UserError, match="quantised already"):
        smooth(model, [])
