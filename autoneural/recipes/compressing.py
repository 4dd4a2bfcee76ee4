"""Runs a compression recipe: checkpoint -> step -> checkpoint -> step -> ..., each one measured.

    OUT-run/1-prune/        the checkpoint after a step
    OUT-run/1-prune.json    what made it (to know it again), seconds, notes, figures
    OUT/                    the last checkpoint, with report.html and report.json beside it

A step whose record says that it is whole is not repeated: the same command goes on where it was
stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from autoneural.bench.compression import CompressionReport, step_report
from autoneural.bench.measure import Gauge, Measures
from autoneural.checkpoint import find_checkpoint, refuse_foreign, weights_hash
from autoneural.errors import UserError
from autoneural.files import refuse_current, replace_folder, write_text
from autoneural.recipes.steps import Compression, Step, Workbench

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class _Record:
    """A finished step: what it was made from, and what it is."""

    identity: str
    seconds: float
    notes: tuple[str, ...]
    measures: Measures | None

    def save(self, path: Path) -> None:
        measures = self.measures and self.measures.to_dict()
        write_text(path, json.dumps({**vars(self), "measures": measures}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> _Record | None:
        """None where there is none, or none that can be read: the step is made anew."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            measures = found["measures"] and Measures.from_dict(found["measures"])
            return cls(
                identity=found["identity"],
                seconds=found["seconds"],
                notes=tuple(found["notes"]),
                measures=measures,
            )
        except (OSError, ValueError, KeyError, TypeError, UserError):
            return None


def compress(
    chosen: Compression,
    checkpoint: str | Path,
    out: str | Path,
    *,
    workbench: Workbench,
    gauge: Gauge,
    say: Say,
) -> CompressionReport:
    """Take the float `checkpoint` through the steps of `chosen` and write the folder `out`.

    `workbench` is what steps work with, `gauge` measures every result by the same questions, texts
    and samples. Raises UserError as the steps do; finished steps stay in `<out>-run`.
    """
    out, source = Path(out), find_checkpoint(checkpoint)
    refuse_current(out)
    refuse_foreign(out)
    if out.resolve() == source.resolve():
        raise UserError(f"{out}: is the float checkpoint itself; write to another folder")
    run = out.with_name(f"{out.name}-run")
    run.mkdir(parents=True, exist_ok=True)
    first = _finished(run / "0-original.json", weights_hash(source), source, gauge, say)
    records, folder = [first], source
    for number, step in enumerate(chosen.steps, start=1):
        name = f"{number}-{step.name}"
        folder, record = _step(step, name, folder, run, workbench, gauge, say)
        records.append(record)
    report = _report(chosen, source, workbench, gauge, records)
    with replace_folder(out) as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)
        report.save(temporary)
    return report


def _step(
    step: Step,
    name: str,
    parent: Path,
    run: Path,
    workbench: Workbench,
    gauge: Gauge,
    say: Say,
) -> tuple[Path, _Record]:
    folder, path = run / name, run / f"{name}.json"
    identity = _identity(step, parent, workbench)
    record = _Record.load(path)
    if record is None or record.identity != identity or not folder.is_dir():
        say(f"{name}: {step.words}")
        path.unlink(missing_ok=True)
        start = time.perf_counter()
        notes = step.make(replace(workbench, run=run / f"{name}-run"), parent, folder)
        seconds = round(time.perf_counter() - start, 1)
        record = _Record(identity=identity, seconds=seconds, notes=tuple(notes), measures=None)
        record.save(path)
    else:
        say(f"{name}: there already")
    return folder, _measured(record, path, folder, gauge, say)


def _finished(path: Path, identity: str, folder: Path, gauge: Gauge, say: Say) -> _Record:
    """The original's record: nothing is made, only measured."""
    record = _Record.load(path)
    if record is None or record.identity != identity:
        record = _Record(identity=identity, seconds=0.0, notes=(), measures=None)
    return _measured(record, path, folder, gauge, say)


def _measured(record: _Record, path: Path, folder: Path, gauge: Gauge, say: Say) -> _Record:
    if record.measures is not None and record.measures.by == gauge.identity:
        return record
    say(f"{path.stem}: measuring")
    record = replace(record, measures=gauge.measure(folder))
    record.save(path)
    return record


def _identity(step: Step, parent: Path, workbench: Workbench) -> str:
    facts = {"step": step.to_dict(), "parent": weights_hash(parent), **workbench.identity()}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _report(
    chosen: Compression,
    source: Path,
    workbench: Workbench,
    gauge: Gauge,
    records: list[_Record],
) -> CompressionReport:
    words = ["the float checkpoint", *(step.words for step in chosen.steps)]
    names = ["original", *(step.name for step in chosen.steps)]
    original = records[0].measures
    assert original is not None
    steps = [
        step_report(name, what, record.seconds, record.notes, record.measures, original)
        for name, what, record in zip(names, words, records, strict=True)
        if record.measures is not None
    ]
    return CompressionReport(
        checkpoint=source.name,
        recipe=chosen.name,
        settings=chosen.to_dict(),
        chip=workbench.chip,
        steps=tuple(steps),
    )
