"""LFM2-VL as transformers writes it gives the same logits and tokens in our model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Lfm2VlConfig, Lfm2VlForConditionalGeneration

from autoneural.checkpoint import load_checkpoint, load_weights
from autoneural.config import ModelConfig, TextConfig, TilingConfig, ViTConfig, preset
from autoneural.data.tiles import cut
from autoneural.errors import UserError
from autoneural.hub.importers import import_folder
from autoneural.hub.lfm2_vl import (
    PixelScale,
    convert_tensors,
    model_config,
    pixel_scale,
    processor_values,
    rename,
)
from autoneural.model.vlm import VLM, num_parameters
from tests.data.test_tiles import noise
from tests.hub.conftest import VOCAB
from tests.hub.test_importers import RELEASED

IMAGE = 5
TEXT = TextConfig(
    hidden_size=32,
    intermediate_size=48,
    layer_types=("conv", "full_attention", "conv"),
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    vocab_size=96,
)
PATCHES = "vision_encoder.embeddings.patch_embedding.weight"
PROCESSOR = {"tile_size": 32, "min_image_tokens": 4, "max_image_tokens": 16}


class Pair(NamedTuple):
    theirs: Lfm2VlForConditionalGeneration
    ours: VLM


def text_dict(text: TextConfig) -> dict[str, Any]:
    """A TextConfig in transformers' words."""
    return {
        "model_type": "lfm2",
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "block_auto_adjust_ff_dim": False,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "num_key_value_heads": text.num_key_value_heads,
        "layer_types": list(text.layer_types),
    }


def small_config(**values: Any) -> Lfm2VlConfig:
    vision = {
        "model_type": "siglip2_vision_model",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_patches": 25,
        "patch_size": 4,
        "vision_use_head": False,
    }
    return Lfm2VlConfig(
        vision_config=vision,
        text_config=text_dict(TEXT),
        image_token_id=IMAGE,
        projector_hidden_size=28,
        **values,
    )


def randomize(module: nn.Module) -> None:
    """Far from the start: attention that is not uniform, biases that are not zero."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        elif "norm" in name and name.endswith("weight"):
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=0.3)


def imported(folder: Path, text: TextConfig = TEXT) -> VLM:
    """Our model of a folder that transformers wrote."""
    config = model_config(
        json.loads((folder / "config.json").read_text()), PROCESSOR, text, folder.name
    )
    tensors = {rename(k): v for k, v in load_file(folder / "model.safetensors").items()}
    assert isinstance(config.vision, ViTConfig)
    model = VLM(config).eval().requires_grad_(False)
    load_weights(model, convert_tensors(tensors, config.vision, PixelScale(), "x"), folder)
    return model


@pytest.fixture(
    scope="module",
    params=[{}, {"projector_use_layernorm": False, "projector_bias": False}],
    ids=["layer-norm", "norm-free"],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    torch.manual_seed(0)
    theirs = Lfm2VlForConditionalGeneration(small_config(**request.param)).eval()
    randomize(theirs)
    folder = tmp_path_factory.mktemp("hub")
    theirs.save_pretrained(folder)
    return Pair(theirs.requires_grad_(False), imported(folder))


def conversation(pictures: list[Tensor], patch: int = 4, factor: int = 2) -> Tensor:
    """Random text with the tokens of each picture in it, [T]."""
    parts = [torch.randint(6, 96, (3,))]
    for picture in pictures:
        tokens = picture.shape[1] * picture.shape[2] // (patch * factor) ** 2
        parts += [torch.full((tokens,), IMAGE), torch.randint(6, 96, (2,))]
    return torch.cat(parts)


def naflex(pictures: list[Tensor], patch: int = 4) -> dict[str, Tensor]:
    """Pictures as transformers' model takes them: scaled, flattened, padded, with a mask."""
    grids = [(p.shape[1] // patch, p.shape[2] // patch) for p in pictures]
    longest = max(rows * columns for rows, columns in grids)
    values = torch.zeros(len(pictures), longest, 3 * patch**2)
    mask = torch.zeros(len(pictures), longest, dtype=torch.int32)
    for index, (picture, (rows, columns)) in enumerate(zip(pictures, grids, strict=True)):
        scaled = (picture.float() / 255 - 0.5) / 0.5
        cells = scaled.reshape(3, rows, patch, columns, patch).permute(1, 3, 2, 4, 0)
        values[index, : rows * columns] = cells.reshape(rows * columns, -1)
        mask[index, : rows * columns] = 1
    shapes = torch.tensor(grids)
    return {"pixel_values": values, "pixel_attention_mask": mask, "spatial_shapes": shapes}


def picture(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def tiled() -> list[Tensor]:
    """A wide picture in tiles of 32 x 32, and its thumbnail."""
    tiles = cut(noise(150, 70), TilingConfig(encoder_patch_size=4, **PROCESSOR))
    assert (tiles.rows, tiles.columns, len(tiles.pictures)) == (2, 4, 9)
    return [torch.from_numpy(np.array(p)) for p in tiles.pictures]


CASES = {
    "one": lambda: [picture(32, 32)],
    "two": lambda: [picture(32, 32), picture(32, 32)],
    "wide": lambda: [picture(16, 56)],
    "small-and-tall": lambda: [picture(8, 8), picture(40, 24)],
    "table-as-it-is": lambda: [picture(20 - 4, 20 + 4)],
    "tiles": tiled,
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_logits_equal_transformers(pair: Pair, case: str) -> None:
    torch.manual_seed(1)
    pictures = CASES[case]()
    ids = conversation(pictures)[None]
    expected = pair.theirs(input_ids=ids, **naflex(pictures)).logits
    actual = pair.ours(ids, pictures, IMAGE)
    assert float((actual - expected).norm() / expected.norm()) < 1e-4
    other = pair.ours(ids, [p.flip(2) for p in pictures], IMAGE)
    assert float((other - expected).norm() / expected.norm()) > 1e-2  # the pictures count


@torch.no_grad()
@pytest.mark.parametrize("spelling", ["lfm2_vl", "lfm2-vl"])
def test_a_folder_of_the_hub_becomes_a_checkpoint(lfm2, tmp_path: Path, spelling: str) -> None:
    torch.manual_seed(3)
    config = small_config()
    setattr(config.text_config, "vocab_size", VOCAB)  # noqa: B010
    theirs = Lfm2VlForConditionalGeneration(config).eval()
    randomize(theirs)
    folder = tmp_path / "LFM2-VL-tiny"
    theirs.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(lfm2.single / name, folder)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": PROCESSOR}))
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, "model_type": spelling}))
    import_folder(str(folder), tmp_path / "out")
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.config.tiling == TilingConfig(encoder_patch_size=4, **PROCESSOR)
    ours = VLM(checkpoint.config).eval()
    load_weights(ours, checkpoint.state_dict, "out")
    pictures = tiled()
    ids = conversation(pictures)[None]
    expected = theirs(input_ids=ids, **naflex(pictures)).logits
    assert float((ours(ids, pictures, IMAGE) - expected).norm() / expected.norm()) < 1e-4


@torch.no_grad()
def test_cached_greedy_tokens_equal_transformers(pair: Pair) -> None:
    torch.manual_seed(2)
    pictures = tiled()
    ids = conversation(pictures)
    pair.theirs.generation_config.eos_token_id = None
    expected = pair.theirs.generate(  # pyright: ignore[reportAttributeAccessIssue]
        input_ids=ids[None], **naflex(pictures), max_new_tokens=12, do_sample=False
    )[0, len(ids) :].tolist()
    actual = pair.ours.generate(ids, pictures, image_token_id=IMAGE, eos_id=-1, max_new_tokens=12)
    assert actual == expected
    assert len(set(actual)) > 2


def test_names_of_all_releases_meet() -> None:
    with torch.device("meta"):
        names = Lfm2VlForConditionalGeneration(small_config()).state_dict().keys()
        ours = set(VLM(tiny()).state_dict()) | {"language_model.lm_head.weight"}
    first = {n.replace("vision_tower.", "vision_tower.vision_model.") for n in names}
    mlx = {
        n.removeprefix("model.").replace("language_model.", "language_model.model.") for n in first
    }
    for given in (names, first, mlx):
        assert {rename(name) for name in given} == ours
    assert rename("model.vision_tower.head.probe") == "vision_encoder.head.probe"
    assert rename("audio_tower.conv.weight") == "audio_tower.conv.weight"


def tiny() -> ModelConfig:
    return model_config(small_config().to_dict(), PROCESSOR, TEXT, "tiny")


LFM2_350M = TextConfig(
    hidden_size=1024,
    intermediate_size=4608,
    layer_types=("conv", "conv", "full_attention") * 2
    + ("conv", "conv", "full_attention", "conv") * 1
    + ("full_attention", "conv") * 3,
    num_attention_heads=16,
)
LFM2_1_2B = replace(LFM2_350M, hidden_size=2048, intermediate_size=8192, num_attention_heads=32)
LFM2_2_6B = replace(
    LFM2_1_2B,
    intermediate_size=10_752,
    layer_types=tuple(
        "full_attention" if i in (2, 5, 9, 13, 17, 21, 24, 27) else "conv" for i in range(30)
    ),
)
BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
LARGE = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16}
NORM_FREE = {"projector_hidden_size": 2048, "projector_use_layernorm": False}


@pytest.mark.parametrize(
    ("text", "vision", "layers", "connector"),
    [
        (LFM2_350M, BASE, 12, {}),
        (LFM2_350M, BASE, 12, NORM_FREE),
        (LFM2_1_2B, LARGE, 26, {}),
        (LFM2_1_2B, LARGE, 27, NORM_FREE),
        (LFM2_2_6B, LARGE, 27, {}),
    ],
    ids=["LFM2-VL-450M", "LFM2.5-VL-450M", "LFM2-VL-1.6B", "LFM2.5-VL-1.6B", "LFM2-VL-3B"],
)
def test_full_size_has_transformers_names_and_shapes(
    text: TextConfig, vision: dict, layers: int, connector: dict
) -> None:
    encoder = {**vision, "num_hidden_layers": layers, "vision_use_head": False}
    config = Lfm2VlConfig(vision_config=encoder, text_config=text_dict(text), **connector)
    with torch.device("meta"):
        theirs = Lfm2VlForConditionalGeneration(config)
        ours = VLM(model_config(config.to_dict(), {}, text, "full"))
    expected = {rename(name): tensor.shape for name, tensor in theirs.state_dict().items()}
    del expected["language_model.lm_head.weight"]
    width = vision["hidden_size"]
    assert expected[PATCHES] == (width, 16 * 16 * 3)
    expected[PATCHES] = torch.Size((width, 3, 16, 16))
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == expected
    assert num_parameters(ours) == num_parameters(theirs)
    with torch.device("meta"):
        features = ours.image_features(torch.empty(1, 3, 384, 640))
    assert features.shape == (1, 12 * 20, text.hidden_size)


FIRST_RELEASE = {
    "model_type": "lfm2-vl",
    "image_token_index": 396,
    "downsample_factor": 2,
    "encoder_patch_size": 16,
    "do_image_splitting": True,
    "max_tiles": 10,
    "tile_size": 512,
    "use_thumbnail": False,
    "projector_bias": True,
    "projector_hidden_act": "gelu",
    "projector_hidden_size": 2560,
    "vision_feature_layer": -1,
    "vision_config": {**BASE, "num_hidden_layers": 12, "num_patches": 256, "patch_size": 16},
}


def test_first_release_of_450m_reads_like_the_present_one() -> None:
    """There config.json held the tiling, and said nothing of the connector's norm."""
    siglip = {"image_processor_type": "Siglip2ImageProcessor", "resample": 2, "do_resize": False}
    values = processor_values(FIRST_RELEASE, {"use_thumbnail": False}, siglip)
    config = model_config(FIRST_RELEASE, values, LFM2_350M, "LFM2-VL-450M")
    assert config.projector.layer_norm
    assert config.projector.hidden_act == "gelu"
    assert config.tiling == TilingConfig(use_thumbnail=False)
    assert (config.vision.image_size, config.vision.num_tokens) == (512, 256)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert pixel_scale(values) == PixelScale()
    present = {"image_processor": {"use_thumbnail": True, "max_tiles": None, "min_tiles": 3}}
    values = processor_values({**FIRST_RELEASE, "max_tiles": None}, present)
    config = model_config(FIRST_RELEASE, values, LFM2_350M, "later")
    assert config.tiling == TilingConfig(min_tiles=3)
    whole = model_config(FIRST_RELEASE, {"do_image_splitting": False}, LFM2_350M, "whole")
    assert whole.tiling == TilingConfig(min_tiles=1, max_tiles=1)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"vision_config": None}, "vision_config: missing or not an object"),
        ({"vision_config": {"model_type": "clip"}}, "vision_config.model_type: 'clip' is not"),
        ({"vision_config": {"hidden_act": "gelu"}}, "vision_config.hidden_act: 'gelu' is not"),
        ({"vision_config": {"num_channels": 1}}, "vision_config.num_channels: 1 is not"),
        ({"vision_config": {"num_patches": 250}}, "vision_config.num_patches: not a square"),
        ({"vision_config": {"hidden_size": "768"}}, "vision_config.hidden_size: '768' is not"),
        (
            {"vision_config": {"num_hidden_layers": 10**9}},
            "vision_config.num_hidden_layers: 1000000000 is not a whole number from 1 to 512",
        ),
        (
            {"vision_config": {"num_attention_heads": 7}},
            "vision_config.hidden_size: not a multiple",
        ),
        ({"vision_config": {"patch_size": [16, 16]}}, "patch_size: \\[16, 16\\] is not a whole"),
        ({"vision_config": {"layer_norm_eps": -1}}, "vision_config.norm_eps: -1 is not a positive"),
        ({"vision_feature_layer": -2}, "vision_feature_layer: -2 is not supported, only -1"),
        ({"projector_hidden_act": "relu"}, "projector: hidden_act: 'relu' is not gelu or"),
        ({"projector_use_layernorm": 1}, "projector: layer_norm: 1 is not true or false"),
        ({"projector_hidden_size": 0}, "projector_hidden_size: 0 is not a whole number from 1"),
        ({"downsample_factor": 3}, "tile_size: not a multiple of 48"),
    ],
)
def test_what_is_not_built_is_refused_by_name(changed: dict, complaint: str) -> None:
    config = {"vision_config": {}, **changed}
    with pytest.raises(UserError, match=f"^config.json: {complaint}"):
        model_config(config, {}, TEXT, "x")


@pytest.mark.parametrize(
    ("processor", "complaint"),
    [
        ({"encoder_patch_size": 14}, "encoder_patch_size: 14 is not supported, only 16"),
        ({"use_image_special_tokens": False}, "use_image_special_tokens: False is not"),
        ({"tile_size": 10**6}, "tile_size: 1000000 is not a whole number from 1 to 16384"),
        ({"min_tiles": 20}, "min_tiles: more than max_tiles"),
        ({"max_pixels_tolerance": "2"}, "max_pixels_tolerance: '2' is not a positive number"),
    ],
)
def test_a_tiling_that_is_not_built_is_refused_by_name(processor: dict, complaint: str) -> None:
    with pytest.raises(UserError, match=f"^config.json: {complaint}"):
        model_config({"vision_config": {}}, processor, TEXT, "x")


@pytest.mark.parametrize(
    ("processor", "complaint"),
    [
        ({"resample": 3}, "resample: 3 is not supported, only 2"),
        ({"rescale_factor": 1.0}, "rescale_factor: 1.0 is not supported, only 1/255"),
        ({"rescale_factor": "1"}, "rescale_factor: '1' is not supported, only 1/255"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std: .* are not three numbers"),
        ({"image_mean": [0.5]}, "image_mean: .* are not three numbers"),
    ],
)
def test_other_pixels_are_refused_by_name(processor: dict, complaint: str) -> None:
    with pytest.raises(UserError, match=f"^preprocessor_config.json: {complaint}"):
        pixel_scale(processor)


def test_patch_embedding_takes_the_scale_in() -> None:
    torch.manual_seed(0)
    vision = ViTConfig(image_size=8, patch_size=2, hidden_size=6, num_attention_heads=1)
    weight, bias = torch.randn(6, 12).bfloat16(), torch.randn(6).bfloat16()
    names = (PATCHES, PATCHES.replace("weight", "bias"))
    scale = PixelScale((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    made = convert_tensors(dict(zip(names, (weight, bias), strict=True)), vision, scale, "x")
    pixels = torch.rand(1, 3, 2, 2)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in scale)
    flat = ((pixels[0] - mean) / std).permute(1, 2, 0).flatten()
    actual = nn.functional.conv2d(pixels, made[names[0]], made[names[1]]).flatten()
    torch.testing.assert_close(actual, weight.float() @ flat + bias.float())
    with pytest.raises(UserError, match=r"^there: .*weight is \[6, 11\], not \[6, 12\]"):
        convert_tensors({names[0]: weight[:, 1:], names[1]: bias}, vision, scale, "there")
    assert pixel_scale({"do_normalize": False}) == PixelScale((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("name", "text", "vision", "layers", "parameters"),
    [
        ("lfm2-vl-450m", LFM2_350M, BASE, 12, 450_822_656),
        ("lfm2-vl-1.6b", LFM2_1_2B, LARGE, 26, 1_584_804_000),
    ],
)
def test_presets_have_the_released_shapes(
    name: str, text: TextConfig, vision: dict, layers: int, parameters: int
) -> None:
    encoder = {**vision, "num_hidden_layers": layers, "vision_use_head": False}
    released = Lfm2VlConfig(vision_config=encoder, text_config=text_dict(text))
    ours = preset(name)
    text = replace(text, max_position_embeddings=128_000)
    assert ours == model_config(released.to_dict(), {}, text, name)
    with torch.device("meta"):
        model, theirs = VLM(ours), Lfm2VlForConditionalGeneration(released)
    assert num_parameters(model) == num_parameters(theirs) == parameters
    language = {"lfm2-vl-450m": "LFM2-350M", "lfm2-vl-1.6b": "LFM2-1.2B"}[name]
    assert num_parameters(model.language_model) == RELEASED[language][1]
