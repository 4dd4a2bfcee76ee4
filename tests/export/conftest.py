"""A tiny random model, quantised here in the plainest way: the exporter's own reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autoneural.checkpoint import Checkpoint
from autoneural.compress.fake_quant import Calibration, freeze, quantize
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import frozen_tensors
from autoneural.config import (
    EdgeResidual,
    InvertedResidual,
    MobileNetV5Config,
    ModelConfig,
    MultiQueryAttention,
    ProjectorConfig,
    TextConfig,
)
from autoneural.export.graphs import GraphKey, TorchGraph, build_graph
from autoneural.export.parity import run_torch
from autoneural.export.qdq import Quantization, load_quantization
from autoneural.model.vlm import VLM
from tests.conftest import TinyCheckpoint
from tests.runtime.conftest import quantise as quantise_checkpoint

CONTEXT, WIDTH = 16, 8


@pytest.fixture(scope="session")
def checkpoint(tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantised one on disk, for the command line."""
    return quantise_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("export") / "tiny")


CONFIG = ModelConfig(
    name="test",
    vision=MobileNetV5Config(
        image_size=64,
        stem_channels=8,
        stages=(
            (EdgeResidual(channels=16, stride=2),),
            (InvertedResidual(channels=16, dw_start=3, dw_mid=5, stride=2),),
            (
                InvertedResidual(channels=24, dw_start=5, dw_mid=5, stride=2),
                MultiQueryAttention(channels=24, num_heads=2, key_dim=16, kv_stride=2),
            ),
            (
                InvertedResidual(channels=32, dw_start=5, dw_mid=5, stride=2),
                MultiQueryAttention(channels=32, num_heads=2, key_dim=16),
                InvertedResidual(channels=32, expand=2),
            ),
        ),
        fusion_channels=32,
        fusion_size=2,
        layer_scale_init=0.1,
    ),
    projector=ProjectorConfig(hidden_size=32),
    text=TextConfig(
        hidden_size=32,
        intermediate_size=48,
        layer_types=("conv", "full_attention"),
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=64,
        max_position_embeddings=64,
    ),
)
KEYS = {
    "vision": GraphKey(role="vision", image_size=CONFIG.vision.image_size),
    "prefill": GraphKey(role="prefill", width=WIDTH, context=CONTEXT),
    "decode": GraphKey(role="decode", width=1, context=CONTEXT),
    "head": GraphKey(role="head", width=1),
}


@dataclass(frozen=True)
class Quantised:
    """A float model, the same model with frozen weights and rounded ranges, and the encodings."""

    float_model: VLM
    model: VLM
    frozen_model: VLM
    encodings: dict[str, Any]
    quantization: Quantization


def random_inputs(graph: TorchGraph, seed: int = 0) -> dict[str, Tensor]:
    """Random values for everything but mask and rotary tables."""
    rng = torch.Generator().manual_seed(seed)
    inputs = dict(graph.inputs)
    for name, example in inputs.items():
        if name == "pixel_values":
            inputs[name] = torch.randint(0, 256, example.shape, generator=rng) / 255
        elif name not in ("cos", "sin", "mask"):
            inputs[name] = torch.randn(example.shape, generator=rng) * 0.1
    return inputs


@pytest.fixture(scope="session")
def quantised() -> Quantised:
    return quantise("w4a16")


@pytest.fixture(scope="session")
def quantised_kv8() -> Quantised:
    """The same model with a cache of 8 bits."""
    return quantise("w4a16kv8")


def quantise(name: str) -> Quantised:
    torch.manual_seed(0)
    float_model, model = VLM(CONFIG).eval(), VLM(CONFIG).eval()
    _disturb(float_model)
    model.load_state_dict(float_model.state_dict())
    precision = PRECISIONS[name]
    quantize(model, precision)
    with Calibration(model):
        for seed in range(4):
            for key in KEYS.values():
                graph = build_graph(model, key)
                run_torch(graph, random_inputs(graph, seed))
            model.language_model.model.embed_tokens(torch.arange(CONFIG.text.vocab_size))
    encodings = freeze(model, precision)
    return Quantised(
        float_model, model, without_rounding(model), encodings, collect(model, encodings)
    )


def without_rounding(model: VLM) -> VLM:
    """What export traces: the frozen weights, nothing else rounded."""
    plain = VLM(CONFIG).eval()
    names = plain.state_dict()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k in names})
    return plain


def collect(model: VLM, encodings: dict[str, Any]) -> Quantization:
    tensors = frozen_tensors(model)
    checkpoint = Checkpoint(CONFIG, tensors, {}, encodings)
    return load_quantization(checkpoint)


def _disturb(model: VLM) -> None:
    """Norm weights and biases away from one and zero, and all different."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
