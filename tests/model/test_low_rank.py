"""Widths, heads and ranks that differ from layer to layer: still one model, with a plain config."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from autoneural.config import InvertedResidual, MobileNetV5Config, ModelConfig
from autoneural.errors import UserError
from autoneural.model.low_rank import Factorised
from autoneural.model.state import DecoderState
from autoneural.model.vlm import VLM

IMAGE = 3
W1 = "language_model.model.layers.0.feed_forward.w1"
HEAD = "language_model.lm_head"
V_PROJ = "language_model.model.layers.1.self_attn.v_proj"
EXPANSION = "vision_encoder.blocks.3.0.pw_exp.conv"


@pytest.fixture
def config(tiny_config: ModelConfig) -> ModelConfig:
    """Every layer different."""
    text = replace(
        tiny_config.text, intermediate_sizes=(64, 16, 48, 32), key_value_heads=(0, 1, 0, 2)
    )
    assert isinstance(tiny_config.vision, MobileNetV5Config)
    block = InvertedResidual(channels=24, dw_mid=3, stride=2, hidden=40)
    stages = (*tiny_config.vision.stages[:3], (block,))
    vision = replace(tiny_config.vision, stages=stages, fusion_hidden=56)
    ranks = {W1: 8, V_PROJ: 4, EXPANSION: 8, "projector.linear_1": 16}
    return replace(tiny_config, text=text, vision=vision, ranks=ranks)


@pytest.fixture
def model(config: ModelConfig) -> VLM:
    torch.manual_seed(0)
    return VLM(config).eval().requires_grad_(False)


def test_layers_have_the_widths_of_the_config(model: VLM) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    layers = "language_model.model.layers"
    assert shapes[f"{layers}.1.feed_forward.w2.weight"] == (32, 16)
    assert shapes[f"{layers}.1.self_attn.q_proj.weight"] == (16, 32)
    assert shapes[f"{layers}.1.self_attn.k_proj.weight"] == (8, 32)
    assert shapes[f"{layers}.3.self_attn.q_proj.weight"] == (32, 32)
    assert shapes["vision_encoder.blocks.3.0.dw_mid.conv.weight"] == (40, 1, 3, 3)
    assert shapes["vision_encoder.msfa.ffn.pw_exp.bn.weight"] == (56,)
    assert shapes[f"{W1}.down.weight"], shapes[f"{W1}.up.weight"] == ((8, 32), (64, 8))
    assert shapes[f"{EXPANSION}.up.weight"] == (40, 8, 1, 1)
    assert shapes["projector.linear_1.up.bias"] == (32,)
    assert f"{W1}.weight" not in shapes


def test_the_state_has_the_heads_of_each_layer(config: ModelConfig) -> None:
    state = DecoderState.zeros(config.text, 1, 10)
    assert [tuple(layer[0].shape) for layer in state.layers] == [
        (1, 32, 2),
        (1, 1, 10, 8),
        (1, 32, 2),
        (1, 2, 10, 8),
    ]


@torch.no_grad()
def test_generate_is_greedy_over_the_full_forward(model: VLM) -> None:
    model.language_model.lm_head.weight = nn.Parameter(torch.randn(320, 32))
    ids = torch.cat((torch.arange(5, 9), torch.full((4,), IMAGE), torch.arange(10, 13)))
    pixels = torch.rand(1, 3, 64, 64)
    generated = model.generate(ids, pixels, image_token_id=IMAGE, eos_id=-1, max_new_tokens=6)
    expected: list[int] = []
    for _ in range(6):
        row = torch.cat((ids, torch.tensor(expected, dtype=torch.long)))
        expected.append(int(model(row[None], pixels, IMAGE)[0, -1].argmax()))
    assert generated == expected
    assert len(set(generated)) > 2


@torch.no_grad()
@pytest.mark.parametrize("path", [W1, "projector.linear_1", EXPANSION])
def test_a_pair_computes_the_product(model: VLM, config: ModelConfig, path: str) -> None:
    pair = model.get_submodule(path)
    assert isinstance(pair, Factorised)
    plain = VLM(replace(config, ranks={})).get_submodule(path)
    assert isinstance(plain, nn.Linear | nn.Conv2d)
    product = pair.up.weight.flatten(1) @ pair.down.weight.flatten(1)
    plain.weight.copy_(product.reshape(plain.weight.shape))
    if plain.bias is not None:
        assert pair.up.bias is not None
        plain.bias.copy_(pair.up.bias)
    inputs = plain.weight.shape[1]
    x = torch.randn(2, inputs, 3, 3) if isinstance(plain, nn.Conv2d) else torch.randn(2, inputs)
    torch.testing.assert_close(pair(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("ranks", "complaint"),
    [
        ({W1: 33}, rf"ranks: {W1}: 33 is too high, its matrix has 32"),
        ({HEAD: 4}, rf"ranks: {HEAD}: no linear layer or 1x1 convolution of its own"),
        ({"vision_encoder.conv_stem.conv": 2}, "no linear layer or 1x1"),
        ({"language_model.model.layers.9.feed_forward.w1": 2}, "no linear layer or 1x1"),
    ],
)
def test_impossible_ranks_are_one_line(
    tiny_config: ModelConfig, ranks: dict[str, int], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        VLM(replace(tiny_config, ranks=ranks))
