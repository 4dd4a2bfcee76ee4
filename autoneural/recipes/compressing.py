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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from autoneural.bench.compression import CompressionReport, step_report
from autoneural.bench.measure import Exam, Measures, measure
from autoneural.checkpoint import find_checkpoint, refuse_foreign, weights_hash
from autoneural.compress.derive import open_float
from autoneural.errors import UserError
from autoneural.files import refuse_current, replace_folder, write_text
from autoneural.recipes.steps import Compression, Step, Workbench

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """Measures every checkpoint by one exam, against `original`; `of` says which exam it is."""

    original: Path
    exam: Exam
    of: dict[str, Any]
    workbench: Workbench

    @property
    def identity(self) -> str:
        return _hash({**self.of, "original": weights_hash(self.original)})

    def measure(self, folder: Path) -> Measures:
        bench = self.workbench
        same = folder == self.original
        return measure(
            folder,
            self.exam,
            reference=None if same else self.original,
            chip=None if same else bench.target,
            progress=bench.progress,
        )


@dataclass(frozen=True, kw_only=True)
class Record:
    """A step that is whole: what it was made from, and, once measured, by which exam."""

    identity: str
    seconds: float
    notes: tuple[str, ...]
    exam: str = ""
    measures: Measures | None = None

    def save(self, path: Path) -> None:
        state = self.measures and self.measures.state()
        write_text(path, json.dumps({**vars(self), "measures": state}, indent=1) + "\n")


def load_record(path: Path, identity: str) -> Record | None:
    """None where there is none of that identity, or none that can be read: it is made anew."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        measures = found["measures"] and Measures.from_state(found["measures"])
        record = Record(**{**found, "notes": tuple(found["notes"]), "measures": measures})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if record.identity == identity else None


def compress(
    chosen: Compression,
    out: str | Path,
    *,
    workbench: Workbench,
    exam: Exam,
    exam_of: dict[str, Any],
    say: Say = lambda line: None,
) -> CompressionReport:
    """Take the float checkpoint `workbench.original` through `chosen` and write the folder `out`.

    Every result is measured by `exam`; `exam_of` says how that was drawn. Raises UserError as the
    steps do, and `Stopped`; finished steps stay in `<out>-run`.
    """
    out, source = Path(out), find_checkpoint(workbench.original)
    refuse_current(out)
    refuse_foreign(out)
    if out.resolve() == source.resolve():
        raise UserError(f"{out}: is the float checkpoint itself; write to another folder")
    open_float(source)
    run = out.with_name(f"{out.name}-run")
    run.mkdir(parents=True, exist_ok=True)
    workbench = replace(workbench, original=source)
    gauge = Gauge(original=source, exam=exam, of=exam_of, workbench=workbench)
    records, folder = [measured_folder(run / "0-original.json", source, gauge, say)], source
    for made in _steps(chosen, source, run, workbench, say):
        folder = made.folder
        records.append(_measured(made.record, made.path, folder, gauge, say))
    report = _report(chosen, source, workbench, records)
    with replace_folder(out) as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)
        report.save(temporary)
    return report


def measured_recipe(
    chosen: Compression, run: Path, gauge: Gauge, say: Say = lambda line: None
) -> tuple[Path, Record]:
    """The last checkpoint of a recipe, in the folder `run`, and its record; only it is measured.

    Raises UserError as the steps do, and `Stopped`; the same call goes on.
    """
    run.mkdir(parents=True, exist_ok=True)
    *_, last = _steps(chosen, gauge.original, run, gauge.workbench, say)
    return last.folder, _measured(last.record, last.path, last.folder, gauge, say)


def measured_folder(path: Path, folder: Path, gauge: Gauge, say: Say = lambda line: None) -> Record:
    """The record, kept in the file `path`, of a checkpoint that is there: it is only measured."""
    identity = weights_hash(folder)
    record = load_record(path, identity) or Record(identity=identity, seconds=0.0, notes=())
    return _measured(record, path, folder, gauge, say)


class _Made(NamedTuple):
    folder: Path
    path: Path
    record: Record


def _steps(
    chosen: Compression, source: Path, run: Path, workbench: Workbench, say: Say
) -> Iterator[_Made]:
    """The checkpoint of every step, each made when it is asked for, from the one before."""
    for number, step in enumerate(chosen.steps, start=1):
        name = f"{number}-{step.name}"
        record = _step(step, name, source, run, workbench, say)
        source = run / name
        yield _Made(source, run / f"{name}.json", record)


def _step(step: Step, name: str, parent: Path, run: Path, workbench: Workbench, say: Say) -> Record:
    """Make the step's checkpoint, unless it is there already."""
    folder, path = run / name, run / f"{name}.json"
    identity = _hash(
        {"step": step.to_dict(), "parent": weights_hash(parent), **workbench.identity()}
    )
    record = load_record(path, identity)
    if record is not None and folder.is_dir():
        say(f"{name}: there already")
        return record
    say(f"{name}: {step.words(workbench)}")
    path.unlink(missing_ok=True)
    scratch, start = run / f"{name}-{identity[:8]}", time.perf_counter()
    notes = step.make(replace(workbench, run=scratch), parent, folder)
    seconds = round(time.perf_counter() - start, 1)
    record = Record(identity=identity, seconds=seconds, notes=tuple(notes))
    record.save(path)
    return record


def _measured(record: Record, path: Path, folder: Path, gauge: Gauge, say: Say) -> Record:
    if record.measures is not None and record.exam == gauge.identity:
        return record
    say(f"{path.stem}: measuring")
    record = replace(record, exam=gauge.identity, measures=gauge.measure(folder))
    record.save(path)
    return record


def _report(
    chosen: Compression, source: Path, workbench: Workbench, records: list[Record]
) -> CompressionReport:
    words = ["the float checkpoint", *(step.words(workbench) for step in chosen.steps)]
    names = ["original", *(step.name for step in chosen.steps)]
    original = records[0].measures
    steps = [
        step_report(name, what, record.seconds, record.notes, record.measures, original)
        for name, what, record in zip(names, words, records, strict=True)
        if record.measures is not None and original is not None
    ]
    return CompressionReport(
        checkpoint=source.name,
        recipe=chosen.name,
        settings=chosen.to_dict(),
        chip=workbench.chip,
        steps=tuple(steps),
    )


def _hash(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
