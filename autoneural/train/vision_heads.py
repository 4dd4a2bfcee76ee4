"""Heads for the dense supervision that stands in for a pretrained encoder; thrown away afterwards.

Attributes: one learned query per attribute looks over the encoder's tokens (one softmax per head),
and a linear classifier of its own names the attribute's value.

    tokens [B,N,C] -> norm, + position -> k, v [B,h,N,d]     query [A,h,d]
    softmax(q k / sqrt(d)) v -> [B,A,h*d] -> norm -> W[A,D,K] -> logits [B,A,K]

Cells: each token names what stands in each of the cells that it covers. Without this nothing learns
to read: a query has to find the third character before it can learn a letter from it.

    tokens [B,N,C] -> norm -> linear -> [B, G, G, K + 1], the last one the background
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoneural.errors import UserError
from autoneural.train.loss import IGNORE


def attribute_vocabulary(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Name -> sorted values of all `attributes` in `rows`. UserError when no row has any.

    Attributes of parts (`task.part.name`) are left out: they are read in the cells of their boxes.
    """
    values: dict[str, set[str]] = {}
    for row in rows:
        for name, value in (row.get("attributes") or {}).items():
            if name.count(".") > 1:
                continue
            values.setdefault(name, set()).add(value)
    if not values:
        raise UserError("vision stage: no row has attributes (`autoneural data cockpit` has)")
    return {name: tuple(sorted(values[name])) for name in sorted(values)}


class AttributeHeads(nn.Module):
    """Queries and classifiers for `classes[a]` values of attribute a, over `tokens` tokens."""

    unused: Tensor

    def __init__(
        self, classes: Sequence[int], channels: int, tokens: int, width: int = 256, heads: int = 4
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.position = nn.Parameter(torch.randn(tokens, channels) * 0.02)
        self.query = nn.Parameter(torch.randn(len(classes), width))
        self.key_value = nn.Linear(channels, 2 * width)
        self.out_norm = nn.LayerNorm(width)
        self.weight = nn.Parameter(torch.randn(len(classes), width, max(classes)) * 0.02)
        self.bias = nn.Parameter(torch.zeros(len(classes), max(classes)))
        unused = torch.arange(max(classes)) >= torch.tensor(list(classes))[:, None]
        self.register_buffer("unused", unused, persistent=False)

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        """Logits [B, A, K]; classes that an attribute does not have are -inf."""
        batch, count, _ = tokens_BNC.shape
        key, value = (
            part.reshape(batch, count, self.heads, -1).transpose(1, 2)
            for part in self.key_value(self.norm(tokens_BNC) + self.position).chunk(2, dim=-1)
        )
        query = self.query.reshape(1, -1, self.heads, key.shape[-1]).transpose(1, 2)
        query = query.expand(batch, -1, -1, -1).to(key.dtype)
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        logits = torch.einsum("bad,adk->bak", self.out_norm(seen), self.weight) + self.bias
        return logits.masked_fill(self.unused, float("-inf"))


class CellHead(nn.Module):
    """Logits of `labels` classes and the background for `cells` x `cells` cells of a picture."""

    def __init__(self, labels: int, channels: int, tokens: int, cells: int) -> None:
        super().__init__()
        side = math.isqrt(tokens)
        if side * side != tokens or cells % side:
            raise UserError(f"vision stage: {tokens} tokens do not divide {cells} x {cells} cells")
        self.side, self.each = side, cells // side
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(channels, self.each**2 * (labels + 1))

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        """Logits [B, G, G, K + 1]."""
        batch, side, each = len(tokens_BNC), self.side, self.each
        logits = self.linear(self.norm(tokens_BNC)).reshape(batch, side, side, each, each, -1)
        return logits.transpose(2, 3).reshape(batch, side * each, side * each, -1)


class RunningAccuracy:
    """Decaying mean of the accuracy per attribute; `counts` [2, A] is all it remembers."""

    def __init__(self, names: Sequence[str], decay: float = 0.98) -> None:
        self._names, self._decay = names, decay
        self.counts = torch.zeros(2, len(names))

    @torch.no_grad()
    def update(self, logits_BAK: Tensor, targets_BA: Tensor) -> None:
        right = (logits_BAK.argmax(-1) == targets_BA).sum(0)
        seen = (targets_BA != IGNORE).sum(0)
        self.counts.mul_(self._decay).add_(torch.stack([right, seen]).to(self.counts))

    def read(self) -> dict[str, float]:
        """Accuracy of every attribute met so far."""
        right, seen = self.counts.tolist()
        return {
            name: round(r / s, 4) for name, r, s in zip(self._names, right, seen, strict=True) if s
        }
