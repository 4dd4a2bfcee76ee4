"""Configurations: presets survive JSON, impossible ones name the key."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from autoneural.config import ModelConfig, ViTConfig, preset


@pytest.mark.parametrize("name", ["autoneural-1.5b", "cockpit-tiny", "vit-tiny", "lfm2-vl-450m"])
def test_presets_survive_json(name: str) -> None:
    config = preset(name)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_of_before_widths_and_ranks_loads_unchanged() -> None:
    config = preset("cockpit-tiny")
    data = json.loads(json.dumps(config.to_dict()))
    del data["ranks"], data["vision"]["fusion_hidden"]
    del data["text"]["intermediate_sizes"], data["text"]["key_value_heads"]
    for block in (block for stage in data["vision"]["stages"] for block in stage):
        block.pop("hidden", None)
    assert ModelConfig.from_dict(data) == config


@pytest.mark.parametrize("name", ["cockpit-tiny", "vit-tiny"])
def test_widths_and_ranks_survive_json(name: str) -> None:
    config = preset(name)
    heads = tuple(0 if kind == "conv" else 2 for kind in config.text.layer_types)
    text = replace(config.text, intermediate_sizes=(96,) * 6, key_value_heads=heads)
    vision = config.vision
    if isinstance(vision, ViTConfig):
        vision = replace(vision, intermediate_sizes=(32, 64) * 3)
    config = replace(config, text=text, vision=vision, ranks={"projector.linear_1": 32})
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_of_an_earlier_version_is_read_as_before() -> None:
    data = json.loads(json.dumps(preset("vit-tiny").to_dict()))
    del data["tiling"], data["vision"]["num_patches"]
    data["projector"] = {"hidden_size": data["projector"]["hidden_size"]}
    assert ModelConfig.from_dict(data) == preset("vit-tiny")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: data["vision"].update(num_patches=250), "num_patches: not a square"),
        (lambda data: data["vision"].update(num_patches=-4), "num_patches: -4 is not a whole"),
        (
            lambda data: data["vision"].update(num_attention_heads=7),
            "hidden_size: not a multiple of num_attention_heads",
        ),
        (lambda data: data["projector"].update(hidden_act="relu"), "hidden_act: 'relu' is not"),
        (lambda data: data["projector"].update(bias=1), "bias: 1 is not true or false"),
        (lambda data: data["projector"].update(norm=True), "'norm'"),
        (lambda data: data.update(tiling={"tile_size": 40}), "tile_size: not a multiple of 32"),
        (lambda data: data.update(tiling={"min_tiles": 11}), "min_tiles: more than max_tiles"),
        (
            lambda data: data.update(tiling={"min_image_tokens": 300}),
            "min_image_tokens: more than max_image_tokens",
        ),
        (
            lambda data: data.update(tiling={"encoder_patch_size": 8}),
            "tiling: patch and downsample factor are not those of the encoder",
        ),
        (
            lambda data: data.update(tiling={"tile_size": 64}) or data["vision"].pop("num_patches"),
            "tiling: needs a ViT with num_patches",
        ),
    ],
)
def test_an_impossible_vit_names_the_key(change: Callable[[dict], object], complaint: str) -> None:
    data = json.loads(json.dumps(preset("vit-tiny").to_dict()))
    data["vision"]["num_patches"] = 256
    ModelConfig.from_dict({**data, "tiling": {"tile_size": 256}})
    change(data)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ModelConfig.from_dict(data)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("size", [256, 384, 500, 640, 768])
def test_the_encoder_gives_256_tokens_at_any_size(size: int) -> None:
    data = preset("autoneural-1.5b").to_dict()
    data["vision"]["image_size"] = size
    assert ModelConfig.from_dict(data).vision.num_tokens == 256


def _vision(**values: Any) -> Callable[[dict], object]:
    return lambda data: data["vision"].update(values)


def _text(**values: Any) -> Callable[[dict], object]:
    return lambda data: data["text"].update(values)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_text(num_key_value_heads=0), "num_key_value_heads: 0 is not a whole number from 1 up"),
        (_text(hidden_size="256"), "hidden_size: '256' is not a whole number"),
        (_text(vocab_size=True), "vocab_size: True is not a whole number"),
        (_text(norm_eps=0), "norm_eps: 0 is not a positive number"),
        (_text(rope_theta=float("inf")), "rope_theta: inf is not a positive number"),
        (_text(layer_types=["conv", "sliding_attention"]), "layer_types: 'sliding_attention'"),
        (_text(layer_types="conv"), "layer_types: 'c' is not conv or full_attention"),
        (_text(layer_types=[]), "layer_types: empty"),
        (_text(tie_word_embeddings="no"), "tie_word_embeddings: 'no' is not true or false"),
        (_text(intermediate_sizes=[32]), "intermediate_sizes: 1 values for 6 layers"),
        (_text(intermediate_sizes=[0] * 6), "intermediate_sizes: 0 is not a whole number from 1"),
        (_text(key_value_heads=[1] * 6), "key_value_heads: 1 in layer 0, conv"),
        (_text(key_value_heads=[0] * 6), "key_value_heads: 0 in layer 1, full_attention"),
        (_text(key_value_heads=[0, -1] * 3), "key_value_heads: -1 is not a whole number"),
        (_vision(fusion_hidden=-8), "fusion_hidden: -8 is not a whole number from 0 up"),
        (lambda data: data.update(ranks={"a": 0}), "ranks: a: 0 is not a whole number from 1 up"),
        (lambda data: data.update(ranks=[1]), "ranks: not a table"),
        (
            lambda data: data["vision"]["stages"][0][0].update(hidden=1.5),
            "hidden: 1.5 is not a whole number from 0 up",
        ),
        (_vision(fusion_size=0), "fusion_size: 0 is not"),
        (_vision(image_size=-1), "image_size: -1 is not a whole number from 1 up"),
        (_vision(stages=[[], []]), "stages: one of them is empty"),
        (_vision(type="resnet"), "vision.type: unknown 'resnet'"),
        (lambda data: data.update(resize="crop"), "resize: 'crop' is not squash or pad"),
        (lambda data: data.update(name=3), "name: 3 is not a text"),
        (lambda data: data.pop("projector"), "'projector'"),
        (
            lambda data: data["vision"]["stages"][0].append(
                {"type": "uir", "channels": 32, "stride": 2}
            ),
            "stride: an inverted residual without a depthwise convolution",
        ),
    ],
)
def test_an_impossible_model_names_the_key(
    change: Callable[[dict], object], complaint: str
) -> None:
    data = copy.deepcopy(json.loads(json.dumps(preset("cockpit-tiny").to_dict())))
    change(data)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ModelConfig.from_dict(data)
    assert complaint in str(caught.value)
