"""Compression as data: steps that turn one checkpoint into the next, and recipes made of them.

A recipe is a plain value, so a file of one's own holds one in a few lines:

    from autoneural.recipes.steps import Compression, Distil, Prune, Quantize

    recipe = Compression(name="mine", steps=(Prune(ratio=0.3), Distil(steps=500), Quantize()))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

from autoneural.compress.derive import open_float, save_derived
from autoneural.compress.equalize import equalize
from autoneural.compress.fold import fold, untie_head
from autoneural.compress.low_rank import factorise, merge
from autoneural.compress.precision import Precision, find_precision, save_precision
from autoneural.compress.prune import Importance, prune
from autoneural.compress.quantize import Sample, post_training_quantize
from autoneural.compress.report import Report
from autoneural.compress.rewrite import Rewrite as Changes
from autoneural.compress.rotate import rotate
from autoneural.compress.rounding import Rounding
from autoneural.compress.search import Budget, search_precision
from autoneural.compress.smooth import smooth
from autoneural.compress.sparse import sparsify
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.recipes.distilling import Modality, default_distillation, default_stage, distil
from autoneural.recipes.quantized_training import default_qat_stage, qat
from autoneural.recipes.quantizing import calibration_samples
from autoneural.recipes.recipe import DataSource
from autoneural.target.chips import Chip, find_chip
from autoneural.train.distill import Distillation
from autoneural.train.sources import Form
from autoneural.train.trainer import Outcome, RunOptions


def _rotate(model: VLM, _: Sequence[Sample]) -> Changes:
    """Trained norms stand in the way of a rotation until they are folded, the closing one too."""
    untie_head(model)
    fold(model)
    return rotate(model)


WAYS: dict[str, Callable[[VLM, Sequence[Sample]], Changes]] = {
    "fold": lambda model, _: fold(model),
    "equalize": lambda model, _: equalize(model),
    "smooth": lambda model, runs: smooth(model, runs),
    "rotate": _rotate,
}
"""Rewrites that leave the float model's answers as they are, by name."""


class Stopped(Exception):
    """A step was stopped by Ctrl-C or its time; the same command goes on."""


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """What steps work with: `original` is the float checkpoint that teaches, `data` a file of
    training rows, `run` a folder for scratch."""

    original: Path
    data: Path
    run: Path
    samples: int = 128
    chip: str | None = None
    precision: str | Precision | None = None
    """In place of every step's own."""
    options: RunOptions = field(default_factory=RunOptions)
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None
    show: Callable[[Report], None] = lambda report: None
    """Gets the modules' errors of a step that quantises."""

    @cached_property
    def target(self) -> Chip | None:
        return None if self.chip is None else find_chip(self.chip)

    def runs(self, checkpoint: str | Path) -> list[Sample]:
        """Calibration conversations as the model of `checkpoint` reads them."""
        return calibration_samples(checkpoint, self.data, self.samples)

    def sources(self, form: Form) -> dict[str, DataSource]:
        """What training steps draw from."""
        return {"chat": DataSource(file=self.data.name, form=form)}

    def chosen(self, own: str) -> Precision:
        """The precision that is asked for, or the step's own."""
        return find_precision(self.precision or own)

    def identity(self) -> dict[str, Any]:
        """What decides the weights beside the recipe."""
        wanted = self.precision
        return {
            "data": str(self.data.resolve()),
            "samples": self.samples,
            "chip": self.chip,
            "precision": wanted.to_dict() if isinstance(wanted, Precision) else wanted,
        }


class Step(Protocol):
    """One change. `words` say it in a line; `make` writes the folder `out` and returns notes.

    Both for the workbench they are given, whose precision is in place of the step's own.
    """

    name: ClassVar[str]

    def words(self, bench: Workbench) -> str: ...

    def to_dict(self) -> dict[str, Any]: ...

    def make(self, bench: Workbench, source: Path, out: Path) -> list[str]: ...


class _Data:
    """The part that all steps have in common: they are dataclasses."""

    name: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, the step's name first."""
        settings = asdict(self)  # pyright: ignore[reportArgumentType]
        return json.loads(json.dumps({"step": self.name, **settings}))


@dataclass(frozen=True, kw_only=True)
class Rewrite(_Data):
    """Exact rewrites of the float model: what follows rounds better."""

    name: ClassVar[str] = "rewrite"
    ways: tuple[str, ...] = ("fold", "equalize")

    def words(self, bench: Workbench) -> str:
        return "the same function, written to round better: " + ", ".join(self.ways)

    def make(self, bench: Workbench, source: Path, out: Path) -> list[str]:
        unknown = [way for way in self.ways if way not in WAYS]
        if unknown:
            raise UserError(f"rewrite {unknown[0]!r}: expected one of {', '.join(WAYS)}")
        opened = open_float(source)
        model, notes = opened.model(), []
        runs = bench.runs(source) if "smooth" in self.ways else []
        for way in self.ways:
            done = WAYS[way](model, runs)
            notes.append(f"{way}: {len(done.pairs)} changed, {len(done.skipped)} left")
        facts = {"stage": "rewrite", "ways": list(self.ways)}
        save_derived(out, model.state_dict(), model.config, opened, facts, exact=True)
        return notes


@dataclass(frozen=True, kw_only=True)
class Prune(_Data):
    """Structured: narrower, on the chip's tiles. See `compress.prune`."""

    name: ClassVar[str] = "prune"
    ratio: float = 0.25
    parts: tuple[str, ...] = ("mlp", "vision")
    importance: Importance = "taylor"
    tile: int = 32

    def words(self, bench: Workbench) -> str:
        return f"{100 * self.ratio:g} % of the widths of {', '.join(self.parts)}"

    def make(self, bench: Workbench, source: Path, out: Path) -> list[str]:
        opened = open_float(source)
        model, config, record = prune(
            opened.model(),
            opened.config,
            bench.runs(source),
            ratio=self.ratio,
            parts=self.parts,
            importance=self.importance,
            tile=self.tile,
        )
        save_derived(out, model.state_dict(), config, opened, {"stage": "prune", **record})
        return [_parameters(record)]


@dataclass(frozen=True, kw_only=True)
class Sparsify(_Data):
    """Unstructured: zeros, no smaller and no faster on any NPU. See `compress.sparse`."""

    name: ClassVar[str] = "sparsify"
    ratio: float = 0.5

    def words(self, bench: Workbench) -> str:
        return f"{100 * self.ratio:g} % of the weights set to zero (no NPU gains anything)"

    def make(self, bench: Workbench, source: Path, out: Path) -> list[str]:
        opened = open_float(source)
        model = opened.model()
        shares = sparsify(model, bench.runs(source), ratio=self.ratio)
        facts = {"stage": "sparsify", "ratio": self.ratio, "zeros": shares}
        save_derived(out, model.state_dict(), opened.config, opened, facts)
        return [f"zeros in {len(shares)} layers"]


@dataclass(frozen=True, kw_only=True)
class LowRank(_Data):
    """Linears as pairs of smaller ones, merged back where that is not cheaper."""

    name: ClassVar[str] = "low-rank"
    energy: float = 0.99
    layers: tuple[str, ...] = ("language_model.model.layers.*",)
    method: Any = "svd"

    def words(self, bench: Workbench) -> str:
        return f"{self.method.upper()}, ranks that keep {100 * self.energy:g} % of the energy"

    def make(self, bench: Workbench, source: Path, out: Path) -> list[str]:
        opened = open_float(source)
        model, config, record = factorise(
            opened.model(),
            opened.config,
            bench.runs(source),
            energy=self.energy,
            layers=self.layers,
            method=self.method,
        )
        model, config, merged = merge(model, config)
        facts = {"stage": "low-rank", **record, "merged": merged}
        save_derived(out, model.state_dict(), config, opened, facts)
        kept = len(config.ranks)
        return [_parameters(record), f"{kept} of {len(record['layers'])} layers are pairs now"]


@dataclass(frozen=True, kw_only=True)
class Distil(_Data):
    """Recovery: trains on what the original computes."""

    name: ClassVar[str] = "distil"
    steps: int = 1000
    batch_size: int = 16
    lr: float = 1e-4
    max_length: int = 384
    """As `Stage.max_length`; with the longest rows whole, much of every batch is padding."""
    modality: Modality = "all"
    how: Distillation | None = None

    def words(self, bench: Workbench) -> str:
        return f"{self.steps} steps of {self.batch_size} after the original"

    def make(self, bench: Workbench, source: Path, out: Path) -> list[str]:
        how = self.how or default_distillation(self.modality)
        stage = default_stage(self.modality, how)
        outcome = distil(
            source,
            bench.original,
            bench.data.parent,
            out,
            bench.run,
            modality=self.modality,
            how=how,
            sources=bench.sources("text" if self.modality == "language" else "chat"),
            stage=replace(
                stage,
                steps=self.steps,
                batch_size=self.batch_size,
                max_length=self.max_length,
                lr=dict.fromkeys(stage.lr, self.lr),
            ),
            options=bench.options,
        )
        return _trained(outcome)


@dataclass(frozen=True, kw_only=True)
class Quantize(_Data):
    """After training, by calibration alone."""

    name: ClassVar[str] = "quantize"
    precision: str = "w4a16kv8"
    rounding: Rounding = "compensated"

    def words(self, bench: Workbench) -> str:
        return f"{bench.chosen(self.precision).name}, {self.rounding} rounding"

    def make(self, bench: Workbench, source: Path, out: Path) -> list[str]:
        report = post_training_quantize(
            source,
            bench.runs(source),
            out,
            precision=bench.chosen(self.precision),
            rounding=self.rounding,
            chip=bench.target,
            progress=bench.progress,
        )
        bench.show(report)
        return [f"{key}: {value} dB" for key, value in report.summary().items()]


@dataclass(frozen=True, kw_only=True)
class Mixed(_Data):
    """Bits per group of modules under a budget, then `Quantize` with them."""

    name: ClassVar[str] = "mixed"
    nats: float | None = 0.01
    bytes: int | None = None
    rounding: Rounding = "compensated"

    def words(self, bench: Workbench) -> str:
        limit = f"{self.bytes:,} bytes" if self.bytes else f"{self.nats:g} nats per token"
        return f"bits per group of modules, at most {limit}"

    def make(self, bench: Workbench, source: Path, out: Path) -> list[str]:
        budget = Budget(nats=None if self.bytes else self.nats, bytes=self.bytes)
        found = search_precision(
            open_float(source).model(),
            bench.runs(source),
            budget,
            chip=bench.target,
            progress=bench.progress,
        )
        bench.run.mkdir(parents=True, exist_ok=True)
        save_precision(bench.run / "precision.json", found.precision)
        quantize = Quantize(rounding=self.rounding)
        notes = quantize.make(replace(bench, precision=found.precision), source, out)
        lowered = [point.lowered.name for point in found.front if point.lowered]
        return [f"lowered: {', '.join(lowered) or 'nothing'}", *notes]


@dataclass(frozen=True, kw_only=True)
class Qat(_Data):
    """Trains with rounding in place, after the original."""

    name: ClassVar[str] = "qat"
    precision: str = "w4a16kv8"
    steps: int = 500
    batch_size: int = 8
    max_length: int = 384
    """As in `Distil`."""

    def words(self, bench: Workbench) -> str:
        chosen = bench.chosen(self.precision).name
        return f"{chosen}, {self.steps} steps of {self.batch_size} with rounding in place"

    def make(self, bench: Workbench, source: Path, out: Path) -> list[str]:
        stage = replace(
            default_qat_stage(),
            steps=self.steps,
            batch_size=self.batch_size,
            max_length=self.max_length,
        )
        outcome = qat(
            source,
            bench.data.parent,
            out,
            bench.run,
            precision=bench.chosen(self.precision),
            teacher=bench.original,
            stage=stage,
            sources=bench.sources("chat"),
            samples=bench.samples,
            chip=bench.chip,
            options=bench.options,
            progress=bench.progress,
        )
        return _trained(outcome)


@dataclass(frozen=True, kw_only=True)
class Compression:
    """A named list of steps."""

    name: str
    steps: tuple[Step, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"name": self.name, "steps": [step.to_dict() for step in self.steps]}


def _trained(outcome: Outcome) -> list[str]:
    if not outcome.finished:
        raise Stopped(outcome.reason)
    return [f"{stage}: loss {found['loss']:.4f}" for stage, found in outcome.results.items()]


def _parameters(record: dict[str, Any]) -> str:
    before, after = record["parameters"]
    return f"parameters {before:,} to {after:,} ({100 * (after / before - 1):+.1f} %)"
