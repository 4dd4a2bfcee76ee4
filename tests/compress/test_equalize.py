"""Equalisation leaves the function and evens out the ranges of channels."""

from collections.abc import Callable

import pytest
import torch

from autoneural.compress.equalize import equalize
from autoneural.compress.fake_quant import quantize
from autoneural.compress.precision import PRECISIONS
from autoneural.errors import UserError
from autoneural.model.language_model import Attention, FeedForward
from autoneural.model.vlm import VLM
from tests.compress.helpers import SAME, distance


def test_the_function_stays(uneven: VLM, answers: Callable[..., list[torch.Tensor]]) -> None:
    before = answers(uneven)
    record = equalize(uneven)
    assert distance(before, answers(uneven)) < SAME
    firsts = [path.rsplit(".", 1)[-1] for path, _ in record.pairs]
    assert firsts.count("w3") == 3
    assert firsts.count("in_proj") == 2
    if uneven.config.vision.type == "vit":
        assert firsts.count("k_proj") == 2
        assert firsts.count("v_proj") == 3
    else:
        assert firsts.count("proj") == 4
    assert record.skipped["projector.act"] == "a GELU lets no factor through"


def test_ranges_of_a_pair_meet(uneven: VLM) -> None:
    attention = uneven.get_submodule("language_model.model.layers.1.self_attn")
    assert isinstance(attention, Attention)
    attention.v_proj.weight[5] *= 300
    equalize(uneven)
    written = attention.v_proj.weight.abs().amax(1)
    # Two query heads read each of the two key heads of 8 channels.
    read = attention.out_proj.weight.abs().amax(0).view(2, 2, 8).amax(1).flatten()
    torch.testing.assert_close(written, read)
    assert written.max() < 30 * written.min()


def test_a_dead_channel_does_no_harm(uneven: VLM) -> None:
    feed_forward = uneven.get_submodule("language_model.model.layers.0.feed_forward")
    assert isinstance(feed_forward, FeedForward)
    feed_forward.w3.weight[3] = 0
    before = feed_forward.w2.weight[:, 3].clone()
    equalize(uneven)
    assert torch.equal(feed_forward.w2.weight[:, 3], before)


def test_a_quantised_model_is_refused(model: VLM) -> None:
    quantize(model, PRECISIONS["w8a16"])
    with pytest.raises(UserError, match="quantised already"):
        equalize(model)
