"""MobileNetV5-300M as timm publishes it: `timm/mobilenetv5_300m.gemma3n`. Torch-free.

The encoder of Gemma 3n. timm builds `mobilenetv5_300m` with symmetric padding unless told, and
Gemma 3n's encoder with 'same'; these weights were trained with 'same', which is what ours computes.
"""

from __future__ import annotations

from dataclasses import replace

from autoneural.config import VisionConfig, preset
from autoneural.hub.folder import ModelFolder
from autoneural.hub.reading import Fields, Reading
from autoneural.parts import PartConfig

# timm's names of architectures that differ in nothing but padding.
ENCODERS: dict[str, VisionConfig] = {
    "mobilenetv5_300m": preset("autoneural-1.5b").vision,
    "mobilenetv5_300m_enc": preset("autoneural-1.5b").vision,
}


def read_mobilenetv5(folder: ModelFolder, fields: Fields) -> Reading:
    """A vision encoder alone. timm's config.json names the architecture, nothing of its inside."""
    config = ENCODERS[folder.config()["architecture"]]
    arguments = fields.inside("model_args")
    arguments.only("pad_type", "same")
    for key in arguments.keys() - {"pad_type", "num_classes"}:
        arguments.refuse(f"model_args.{key}: changes the architecture, which is not supported")
    size = _image_size(fields.inside("pretrained_cfg"))
    return Reading(
        config=PartConfig(name=folder.title, config=replace(config, image_size=size)),
        rename=lambda name: f"vision_encoder.{name}",
        has_tokenizer=False,
    )


def _image_size(pretrained: Fields) -> int:
    """Of a square picture with values in [0,1], which is what the encoder is given here."""
    pretrained.only("mean", [0.0, 0.0, 0.0])
    pretrained.only("std", [1.0, 1.0, 1.0])
    if not pretrained.has("input_size"):
        return 768
    shape = pretrained.items("input_size", int)
    if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2] or not 32 <= shape[1] <= 4096:
        pretrained.refuse(f"pretrained_cfg.input_size: {list(shape)} is not [3, size, size]")
    return shape[1]
