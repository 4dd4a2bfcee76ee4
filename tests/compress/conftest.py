"""A model of every kind of layer that fits a unit test, and samples for it."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
import torch

from autoneural.checkpoint import save_checkpoint
from autoneural.compress.quantize import Sample
from autoneural.config import (
    EdgeResidual,
    InvertedResidual,
    MobileNetV5Config,
    ModelConfig,
    MultiQueryAttention,
    ProjectorConfig,
    TextConfig,
    ViTConfig,
)
from autoneural.model.state import DecoderState
from autoneural.model.vlm import VLM

IMAGE_TOKEN = 3


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    stages = (
        (EdgeResidual(channels=8, stride=2),),
        (InvertedResidual(channels=16, dw_start=3, dw_mid=5, stride=2),),
        (
            InvertedResidual(channels=24, dw_start=3, dw_mid=3, stride=2),
            MultiQueryAttention(channels=24, num_heads=2, key_dim=16, kv_stride=2),
        ),
        (
            InvertedResidual(channels=32, dw_start=3, dw_mid=3, stride=2),
            MultiQueryAttention(channels=32, num_heads=2, key_dim=16),
        ),
    )
    return ModelConfig(
        name="unit",
        vision=MobileNetV5Config(
            image_size=64,
            stem_channels=8,
            stages=stages,
            fusion_channels=48,
            fusion_size=2,
            layer_scale_init=0.1,
        ),
        projector=ProjectorConfig(hidden_size=32),
        text=TextConfig(
            hidden_size=32,
            intermediate_size=64,
            layer_types=("conv", "full_attention", "conv"),
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            vocab_size=320,
            max_position_embeddings=128,
        ),
    )


@pytest.fixture
def model(config: ModelConfig) -> VLM:
    torch.manual_seed(0)
    return VLM(config).eval().requires_grad_(False)


class MakeSample(Protocol):
    def __call__(self, seed: int, *, image: bool = True) -> Sample: ...


@pytest.fixture(scope="session")
def make_sample(config: ModelConfig) -> MakeSample:
    """Random conversations, reproducible by seed."""
    return partial(_sample, config)


def _sample(config: ModelConfig, seed: int, *, image: bool = True, length: int = 12) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, config.text.vocab_size, (1, length), generator=generator)
    if not image:
        return Sample(input_ids_BT=ids, pixels_BCHW=None, image_token_id=IMAGE_TOKEN)
    tokens = torch.full((1, config.vision.num_tokens), IMAGE_TOKEN)
    size = config.vision.image_size
    pixels = torch.randint(0, 256, (1, 3, size, size), generator=generator).to(torch.uint8)
    return Sample(
        input_ids_BT=torch.cat((ids[:, :2], tokens, ids[:, 2:]), 1),
        pixels_BCHW=pixels,
        image_token_id=IMAGE_TOKEN,
    )


@pytest.fixture
def samples(make_sample: MakeSample) -> list[Sample]:
    return [make_sample(seed, image=seed != 2) for seed in range(4)]


@pytest.fixture
def float_checkpoint(model: VLM, config: ModelConfig, tmp_path: Path) -> Path:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    (tokenizer / "chat_template.jinja").write_text("")
    return save_checkpoint(tmp_path / "float", model, config, tokenizer, {"stage": "test"})


@pytest.fixture(params=["cnn", "vit"])
def uneven(request: pytest.FixtureRequest, config: ModelConfig) -> VLM:
    """A model of either encoder, in which every norm, bias and layer scale does something."""
    if request.param == "vit":
        vit = ViTConfig(
            image_size=64,
            patch_size=16,
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=3,
        )
        config = replace(config, vision=vit)
    torch.manual_seed(1)
    model = VLM(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.empty_like(parameter).uniform_(-0.8, 1.5))
    return model


class Answers(Protocol):
    def __call__(self, model: VLM) -> list[torch.Tensor]: ...


@pytest.fixture
def answers() -> Answers:
    """Logits over an image and text, over text alone, and of cached decode, for comparison."""
    return _answers


@torch.inference_mode()
def _answers(model: VLM) -> list[torch.Tensor]:
    sample = _sample(model.config, 5)
    found = [sample(model), _sample(model.config, 6, image=False)(model)]
    language = model.language_model
    embeds = model.embed(sample.input_ids_BT, sample.pixels_BCHW, IMAGE_TOKEN)
    state = DecoderState.zeros(model.config.text, 1, embeds.shape[1])
    for start, stop in ((0, 6), (6, 7), (7, embeds.shape[1])):
        hidden = language.extend(embeds[:, start:stop], state, start, stop - start)
        found.append(language.lm_head(hidden))
    return found
