"""Losses of the objectives, as (sum, normaliser) so that accumulation is exact.

Language: InternVL's "square" weighting. Sample i with n_i target tokens weighs 1/sqrt(n_i) each:

    loss = sum_i n_i^-1/2 sum_t ce_it  /  sum_i n_i^1/2

so a long caption neither drowns the one-word answers (token mean) nor is drowned (sample mean).
K is the number of target tokens of a batch: logits are computed there only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100


def token_weights(labels_BT: Tensor) -> Tensor:
    """Weight [B, T-1] of the prediction made at each position; 0 where the next label is -100."""
    targets_BT = labels_BT[:, 1:] != IGNORE
    counts_B1 = targets_BT.sum(1, keepdim=True).clamp(min=1)
    return targets_BT * counts_B1.to(torch.float32).rsqrt()


def language_loss(logits_KV: Tensor, targets_K: Tensor, weights_K: Tensor) -> Tensor:
    """Weighted sum of the token cross-entropies; divide by `token_weights(labels).sum()`."""
    losses_K = F.cross_entropy(logits_KV.float(), targets_K, reduction="none")
    return (losses_K * weights_K).sum()


def attribute_loss(logits_BAK: Tensor, targets_BA: Tensor) -> Tensor:
    """Summed cross-entropy of the attribute heads; divide by `(targets != -100).sum()`."""
    return F.cross_entropy(
        logits_BAK.float().flatten(0, 1),
        targets_BA.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
    )


BACKGROUND_WEIGHT = 0.01
"""Of a cell with nothing in it: a picture has a thousand of them, and about ten with something."""


def cell_loss(logits_BGGK: Tensor, cells_BGG: Tensor) -> Tensor:
    """Weighted sum of the cells' cross-entropy; divide by the number of cells that hold something.

    Cells are numbers of labels, -1 for the background (the last class), -100 for unknown.
    """
    background = logits_BGGK.shape[-1] - 1
    targets = torch.where(cells_BGG == -1, background, cells_BGG).flatten()
    losses = F.cross_entropy(
        logits_BGGK.float().flatten(0, 2), targets, ignore_index=IGNORE, reduction="none"
    )
    return (losses * torch.where(targets == background, BACKGROUND_WEIGHT, 1.0)).sum()
