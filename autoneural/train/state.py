"""What a killed run resumes from: RUN/state-<step>/, replaced as a whole.

    model.safetensors   every weight in fp32 (and `heads.*` during the vision stage)
    optim.safetensors   exp_avg, exp_avg_sq, step of each trained parameter; average.*; buffer.*
    trainer.json        Position: stage, step, samples read, losses not yet logged

There is no generator state: every draw (initial weights, data order, jitter, dropout) is a function
of the seed and the position.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from autoneural.checkpoint import load_tensors, save_tensors
from autoneural.errors import UserError
from autoneural.files import replace_folder, write_text

FORMAT = 1


@dataclass(kw_only=True)
class Position:
    """Where a run is. `stage` is an index; `step` and `samples` count within the stage."""

    stage: int = 0
    step: int = 0
    samples: int = 0
    total_step: int = 0
    window: list[float] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)


def save_state(
    run: Path, position: Position, model: Mapping[str, Tensor], optim: Mapping[str, Tensor]
) -> None:
    """Write the state of `position`, then drop older ones. A kill in between loses nothing."""
    folder = run / f"state-{position.total_step:09d}-{position.stage:02d}"
    if not folder.exists():
        with replace_folder(folder) as temporary:
            save_tensors(temporary / "model.safetensors", model)
            save_tensors(temporary / "optim.safetensors", optim)
            record = {"format": FORMAT, **asdict(position)}
            write_text(temporary / "trainer.json", json.dumps(record))
    for old in _states(run)[:-1]:
        shutil.rmtree(old)


def load_state(run: Path) -> tuple[Position, dict[str, Tensor], dict[str, Tensor]] | None:
    """The newest state of the run, None when there is none. UserError when it is damaged."""
    for leftover in run.glob(".state-*"):
        shutil.rmtree(leftover)
    position = load_position(run)
    if position is None:
        return None
    newest = _states(run)[-1]
    model, optim = (load_tensors(newest / f"{name}.safetensors") for name in ("model", "optim"))
    return position, model, optim


def load_position(run: Path) -> Position | None:
    """Only the position of the newest state."""
    states = _states(run)
    if not states:
        return None
    path = states[-1] / "trainer.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        written = record.pop("format")
        if written != FORMAT:
            raise UserError(f"{path}: format {written}, this version reads {FORMAT}")
        return Position(**record)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: damaged ({error}); start again in an empty folder") from error


def _states(run: Path) -> list[Path]:
    return sorted(run.glob("state-*"))
