"""What rewrites of a float model share: who reads a norm, scaling of channels, the record.

A rewrite changes parameters in place and leaves the function as it was, up to the rounding of fp32:

    fold.py      norm weights and layer scales into the linears and convolutions beside them
    equalize.py  ranges of channels evened out between two layers with nothing bent between them
    smooth.py    large activations divided down in a norm, and multiplied back by who reads it
    rotate.py    the decoder's residual stream turned, so that no channel is larger than others
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from autoneural.compress.fake_quant import OutputQuantizer, WeightQuantizer
from autoneural.errors import UserError
from autoneural.model import language_model as lm
from autoneural.model import layers, vit
from autoneural.model import vision_encoder as cnn
from autoneural.model.vlm import VLM

Norm = layers.RMSNorm | nn.LayerNorm


@dataclass(kw_only=True)
class Rewrite:
    """What one rewrite did: `pairs` are (what was changed, who makes up for it), by path.

    `skipped`: path -> why it was left alone.
    """

    method: str
    pairs: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A norm whose output goes to linears and convolutions only."""

    path: str
    norm: Norm
    readers: dict[str, nn.Module]


def refuse_quantized(model: nn.Module) -> None:
    """UserError when the model has quantisers: they would round what was not rewritten."""
    for path, module in model.named_modules():
        if isinstance(module, OutputQuantizer | WeightQuantizer):
            raise UserError(f"{path}: the model is quantised already; rewrite the float one first")


def readings(model: nn.Module) -> tuple[list[Reading], dict[str, str]]:
    """Every norm that linears read, and path -> reason for every other norm of `model`."""
    found = {}
    for path, module in model.named_modules():
        for norm, readers in _read_in(module):
            where = _join(path, norm)
            found[where] = Reading(
                path=where,
                norm=module.get_submodule(norm),  # pyright: ignore[reportArgumentType]
                readers={_join(path, name): module.get_submodule(name) for name in readers},
            )
    others = {
        path: "tied head" if path.endswith("embedding_norm") else "not read by linears alone"
        for path, module in model.named_modules()
        if isinstance(module, Norm) and path not in found
    }
    return list(found.values()), others


def _read_in(module: nn.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(norm, who reads it) inside one block, by the block's own names."""
    if isinstance(module, VLM):
        is_vit = isinstance(module.vision_encoder, vit.ViT)
        last = "post_layernorm" if is_vit else "msfa.norm"
        yield f"vision_encoder.{last}", ("projector.linear_1",)
    elif isinstance(module, lm.LanguageModel):
        if not module.is_tied:
            yield "model.embedding_norm", ("lm_head",)
    elif isinstance(module, lm.DecoderLayer):
        attention = tuple(f"self_attn.{name}_proj" for name in "qkv")
        yield "operator_norm", ("conv.in_proj",) if module.is_conv else attention
        yield "ffn_norm", ("feed_forward.w1", "feed_forward.w3")
    elif isinstance(module, vit.EncoderLayer):
        yield "layer_norm1", tuple(f"self_attn.{name}_proj" for name in "qkv")
        yield "layer_norm2", ("mlp.fc1",)
    elif isinstance(module, cnn.AttentionBlock):
        names = ((n, module.attn.get_submodule(n)) for n in ("query", "key", "value"))
        yield "norm", tuple(f"attn.{n}.{_first_conv(projection)}" for n, projection in names)
    elif isinstance(module, cnn.Projection) and module.strided:
        yield "norm", ("proj",)
    elif isinstance(module, cnn.InvertedResidualBlock) and isinstance(
        module.dw_start, cnn.ConvNorm
    ):
        yield "dw_start.bn", ("pw_exp.conv",)


def _first_conv(projection: nn.Module) -> str:
    assert isinstance(projection, cnn.Projection)
    return "down_conv" if projection.strided else "proj"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@torch.no_grad()
def scale_inputs(module: nn.Module, factor_I: Tensor) -> None:
    """Multiply what each input channel of a linear or convolution counts for.

    Fewer factors than inputs repeat: a pixel unshuffle in between puts tokens side by side.
    """
    weight = matrix(module)
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        scale_outputs(module, factor_I)  # depthwise: an input channel is an output channel
        return
    factor_I = factor_I.repeat(weight.shape[1] // len(factor_I))
    weight.mul_(factor_I.to(weight).reshape(1, -1, *([1] * (weight.ndim - 2))))


@torch.no_grad()
def scale_outputs(module: nn.Module, factor_O: Tensor) -> None:
    """Multiply the output channels of a linear or convolution, its bias included."""
    weight = matrix(module)
    weight.mul_(factor_O.to(weight).reshape(-1, *([1] * (weight.ndim - 1))))
    if isinstance(module.bias, Tensor):
        module.bias.mul_(factor_O.to(module.bias))


def matrix(module: nn.Module) -> Tensor:
    """The weight of a linear or convolution."""
    assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
    return module.weight
