"""Folding leaves the function and takes the weights out of the norms."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from autoneural.checkpoint import load_checkpoint, load_weights, save_checkpoint
from autoneural.compress.fake_quant import quantize
from autoneural.compress.fold import fold, untie_head
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import Sample, load_quantized, post_training_quantize
from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.model import layers
from autoneural.model.vlm import VLM
from tests.compress.helpers import SAME, distance


def test_the_function_stays_and_the_norms_are_ones(
    uneven: VLM, answers: Callable[..., list[torch.Tensor]]
) -> None:
    before = answers(uneven)
    record = fold(uneven)
    assert distance(before, answers(uneven)) < SAME
    folded = [path for path, _ in record.pairs]
    assert len(set(folded)) == len(folded)
    norms = {
        p: m for p, m in uneven.named_modules() if isinstance(m, layers.RMSNorm | nn.LayerNorm)
    }
    assert set(norms) == {p for p in folded if p in norms} | set(record.skipped)
    for path in folded:
        for name, parameter in uneven.get_submodule(path).named_parameters():
            assert (parameter == (name != "bias")).all(), path


def test_what_is_folded_where(uneven: VLM) -> None:
    pairs = dict(fold(uneven).pairs)
    layer = "language_model.model.layers"
    assert pairs[f"{layer}.0.operator_norm"] == (f"{layer}.0.conv.in_proj",)
    assert pairs[f"{layer}.1.operator_norm"] == tuple(
        f"{layer}.1.self_attn.{n}_proj" for n in "qkv"
    )
    if uneven.config.vision.type == "mobilenetv5":
        block = "vision_encoder.blocks.2.1"  # its keys and values are strided
        assert pairs[f"{block}.norm"] == (
            f"{block}.attn.query.proj",
            f"{block}.attn.key.down_conv",
            f"{block}.attn.value.down_conv",
        )
        assert pairs[f"{block}.layer_scale"] == (f"{block}.attn.output.proj",)
        assert pairs["vision_encoder.msfa.norm"] == ("projector.linear_1",)
    else:
        assert pairs["vision_encoder.post_layernorm"] == ("projector.linear_1",)


def test_folding_twice_changes_nothing(uneven: VLM) -> None:
    fold(uneven)
    state = copy.deepcopy(uneven.state_dict())
    assert fold(uneven).pairs == []
    assert all(torch.equal(tensor, state[name]) for name, tensor in uneven.state_dict().items())


def test_a_tied_head_keeps_its_norm_and_an_own_one_takes_it(
    uneven: VLM, answers: Callable[..., list[torch.Tensor]]
) -> None:
    before = answers(uneven)
    assert fold(uneven).skipped["language_model.model.embedding_norm"] == "tied head"
    untie_head(uneven)
    pairs = dict(fold(uneven).pairs)
    assert pairs == {"language_model.model.embedding_norm": ("language_model.lm_head",)}
    assert distance(before, answers(uneven)) < SAME
    assert not uneven.config.text.tie_word_embeddings


def test_a_head_of_its_own_survives_the_checkpoint(
    model: VLM, samples: list[Sample], float_checkpoint: Path, tmp_path: Path
) -> None:
    untie_head(model)
    model.language_model.lm_head.weight.mul_(-2)
    folder = save_checkpoint(
        tmp_path / "untied", model, model.config, float_checkpoint, {}, exact=True
    )
    checkpoint = load_checkpoint(folder)
    again = VLM(checkpoint.config).eval()
    load_weights(again, checkpoint.state_dict, folder)
    assert torch.equal(samples[0](again), samples[0](model))
    post_training_quantize(folder, samples, tmp_path / "int", rounding="nearest")
    language = load_quantized(tmp_path / "int").language_model
    table, head = language.model.embed_tokens.weight, language.lm_head.weight
    assert float((head + 2 * table).norm() / head.norm()) < 0.02


def test_a_missing_head_is_one_line(model: VLM, config: ModelConfig) -> None:
    text = replace(config.text, tie_word_embeddings=False)
    with pytest.raises(UserError, match=r"missing tensors: language_model\.lm_head\.weight"):
        load_weights(VLM(replace(config, text=text)), model.state_dict(), "here")


def test_a_quantised_model_is_refused(model: VLM) -> None:
    quantize(model, PRECISIONS["w8a16"])
    for rewrite in (fold, untie_head):
        with pytest.raises(UserError, match="quantised already"):
            rewrite(model)
