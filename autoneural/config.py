"""Model configurations and presets: frozen, torch-free, saved as `config.json` with the weights.

Key names are those of the field (Hugging Face for the language model, timm's block vocabulary for
the vision encoder), so that public checkpoints load without a map. Imports nothing of ours but its
half about pictures, `config_vision.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from autoneural.config_vision import (
    BLOCKS,
    Block,
    Checked,
    EdgeResidual,
    InvertedResidual,
    MobileNetV5Config,
    MultiQueryAttention,
    TilingConfig,
    VisionConfig,
    ViTConfig,
    one_per_layer,
    require,
)

__all__ = [
    "PRESETS",
    "Block",
    "EdgeResidual",
    "InvertedResidual",
    "LayerType",
    "MobileNetV5Config",
    "ModelConfig",
    "MultiQueryAttention",
    "ProjectorConfig",
    "TextConfig",
    "TilingConfig",
    "ViTConfig",
    "VisionConfig",
    "preset",
]

LayerType = Literal["conv", "full_attention"]
Activation = Literal["gelu", "gelu_pytorch_tanh"]
Resize = Literal["squash", "pad", "tile"]
"""How a picture meets a square input: distorted, with grey at two sides, or in several."""


@dataclass(frozen=True, kw_only=True)
class TextConfig(Checked):
    """LFM2 decoder. `intermediate_size` is the width after LFM2's own adjustment (8192 at 1.2B).

    `intermediate_sizes` and `key_value_heads` are the MLP width and the key/value heads of each
    layer (of a convolution 0), in place of one number for all; query heads follow in proportion.
    """

    hidden_size: int = 2048
    intermediate_size: int = 8192
    intermediate_sizes: tuple[int, ...] = ()
    layer_types: tuple[LayerType, ...] = ()
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    key_value_heads: tuple[int, ...] = ()
    head_dim: int = 64
    conv_L_cache: int = 3
    norm_eps: float = 1e-5
    rope_theta: float = 1_000_000.0
    vocab_size: int = 65_536
    max_position_embeddings: int = 4096
    tie_word_embeddings: bool = True
    MAY_BE_ZERO = ("key_value_heads",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.layer_types) > 0, "layer_types: empty")
        for kind in self.layer_types:
            known = " or ".join(get_args(LayerType))
            require(kind in get_args(LayerType), f"layer_types: {kind!r} is not {known}")
        require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            "num_attention_heads: not a multiple of num_key_value_heads",
        )
        tied = self.tie_word_embeddings
        require(isinstance(tied, bool), f"tie_word_embeddings: {tied!r} is not true or false")
        require(self.conv_L_cache >= 2, "conv_L_cache: must be at least 2")
        one_per_layer("intermediate_sizes", self.intermediate_sizes, self.num_hidden_layers)
        one_per_layer("key_value_heads", self.key_value_heads, self.num_hidden_layers)
        for layer, heads in enumerate(self.key_value_heads):
            fits = (heads == 0) == (self.layer_types[layer] == "conv")
            require(fits, f"key_value_heads: {heads} in layer {layer}, {self.layer_types[layer]}")

    @property
    def num_hidden_layers(self) -> int:
        return len(self.layer_types)

    def mlp_width(self, layer: int) -> int:
        """Hidden units of that layer's MLP."""
        return self.intermediate_sizes[layer] if self.intermediate_sizes else self.intermediate_size

    def kv_heads(self, layer: int) -> int:
        """Key and value heads of that attention layer."""
        return self.key_value_heads[layer] if self.key_value_heads else self.num_key_value_heads


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig(Checked):
    """Two-layer MLP: [LayerNorm ->] Linear -> GELU (exact, or its tanh form) -> Linear."""

    hidden_size: int = 2048
    hidden_act: Activation = "gelu_pytorch_tanh"
    layer_norm: bool = False
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        known = get_args(Activation)
        require(
            self.hidden_act in known,
            f"hidden_act: {self.hidden_act!r} is not {' or '.join(known)}",
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Checked):
    """A whole vision-language model.

    `resize` is how pictures meet the square input: squashed, padded, or cut as `tiling` says. With
    `tiling` and another `resize` they keep their shape, and the encoder takes any.
    `ranks`: module path -> rank, of the layers that are a product of two smaller ones.
    """

    name: str
    vision: VisionConfig
    projector: ProjectorConfig
    text: TextConfig
    resize: Resize = "squash"
    ranks: Mapping[str, int] = field(default_factory=dict, hash=False)
    tiling: TilingConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known = get_args(Resize)
        require(self.resize in known, f"resize: {self.resize!r} is not {' or '.join(known)}")
        require(isinstance(self.ranks, Mapping), "ranks: not a table of layers")
        for path, rank in self.ranks.items():
            whole = type(rank) is int and rank >= 1
            require(whole, f"ranks: {path}: {rank!r} is not a whole number from 1 up")
        if self.resize == "tile":
            side = self.tiling.tile_size if self.tiling else None
            whole = side == self.vision.image_size
            require(whole, "resize: tile needs a tiling with tiles of the vision's image_size")
        elif self.tiling is not None:
            vision, tiling = self.vision, self.tiling
            if not isinstance(vision, ViTConfig) or not vision.num_patches:
                raise ValueError("tiling: needs a ViT with num_patches, which takes any size")
            cell = (tiling.encoder_patch_size, tiling.downsample_factor)
            same = cell == (vision.patch_size, vision.unshuffle)
            require(same, "tiling: patch and downsample factor are not those of the encoder")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`. Raises ValueError naming the first key that is wrong."""
        try:
            return cls(
                name=data["name"],
                vision=vision_from_dict(data["vision"]),
                projector=ProjectorConfig(**data["projector"]),
                text=text_from_dict(data["text"]),
                resize=data.get("resize", "squash"),
                ranks=data.get("ranks", {}),
                tiling=TilingConfig(**data["tiling"]) if data.get("tiling") else None,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"model config: {error}") from error


def text_from_dict(data: dict[str, Any]) -> TextConfig:
    """Inverse of `asdict`. Raises KeyError, TypeError or ValueError."""
    kinds = tuple(data["layer_types"])  # first: what is no table at all is a TypeError
    values: dict[str, Any] = {**_with_tuples(data), "layer_types": kinds}
    return TextConfig(**values)


def vision_from_dict(data: dict[str, Any]) -> VisionConfig:
    """Inverse of `asdict`. Raises KeyError, TypeError or ValueError."""
    if data["type"] == "vit":
        return ViTConfig(**_with_tuples(data))
    if data["type"] == "mobilenetv5":
        stages = tuple(tuple(BLOCKS[b["type"]](**b) for b in stage) for stage in data["stages"])
        return MobileNetV5Config(**{**data, "stages": stages})
    raise ValueError(f"vision.type: unknown {data['type']!r}, expected mobilenetv5 or vit")


def _with_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has no tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}


def _uir(
    channels: int, expand: float, dw_start: int = 0, dw_mid: int = 0, stride: int = 1
) -> InvertedResidual:
    return InvertedResidual(
        channels=channels, expand=expand, dw_start=dw_start, dw_mid=dw_mid, stride=stride
    )


def _mobilenetv5_300m_stages() -> tuple[tuple[Block, ...], ...]:
    def attention(channels: int, heads: int, key_dim: int, kv_stride: int):
        return MultiQueryAttention(
            channels=channels, num_heads=heads, key_dim=key_dim, kv_stride=kv_stride
        )

    stage0 = tuple(EdgeResidual(channels=128, stride=s) for s in (2, 1, 1))
    stage1 = (_uir(256, 6, 3, 5, 2), *(_uir(256, 4, k) for k in (5, 3, 5, 3)))
    stage2 = (
        _uir(640, 6, 5, 5, 2),
        *(_uir(640, 4, 5) for _ in range(7)),
        _uir(640, 1),
        *(b for _ in range(14) for b in (attention(640, 12, 64, 2), _uir(640, 2))),
    )
    stage3 = (
        _uir(1280, 6, 5, 5, 2),
        *(b for _ in range(19) for b in (attention(1280, 16, 96, 1), _uir(1280, 2))),
    )
    return stage0, stage1, stage2, stage3


def _cockpit_tiny_stages() -> tuple[tuple[Block, ...], ...]:
    # Dense 3x3 where the paper's model has strided depthwise: their backward is slow on CPUs.
    return (
        (EdgeResidual(channels=32, stride=2),),
        (EdgeResidual(channels=64, stride=2), _uir(64, 3, 5)),
        (
            EdgeResidual(channels=128, stride=2),
            _uir(128, 3, 5),
            _uir(128, 3, 3),
            MultiQueryAttention(channels=128, num_heads=4, key_dim=32, kv_stride=2),
            _uir(128, 2),
        ),
        (
            _uir(192, 4, 3, 3, 2),
            MultiQueryAttention(channels=192, num_heads=6, key_dim=32),
            _uir(192, 2),
            MultiQueryAttention(channels=192, num_heads=6, key_dim=32),
            _uir(192, 2),
        ),
    )


def _layers(pattern: str) -> tuple[LayerType, ...]:
    """'ccAc' -> layer types; 'A' is attention, 'c' a gated short convolution."""
    return tuple("full_attention" if letter == "A" else "conv" for letter in pattern)


_LFM2_LAYERS = _layers("ccAccAccAcAcAcAc")

_MOBILENETV5_300M = MobileNetV5Config(stages=_mobilenetv5_300m_stages())
_MOBILENETV5_TINY = MobileNetV5Config(
    image_size=256,
    stem_channels=16,
    stages=_cockpit_tiny_stages(),
    fusion_channels=256,
    fusion_size=16,
    unshuffle=2,
    layer_scale_init=0.1,
)
_LFM2_1_2B = TextConfig(layer_types=_LFM2_LAYERS)
_LFM2_350M = TextConfig(
    hidden_size=1024, intermediate_size=4608, layer_types=_LFM2_LAYERS, num_attention_heads=16
)
_LFM2_TINY = TextConfig(
    hidden_size=256,
    intermediate_size=640,
    layer_types=_layers("cAcAcA"),
    num_attention_heads=4,
    num_key_value_heads=4,
    vocab_size=1024,
    max_position_embeddings=1024,
)
_LFM2_VL_350M = replace(_LFM2_350M, max_position_embeddings=128_000)
_LFM2_VL_1_2B = replace(_LFM2_1_2B, max_position_embeddings=128_000)
_LFM2_VL_CONNECTOR = ProjectorConfig(hidden_size=2560, hidden_act="gelu", layer_norm=True)
_SIGLIP2_86M = ViTConfig(
    num_patches=256,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
)
_SIGLIP2_400M = replace(
    _SIGLIP2_86M,
    hidden_size=1152,
    intermediate_size=4304,
    num_hidden_layers=26,
    num_attention_heads=16,
)
_VIT_300M = ViTConfig()
_VIT_TINY = ViTConfig(
    image_size=256,
    hidden_size=144,
    intermediate_size=576,
    num_hidden_layers=6,
    num_attention_heads=3,
)


PRESETS: dict[str, ModelConfig] = {
    config.name: config
    for config in (
        ModelConfig(
            name="autoneural-1.5b",
            vision=_MOBILENETV5_300M,
            projector=ProjectorConfig(hidden_size=2048),
            text=_LFM2_1_2B,
        ),
        ModelConfig(
            name="autoneural-0.6b",
            vision=_MOBILENETV5_300M,
            projector=ProjectorConfig(hidden_size=2048),
            text=_LFM2_350M,
        ),
        ModelConfig(
            name="cockpit-tiny",
            vision=_MOBILENETV5_TINY,
            projector=ProjectorConfig(hidden_size=256),
            text=_LFM2_TINY,
        ),
        ModelConfig(
            name="vit-1.5b",
            vision=_VIT_300M,
            projector=ProjectorConfig(hidden_size=2048),
            text=_LFM2_1_2B,
        ),
        ModelConfig(
            name="vit-0.6b",
            vision=_VIT_300M,
            projector=ProjectorConfig(hidden_size=2048),
            text=_LFM2_350M,
        ),
        ModelConfig(
            name="vit-tiny",
            vision=_VIT_TINY,
            projector=ProjectorConfig(hidden_size=256),
            text=_LFM2_TINY,
        ),
        ModelConfig(
            name="lfm2-vl-450m",
            vision=_SIGLIP2_86M,
            projector=_LFM2_VL_CONNECTOR,
            text=_LFM2_VL_350M,
            tiling=TilingConfig(),
        ),
        ModelConfig(
            name="lfm2-vl-1.6b",
            vision=_SIGLIP2_400M,
            projector=_LFM2_VL_CONNECTOR,
            text=_LFM2_VL_1_2B,
            tiling=TilingConfig(),
        ),
    )
}


def preset(name: str) -> ModelConfig:
    """The named configuration. Raises ValueError listing the names when there is none."""
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; one of {', '.join(PRESETS)}")
    return PRESETS[name]
