"""Configurations of the two vision encoders, and what every configuration is checked for.

Imported through `autoneural.config`. Imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf, isqrt
from typing import ClassVar, Literal


def require(condition: bool, message: str) -> None:
    """ValueError with `message` where the condition does not hold."""
    if not condition:
        raise ValueError(message)


def one_per_layer(name: str, values: tuple[int, ...], layers: int) -> None:
    """ValueError where there are `values`, but not as many as layers."""
    require(len(values) in (0, layers), f"{name}: {len(values)} values for {layers} layers")


class Checked:
    """Every int of a configuration counts something, every float is a positive number.

    A tuple of ints holds one for every layer; where it is empty, all layers are alike.
    """

    MAY_BE_ZERO: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for field in fields(self):  # pyright: ignore[reportArgumentType]
            value, least = getattr(self, field.name), 0 if field.name in self.MAY_BE_ZERO else 1
            if field.type in ("int", "tuple[int, ...]"):
                for number in (value,) if field.type == "int" else value:
                    whole = type(number) is int and number >= least
                    problem = f"{number!r} is not a whole number from {least} up"
                    require(whole, f"{field.name}: {problem}")
            elif field.type == "float":
                number = isinstance(value, int | float) and 0 < value < inf
                require(number, f"{field.name}: {value!r} is not a positive number")
            elif field.type == "bool":
                require(isinstance(value, bool), f"{field.name}: {value!r} is not true or false")
            elif field.type == "str":
                require(isinstance(value, str), f"{field.name}: {value!r} is not a text")


@dataclass(frozen=True, kw_only=True)
class EdgeResidual(Checked):
    """Dense k x k expansion, then 1x1 projection (timm `er`); `hidden` 0 is what `expand` says."""

    channels: int
    stride: int = 1
    expand: float = 4.0
    hidden: int = 0
    kernel_size: int = 3
    type: Literal["er"] = "er"
    MAY_BE_ZERO = ("hidden",)


@dataclass(frozen=True, kw_only=True)
class InvertedResidual(Checked):
    """Universal inverted residual (timm `uir`); a kernel of 0 leaves that depthwise conv out.

    `hidden` 0 is what `expand` says.
    """

    channels: int
    stride: int = 1
    expand: float = 4.0
    hidden: int = 0
    dw_start: int = 0
    dw_mid: int = 0
    type: Literal["uir"] = "uir"
    MAY_BE_ZERO = ("hidden", "dw_start", "dw_mid")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.stride == 1 or bool(self.dw_start or self.dw_mid),
            "stride: an inverted residual without a depthwise convolution cannot have one",
        )


@dataclass(frozen=True, kw_only=True)
class MultiQueryAttention(Checked):
    """Global attention with one key/value head (timm `mqa`), optionally on strided keys/values."""

    channels: int
    num_heads: int
    key_dim: int
    kv_stride: int = 1
    kernel_size: int = 3
    type: Literal["mqa"] = "mqa"


Block = EdgeResidual | InvertedResidual | MultiQueryAttention
BLOCKS = {"er": EdgeResidual, "uir": InvertedResidual, "mqa": MultiQueryAttention}


@dataclass(frozen=True, kw_only=True)
class MobileNetV5Config(Checked):
    """MobileNetV5 encoder: stem, stages of blocks, multi-scale fusion of the last two stages.

    `unshuffle` puts squares of that many cells of the fusion side by side into one token;
    `fusion_hidden` 0 is what `fusion_expand` says.
    """

    image_size: int = 768
    stem_channels: int = 64
    stages: tuple[tuple[Block, ...], ...] = ()
    fusion_channels: int = 2048
    fusion_expand: float = 2.0
    fusion_hidden: int = 0
    fusion_size: int = 16
    unshuffle: int = 1
    norm_eps: float = 1e-6
    layer_scale_init: float = 1e-5
    type: Literal["mobilenetv5"] = "mobilenetv5"
    MAY_BE_ZERO = ("fusion_hidden",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.stages) >= 2, "stages: multi-scale fusion needs at least two stages")
        require(all(self.stages), "stages: one of them is empty")
        require(self.fusion_size % self.unshuffle == 0, "unshuffle: does not divide fusion_size")

    @property
    def num_tokens(self) -> int:
        """Visual tokens per image, the same at every image size."""
        return (self.fusion_size // self.unshuffle) ** 2

    @property
    def out_channels(self) -> int:
        return self.fusion_channels * self.unshuffle**2


@dataclass(frozen=True, kw_only=True)
class ViTConfig(Checked):
    """Plain pre-norm ViT with learned positions and a pixel unshuffle: the baseline twin, SigLIP2.

    `num_patches` 0: one position per patch of `image_size`, the only size that it takes. Above 0: a
    square table of that many, resized to the grid of each picture.
    `intermediate_sizes`: the MLP width of each layer, in place of one for all.
    """

    image_size: int = 512
    patch_size: int = 16
    hidden_size: int = 1024
    intermediate_size: int = 4096
    intermediate_sizes: tuple[int, ...] = ()
    num_patches: int = 0
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    unshuffle: int = 2
    norm_eps: float = 1e-6
    type: Literal["vit"] = "vit"
    MAY_BE_ZERO = ("num_patches",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.image_size % self.patch_size == 0, "image_size: not a multiple of patch_size")
        require(self.grid % self.unshuffle == 0, "unshuffle: does not divide the patch grid")
        require(isqrt(self.num_patches) ** 2 == self.num_patches, "num_patches: not a square")
        heads = self.hidden_size % self.num_attention_heads == 0
        require(heads, "hidden_size: not a multiple of num_attention_heads")
        one_per_layer("intermediate_sizes", self.intermediate_sizes, self.num_hidden_layers)

    @property
    def grid(self) -> int:
        """Patches along one side of a picture of `image_size`."""
        return self.image_size // self.patch_size

    @property
    def position_grid(self) -> int:
        """Positions along one side of the table."""
        return isqrt(self.num_patches) or self.grid

    def mlp_width(self, layer: int) -> int:
        """Hidden units of that layer's MLP."""
        return self.intermediate_sizes[layer] if self.intermediate_sizes else self.intermediate_size

    @property
    def num_tokens(self) -> int:
        """Visual tokens of a picture of `image_size`."""
        return (self.grid // self.unshuffle) ** 2

    @property
    def out_channels(self) -> int:
        return self.hidden_size * self.unshuffle**2


VisionConfig = MobileNetV5Config | ViTConfig


@dataclass(frozen=True, kw_only=True)
class TilingConfig(Checked):
    """How LFM2-VL cuts a picture; names and defaults of its processor. One tile at most: no cuts.

    A visual token covers a square of `encoder_patch_size * downsample_factor` pixels.
    """

    tile_size: int = 512
    min_tiles: int = 2
    max_tiles: int = 10
    use_thumbnail: bool = True
    min_image_tokens: int = 64
    max_image_tokens: int = 256
    encoder_patch_size: int = 16
    downsample_factor: int = 2
    max_pixels_tolerance: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        token = self.encoder_patch_size * self.downsample_factor
        require(self.min_tiles <= self.max_tiles, "min_tiles: more than max_tiles")
        tokens = self.min_image_tokens <= self.max_image_tokens
        require(tokens, "min_image_tokens: more than max_image_tokens")
        require(self.tile_size % token == 0, f"tile_size: not a multiple of {token} (one token)")
