"""What is made of a checkpoint is for static graphs: its positions are fixed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from autoneural.checkpoint import load_checkpoint, save_checkpoint
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import load_quantized, post_training_quantize
from autoneural.config import ModelConfig, TilingConfig, ViTConfig
from autoneural.export.graphs import GraphKey, build_graph
from autoneural.model.vlm import VLM
from tests.compress.conftest import _sample

VIT = ViTConfig(
    image_size=32,
    patch_size=8,
    num_patches=9,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
)


def test_a_vit_of_many_grids_is_quantised_at_its_image_size(
    config: ModelConfig, tmp_path: Path
) -> None:
    tiling = TilingConfig(tile_size=32, encoder_patch_size=8)
    config = replace(config, vision=VIT, tiling=tiling)
    torch.manual_seed(0)
    model = VLM(config).eval().requires_grad_(False)
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for name in ("tokenizer.json", "chat_template.jinja"):
        (tokenizer / name).write_text("{}")
    save_checkpoint(tmp_path / "float", model, config, tokenizer, {"stage": "test"})
    assert load_checkpoint(tmp_path / "float").config == config

    samples = [_sample(config, seed) for seed in range(3)]
    post_training_quantize(
        tmp_path / "float", samples, tmp_path / "int", precision=PRECISIONS["w8a16"]
    )
    made = load_checkpoint(tmp_path / "int")
    assert made.config == replace(config, vision=replace(VIT, num_patches=0), resize="tile")
    quantised = load_quantized(tmp_path / "int")
    expected, actual = samples[0](model), samples[0](quantised)
    assert float((actual - expected).norm() / expected.norm()) < 0.1
    build_graph(quantised, GraphKey(role="vision", image_size=32))
