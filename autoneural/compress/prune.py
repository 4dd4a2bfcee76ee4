"""Structured pruning: whole hidden units, heads and blocks go; a smaller plain model is left.

    model, config, record = prune(model, config, runs, ratio=0.25, parts=("mlp", "vision"))

Within a part the least important units go first, whichever layer they are in, weighed against the
parameters they free (global ranking as in LLM-Pruner, Ma et al. 2023, arXiv 2305.11627); a layer
loses at most twice the ratio. Widths stay on the chip's tiles: an HMX engine computes 32 channels
at once, so a width in between costs as much as the next multiple. Nothing is trained here: recovery
is a stage of the trainer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, gcd
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from autoneural.compress.derive import rebuild
from autoneural.compress.fake_quant import check_layers
from autoneural.compress.importance import (
    Loss,
    activation_scores,
    block_scores,
    next_token_loss,
    taylor_scores,
)
from autoneural.compress.input_statistics import mean_squares, require_runs
from autoneural.compress.report import Run
from autoneural.compress.widths import (
    BLOCKS,
    LAYERS,
    WIDTH_PARTS,
    Width,
    cut_width,
    droppable_blocks,
    find_widths,
    with_widths,
)
from autoneural.config import MobileNetV5Config, ModelConfig
from autoneural.errors import UserError
from autoneural.model.vlm import VLM, num_parameters

Importance = Literal["activation", "taylor"]
BLOCK_PARTS = ("layers", "blocks")
PARTS = (*WIDTH_PARTS, *BLOCK_PARTS)


def prune(
    model: VLM,
    config: ModelConfig,
    runs: Sequence[Run],
    *,
    ratio: float = 0.25,
    parts: Sequence[str] = ("mlp", "vision"),
    importance: Importance = "taylor",
    loss: Loss = next_token_loss,
    tile: int = 32,
) -> tuple[VLM, ModelConfig, dict[str, Any]]:
    """A copy of float `model` without the share `ratio` of the parameters of each part's widths.

    Parts: mlp, attention (key/value groups with their queries), vision (hidden channels), heads
    (queries of the encoder's attention), projector; `layers` of the decoder and `blocks` of the
    encoder go whole, that share of their number, rounded down, by what they change. Widths are left
    at multiples of `tile` channels; what was no multiple may stay as it is. `taylor` costs a
    backward pass per run, `activation` none. The record is JSON-ready: what was there, what is
    left. Raises UserError for an unknown part or one that the model does not have, a
    ratio outside 0..1, no runs, a quantised model, and where there is nothing to take.
    """
    _check(model, runs, ratio, parts, importance, tile)
    before = num_parameters(model)
    blocks = [part for part in PARTS if part in parts and part in BLOCK_PARTS]
    dropped: dict[str, float] = {}
    for part in blocks:
        model, scores = _drop_blocks(model, config, runs, ratio, part)
        config, dropped = model.config, dropped | scores
    widths = find_widths(model, [part for part in parts if part in WIDTH_PARTS])
    sizes: dict[str, list[int]] = {}
    if widths:
        energies = mean_squares(model, {p for w in widths for p in (w.consumer, *w.norms)}, runs)
        if importance == "taylor":
            scores = taylor_scores(model, widths, runs, loss)
        else:
            scores = activation_scores(model, widths, energies)
        kept = _choose(model, widths, scores, ratio, tile)
        model = _cut(model, config, widths, kept, energies)
        config = model.config
        sizes = {w.path: [w.units, len(kept[w.path])] for w in widths}
    record = {
        "method": "prune",
        "importance": importance,
        "ratio": ratio,
        "tile": tile,
        "parts": list(parts),
        "samples": len(runs),
        "parameters": [before, num_parameters(model)],
        "units": sizes,
        "dropped": dropped,
    }
    return model, config, record


def _check(
    model: VLM, runs: Sequence[Run], ratio: float, parts: Sequence[str], importance: str, tile: int
) -> None:
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise UserError(f"parts {', '.join(parts)!r}: choose from {', '.join(PARTS)}")
    if not 0 < ratio < 1:
        raise UserError(f"ratio {ratio}: not between 0 and 1, the share of parameters to take")
    if importance not in get_args(Importance):
        names = " or ".join(get_args(Importance))
        raise UserError(f"importance {importance!r}: expected {names}")
    if tile < 1:
        raise UserError(f"tile {tile}: a tile has at least one channel")
    require_runs(runs)
    check_layers(model)


@dataclass(frozen=True)
class _Step:
    """One more tile of units of a width: what they matter, what they cost."""

    left: int
    loss: float
    saved: float


def _choose(
    model: VLM, widths: Sequence[Width], scores: Mapping[str, Tensor], ratio: float, tile: int
) -> dict[str, Tensor]:
    """Width path -> indices of the units that stay, ascending."""
    kept = {}
    for part in dict.fromkeys(width.part for width in widths):
        members = [width for width in widths if width.part == part]
        left = _allocate(model, members, scores, ratio, tile)
        for width in members:
            best = scores[width.path].argsort(descending=True, stable=True)[: left[width.path]]
            kept[width.path] = best.sort().values
    if all(len(kept[width.path]) == width.units for width in widths):
        raise UserError(
            f"nothing to prune at ratio {ratio}: no width has a tile of {tile} to spare"
        )
    return kept


def _allocate(
    model: VLM, widths: Sequence[Width], scores: Mapping[str, Tensor], ratio: float, tile: int
) -> dict[str, int]:
    """Units left of each width of one part, once the cheapest tiles have gone."""
    left = {width.path: width.units for width in widths}
    steps = {width.path: _steps(model, width, scores[width.path], ratio, tile) for width in widths}
    target = ratio * sum(width.parameters(model) for width in widths)
    while any(steps.values()):
        path = min(
            (p for p in steps if steps[p]), key=lambda p: steps[p][0].loss / steps[p][0].saved
        )
        step = steps[path].pop(0)
        if step.saved > 2 * target:  # would overshoot by more than stopping here falls short
            steps[path] = []
            continue
        left[path] = step.left
        target -= step.saved
        if target <= 0:
            break
    return left


def _steps(model: VLM, width: Width, scores: Tensor, ratio: float, tile: int) -> list[_Step]:
    """What may go of one width, least important first, a tile at a time."""
    channels = model.get_submodule(width.consumer).get_parameter("weight").shape[1] // width.units
    units_per_tile = tile // gcd(tile, channels)
    least = max(units_per_tile, ceil(width.units * (1 - 2 * ratio)))
    first = width.units % units_per_tile or units_per_tile
    counts = [width.units, *range(width.units - first, least - 1, -units_per_tile)]
    losses = torch.cat((scores.new_zeros(1), scores.sort().values.cumsum(0))).tolist()
    each = width.parameters(model) / width.units
    return [
        _Step(b, losses[width.units - b] - losses[width.units - a], (a - b) * each)
        for a, b in pairwise(counts)
    ]


def _cut(
    model: VLM,
    config: ModelConfig,
    widths: Iterable[Width],
    kept: Mapping[str, Tensor],
    energies: Mapping[str, Tensor],
) -> VLM:
    state = dict(model.state_dict())
    for width in widths:
        gains = {path: _norm_gain(energies[path], kept[width.path]) for path in width.norms}
        cut_width(state, width, kept[width.path], gains)
    config = with_widths(config, {path: len(units) for path, units in kept.items()})
    return rebuild(model, config, state, "pruned model")


def _norm_gain(energy_C: Tensor, kept: Tensor) -> float:
    """What an RMS norm's weights are multiplied by, so that what stays keeps its size."""
    before, after = energy_C.mean(), energy_C[kept].mean()
    return float((after / before.clamp_min(1e-30)).sqrt())


def _drop_blocks(
    model: VLM, config: ModelConfig, runs: Sequence[Run], ratio: float, part: str
) -> tuple[VLM, dict[str, float]]:
    """The model without the blocks that change their input least, and those with their scores."""
    candidates = droppable_blocks(model, part)
    count = int(ratio * len(candidates))
    if not count:
        raise UserError(f"parts: {part}: {ratio:.0%} of {len(candidates)} is less than one")
    scores = block_scores(model, candidates, runs)
    gone = sorted(candidates, key=lambda path: scores[path])[:count]
    moves = _moves(model, gone)
    state = {
        new: tensor
        for name, tensor in model.state_dict().items()
        if (new := _renamed(name, moves)) is not None
    }
    config = _without_blocks(config, gone)
    ranks = {new: r for path, r in config.ranks.items() if (new := _renamed(path, moves))}
    small = rebuild(model, replace(config, ranks=ranks), state, "pruned model")
    return small, {path: scores[path] for path in gone}


def _moves(model: VLM, gone: Sequence[str]) -> dict[str, str | None]:
    """Path of every block that goes (to None) or that moves up behind one that does."""
    moves: dict[str, str | None] = dict.fromkeys(gone)
    for parent in {path.rpartition(".")[0] for path in gone}:
        staying = [
            f"{parent}.{name}"
            for name, _ in model.get_submodule(parent).named_children()
            if f"{parent}.{name}" not in gone
        ]
        moves |= {path: f"{parent}.{index}" for index, path in enumerate(staying)}
    return moves


def _renamed(name: str, moves: Mapping[str, str | None]) -> str | None:
    for old, new in moves.items():
        if name.startswith(f"{old}."):
            return None if new is None else new + name[len(old) :]
    return name


def _without_blocks(config: ModelConfig, gone: Sequence[str]) -> ModelConfig:
    text, vision = config.text, config.vision

    def left(values: Sequence[Any], parent: str) -> tuple[Any, ...]:
        return tuple(v for i, v in enumerate(values) if f"{parent}.{i}" not in gone)

    text = replace(
        text,
        layer_types=left(text.layer_types, LAYERS),
        intermediate_sizes=left(text.intermediate_sizes, LAYERS),
        key_value_heads=left(text.key_value_heads, LAYERS),
    )
    if isinstance(vision, MobileNetV5Config):
        stages = enumerate(vision.stages)
        vision = replace(vision, stages=tuple(left(s, f"{BLOCKS}.{i}") for i, s in stages))
    else:
        layers = [int(m[0]) for p in gone if (m := re.findall(r"encoder\.layers\.(\d+)$", p))]
        sizes = tuple(s for i, s in enumerate(vision.intermediate_sizes) if i not in layers)
        count = vision.num_hidden_layers - len(layers)
        vision = replace(vision, num_hidden_layers=count, intermediate_sizes=sizes)
    return replace(config, text=text, vision=vision)
