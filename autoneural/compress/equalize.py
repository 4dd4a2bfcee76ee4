"""Cross-layer equalisation: ranges of channels evened out between two layers, exactly.

    y = W2 f(W1 x),   f linear in every channel:   W1 / s  and  W2 * s  give the same y
    s = sqrt(r1 / r2)   r1, r2: largest weight that writes a channel, and that reads it

Nagel et al. 2019 (arXiv 1906.04721). What lies between must let a factor of a channel through:
attention weights over values, a product of query and key, a gate. A GELU or a norm does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoneural.compress.rewrite import Rewrite, matrix, refuse_quantized
from autoneural.model import language_model as lm
from autoneural.model import layers, vit
from autoneural.model import vision_encoder as cnn


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Row k of `rows` [K, r] names the outputs of `first` that carry channel k.

    `others` [K, c] names the places of `second` that make up for it: inputs (axis 1) or, in a
    product of the two, outputs (axis 0).
    """

    first: str
    rows: Tensor
    second: str
    others: Tensor
    axis: int = 1


def equalize(model: nn.Module) -> Rewrite:
    """Equalise every pair of layers of `model` that can be, in place.

    Raises UserError when the model is quantised.
    """
    refuse_quantized(model)
    done = Rewrite(method="equalize")
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for pair in _pairs_in(module):
            _equalize_pair(module, pair)
            done.pairs.append((prefix + pair.first, (prefix + pair.second,)))
        if isinstance(module, layers.Gelu):
            done.skipped[path] = "a GELU lets no factor through"
    return done


def _pairs_in(module: nn.Module) -> Iterator[_Pair]:
    if isinstance(module, cnn.Attention):
        width = matrix(module.value.proj).shape[0]
        heads = _heads(1, module.num_heads, width)
        yield _Pair(first="value.proj", rows=_one(width), second="output.proj", others=heads)
        yield _Pair(first="key.proj", rows=_one(width), second="query.proj", others=heads, axis=0)
    elif isinstance(module, vit.SelfAttention):
        one = _one(module.q_proj.out_features)
        yield _Pair(first="v_proj", rows=one, second="out_proj", others=one)
        yield _Pair(first="k_proj", rows=one, second="q_proj", others=one, axis=0)
    elif isinstance(module, lm.Attention):
        group = module.num_heads // module.num_kv_heads
        rows = _one(module.v_proj.out_features)
        heads = _heads(module.num_kv_heads, group, module.head_dim)
        yield _Pair(first="v_proj", rows=rows, second="out_proj", others=heads)
    elif isinstance(module, lm.FeedForward):
        one = _one(module.w3.out_features)
        yield _Pair(first="w3", rows=one, second="w2", others=one)
    elif isinstance(module, lm.ShortConv):
        one = _one(module.out_proj.in_features)
        # in_proj writes two gates and the signal; the second gate multiplies what out_proj reads.
        yield _Pair(first="in_proj", rows=one + len(one), second="out_proj", others=one)


def _one(width: int) -> Tensor:
    return torch.arange(width)[:, None]


def _heads(kv_heads: int, group: int, width: int) -> Tensor:
    """[kv_heads * width, group]: where the query heads that share a key head keep its channels."""
    return torch.arange(kv_heads * group * width).view(kv_heads, group, width).mT.flatten(0, 1)


@torch.no_grad()
def _equalize_pair(block: nn.Module, pair: _Pair) -> None:
    first, second = block.get_submodule(pair.first), block.get_submodule(pair.second)
    rows, others = matrix(first), matrix(second).movedim(pair.axis, 0)
    r1 = rows.flatten(1).abs().amax(1)[pair.rows].amax(1)
    r2 = others.flatten(1).abs().amax(1)[pair.others].amax(1)
    factor = torch.where((r1 > 0) & (r2 > 0), (r1 / r2).sqrt(), torch.ones_like(r1))
    outputs = [(rows, pair.rows, 1 / factor), (others, pair.others, factor)]
    if isinstance(first.bias, Tensor):
        outputs.append((first.bias, pair.rows, 1 / factor))
    if pair.axis == 0 and isinstance(second.bias, Tensor):
        outputs.append((second.bias, pair.others, factor))
    for tensor, index, by in outputs:
        scale = torch.ones(len(tensor), dtype=by.dtype, device=by.device)
        scale[index.flatten()] = by.repeat_interleave(index.shape[1])
        tensor.mul_(scale.reshape(-1, *([1] * (tensor.ndim - 1))))
