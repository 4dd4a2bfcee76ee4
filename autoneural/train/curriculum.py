"""Stages as data: what trains, on which mixture, for how long.

    vision    encoder + throw-away heads              pictures -> attributes, boxes
    language  language model                          caption as text -> question -> answer
    align     projector                               picture -> caption
    general   everything                              picture -> question -> answer
    instruct  everything                              the same, weighted mixture
    domain    everything                              cockpit only, decaying learning rate

The last four are the paper's; the first two stand in for pretrained towers where there are none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import nn

from autoneural.data.dataset import Source
from autoneural.data.hotspots import check_hotspots, unused_hotspots
from autoneural.errors import UserError

PARTS = ("vision_encoder", "projector", "language_model")
HEADS = "heads"
ADAPTER = ".lora_"
"""In the names of an adapter's two matrices, as peft calls them."""
Goal = Literal["language", "vision"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage. `lr` maps parameter prefixes to peak rates; the longest matching prefix counts.

    A step is one optimiser step: `accumulate` micro-batches of `batch_size` rows each.
    """

    name: str
    train: tuple[str, ...]
    mixture: dict[str, float]
    steps: int
    batch_size: int
    lr: dict[str, float]
    objective: Goal = "language"
    warmup: int = 50
    accumulate: int = 1
    final_lr: float = 0.02
    weight_decay: float = 0.05
    beta2: float = 0.98
    clip: float = 1.0
    ema: float = 0.0
    """Decay of the weight average that becomes the stage's result; 0 is none."""
    max_length: int = 1024
    """Tokens of a sequence at most; the turns after that are left out."""
    jitter: float = 0.0
    """Largest relative change of brightness, contrast and gamma of a picture."""
    hotspots: dict[str, float] = field(default_factory=dict)
    """How much more some answers count (`autoneural.data.hotspots`)."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "max_length"):
            if getattr(self, name) < 1:
                raise UserError(f"stage {self.name}: {name}: must be at least 1")
        if not self.mixture or min(self.mixture.values()) <= 0:
            raise UserError(
                f"stage {self.name}: mixture: needs sources with positive weights; "
                "leave out what is not to be drawn"
            )
        if self.objective not in get_args(Goal):
            known = " or ".join(get_args(Goal))
            raise UserError(f"stage {self.name}: objective: {self.objective!r} is not {known}")
        check_hotspots(self.hotspots, f"stage {self.name}")


def longest_prefix(name: str, prefixes: Iterable[str]) -> str | None:
    """The longest of `prefixes` that is `name` or one of its parents; None when none is."""
    matching = [p for p in prefixes if name == p or name.startswith(f"{p}.")]
    return max(matching, key=len, default=None)


def select_trainable(model: nn.Module, stage: Stage) -> dict[str, nn.Parameter]:
    """Freeze `model` except the parameters under `stage.train`; return those, by name.

    Where a part has low-rank adapters (`adapters.py`), they train in its place. Raises UserError
    when a prefix of `train` or `lr` matches no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for key, prefixes in (("train", stage.train), ("lr", stage.lr)):
        for prefix in prefixes:
            is_heads = prefix == HEADS and stage.objective == "vision"
            if not is_heads and not any(longest_prefix(name, [prefix]) for name in names):
                raise UserError(f"stage {stage.name}: {key}: no parameter is under {prefix!r}")
    adapted = {
        p for p in stage.train if any(ADAPTER in n and longest_prefix(n, [p]) for n in names)
    }
    for name, parameter in model.named_parameters():
        prefix = longest_prefix(name, stage.train)
        parameter.requires_grad_(prefix is not None and (prefix not in adapted or ADAPTER in name))
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def describe_trainable(model: nn.Module) -> str:
    """`vision_encoder 0 of 2,143,000, projector ...`: trainable counts per part, for the log."""
    parts: list[str] = []
    for part, child in model.named_children():
        total = sum(p.numel() for p in child.parameters())
        trains = sum(p.numel() for p in child.parameters() if p.requires_grad)
        parts.append(f"{part} {trains:,} of {total:,}")
    return ", ".join(parts)


def check_mixture(stage: Stage, sources: Mapping[str, object]) -> None:
    """Raise UserError when the stage draws from a source that is not there."""
    for source in stage.mixture:
        if source not in sources:
            known = ", ".join(sources) or "none"
            raise UserError(f"stage {stage.name}: mixture: no source {source!r}; there are {known}")


def check_hotspots_met(stage: Stage, sources: Mapping[str, Source]) -> None:
    """Raise UserError when a hot spot of the stage fits no row that it draws from."""
    rows = itertools.chain.from_iterable(sources[name].rows for name in stage.mixture)
    unused = unused_hotspots(stage.hotspots, rows) if stage.hotspots else []
    if unused:
        raise UserError(f"stage {stage.name}: hotspots: no answer fits {unused[0]}")
