"""Unstructured sparsity: single weights become zero, shapes stay.

There is no NPU gain in this: we know of no sparse path on HTP, packed weights take the same bytes,
and the kernels of `cpu` bundles multiply by zeros as by any other number. What shrinks is a zipped
download. It is here to be compared with structured pruning.

    magnitude   |w|, over the whole matrix
    wanda       |w| * norm of its input, over each row (Sun et al. 2023, arXiv 2306.11695)
    2:4         of every four weights of a row, along the inputs, the two least go
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from autoneural.compress.fake_quant import check_layers
from autoneural.compress.input_statistics import mean_squares
from autoneural.compress.report import Run
from autoneural.errors import UserError

Method = Literal["magnitude", "wanda"]
Pattern = Literal["any", "2:4"]
_TIED = "language_model.lm_head"


@torch.no_grad()
def sparsify(
    model: nn.Module,
    runs: Sequence[Run] = (),
    *,
    ratio: float = 0.5,
    method: Method = "wanda",
    pattern: Pattern = "any",
    layers: Iterable[str] = ("*",),
) -> dict[str, float]:
    """Zero the share `ratio` of the weights of float `model`'s linears and dense convolutions.

    In place; returns the share of zeros of each layer by path. `layers`: globs over module paths;
    depthwise convolutions and the head, whose matrix is the embedding, are left alone. `wanda`
    needs `runs`; `2:4` is half by definition, whatever the ratio. No NPU gains anything: see the
    module. Raises UserError for a ratio outside 0..1, an unknown method or pattern, no runs where
    they are needed, a quantised model, and globs that match no layer.
    """
    if method not in get_args(Method) or pattern not in get_args(Pattern):
        known = ", ".join((*get_args(Method), *get_args(Pattern)))
        raise UserError(f"sparse: {method} {pattern}: choose from {known}")
    if not 0 < ratio < 1:
        raise UserError(f"ratio {ratio}: not between 0 and 1, the share of weights to zero")
    check_layers(model)
    globs = tuple(layers)
    chosen = _layers(model, globs)
    if not chosen:
        raise UserError(f"layers {', '.join(globs)}: no linear or dense convolution is called so")
    energies = mean_squares(model, chosen, runs) if method == "wanda" else {}
    shares = {}
    for path, weight in chosen.items():
        importance_OI = weight.abs().flatten(1)
        if path in energies:
            norm_C = energies[path].sqrt().to(weight.dtype)
            importance_OI = importance_OI * norm_C.repeat_interleave(weight[0, 0].numel())
        kept_OI = _kept(importance_OI, ratio, pattern, by_row=method == "wanda", path=path)
        weight.mul_(kept_OI.reshape(weight.shape))
        shares[path] = float((weight == 0).double().mean())
    return shares


def _layers(model: nn.Module, globs: Sequence[str]) -> dict[str, Tensor]:
    return {
        path: module.weight
        for path, module in model.named_modules()
        if any(fnmatchcase(path, glob) for glob in globs)
        and path != _TIED
        and (
            isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        )
    }


def _kept(
    importance_OI: Tensor, ratio: float, pattern: Pattern, *, by_row: bool, path: str
) -> Tensor:
    """1 where a weight stays, else 0, [O,I]."""
    if pattern == "2:4":
        if importance_OI.shape[1] % 4:
            raise UserError(f"{path}: {importance_OI.shape[1]} inputs are not a multiple of four")
        fours = importance_OI.unflatten(1, (-1, 4))
        return _best(fours, 2).flatten(1)
    if by_row:
        return _best(importance_OI, importance_OI.shape[1] - round(ratio * importance_OI.shape[1]))
    flat = importance_OI.flatten()
    return _best(flat, len(flat) - round(ratio * len(flat))).reshape(importance_OI.shape)


def _best(importance: Tensor, count: int) -> Tensor:
    """1 at the `count` largest of the last dimension."""
    indices = importance.topk(count, dim=-1).indices
    return torch.zeros_like(importance).scatter_(-1, indices, 1.0)
