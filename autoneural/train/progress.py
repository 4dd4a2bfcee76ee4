"""What a run says while it works: a line or a bar, metrics.jsonl, TensorBoard when installed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autoneural.files import write_text


class MetricsLog:
    """Append-only metrics.jsonl (and TensorBoard events), cut back to the step resumed from."""

    def __init__(self, folder: Path, resume_step: int) -> None:
        path = folder / "metrics.jsonl"
        if path.exists():
            _cut(path, resume_step)
        self._file = path.open("a", encoding="utf-8")
        self._board = _tensorboard(folder / "tensorboard", resume_step)

    def write(self, step: int, record: Mapping[str, Any]) -> None:
        """Write one record for the global optimiser step `step`."""
        self._file.write(json.dumps({"step": step, **record}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{record['stage']}/{name}", value, step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


class Reporter:
    """A live bar on a terminal; elsewhere one plain line per report; nothing unless `show`."""

    def __init__(self, name: str, start: int, total: int, *, show: bool = True) -> None:
        self._show = show
        self._name, self._start, self._total = name, start, total
        self._began = time.perf_counter()
        self._bar: Progress | None = None
        if show and sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
                console=Console(),
            )
            self._task = self._bar.add_task(name, completed=start, total=total, figures="")
            self._bar.start()

    def rate(self, step: int) -> float:
        """Steps per second since this call of the run began."""
        return (step - self._start) / max(time.perf_counter() - self._began, 1e-9)

    def report(self, step: int, figures: str) -> None:
        """Show `figures` after `step` of the stage's steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures=figures)
            return
        if not self._show:
            return
        rate = self.rate(step)
        left = (self._total - step) / rate if rate else 0.0
        say(f"{self._name} {step}/{self._total}  {figures}  left {left / 60:.1f} min")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def say(line: str) -> None:
    """Print one line now, also into a pipe."""
    print(line, flush=True)


def _cut(path: Path, step: int) -> None:
    """Drop the records after `step`: those steps will be done again."""
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:  # the half line of a killed run
            continue
    write_text(path, "".join(f"{line}\n" for line in kept))


def _tensorboard(folder: Path, resume_step: int) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=resume_step + 1)
