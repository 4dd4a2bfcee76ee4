"""LFM2-VL and LFM2.5-VL of Liquid AI: configuration, tensor names and pixels in our words.

    config.json, processor files      -> model_config         ModelConfig
    model.vision_tower.encoder....    -> rename               vision_encoder.encoder....
    patch embedding, image mean, std  -> convert_tensors      a convolution on pixels in [0,1]

Sources: transformers' `models/lfm2_vl` and `models/siglip2`, the files of LiquidAI/LFM2-VL-450M in
their first (remote code) and present form; LFM2 Technical Report, arXiv 2511.23404; SigLIP 2,
arXiv 2502.14786. null counts as absent, as it does for transformers.

The language half is read as LFM2 is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from autoneural.config import ModelConfig, ProjectorConfig, TextConfig, TilingConfig, ViTConfig
from autoneural.errors import UserError
from autoneural.hub.folder import CONFIG, ModelFolder
from autoneural.hub.lfm2 import text_config
from autoneural.hub.reading import Fields, Reading

# Longest first. transformers 5 has no `vision_model`, MLX's conversions no leading `model`.
_PREFIXES = (
    ("model.vision_tower.vision_model.", "vision_encoder."),
    ("model.vision_tower.", "vision_encoder."),
    ("vision_tower.vision_model.", "vision_encoder."),
    ("vision_tower.", "vision_encoder."),
    ("model.multi_modal_projector.", "projector."),
    ("multi_modal_projector.", "projector."),
    ("model.language_model.", "language_model.model."),
    ("language_model.model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
_PATCHES = "vision_encoder.embeddings.patch_embedding"
_MOST_LAYERS, _MOST = 512, 2**20
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
_BILINEAR = 2  # Pillow's number


class PixelScale(NamedTuple):
    """What the checkpoint's own processor does to a channel in [0,1]: (x - mean) / std."""

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


def read_lfm2_vl(folder: ModelFolder, fields: Fields) -> Reading:
    """A whole model, from its folder as it is on the hub."""
    config = folder.config()
    processor = processor_values(config, *(folder.json(name) for name in _PROCESSOR_FILES))
    text = text_config(fields.inside("text_config"))
    ours = model_config(config, processor, text, folder.title, str(folder.path / CONFIG))
    vision, scale = ours.vision, pixel_scale(processor, str(folder.path))
    assert isinstance(vision, ViTConfig)
    return Reading(
        config=ours,
        rename=rename,
        has_tokenizer=True,
        convert=lambda tensors: convert_tensors(tensors, vision, scale, str(folder.path)),
    )


def processor_values(config: Mapping[str, Any], *files: Mapping[str, Any] | None) -> dict[str, Any]:
    """How pictures are prepared: one mapping out of the places where it has been written.

    `files`: processor_config.json, then preprocessor_config.json, None where missing. The first
    release wrote the tiling into config.json too; transformers 5 nests all in `image_processor`.
    """
    given = [config, *(file for file in files if file is not None)]
    nested = [
        file["image_processor"] for file in given if isinstance(file.get("image_processor"), dict)
    ]
    values: dict[str, Any] = {}
    for part in (*given, *nested):
        values.update({key: value for key, value in part.items() if value is not None})
    return values


def model_config(
    config: Mapping[str, Any],
    processor: Mapping[str, Any],
    text: TextConfig,
    name: str,
    where: str = "config.json",
) -> ModelConfig:
    """Our configuration of an LFM2-VL: `config` is its config.json, `processor` as
    `processor_values` gives it.

    The positions follow the picture; `image_size` is the side of a tile, which `fix_image_size` of
    `model/vlm.py` makes the only one. Raises UserError naming `where` and the first key whose value
    is wrong or not built here.
    """
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        _refuse(where, "vision_config: missing or not an object")
    try:
        factor = _integer(config, "downsample_factor", 2)
        tiling = _tiling(processor, _integer(vision, "patch_size", 16), factor)
        return ModelConfig(
            name=name,
            vision=_vision(vision, tiling),
            projector=_projector(config),
            text=text,
            tiling=tiling,
        )
    except (ValueError, TypeError) as error:
        _refuse(where, str(error))


def pixel_scale(
    processor: Mapping[str, Any], where: str = "preprocessor_config.json"
) -> PixelScale:
    """How pixels are scaled before the patch embedding, for `convert_tensors`.

    Raises UserError for a resampling or a scale that we do not compute.
    """
    try:
        _only(processor, "resample", _BILINEAR)
        _only(processor, "do_rescale", True)
        factor = _value(processor, "rescale_factor", 1 / 255)
        if type(factor) is not float or not math.isclose(factor, 1 / 255):
            raise ValueError(f"rescale_factor: {factor!r} is not supported, only 1/255")
        if not processor.get("do_normalize", True):
            return PixelScale((0.0,) * 3, (1.0,) * 3)
        return PixelScale(_triple(processor, "image_mean"), _triple(processor, "image_std"))
    except (ValueError, TypeError) as error:
        _refuse(where, str(error))


def rename(name: str) -> str:
    """The name in our VLM of one of the checkpoint's tensors; an unknown one stays as it is."""
    for theirs, ours in _PREFIXES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def convert_tensors(
    tensors: Mapping[str, Tensor], vision: ViTConfig, scale: PixelScale, where: str
) -> dict[str, Tensor]:
    """`tensors`, under our names, with a patch embedding that reads pixels in [0,1].

    Theirs is a linear layer over the values (row, column, channel) of a scaled patch; ours is a
    convolution, and the scaling is folded into its weight and bias. Both are returned in fp32: in
    bf16 the bias would lose what the mean adds to it. All others are the same objects as before.
    Raises UserError naming `where` when the weight is of another shape.
    """
    weight, bias = tensors.get(f"{_PATCHES}.weight"), tensors.get(f"{_PATCHES}.bias")
    converted = dict(tensors)
    if weight is None or bias is None:  # reported with all others that are missing
        return converted
    width, side = vision.hidden_size, vision.patch_size
    shape = [width, 3 * side**2]
    if list(weight.shape) != shape or list(bias.shape) != shape[:1]:
        raise UserError(f"{where}: {_PATCHES}.weight is {list(weight.shape)}, not {shape}")
    mean_C, std_C = (torch.tensor(values).view(1, 3, 1, 1) for values in scale)
    weight_DCHW = weight.float().reshape(width, side, side, 3).permute(0, 3, 1, 2) / std_C
    converted[f"{_PATCHES}.weight"] = weight_DCHW.contiguous()
    converted[f"{_PATCHES}.bias"] = bias.float() - (weight_DCHW * mean_C).sum((1, 2, 3))
    return converted


def _vision(vision: Mapping[str, Any], tiling: TilingConfig) -> ViTConfig:
    try:
        _only(vision, "model_type", "siglip2_vision_model")
        _only(vision, "hidden_act", "gelu_pytorch_tanh")
        _only(vision, "num_channels", 3)
        return ViTConfig(
            image_size=tiling.tile_size,
            patch_size=tiling.encoder_patch_size,
            num_patches=_integer(vision, "num_patches", 256),
            hidden_size=_integer(vision, "hidden_size", 768),
            intermediate_size=_integer(vision, "intermediate_size", 3072),
            num_hidden_layers=_integer(vision, "num_hidden_layers", 12, _MOST_LAYERS),
            num_attention_heads=_integer(vision, "num_attention_heads", 12),
            unshuffle=tiling.downsample_factor,
            norm_eps=_value(vision, "layer_norm_eps", 1e-6),
        )
    except ValueError as error:
        raise ValueError(f"vision_config.{error}") from error


def _projector(config: Mapping[str, Any]) -> ProjectorConfig:
    # -1 is the last layer, behind its norm; transformers takes nothing else.
    _only(config, "vision_feature_layer", -1)
    width = _integer(config, "projector_hidden_size", 2560)
    try:
        return ProjectorConfig(
            hidden_size=width,
            hidden_act=_value(config, "projector_hidden_act", "gelu"),
            layer_norm=_value(config, "projector_use_layernorm", True),
            bias=_value(config, "projector_bias", True),
        )
    except ValueError as error:
        raise ValueError(f"projector: {error}") from error


def _tiling(processor: Mapping[str, Any], patch_size: int, factor: int) -> TilingConfig:
    _only(processor, "use_image_special_tokens", True)
    cell = {"encoder_patch_size": patch_size, "downsample_factor": factor}
    values = {f.name: processor[f.name] for f in fields(TilingConfig) if f.name in processor}
    for key, ours in cell.items():
        _only(values, key, ours)
    if not processor.get("do_image_splitting", True):
        values.update(min_tiles=1, max_tiles=1)
    for key, most in (("tile_size", 2**14), ("max_tiles", 64), ("max_image_tokens", 2**14)):
        _integer(values, key, 1, most)
    return TilingConfig(**{**values, **cell})


def _integer(data: Mapping[str, Any], key: str, default: int, most: int = _MOST) -> int:
    value = _value(data, key, default)
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{key}: {value!r} is not a whole number from 1 to {most}")
    return value


def _triple(data: Mapping[str, Any], key: str) -> tuple[float, ...]:
    value = _value(data, key, [0.5] * 3)
    numbers = isinstance(value, list) and all(type(v) in (int, float) for v in value)
    if not numbers or len(value) != 3 or (key == "image_std" and min(value) <= 0):
        raise ValueError(f"{key}: {value!r} are not three numbers that pixels can be scaled by")
    return tuple(float(v) for v in value)


def _only(data: Mapping[str, Any], key: str, value: Any) -> None:
    found = _value(data, key, value)
    if found != value:
        raise ValueError(f"{key}: {found!r} is not supported, only {value!r}")


def _value(data: Mapping[str, Any], key: str, default: Any) -> Any:
    value = data.get(key)
    return default if value is None else value


def _refuse(where: str, message: str) -> NoReturn:
    raise UserError(f"{where}: {message}")
