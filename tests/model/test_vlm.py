"""The whole model: presets, images among tokens, reference generation, export."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from autoneural.config import (
    PRESETS,
    EdgeResidual,
    InvertedResidual,
    MobileNetV5Config,
    ModelConfig,
    MultiQueryAttention,
    ProjectorConfig,
    TextConfig,
    ViTConfig,
    preset,
)
from autoneural.model.vlm import VLM, num_parameters

IMAGE = 14
MOBILENET = MobileNetV5Config(
    image_size=32,
    stem_channels=8,
    stages=(
        (EdgeResidual(channels=8, stride=2),),
        (InvertedResidual(channels=16, stride=4, dw_mid=5),),
        (MultiQueryAttention(channels=16, num_heads=2, key_dim=8),),
    ),
    fusion_channels=24,
    fusion_size=2,
    layer_scale_init=0.5,
)
VIT = ViTConfig(
    image_size=32,
    patch_size=8,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
)
TEXT = TextConfig(
    hidden_size=32,
    intermediate_size=64,
    layer_types=("conv", "full_attention", "conv"),
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    vocab_size=64,
)
TINY = ModelConfig(
    name="tiny", vision=MOBILENET, projector=ProjectorConfig(hidden_size=24), text=TEXT
)


@pytest.fixture(params=[MOBILENET, VIT], ids=["mobilenetv5", "vit"])
def model(request: pytest.FixtureRequest) -> VLM:
    torch.manual_seed(0)
    return VLM(replace(TINY, vision=request.param)).eval()


def conversation(*parts: int) -> Tensor:
    """Token ids of a row: a positive number is that many text tokens, 0 an image."""
    rows = [torch.randint(20, 64, (n,)) if n else torch.full((4,), IMAGE) for n in parts]
    return torch.cat(rows)


def test_presets_build_on_the_meta_device() -> None:
    sizes = {}
    for name, config in PRESETS.items():
        with torch.device("meta"):
            model = VLM(config)
            features = model.image_features(torch.empty(1, 3, *[config.vision.image_size] * 2))
        assert features.shape == (1, config.vision.num_tokens, config.text.hidden_size)
        sizes[name] = num_parameters(model)
    assert sizes["autoneural-1.5b"] == 294_126_912 + 1_170_340_608 + 2 * (2048 * 2048 + 2048)
    assert (
        sizes["autoneural-0.6b"] - 294_126_912 - 354_483_968
        == 2048 * 2048 + 2048 + 2048 * 1024 + 1024
    )
    # Eight-bit weights of both bundle targets must fit 16 MiB.
    assert sizes["cockpit-tiny"] < 7_500_000


@torch.no_grad()
def test_images_fill_their_positions_in_order_across_the_batch(model: VLM) -> None:
    ids = torch.stack((conversation(3, 0, 2, 0, 1), conversation(0, 10)))
    pixels = torch.rand(3, 3, 32, 32)
    embeds = model.embed(ids, pixels, IMAGE)
    features = model.image_features(pixels)
    torch.testing.assert_close(embeds[ids == IMAGE], features.flatten(0, 1))
    text = ids != IMAGE
    assert torch.equal(embeds[text], model.language_model.model.embed_tokens(ids[text]))


@torch.no_grad()
def test_pixels_may_be_bytes(model: VLM) -> None:
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(model.image_features(pixels), model.image_features(pixels / 255))


@torch.no_grad()
def test_an_image_changes_what_follows_and_nothing_before(model: VLM) -> None:
    ids = conversation(5, 0, 3)[None]
    one, two = (model(ids, torch.rand(1, 3, 32, 32), IMAGE) for _ in range(2))
    torch.testing.assert_close(one[:, :5], two[:, :5])
    assert (one[:, 9:] - two[:, 9:]).abs().max() > 1e-4


@pytest.mark.parametrize("images", [None, 1, 3])
def test_a_wrong_number_of_images_is_refused(images: int | None) -> None:
    pixels = None if images is None else torch.rand(images, 3, 32, 32)
    found = rf"8 image token positions for {images or 0} images .* expected {4 * (images or 0)}"
    with pytest.raises(ValueError, match=found):
        VLM(TINY)(conversation(2, 0, 0)[None], pixels, IMAGE)


@torch.no_grad()
def test_right_padding_leaves_the_logits_alone(model: VLM) -> None:
    ids = conversation(2, 0, 3)[None]
    pixels = torch.rand(1, 3, 32, 32)
    padded = torch.cat((ids, torch.zeros(1, 4, dtype=torch.long)), 1)
    expected = model(ids, pixels, IMAGE)
    torch.testing.assert_close(model(padded, pixels, IMAGE)[:, : ids.shape[1]], expected)


@torch.no_grad()
def test_generate_is_greedy_over_the_full_forward(model: VLM) -> None:
    # Untied and larger: otherwise one token repeats, and a broken cache would go unseen.
    model.language_model.model.embed_tokens.weight.mul_(50)
    model.language_model.lm_head.weight = torch.nn.Parameter(torch.randn(64, 32))
    ids = conversation(3, 0, 4, 0, 2)
    pixels = torch.rand(2, 3, 32, 32)
    generated = model.generate(ids, pixels, image_token_id=IMAGE, eos_id=-1, max_new_tokens=8)
    expected: list[int] = []
    for _ in range(8):
        row = torch.cat((ids, torch.tensor(expected, dtype=torch.long)))
        expected.append(int(model(row[None], pixels, IMAGE)[0, -1].argmax()))
    assert generated == expected
    assert len(set(generated)) > 2
    stop = generated[3]
    cut = model.generate(ids, pixels, image_token_id=IMAGE, eos_id=stop, max_new_tokens=8)
    assert cut == generated[: generated.index(stop)]


def test_every_branching_operation_is_a_named_module() -> None:
    with torch.device("meta"):
        names = dict(VLM(preset("cockpit-tiny")).named_modules())
    kinds = Counter(type(module).__name__ for module in names.values())
    layers = preset("cockpit-tiny").text.layer_types
    attention = layers.count("full_attention")
    assert kinds["Softmax"] == attention + 3
    assert kinds["MatMul"] == 2 * kinds["Softmax"]
    assert kinds["Rotary"] == 2 * attention
    assert kinds["Sigmoid"] == len(layers)
