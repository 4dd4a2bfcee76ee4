"""What a killed run resumes from: RUN/state-<step>/, replaced as a whole.

    model.safetensors   every weight in fp32 (and `heads.*` during the vision stage)
    optim.safetensors   exp_avg, exp_avg_sq, step of each trained parameter; average.*; buffer.*
    trainer.json        Position: stage, step, samples read, losses not yet logged

A run whose weights are spread over processes keeps folders model/ and optim/ of pieces instead
(`shards.py`). Either is read by any number of processes, one included.

There is no generator state: every draw (initial weights, data order, jitter, dropout) is a function
of the seed and the position.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoneural.checkpoint import load_tensors, save_tensors
from autoneural.errors import UserError
from autoneural.files import replace_folder, write_text

FORMAT = 1
Tensors = Mapping[str, Tensor]


@dataclass(kw_only=True)
class Position:
    """Where a run is. `stage` is an index; `step` and `samples` count within the stage."""

    stage: int = 0
    step: int = 0
    samples: int = 0
    total_step: int = 0
    window: list[float] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)


def save_state(run: Path, position: Position, model: Tensors, optim: Tensors) -> None:
    """Write the state of `position`, then drop older ones. A kill in between loses nothing."""
    folder = state_folder(run, position)
    if not folder.exists():
        with replace_folder(folder) as temporary:
            save_tensors(temporary / "model.safetensors", model)
            save_tensors(temporary / "optim.safetensors", optim)
            write_position(temporary, position)
    drop_older(run)


def state_folder(run: Path, position: Position) -> Path:
    """Where the state of `position` lies."""
    return run / f"state-{position.total_step:09d}-{position.stage:02d}"


def write_position(folder: Path, position: Position, shards: int = 0) -> None:
    """trainer.json of a state; `shards` is the number of its files of pieces."""
    record = {"format": FORMAT, **asdict(position)} | ({"shards": shards} if shards else {})
    write_text(folder / "trainer.json", json.dumps(record))


def drop_older(run: Path) -> None:
    """Remove all states but the newest, and what a killed run left half written."""
    for old in [*_states(run)[:-1], *run.glob(".state-*")]:
        shutil.rmtree(old)


def load_state(run: Path) -> tuple[Position, Path, dict[str, Tensor]] | None:
    """Position, folder and weights of the newest state; None when there is none.

    Raises UserError when it is damaged.
    """
    position = load_position(run)
    if position is None:
        return None
    newest = _states(run)[-1]
    return position, newest, _read(newest, "model")


def fill_tensors(state: Path, targets: Tensors) -> None:
    """Copy what `save_state` was given as `optim` into `targets`, in place. UserError: damaged."""
    tensors = _read(state, "optim")
    with torch.no_grad():
        for name in targets.keys() & tensors.keys():
            targets[name].copy_(tensors[name])
    check_filled(state, targets.keys() - tensors.keys())


def check_filled(state: Path, missing: Iterable[str]) -> None:
    """UserError where the state lacks more than moments, which a parameter may not have had yet."""
    lost = sorted(name for name in missing if not name.startswith(("step.", "exp_avg")))
    if lost:
        raise UserError(f"{state}: lacks {lost[0]}: damaged, or of another version; start anew")


def _read(state: Path, part: str) -> dict[str, Tensor]:
    whole = state / f"{part}.safetensors"
    if not (state / part).is_dir():
        return load_tensors(whole)
    from autoneural.train.shards import read_shards

    return read_shards(state / part)


def load_position(run: Path) -> Position | None:
    """Only the position of the newest state."""
    states = _states(run)
    if not states:
        return None
    path = states[-1] / "trainer.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        written, shards = record.pop("format"), record.pop("shards", 0)
        if written != FORMAT:
            raise UserError(f"{path}: format {written}, this version reads {FORMAT}")
        found = len(list(states[-1].glob("*/*.safetensors")))
        if found != shards:
            raise UserError(f"{states[-1]}: {found} of {shards} files of pieces: damaged")
        return Position(**record)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: damaged ({error}); start again in an empty folder") from error


def _states(run: Path) -> list[Path]:
    return sorted(run.glob("state-*"))
