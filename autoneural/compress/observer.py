"""Range observers: which real interval the integers of a tensor should cover.

At 16 bits an activation range is best left whole (min-max): clipping one outlier costs more than
the finer step returns. At 8 bits and below clipping pays:

    percentile   cuts a fixed share of values off, however far out they are
    mse          least squared error: gives up resolution for a few values far out
    entropy      least Kullback-Leibler divergence: keeps the shape of the bulk (TensorRT's method,
                 Migacz, "8-bit inference with TensorRT", GTC 2017)

Weights choose their per-channel scale by least squared error over a grid.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from autoneural.target.numerics import signed_range

ObserverName = Literal["minmax", "percentile", "mse", "entropy"]
_ABSENT = 1e-4  # stands for a probability of zero in the divergence, as is usual
_SHRINKS = torch.linspace(1, 0.05, 96).tolist()


class Observer(Protocol):
    """Watches a tensor over many batches, then names its range."""

    def observe(self, x: Tensor) -> None:
        """Take in one batch."""
        ...

    def range(self) -> tuple[float, float] | None:
        """(low, high), or None when nothing was observed."""
        ...


class MinMaxObserver:
    """Smallest and largest value seen."""

    def __init__(self) -> None:
        self.bounds: tuple[float, float] | None = None

    def observe(self, x: Tensor) -> None:
        if x.numel() == 0:
            return
        low, high = (float(v) for v in torch.aminmax(x.detach().float()))
        if self.bounds is not None:
            # numpy's, because Python's min forgets a NaN.
            low, high = (
                float(np.minimum(low, self.bounds[0])),
                float(np.maximum(high, self.bounds[1])),
            )
        self.bounds = low, high

    def range(self) -> tuple[float, float] | None:
        return self.bounds


class HistogramObserver(MinMaxObserver):
    """Histogram over the whole range seen; clips by percentile, squared error or divergence."""

    def __init__(
        self,
        method: Literal["percentile", "mse", "entropy"],
        bits: int,
        percentile: float = 99.999,
    ) -> None:
        super().__init__()
        self.method = method
        self.bits = bits
        self.percentile = percentile
        self.counts = torch.zeros(2048)

    def observe(self, x: Tensor) -> None:
        before = self.bounds
        super().observe(x)
        if self.bounds is None or not np.isfinite(self.bounds).all():
            return
        if self.bounds[0] == self.bounds[1]:
            return
        if before is not None and before != self.bounds:
            old = torch.linspace(*before, 2 * len(self.counts) + 1)[1::2]
            bins = _bin_of(old, self.bounds, len(self.counts))
            self.counts = torch.zeros_like(self.counts).index_add_(0, bins, self.counts)
        self.counts += torch.histc(x.detach().float().cpu(), len(self.counts), *self.bounds)

    def range(self) -> tuple[float, float] | None:
        if self.bounds is None or self.counts.sum() == 0:
            return self.bounds
        edges = torch.linspace(*self.bounds, len(self.counts) + 1)
        if self.method == "percentile":
            return self._percentile(edges)
        return self._least_error(edges) if self.method == "mse" else self._least_divergence(edges)

    def _percentile(self, edges: Tensor) -> tuple[float, float]:
        cumulative = self.counts.double().cumsum(0) / self.counts.double().sum()
        tail = 1 - self.percentile / 100
        first = int((cumulative <= tail).sum())
        last = int((cumulative < 1 - tail).sum())
        return float(edges[first]), float(edges[min(last, len(self.counts) - 1) + 1])

    def _least_error(self, edges: Tensor) -> tuple[float, float]:
        centres = (edges[1:] + edges[:-1]).double() / 2
        low, high = min(float(edges[0]), 0.0), max(float(edges[-1]), 0.0)
        best, least = (low, high), float("inf")
        for shrink in _SHRINKS:
            step = (high - low) * shrink / (2**self.bits - 1)
            clipped = centres - centres.clamp(low * shrink, high * shrink)
            error = float((self.counts * (clipped.square() + step**2 / 12)).sum())
            if error < least:
                best, least = (low * shrink, high * shrink), error
        return best

    def _least_divergence(self, edges: Tensor) -> tuple[float, float]:
        low, high = min(float(edges[0]), 0.0), max(float(edges[-1]), 0.0)
        centres, width = (edges[1:] + edges[:-1]) / 2, float(edges[1] - edges[0])
        best, least = (low, high), float("inf")
        for shrink in _SHRINKS:
            bounds = low * shrink, high * shrink
            # Fewer bins than steps would fit any histogram, whatever they cut off.
            if shrink < 1 and (bounds[1] - bounds[0]) / width < 2**self.bits:
                break
            divergence = _divergence(self.counts.double(), centres, bounds, 2**self.bits)
            if divergence < least:
                best, least = bounds, divergence
        return best


def _divergence(counts: Tensor, centres: Tensor, bounds: tuple[float, float], steps: int) -> float:
    """KL(P || Q): P the histogram clipped to `bounds`, Q what is left of it in that many steps.

    Q spreads every step's count evenly over those of its bins that hold anything; what was clipped
    counts for P at the ends and not for Q.
    """
    inside = (centres >= bounds[0]) & (centres <= bounds[1])
    kept = counts[inside]
    if not kept.any():
        return float("inf")
    clipped = kept.clone()
    clipped[0] += counts[centres < bounds[0]].sum()
    clipped[-1] += counts[centres > bounds[1]].sum()
    step = _bin_of(centres[inside], bounds, steps)
    zeros, filled = torch.zeros(steps, dtype=torch.float64), (kept > 0).double()
    sums = zeros.index_add(0, step, kept)
    spread = (sums / zeros.index_add(0, step, filled).clamp_min(1))[step] * filled
    p, q = clipped / clipped.sum(), spread / spread.sum()
    p, q = p[p > 0], torch.where(q > 0, q, _ABSENT)[p > 0]
    return float((p * (p / q).log()).sum())


def _bin_of(x: Tensor, bounds: tuple[float, float], bins: int) -> Tensor:
    return ((x - bounds[0]) / (bounds[1] - bounds[0]) * bins).long().clamp(0, bins - 1)


def make_observer(name: ObserverName, bits: int) -> Observer:
    """The observer of that name for a tensor of that many bits."""
    return MinMaxObserver() if name == "minmax" else HistogramObserver(name, bits)


def least_error_scale(
    weight_OI: Tensor, bits: int, importance_I: Tensor | None = None, steps: int = 80
) -> Tensor:
    """Per-row scale [O], fp32, with the least squared rounding error over a grid of clippings.

    `importance_I` (mean square of each input) turns weight error into output error.
    """
    low, high = signed_range(bits)
    weight_OI = weight_OI.float()
    importance = torch.ones(weight_OI.shape[1]) if importance_I is None else importance_I.float()
    full = (weight_OI.abs().amax(1) / high).clamp_min(torch.finfo(torch.float32).tiny)
    best, least = full.clone(), torch.full_like(full, float("inf"))
    for shrink in torch.linspace(1, 0.3, steps).tolist():
        scale = full * shrink
        rounded = (weight_OI / scale[:, None]).round().clamp(low, high) * scale[:, None]
        error = (rounded - weight_OI).square() @ importance.to(weight_OI.device)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return torch.where(weight_OI.abs().amax(1) > 0, best, torch.ones_like(best))
