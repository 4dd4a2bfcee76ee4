"""What the inputs of layers look like over sample runs: mean squares per channel, second moments.

N rows of all runs (tokens or pixels), C input channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from autoneural.compress.report import Run
from autoneural.errors import UserError
from autoneural.model.layers import RMSNorm2d


def rows_of(module: nn.Module, x: Tensor) -> Tensor:
    """What `module` reads as rows [N,C]: the pixels of [B,C,H,W], the tokens of [...,C]."""
    if isinstance(module, nn.Conv2d | RMSNorm2d):
        x = x.permute(0, 2, 3, 1)
    return x.reshape(-1, x.shape[-1])


def mean_squares(model: nn.Module, paths: Iterable[str], runs: Sequence[Run]) -> dict[str, Tensor]:
    """Mean square [C] of each input channel of the named modules, in double precision."""
    return _averages(model, paths, runs, lambda rows_NC: rows_NC.square().sum(0))


def second_moments(
    model: nn.Module, paths: Iterable[str], runs: Sequence[Run]
) -> dict[str, Tensor]:
    """X^T X / N, [C,C], of the inputs X [N,C] of the named modules, in double precision."""
    return _averages(model, paths, runs, lambda rows_NC: rows_NC.T @ rows_NC)


@torch.no_grad()
def _averages(
    model: nn.Module,
    paths: Iterable[str],
    runs: Sequence[Run],
    summed: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(path: str, rows_NC: Tensor) -> None:
        # Sums of fp32 are off by more than the least eigenvalues of what is nearly of low rank.
        sums[path] = sums.get(path, 0) + summed(rows_NC.double())
        counts[path] = counts.get(path, 0) + len(rows_NC)

    run_watched(model, paths, runs, add)
    return {path: total / counts[path] for path, total in sums.items()}


def run_watched(
    model: nn.Module,
    paths: Iterable[str],
    runs: Sequence[Run],
    seen: Callable[[str, Tensor], None],
) -> None:
    """Run all; `seen(path, rows [N,C])` of every input of the named modules.

    Raises UserError when there are no runs, or when none reaches one of the modules.
    """
    require_runs(runs)
    reached: set[str] = set()
    paths = list(paths)

    def look(path: str, module: nn.Module, x: Tensor) -> None:
        reached.add(path)
        seen(path, rows_of(module, x))

    with watching({path: look for path in paths}, model):
        for run in runs:
            run(model)
    missed = [path for path in paths if path not in reached]
    if missed:
        raise UserError(f"{missed[0]}: no sample reached it; give samples with images and text")


def require_runs(runs: Sequence[Run]) -> None:
    """UserError when there are none."""
    if not runs:
        raise UserError("calibration: no samples; give training rows with images and text")


@contextmanager
def watching(
    watchers: Mapping[str, Callable[[str, nn.Module, Tensor], None]], model: nn.Module
) -> Iterator[None]:
    """While open, each named module shows its first input to its watcher before it runs."""

    def hook(path: str) -> Callable[..., None]:
        def show(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            watchers[path](path, module, inputs[0])

        return show

    handles = [model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in watchers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
