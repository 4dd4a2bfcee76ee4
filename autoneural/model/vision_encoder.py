"""MobileNetV5 vision encoder, with timm's parameter names and its 'same' padding.

    pixels [B,3,S,S] -> stem /2 -> stages /4 /8 /16 /32 -> fusion of the last two -> [B,N,C]

    edge residual      conv k x k expand, norm, gelu, conv 1x1, norm              (+ x)
    inverted residual  [dw] -> 1x1 expand, gelu -> [dw, gelu] -> 1x1 -> gamma      (+ x)
    attention          norm -> q per head, one k and v for all heads -> 1x1 -> gamma + x
    fusion             [s/16 | up(s/32)] -> 1x1, gelu, 1x1 -> pool to a fixed grid -> norm

`timm/mobilenetv5_300m.gemma3n` loads under its own names. Shape suffixes: see `layers.py`.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from autoneural.config import (
    Block,
    EdgeResidual,
    InvertedResidual,
    MobileNetV5Config,
    MultiQueryAttention,
    VisionConfig,
)
from autoneural.model.layers import (
    Add,
    Concat,
    Gelu,
    LayerScale2d,
    MatMul,
    Range,
    Resize2d,
    RMSNorm2d,
    SamePad,
    Scale,
    Softmax,
    pixel_unshuffle,
)
from autoneural.model.vit import ViT


def build_vision_encoder(config: VisionConfig) -> MobileNetV5 | ViT:
    """The encoder that `config` describes; both kinds map [B,3,S,S] in [0,1] to [B,N,C].

    A ViT of many grids (`num_patches`) takes [B,3,H,W] too.
    """
    return MobileNetV5(config) if isinstance(config, MobileNetV5Config) else ViT(config)


def hidden_width(in_channels: int, block: EdgeResidual | InvertedResidual) -> int:
    """The block's own, or `expand` by timm's make_divisible: a multiple of 8, at most 10% less."""
    if block.hidden:
        return block.hidden
    wanted = in_channels * block.expand
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def _conv(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    # A strided convolution is padded by the SamePad in front of it.
    padding = kernel_size // 2 if stride == 1 else 0
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
    )


def _pad(kernel_size: int, stride: int) -> nn.Module:
    return SamePad(kernel_size, stride) if stride > 1 else nn.Identity()


class ConvNorm(nn.Module):
    """Convolution and RMSNorm2d, with a GELU after them if `act`."""

    def __init__(self, conv: nn.Conv2d, eps: float, act: bool = False) -> None:
        super().__init__()
        self.pad = _pad(conv.kernel_size[0], conv.stride[0])
        self.conv = conv
        self.bn = RMSNorm2d(conv.out_channels, eps)
        self.act = Gelu() if act else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(self.pad(x_BCHW))))


class EdgeResidualBlock(nn.Module):
    """Dense k x k expansion, then a 1x1 projection."""

    def __init__(self, in_channels: int, block: EdgeResidual, eps: float) -> None:
        super().__init__()
        hidden = hidden_width(in_channels, block)
        self.pad = _pad(block.kernel_size, block.stride)
        self.conv_exp = _conv(in_channels, hidden, block.kernel_size, block.stride)
        self.bn1 = RMSNorm2d(hidden, eps)
        self.act1 = Gelu()
        self.conv_pwl = _conv(hidden, block.channels)
        self.bn2 = RMSNorm2d(block.channels, eps)
        self.has_skip = block.stride == 1 and in_channels == block.channels
        if self.has_skip:
            self.add = Add()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.act1(self.bn1(self.conv_exp(self.pad(x_BCHW))))
        y_BCHW = self.bn2(self.conv_pwl(y_BCHW))
        return self.add(y_BCHW, x_BCHW) if self.has_skip else y_BCHW


class InvertedResidualBlock(nn.Module):
    """Universal inverted residual: either depthwise convolution may be left out."""

    def __init__(
        self, in_channels: int, block: InvertedResidual, eps: float, scale_init: float | None
    ) -> None:
        super().__init__()
        hidden = hidden_width(in_channels, block)
        self.dw_start: nn.Module = nn.Identity()
        self.dw_mid: nn.Module = nn.Identity()
        if block.dw_start:
            stride = 1 if block.dw_mid else block.stride
            conv = _conv(in_channels, in_channels, block.dw_start, stride, in_channels)
            self.dw_start = ConvNorm(conv, eps)
        self.pw_exp = ConvNorm(_conv(in_channels, hidden), eps, act=True)
        if block.dw_mid:
            conv = _conv(hidden, hidden, block.dw_mid, block.stride, hidden)
            self.dw_mid = ConvNorm(conv, eps, act=True)
        self.pw_proj = ConvNorm(_conv(hidden, block.channels), eps)
        self.layer_scale = (
            nn.Identity() if scale_init is None else LayerScale2d(block.channels, scale_init)
        )
        self.has_skip = block.stride == 1 and in_channels == block.channels
        if self.has_skip:
            self.add = Add()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.dw_mid(self.pw_exp(self.dw_start(x_BCHW)))
        y_BCHW = self.layer_scale(self.pw_proj(y_BCHW))
        return self.add(y_BCHW, x_BCHW) if self.has_skip else y_BCHW


class Projection(nn.Module):
    """Query, key or value: 1x1 convolution, on strided pixels where the block strides them."""

    def __init__(self, block: MultiQueryAttention, out_channels: int, stride: int, eps: float):
        super().__init__()
        self.strided = stride > 1
        if self.strided:
            self.pad = SamePad(block.kernel_size, stride)
            self.down_conv = _conv(
                block.channels, block.channels, block.kernel_size, stride, block.channels
            )
            self.norm = RMSNorm2d(block.channels, eps)
        self.proj = _conv(block.channels, out_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.strided:
            x_BCHW = self.norm(self.down_conv(self.pad(x_BCHW)))
        return self.proj(x_BCHW)


class Output(nn.Module):
    """1x1 convolution after attention, under timm's name `output.proj`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = _conv(in_channels, out_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.proj(x_BCHW)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with one key and one value head shared by all query heads."""

    def __init__(self, block: MultiQueryAttention, eps: float) -> None:
        super().__init__()
        width = block.num_heads * block.key_dim
        self.num_heads = block.num_heads
        self.query = Projection(block, width, 1, eps)
        self.key = Projection(block, block.key_dim, block.kv_stride, eps)
        self.value = Projection(block, block.key_dim, block.kv_stride, eps)
        self.scale = Scale(block.key_dim**-0.5)
        self.scores = MatMul()
        self.softmax = Softmax()
        self.mix = MatMul()
        self.output = Output(width, block.channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        batch, _, height, width = x_BCHW.shape
        q_BHWC = self.scale(self.query(x_BCHW)).permute(0, 2, 3, 1)
        # One key head: the heads of all pixels are rows of one matrix, with no transposition.
        q_BTd = q_BHWC.reshape(batch, height * width * self.num_heads, -1)
        k_BdM = self.key(x_BCHW).flatten(2)
        v_BMd = self.value(x_BCHW).flatten(2).transpose(1, 2)
        weights_BTM = self.softmax(self.scores(q_BTd, k_BdM))
        y_BTd = self.mix(weights_BTM, v_BMd)
        y_BCHW = y_BTd.reshape(batch, height, width, -1).permute(0, 3, 1, 2)
        return self.output(y_BCHW)


class AttentionBlock(nn.Module):
    """Pre-norm multi-query attention with layer scale and skip."""

    def __init__(self, block: MultiQueryAttention, eps: float, scale_init: float) -> None:
        super().__init__()
        self.norm = RMSNorm2d(block.channels, eps)
        self.attn = Attention(block, eps)
        self.layer_scale = LayerScale2d(block.channels, scale_init)
        self.add = Add()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.add(self.layer_scale(self.attn(self.norm(x_BCHW))), x_BCHW)


class MultiScaleFusion(nn.Module):
    """Fuses the last two stages and pools to the fixed grid that gives the visual tokens."""

    def __init__(self, in_channels: int, config: MobileNetV5Config) -> None:
        super().__init__()
        block = InvertedResidual(
            channels=config.fusion_channels,
            expand=config.fusion_expand,
            hidden=config.fusion_hidden,
        )
        self.concat = Concat(dim=1)
        self.ffn = InvertedResidualBlock(in_channels, block, config.norm_eps, scale_init=None)
        if self.ffn.has_skip:
            raise ValueError("fusion_channels: must differ from the channels of the fused stages")
        self.pool = Resize2d(config.fusion_size)
        self.norm = RMSNorm2d(config.fusion_channels, config.norm_eps)

    def forward(self, fine_BCHW: Tensor, coarse_BCHW: Tensor) -> Tensor:
        up_BCHW = F.interpolate(coarse_BCHW, size=fine_BCHW.shape[2:], mode="nearest")
        return self.norm(self.pool(self.ffn(self.concat(fine_BCHW, up_BCHW))))


class MobileNetV5(nn.Module):
    """Pixels [B,3,S,S] in [0,1] -> visual tokens [B,N,C], row by row, N the same at every S."""

    def __init__(self, config: MobileNetV5Config) -> None:
        super().__init__()
        eps = config.norm_eps
        self.grid, self.unshuffle = config.fusion_size, config.unshuffle
        stem = nn.Conv2d(3, config.stem_channels, kernel_size=3, stride=2)
        self.pixels = Range()
        self.conv_stem = ConvNorm(stem, eps, act=True)
        self.blocks = nn.Sequential()
        channels = config.stem_channels
        for stage in config.stages:
            blocks = nn.Sequential()
            for block in stage:
                blocks.append(_build_block(channels, block, config))
                channels = block.channels
            self.blocks.append(blocks)
        fused = config.stages[-2][-1].channels + channels
        self.msfa = MultiScaleFusion(fused, config)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """timm's initialisation: fan-out normal for convolutions, Xavier inside attention."""
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d):
                continue
            if ".attn." in name:
                nn.init.xavier_uniform_(module.weight)
            else:
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        x_BCHW = self.conv_stem(self.pixels(pixels_BCHW))
        previous_BCHW = x_BCHW
        for stage in self.blocks:
            previous_BCHW, x_BCHW = x_BCHW, stage(x_BCHW)
        tokens_BCHW = self.msfa(previous_BCHW, x_BCHW)
        tokens_BNC = tokens_BCHW.permute(0, 2, 3, 1).flatten(1, 2)
        return pixel_unshuffle(tokens_BNC, self.grid, self.unshuffle)


def _build_block(in_channels: int, block: Block, config: MobileNetV5Config) -> nn.Module:
    if isinstance(block, EdgeResidual):
        return EdgeResidualBlock(in_channels, block, config.norm_eps)
    if isinstance(block, InvertedResidual):
        return InvertedResidualBlock(in_channels, block, config.norm_eps, config.layer_scale_init)
    if in_channels != block.channels:
        raise ValueError(f"mqa: {block.channels} channels after a block of {in_channels}")
    return AttentionBlock(block, config.norm_eps, config.layer_scale_init)
