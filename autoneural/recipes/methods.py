"""Every compression method alone, made and measured: `autoneural bench methods`.

    RUN/float.json          the float checkpoint's figures
    RUN/<method>/           its steps, kept as `compress` keeps them
    RUN/bundles/<method>/   for the CPU's speed

What is there is not made again, so the command goes on where it was stopped; speed alone is
measured anew, because it means something only beside the others of the same minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoneural.bench.answer_bundle import EngineAnswerer
from autoneural.bench.cpu_speed import Speed, compare_speed
from autoneural.bench.measure import Measures
from autoneural.bench.method_table import BASE, FLOAT, MethodRow, against_float, gains_and_losses
from autoneural.bench.quality import evaluate
from autoneural.bundle import Bundle
from autoneural.checkpoint import find_checkpoint, load_checkpoint, weights_hash
from autoneural.errors import UserError
from autoneural.export.bundle import ExportOptions, build_bundle
from autoneural.recipes.compressing import (
    Gauge,
    Record,
    load_record,
    measured_folder,
    measured_recipe,
)
from autoneural.recipes.steps import (
    Compression,
    LowRank,
    Mixed,
    Prune,
    Quantize,
    Rewrite,
    Sparsify,
    Step,
)
from autoneural.runtime.engine import Engine

_STEPS: dict[str, tuple[Step, ...]] = {
    BASE: (Quantize(),),
    "nearest": (Quantize(rounding="nearest"),),
    "sequential": (Quantize(rounding="sequential"),),
    "fold-equalise": (Rewrite(), Quantize()),
    "smooth": (Rewrite(ways=("smooth",)), Quantize()),
    "rotate": (Rewrite(ways=("rotate",)), Quantize()),
    "w4a16full": (Quantize(precision="w4a16full"),),
    "mixed": (Mixed(),),
    "prune": (Prune(), Quantize()),
    "svd": (LowRank(), Quantize()),
    "nmf": (LowRank(method="nmf"), Quantize()),
    "sparsify": (Sparsify(), Quantize()),
}
DYNAMIC = "dynamic"
METHODS = (*_STEPS, DYNAMIC)
_DYNAMIC_WORDS = "the target cpu of ptq by --fast: activations ranged at run time"
_CONTEXT = 1024

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A method that is made: its checkpoint, what became of it, and its bundle for the CPU."""

    words: str
    folder: Path
    record: Record
    target: str = "cpu"
    dynamic: bool = False

    @property
    def measures(self) -> Measures:
        assert self.record.measures is not None
        return self.record.measures


def method_table(
    names: Sequence[str],
    added: Mapping[str, str],
    *,
    gauge: Gauge,
    run: Path,
    repeats: int,
    say: Say = lambda line: None,
    progress: Progress = lambda what, done, total: None,
) -> list[MethodRow]:
    """The rows: float, plain ptq, then each of `names`, then checkpoints `added` by name -> folder.

    A method that cannot be had is a row with its error. `repeats` 0: no speed. Raises UserError
    for a name that is no method or is one and is added, and where ptq itself fails.
    """
    folders = _checked(names, added)
    original = measured_folder(run / "float.json", gauge.original, gauge, say)
    entries = {FLOAT: _Entry(words="", folder=gauge.original, record=original, target=FLOAT)}
    errors: dict[str, MethodRow] = {}
    for name in dict.fromkeys((BASE, *names)):
        try:
            entries[name] = _make(name, run, gauge, entries, say)
        except UserError as error:
            if name == BASE:
                raise
            errors[name] = MethodRow(name=name, words="", error=str(error))
            say(f"{name}: {error}")
    for name, folder in folders.items():
        record = measured_folder(run / f"added-{name}.json", folder, gauge, say)
        target = FLOAT if load_checkpoint(folder).encodings is None else "cpu"
        entries[name] = _Entry(words=str(folder), folder=folder, record=record, target=target)
    bundles = _bundles(entries, run, say) if repeats else {}
    speeds = _speeds(entries, bundles, gauge, repeats, progress)
    rows = _rows(entries, bundles, speeds)
    return [*rows, *errors.values()]


def _checked(names: Sequence[str], added: Mapping[str, str]) -> dict[str, Path]:
    """The folders that are added: what is wrong with them is said before hours of work."""
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise UserError(f"method {unknown[0]!r}: expected some of {', '.join(METHODS)}")
    taken = [name for name in added if name in (*METHODS, FLOAT)]
    if taken:
        raise UserError(f"--add {taken[0]}=...: is the name of a method; give it another")
    return {name: find_checkpoint(folder) for name, folder in added.items()}


def _make(name: str, run: Path, gauge: Gauge, entries: Mapping[str, _Entry], say: Say) -> _Entry:
    if name == DYNAMIC:
        return _dynamic(entries[BASE], run, gauge, say)
    say(f"{name}:")
    chosen = Compression(name=name, steps=_STEPS[name])
    folder, record = measured_recipe(chosen, run / name, gauge, say)
    words = "; ".join(step.words(gauge.workbench) for step in chosen.steps)
    return _Entry(words=words, folder=folder, record=record)


def _dynamic(base: _Entry, run: Path, gauge: Gauge, say: Say) -> _Entry:
    """Answered by the bundle itself: PyTorch does not compute these ranges. No texts, no chip."""
    path, identity = run / f"{DYNAMIC}.json", f"{DYNAMIC} {weights_hash(base.folder)}"
    entry = replace(base, words=_DYNAMIC_WORDS, dynamic=True)
    record = load_record(path, identity)
    if record is None or record.exam != gauge.identity:
        bundle = _bundle(entry, run / "bundles" / DYNAMIC, say)
        say(f"{DYNAMIC}: measuring")
        answerer = EngineAnswerer(Engine(bundle, "cpu", threads=1))
        report, records = evaluate(answerer, gauge.exam.tasks, blind=False)
        measures = replace(
            base.measures,
            name=DYNAMIC,
            accuracy={task: found["accuracy"] for task, found in report["tasks"].items()},
            records=tuple(records),
            perplexity=math.nan,
            losses=(),
            sqnr_db={},
            compiled_bytes=None,
            not_compiled="HTP ranges nothing at run time",
        )
        record = Record(
            identity=identity, seconds=0.0, notes=(), exam=gauge.identity, measures=measures
        )
        record.save(path)
    return replace(entry, record=record)


def _bundles(entries: Mapping[str, _Entry], run: Path, say: Say) -> dict[str, Path]:
    """Those that can be exported; of the others nothing is known about speed."""
    found = {}
    for name, entry in entries.items():
        try:
            found[name] = _bundle(entry, run / "bundles" / name, say)
        except UserError as error:
            say(f"{name}: no bundle: {error}")
    return found


def _bundle(entry: _Entry, out: Path, say: Say) -> Path:
    """The checkpoint's bundle for the CPU, unless it is there already."""
    limit = load_checkpoint(entry.folder).config.text.max_position_embeddings
    options = ExportOptions.within(min(_CONTEXT, limit))
    options = replace(options, verify=False, fast=entry.dynamic)
    try:
        made = Bundle.load(out).manifest["recipe"]
        there = (made["parent"], made["fast"]) == (weights_hash(entry.folder), entry.dynamic)
    except (UserError, KeyError):
        there = False
    if not there:
        say(f"{out.name}: exporting")
        build_bundle(entry.folder, out, [entry.target], options, progress=lambda line: None)
    return out


def _speeds(
    entries: Mapping[str, _Entry],
    bundles: Mapping[str, Path],
    gauge: Gauge,
    repeats: int,
    progress: Progress,
) -> dict[str, Speed]:
    if not bundles:
        return {}
    order = sorted(bundles, key=lambda name: name != BASE)  # ratios are to the first
    items = [item for asked in gauge.exam.tasks.values() for item in asked]
    targets = {name: (bundles[name], entries[name].target) for name in order}
    return compare_speed(targets, items, repeats, progress)


def _rows(
    entries: Mapping[str, _Entry], bundles: Mapping[str, Path], speeds: Mapping[str, Speed]
) -> list[MethodRow]:
    original, plain = entries[FLOAT].measures, entries[BASE].measures
    rows = {
        name: MethodRow(
            name=name,
            words=entry.words,
            seconds=entry.record.seconds,
            notes=entry.record.notes,
            weight_bytes=None if entry.dynamic else entry.measures.weight_bytes,
            binary_bytes=entry.measures.compiled_bytes,
            not_compiled="" if name == FLOAT else entry.measures.not_compiled,
            bundle_bytes=_data_bytes(bundles[name]) if name in bundles else None,
            speed=speeds.get(name),
            **against_float(entry.measures, original),
        )
        for name, entry in entries.items()
    }
    for name, row in rows.items():
        if name not in (FLOAT, BASE):
            gains, losses = gains_and_losses(row, entries[name].measures, rows[BASE], plain)
            rows[name] = replace(row, gains=gains, losses=losses)
    return list(rows.values())


def _data_bytes(bundle: Path) -> int:
    """Of the weights that the graphs point into; the embedding table lies beside them."""
    return sum(file.stat().st_size for file in bundle.glob("*/*.data"))
