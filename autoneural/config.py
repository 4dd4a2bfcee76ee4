"""Model configurations and presets: frozen, torch-free, saved as `config.json` with the weights.

Key names are those of the field (Hugging Face for the language model, timm's block vocabulary for
the vision encoder), so that public checkpoints load without a map. Imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from math import inf
from typing import Any, ClassVar, Literal, get_args

LayerType = Literal["conv", "full_attention"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class _Checked:
    """Every int of a configuration counts something, every float is a positive number."""

    MAY_BE_ZERO: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for field in fields(self):  # pyright: ignore[reportArgumentType]
            value, least = getattr(self, field.name), 0 if field.name in self.MAY_BE_ZERO else 1
            if field.type == "int":
                whole = type(value) is int and value >= least
                _require(whole, f"{field.name}: {value!r} is not a whole number from {least} up")
            elif field.type == "float":
                number = isinstance(value, int | float) and 0 < value < inf
                _require(number, f"{field.name}: {value!r} is not a positive number")
            elif field.type == "str":
                _require(isinstance(value, str), f"{field.name}: {value!r} is not a text")


@dataclass(frozen=True, kw_only=True)
class EdgeResidual(_Checked):
    """Dense k x k expansion, then 1x1 projection (timm `er`)."""

    channels: int
    stride: int = 1
    expand: float = 4.0
    kernel_size: int = 3
    type: Literal["er"] = "er"


@dataclass(frozen=True, kw_only=True)
class InvertedResidual(_Checked):
    """Universal inverted residual (timm `uir`); a kernel of 0 leaves that depthwise conv out."""

    channels: int
    stride: int = 1
    expand: float = 4.0
    dw_start: int = 0
    dw_mid: int = 0
    type: Literal["uir"] = "uir"
    MAY_BE_ZERO = ("dw_start", "dw_mid")

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            self.stride == 1 or bool(self.dw_start or self.dw_mid),
            "stride: an inverted residual without a depthwise convolution cannot have one",
        )


@dataclass(frozen=True, kw_only=True)
class MultiQueryAttention(_Checked):
    """Global attention with one key/value head (timm `mqa`), optionally on strided keys/values."""

    channels: int
    num_heads: int
    key_dim: int
    kv_stride: int = 1
    kernel_size: int = 3
    type: Literal["mqa"] = "mqa"


Block = EdgeResidual | InvertedResidual | MultiQueryAttention
_BLOCKS = {"er": EdgeResidual, "uir": InvertedResidual, "mqa": MultiQueryAttention}


@dataclass(frozen=True, kw_only=True)
class MobileNetV5Config(_Checked):
    """MobileNetV5 encoder: stem, stages of blocks, multi-scale fusion of the last two stages.

    `unshuffle` puts squares of that many cells of the fusion side by side into one token.
    """

    image_size: int = 768
    stem_channels: int = 64
    stages: tuple[tuple[Block, ...], ...] = ()
    fusion_channels: int = 2048
    fusion_expand: float = 2.0
    fusion_size: int = 16
    unshuffle: int = 1
    norm_eps: float = 1e-6
    layer_scale_init: float = 1e-5
    type: Literal["mobilenetv5"] = "mobilenetv5"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(len(self.stages) >= 2, "stages: multi-scale fusion needs at least two stages")
        _require(all(self.stages), "stages: one of them is empty")
        _require(self.fusion_size % self.unshuffle == 0, "unshuffle: does not divide fusion_size")

    @property
    def num_tokens(self) -> int:
        """Visual tokens per image, the same at every image size."""
        return (self.fusion_size // self.unshuffle) ** 2

    @property
    def out_channels(self) -> int:
        return self.fusion_channels * self.unshuffle**2


@dataclass(frozen=True, kw_only=True)
class ViTConfig(_Checked):
    """Plain pre-norm ViT with learned positions and a pixel unshuffle: the baseline twin."""

    image_size: int = 512
    patch_size: int = 16
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    unshuffle: int = 2
    norm_eps: float = 1e-6
    type: Literal["vit"] = "vit"

    def __post_init__(self) -> None:
        super().__post_init__()
        grid = self.image_size // self.patch_size
        _require(self.image_size % self.patch_size == 0, "image_size: not a multiple of patch_size")
        _require(grid % self.unshuffle == 0, "unshuffle: does not divide the patch grid")

    @property
    def num_tokens(self) -> int:
        return (self.image_size // self.patch_size // self.unshuffle) ** 2

    @property
    def out_channels(self) -> int:
        return self.hidden_size * self.unshuffle**2


VisionConfig = MobileNetV5Config | ViTConfig


@dataclass(frozen=True, kw_only=True)
class TextConfig(_Checked):
    """LFM2 decoder. `intermediate_size` is the width after LFM2's own adjustment (8192 at 1.2B)."""

    hidden_size: int = 2048
    intermediate_size: int = 8192
    layer_types: tuple[LayerType, ...] = ()
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int = 64
    conv_L_cache: int = 3
    norm_eps: float = 1e-5
    rope_theta: float = 1_000_000.0
    vocab_size: int = 65_536
    max_position_embeddings: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(len(self.layer_types) > 0, "layer_types: empty")
        for kind in self.layer_types:
            known = " or ".join(get_args(LayerType))
            _require(kind in get_args(LayerType), f"layer_types: {kind!r} is not {known}")
        _require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            "num_attention_heads: not a multiple of num_key_value_heads",
        )
        _require(self.conv_L_cache >= 2, "conv_L_cache: must be at least 2")

    @property
    def num_hidden_layers(self) -> int:
        return len(self.layer_types)


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig(_Checked):
    """Norm-free two-layer MLP: Linear -> GELU -> Linear, with bias."""

    hidden_size: int = 2048


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Checked):
    """A whole vision-language model. `resize` is how pictures meet the square input."""

    name: str
    vision: VisionConfig
    projector: ProjectorConfig
    text: TextConfig
    resize: Literal["squash", "pad"] = "squash"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.resize in ("squash", "pad"), f"resize: {self.resize!r} is not squash or pad")

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
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"model config: {error}") from error


def text_from_dict(data: dict[str, Any]) -> TextConfig:
    """Inverse of `asdict`. Raises KeyError, TypeError or ValueError."""
    return TextConfig(**{**data, "layer_types": tuple(data["layer_types"])})


def vision_from_dict(data: dict[str, Any]) -> VisionConfig:
    """Inverse of `asdict`. Raises KeyError, TypeError or ValueError."""
    if data["type"] == "vit":
        return ViTConfig(**data)
    if data["type"] == "mobilenetv5":
        stages = tuple(tuple(_BLOCKS[b["type"]](**b) for b in stage) for stage in data["stages"])
        return MobileNetV5Config(**{**data, "stages": stages})
    raise ValueError(f"vision.type: unknown {data['type']!r}, expected mobilenetv5 or vit")


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
_VIT_300M = ViTConfig()
_VIT_TINY = ViTConfig(
    image_size=256,
    hidden_size=192,
    intermediate_size=768,
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
    )
}


def preset(name: str) -> ModelConfig:
    """The named configuration. Raises ValueError listing the names when there is none."""
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; one of {', '.join(PRESETS)}")
    return PRESETS[name]
