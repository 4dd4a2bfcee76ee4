"""Quantisation-aware training over a checkpoint and data files.

    float checkpoint -> RUN/ptq (post-training quantisation) -> train with rounding in place,
    distilling from the float model -> freeze -> quantised checkpoint

What RUN/ptq holds is a quantised checkpoint like any other: what QAT starts from, to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoneural.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    weights_hash,
)
from autoneural.compress.derive import FloatCheckpoint, open_float
from autoneural.compress.precision import Precision, find_precision
from autoneural.compress.qat import RANGES, RoundedObjective, finish_qat, start_qat
from autoneural.compress.qat_on_chip import ChipForward
from autoneural.compress.quantize import (
    Sample,
    activation_encodings,
    build_report,
    frozen_tensors,
    integer_weights,
    post_training_quantize,
    report_metrics,
)
from autoneural.compress.snap import snap_encodings
from autoneural.data.tokenizer import Tokenizer
from autoneural.model.vlm import VLM
from autoneural.recipes.distilling import objective_factory, open_teacher
from autoneural.recipes.quantizing import calibration_samples
from autoneural.recipes.recipe import DataSource, Recipe
from autoneural.recipes.training import Method, run_recipe
from autoneural.target.chips import Chip, find_chip
from autoneural.train.curriculum import PARTS, Stage
from autoneural.train.distill import Distillation
from autoneural.train.state import load_position
from autoneural.train.trainer import Outcome, RunOptions

_COMPARED = 8  # samples, for the report


def default_qat_stage() -> Stage:
    """Small steps of everything; scales move by their own rate."""
    train = (*PARTS, RANGES)
    return Stage(
        name="qat",
        train=train,
        mixture={"chat": 1.0},
        steps=500,
        batch_size=8,
        lr={**dict.fromkeys(PARTS, 3e-5), RANGES: 3e-4},
        warmup=20,
        weight_decay=0.0,
        ema=0.98,
    )


def qat(
    checkpoint: str | Path,
    data: str | Path,
    out: str | Path,
    run: str | Path,
    *,
    precision: str | Path | Precision = "w4a16",
    teacher: str | Path | None = None,
    how: Distillation | None = None,
    stage: Stage | None = None,
    sources: Mapping[str, DataSource] | None = None,
    samples: int = 128,
    chip: str | None = None,
    seed: int = 0,
    options: RunOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Outcome:
    """Quantise the float `checkpoint` and train it to answer as before; writes `out`.

    The teacher is the checkpoint itself unless another is named. `samples` rows of the training
    file calibrate (`progress` as in `post_training_quantize`); with `chip` the forward pass is that
    chip's (`compress/qat_on_chip.py`), and recipe.json says what the result loses there. Trains in
    fp32 unless told otherwise: activations of 16 bits would be rounded to the 8 that bf16 has.
    `run` keeps the state: call again to resume.
    """
    target = None if chip is None else find_chip(chip)
    chosen = find_precision(precision)
    options, how = options or RunOptions(), how or Distillation()
    sources = sources or {"chat": DataSource()}
    rows = Path(data) / next(iter(sources.values())).file
    if options.precision == "auto":
        options = replace(options, precision="fp32")
    source = open_float(checkpoint)
    expert = open_teacher(teacher or checkpoint, checkpoint, source.config, how, options)
    distilled = objective_factory(source.config, expert, how, "all", Tokenizer.load(source.folder))
    steps = _Qat(
        source=source,
        precision=chosen,
        samples=calibration_samples(checkpoint, rows, samples),
        run=Path(run),
        chip=target,
        progress=progress,
    )
    follow = None if target is None else ChipForward(target.htp, steps.samples).follow
    method = Method(
        facts=steps.facts() | _teaching(teacher or checkpoint, how),
        prepare=steps.prepare,
        objective=lambda stage: RoundedObjective(distilled(stage), follow),
        save=steps.save,
    )
    return run_recipe(
        _recipe(source, sources, stage, seed),
        data=data,
        tokenizer=source.folder,
        run=run,
        output=out,
        start=checkpoint,
        options=options,
        method=method,
    )


def _recipe(
    source: FloatCheckpoint,
    sources: Mapping[str, DataSource],
    stage: Stage | None,
    seed: int,
) -> Recipe:
    return Recipe(
        name="qat",
        preset=source.config.name,
        data=dict(sources),
        stages=(stage or default_qat_stage(),),
        seed=seed,
    )


def _teaching(teacher: str | Path, how: Distillation) -> dict[str, Any]:
    return {"teacher": weights_hash(teacher), "distillation": how.to_dict()}


@dataclass(frozen=True, kw_only=True)
class _Qat:
    """What comes before and after the training. `ptq` of the run folder is where it starts."""

    source: FloatCheckpoint
    precision: Precision
    samples: list[Sample]
    run: Path
    chip: Chip | None
    progress: Callable[[str, int, int], None] | None

    def facts(self) -> dict[str, Any]:
        """What decides the result, besides recipe and teacher."""
        return {
            "method": "qat",
            "stage": "quantize",
            "precision": self.precision.to_dict(),
            "calibration_samples": len(self.samples),
            "arithmetic": "onnx" if self.chip is None else self.chip.generation,
        }

    @property
    def ptq(self) -> Path:
        return self.run / "ptq"

    def prepare(self, model: VLM) -> None:
        """Quantise, unless a run that goes on has, and make `model` learn from there."""
        # Without a state the run may have been another one.
        if load_position(self.run) is None:
            post_training_quantize(
                self.source.folder,
                self.samples,
                self.ptq,
                precision=self.precision,
                chip=self.chip,
                progress=self.progress,
            )
        self._start(model)

    def _start(self, model: VLM) -> Checkpoint:
        start = load_checkpoint(self.ptq)
        start_qat(model, self.precision, activation_encodings(start), integer_weights(start))
        return start

    def save(self, folder: Path, trained: VLM, made: dict[str, Any]) -> None:
        """Freeze a copy of what was trained and write it, with what it lost."""
        model = self.source.model()
        start = self._start(model)
        load_weights(model, trained.state_dict(), self.run)
        mask_value = (start.encodings or {}).get("mask_value")
        encodings = finish_qat(model, self.precision, mask_value)
        snap_encodings(model, encodings, self.samples)
        compared = self.samples[:_COMPARED]
        report = build_report(self.source.model(), model, compared, self.precision, self.chip)
        save_checkpoint(
            folder,
            frozen_tensors(model),
            model.config,
            self.source.folder,
            {**made, "metrics": report_metrics(report, self.chip)},
            encodings,
        )
