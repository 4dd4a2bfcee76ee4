"""Our MobileNetV5 is timm's: features on random weights, names and shapes at full size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.mobilenetv5 import MobileNetV5Encoder, mobilenetv5_300m_enc
from torch import Tensor, nn

from autoneural.config import (
    EdgeResidual,
    InvertedResidual,
    MobileNetV5Config,
    MultiQueryAttention,
    preset,
)
from autoneural.model.vision_encoder import MobileNetV5
from autoneural.model.vlm import macs, num_parameters

ARCH = [
    ["er_r1_k3_s2_e4_c16", "er_r1_k3_s1_e4_c16"],
    ["uir_r1_a3_k5_s2_e6_c24", "uir_r1_a5_k0_s1_e4_c24", "uir_r1_a0_k3_s1_e4_c24"],
    ["uir_r1_a5_k5_s2_e6_c32", "mqa_r1_k3_h3_v2_s1_d8_c32", "uir_r1_a0_k0_s1_e1_c32"],
    ["uir_r1_a5_k0_s2_e6_c48", "mqa_r1_k3_h4_s1_d16_c48", "uir_r1_a0_k0_s1_e2_c48"],
]


def small_config(fusion_size: int) -> MobileNetV5Config:
    """ARCH in our words."""
    return MobileNetV5Config(
        image_size=16 * fusion_size,
        stem_channels=8,
        fusion_channels=2048,
        fusion_size=fusion_size,
        stages=(
            (EdgeResidual(channels=16, stride=2), EdgeResidual(channels=16)),
            (
                InvertedResidual(channels=24, stride=2, expand=6, dw_start=3, dw_mid=5),
                InvertedResidual(channels=24, dw_start=5),
                InvertedResidual(channels=24, dw_mid=3),
            ),
            (
                InvertedResidual(channels=32, stride=2, expand=6, dw_start=5, dw_mid=5),
                MultiQueryAttention(channels=32, num_heads=3, key_dim=8, kv_stride=2),
                InvertedResidual(channels=32, expand=1),
            ),
            (
                InvertedResidual(channels=48, stride=2, expand=6, dw_start=5),
                MultiQueryAttention(channels=48, num_heads=4, key_dim=16),
                InvertedResidual(channels=48, expand=2),
            ),
        ),
    )


def randomize(module: nn.Module) -> None:
    """Norm weights and layer scales away from their constant starting values."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("image_size", "fusion_size"),
    [(64, 4), (64, 2), (64, 3), (72, 5), (104, 7)],
    ids=["as-is", "pooled", "bilinear", "odd-sizes", "odd-sizes-2"],
)
def test_features_equal_timm(image_size: int, fusion_size: int) -> None:
    torch.manual_seed(0)
    theirs = MobileNetV5Encoder(
        decode_arch_def(ARCH),
        stem_size=8,
        fix_stem=True,
        pad_type="same",  # Gemma 3n's; timm's symmetric default differs by half on these weights
        msfa_output_resolution=fusion_size,
        layer_scale_init_value=1.0,
    ).eval()
    randomize(theirs)
    ours = MobileNetV5(small_config(fusion_size)).eval()
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.rand(2, 3, image_size, image_size)
    with torch.no_grad():
        expected = theirs.forward_features(pixels)
        actual = ours(pixels)
    assert actual.shape == (2, fusion_size**2, 2048)
    assert relative_error(actual, expected.flatten(2).transpose(1, 2)) < 1e-4


def test_full_size_has_timms_names_and_shapes() -> None:
    vision = preset("autoneural-1.5b").vision
    assert isinstance(vision, MobileNetV5Config)
    with torch.device("meta"):
        ours, theirs = MobileNetV5(vision), mobilenetv5_300m_enc()
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert len(shapes) == 548
    assert num_parameters(ours) == 294_126_912


@pytest.mark.parametrize(("image_size", "gmacs"), [(256, 43.7), (512, 181.8), (768, 435.7)])
def test_full_size_costs_and_token_count(image_size: int, gmacs: float) -> None:
    vision = preset("autoneural-1.5b").vision
    assert isinstance(vision, MobileNetV5Config)
    with torch.device("meta"):
        encoder = MobileNetV5(vision)
        pixels = torch.empty(1, 3, image_size, image_size)
    assert encoder(pixels).shape == (1, 256, 2048)
    assert macs(encoder, pixels) / 1e9 == pytest.approx(gmacs, abs=0.06)


def test_unshuffled_tokens_are_squares_of_the_others() -> None:
    torch.manual_seed(0)
    plain = MobileNetV5(small_config(4)).eval()
    config = replace(small_config(4), unshuffle=2)
    joined = MobileNetV5(config).eval()
    joined.load_state_dict(plain.state_dict())
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        cells = plain(pixels).reshape(2, 4, 4, -1)
        tokens = joined(pixels)
    assert tokens.shape == (2, config.num_tokens, config.out_channels) == (2, 4, 4 * 2048)
    top_right = torch.cat([cells[:, row, col] for row in (0, 1) for col in (2, 3)], -1)
    assert torch.equal(tokens[:, 1], top_right)
    with pytest.raises(ValueError, match="unshuffle: does not divide fusion_size"):
        replace(small_config(3), unshuffle=2)


def test_channels_last_gives_the_same_features() -> None:
    torch.manual_seed(0)
    encoder = MobileNetV5(small_config(4)).eval()
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = encoder(pixels)
        actual = encoder.to(memory_format=torch.channels_last)(  # type: ignore[call-overload]
            pixels.to(memory_format=torch.channels_last)
        )
    assert relative_error(actual, expected) < 1e-5


def test_gradients_reach_every_parameter_under_autocast() -> None:
    encoder = MobileNetV5(small_config(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoder(torch.rand(1, 3, 64, 64)).float().square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []
