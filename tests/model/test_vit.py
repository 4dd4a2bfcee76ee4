"""ViT positions: resized to each picture's grid, or fixed once for a static graph."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from autoneural.config import (
    ModelConfig,
    ProjectorConfig,
    TextConfig,
    TilingConfig,
    ViTConfig,
    preset,
)
from autoneural.model.vit import resize_positions
from autoneural.model.vlm import VLM, fix_image_size
from tests.model.test_vlm import TINY

VIT = ViTConfig(
    image_size=32,
    patch_size=4,
    num_patches=9,
    hidden_size=12,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=3,
)
CONFIG = ModelConfig(
    name="naflex",
    vision=VIT,
    projector=ProjectorConfig(hidden_size=16, hidden_act="gelu", layer_norm=True),
    text=TextConfig(
        hidden_size=16,
        intermediate_size=32,
        layer_types=("conv",),
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=64,
    ),
    tiling=TilingConfig(tile_size=32, encoder_patch_size=4),
)
POSITIONS = "vision_encoder.embeddings.position_embedding.weight"


@pytest.fixture
def model() -> VLM:
    torch.manual_seed(0)
    model = VLM(CONFIG).eval().requires_grad_(False)
    torch.nn.init.normal_(model.get_parameter(POSITIONS))
    return model


@pytest.mark.parametrize("size", [16, 24, 64])
def test_fixed_positions_give_the_same_features(model: VLM, size: int) -> None:
    config, state = fix_image_size(CONFIG, model.state_dict(), size)
    assert config.vision == replace(VIT, image_size=size, num_patches=0)
    assert (config.tiling is None, config.resize) == (True, "squash")
    assert state[POSITIONS].shape == ((size // 4) ** 2, 12)
    fixed = VLM(config).eval()
    fixed.load_state_dict(state)
    pixels = torch.rand(2, 3, size, size)
    features = fixed.image_features(pixels)
    torch.testing.assert_close(features, model.image_features(pixels))
    assert features.shape == (2, config.vision.num_tokens, 16)


def test_fixed_positions_take_one_size(model: VLM) -> None:
    config, state = fix_image_size(CONFIG, model.state_dict(), 32)
    with pytest.raises(ValueError, match="32x40, but the positions are those of 32x32"):
        VLM(config).image_features(torch.rand(1, 3, 32, 40))
    again, same = fix_image_size(config, state, 32)
    assert again == config
    assert torch.equal(same[POSITIONS], state[POSITIONS])
    with pytest.raises(ValueError, match="image_size: the positions are fixed at 32"):
        fix_image_size(config, state, 40)
    with pytest.raises(ValueError, match="unshuffle: does not divide the patch grid"):
        fix_image_size(CONFIG, model.state_dict(), 36)


def test_pictures_are_cut_where_the_size_is_that_of_a_tile(model: VLM) -> None:
    config, _ = fix_image_size(CONFIG, model.state_dict(), 32)
    assert config.tiling == CONFIG.tiling
    assert config.resize == "tile"
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="tile needs a tiling with tiles of the vision's image"):
        replace(config, tiling=TilingConfig(tile_size=64, encoder_patch_size=4))


def test_a_convolutional_encoder_takes_any_size_as_it_is() -> None:
    config, state = fix_image_size(TINY, {"x": torch.zeros(1)}, 64)
    assert config == replace(TINY, vision=replace(TINY.vision, image_size=64))
    assert list(state) == ["x"]


def test_positions_of_bf16_are_resized_in_fp32() -> None:
    torch.manual_seed(0)
    table = torch.randn(16, 8).bfloat16()
    resized = resize_positions(table, 3, 6)
    assert resized.dtype == torch.bfloat16
    assert torch.equal(resized, resize_positions(table.float(), 3, 6).bfloat16())
    assert resize_positions(table, 4, 4) is table


def test_a_picture_without_a_grid_is_refused(model: VLM) -> None:
    with pytest.raises(ValueError, match="pixels: 20x32 are no multiples of 8"):
        model.image_features(torch.rand(1, 3, 20, 32))


def test_pictures_of_their_own_sizes_fill_their_positions_in_order(model: VLM) -> None:
    pictures = [torch.rand(3, 16, 24), torch.rand(3, 8, 8)]
    ids = torch.tensor([[7, *[5] * 6, 8, 5, 9]])
    embeds = model.embed(ids, pictures, 5)
    features = [model.image_features(picture[None])[0] for picture in pictures]
    torch.testing.assert_close(embeds[ids == 5], torch.cat(features))
    with pytest.raises(ValueError, match="7 image token positions for 1 images .* expected 6"):
        model.embed(ids, pictures[:1], 5)
    assert model.embed(ids[:, :1], [], 5).shape == (1, 1, 16)


def test_gradients_reach_every_parameter() -> None:
    encoder = VLM(CONFIG).vision_encoder
    encoder(torch.rand(1, 3, 24, 40)).square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_twins_have_one_position_per_patch() -> None:
    vision = preset("vit-tiny").vision
    assert isinstance(vision, ViTConfig)
    assert (vision.num_patches, vision.position_grid) == (0, 16)
