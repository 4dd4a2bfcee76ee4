"""The one training loop: every stage, every objective, CPU or CUDA, resumable to the bit.

    for stage:  freeze -> optimiser -> [ batches -> loss -> backward ]*accumulate -> clip -> step
    state in RUN/ every few minutes and on Ctrl-C; losses in RUN/metrics.jsonl

A step's arithmetic depends only on the weights, the optimiser's moments, the seed and the position;
all are saved, so a run that was killed repeats the losses it would have had.
"""

from __future__ import annotations

import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autoneural.checkpoint import load_weights
from autoneural.data.cells import box_vocabulary
from autoneural.data.dataset import Mixture, Source
from autoneural.data.loader import Batch, BatchStream, Jitter
from autoneural.data.processor import Processor
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.train.curriculum import (
    Stage,
    check_hotspots_met,
    check_mixture,
    describe_trainable,
    select_trainable,
)
from autoneural.train.device import Precision, compile_parts, pick_device, pick_precision
from autoneural.train.engine import Alone, Engine, to_device
from autoneural.train.objectives import LanguageObjective, Objective, VisionObjective
from autoneural.train.optim import (
    AverageWeights,
    build_optimizer,
    init_moments,
    lr_factor,
    optimizer_tensors,
    set_lr,
    stage_lr,
)
from autoneural.train.progress import MetricsLog, Reporter, say
from autoneural.train.state import Position, load_state
from autoneural.train.vision_heads import attribute_vocabulary


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run, as opposed to what: nothing here is part of the recipe.

    `minutes` ends a slice after that wall-clock time, to be resumed by the same call.
    """

    device: str = "auto"
    parallel: Literal["ddp", "fsdp"] | None = None
    """How processes that torchrun started share the work (`distributed.py`); default ddp."""
    precision: Precision = "auto"
    minutes: float | None = None
    save_minutes: float = 3.0
    log_every: int = 20
    workers: int = 1
    compile: bool = False
    """Fuse with torch.compile (needs a C++ compiler): faster, but a resumed run may compile other
    kernels than the one it continues, so losses then agree closely instead of to the bit."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call of `Trainer.run` ended. `results` holds loss and figures per begun stage."""

    finished: bool
    reason: Literal["finished", "minutes", "signal"]
    results: dict[str, dict[str, Any]]


@dataclass(kw_only=True)
class _Running:
    """The live objects of one stage."""

    stage: Stage
    model: VLM
    objective: Objective
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.AdamW
    average: AverageWeights | None

    def weights(self) -> dict[str, Tensor]:
        return {**self.model.state_dict(), **self.objective.modules.state_dict()}

    def others(self) -> dict[str, Tensor]:
        """What a resume needs beside the weights."""
        tensors = optimizer_tensors(self.optimizer, self.parameters)
        tensors |= {f"buffer.{k}": v for k, v in self.objective.buffers.items()}
        if self.average is not None:
            tensors |= {f"average.{k}": v for k, v in self.average.tensors.items()}
        return tensors


class Trainer:
    """Trains `model` through `stages`, keeping its state in the folder `run`.

    Constructing it on a folder with a state picks up there; `run()` goes on until the last stage
    is done, the minutes are up, or Ctrl-C. `objective` replaces the language objective (it gets the
    stage); `on_stage_end` is called with the stage's name when its weights are final. `engine` is
    one of several processes (`distributed.open_engine`); without it, this one computes alone.
    """

    def __init__(
        self,
        model: VLM,
        processor: Processor,
        sources: Mapping[str, Source],
        stages: Sequence[Stage],
        run: str | Path,
        *,
        seed: int = 0,
        options: RunOptions | None = None,
        objective: Callable[[Stage], Objective] | None = None,
        on_stage_end: Callable[[str], object] | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.options = options or RunOptions()
        self.engine = engine or Alone(pick_device(self.options.device))
        self.device = self.engine.device
        precision = pick_precision(self.options.precision, self.device)
        # Measured in each process: all must compute alike.
        self.precision = "fp32" if self.engine.any(precision == "fp32")[0] else precision
        self.stages, self.seed, self.folder = tuple(stages), seed, Path(run)
        self._processor, self._sources = processor, sources
        self._objective, self._on_stage_end = objective, on_stage_end
        # All stages now: a mistake in the last one should not wait for hours.
        for index, stage in enumerate(self.stages):
            check_mixture(stage, sources)
            check_hotspots_met(stage, sources)
            self._mixture(stage, index)
            if stage.batch_size < self.engine.size:
                raise UserError(
                    f"stage {stage.name}: batch_size {stage.batch_size} is less than a row for "
                    f"each of {self.engine.size} processes"
                )
            for name in select_trainable(model, stage):
                stage_lr(stage, name)
        self.folder.mkdir(parents=True, exist_ok=True)
        saved = load_state(self.folder)
        self.position = saved[0] if saved else Position()
        self._state, self._saved_heads = None, {}
        if saved:
            self._state, weights = saved[1], saved[2]
            self._saved_heads = {k: v for k, v in weights.items() if k.startswith("heads.")}
            rest = {k: v for k, v in weights.items() if k not in self._saved_heads}
            load_weights(model, rest, self.folder)
        self.model = self.engine.place(model)
        if self.options.compile and self.engine.size > 1:
            raise UserError("compile: in one process only; leave --compile out under torchrun")
        if self.options.compile:
            compile_parts(self.model)
        self._asked = False
        self._stop: Literal["minutes", "signal"] | None = None

    def run(self) -> Outcome:
        """Train until the end or a reason to stop; the state is saved in either case."""
        began = time.monotonic()
        if self.position.total_step:
            self._say(f"resuming {self.folder} at step {self.position.total_step}")
        self.model.train()
        log = MetricsLog(self.folder, self.position.total_step) if self.engine.main else None
        try:
            with _stop_on_signal(self._request_stop, self._say, alone=self.engine.size == 1):
                while self.position.stage < len(self.stages) and self._stop is None:
                    self._run_stage(self.stages[self.position.stage], log, began)
        finally:
            if log is not None:
                log.close()
        finished = self.position.stage == len(self.stages)
        if not finished:
            self._say(f"stopped at step {self.position.total_step}; run the same command to go on")
        reason = "finished" if finished or self._stop is None else self._stop
        return Outcome(finished=finished, reason=reason, results=self.position.results)

    def _say(self, line: str) -> None:
        if self.engine.main:
            say(line)

    def _request_stop(self) -> None:
        self._asked = True

    def _run_stage(self, stage: Stage, log: MetricsLog | None, began: float) -> None:
        running = self._begin(stage)
        stream = self._batches(stage, running.objective)
        reporter = Reporter(stage.name, self.position.step, stage.steps, show=self.engine.main)
        saved = time.monotonic()
        try:
            while self.position.step < stage.steps and self._stop is None:
                self._advance(running, stream)
                if self.position.step % self.options.log_every == 0:
                    self._report(running, log, reporter)
                now = time.monotonic()
                asked, ended, due = self.engine.any(
                    self._asked,
                    bool(self.options.minutes) and now - began > 60 * (self.options.minutes or 0),
                    now - saved > 60 * self.options.save_minutes,
                )
                if due:
                    self._save(running)
                    saved = now
                if asked or ended:
                    self._stop = "signal" if asked else "minutes"
            if self.position.step == stage.steps:
                self._report(running, log, reporter)
                self._finish(running)
            else:
                self._save(running)
        finally:
            reporter.close()
            # Stops the loader's threads; a plain iterator would leave that to the collector.
            stream.close()

    def _begin(self, stage: Stage) -> _Running:
        torch.manual_seed(self._draw_seed(-1))
        objective = self._make_objective(stage)
        objective.modules.to(self.device)
        if self.position.step and len(objective.modules):
            load_weights(objective.modules, self._saved_heads, self.folder)
        select_trainable(self.model, stage)
        model = self.engine.start(self.model, objective, self._processor)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        parameters |= dict(objective.modules.named_parameters())
        running = _Running(
            stage=stage,
            model=model,
            objective=objective,
            parameters=parameters,
            optimizer=build_optimizer(stage, parameters),
            average=AverageWeights(parameters, stage.ema) if stage.ema else None,
        )
        self._say(f"stage {stage.name}: trains {describe_trainable(self.model)}")
        samples = stage.steps * stage.batch_size * stage.accumulate
        epochs = self._mixture(stage, self.position.stage).epochs(samples).items()
        self._say("  " + ", ".join(f"{name} {count:.2f} epochs" for name, count in epochs))
        where = f"{self.device}" + (f" x {self.engine.size}" if self.engine.size > 1 else "")
        self._say(f"  {where}, {self.precision}, {stage.steps} steps, {samples} samples")
        if self._state is not None and self.position.step:
            self._restore(running, self._state)
        self._state = None
        return running

    def _make_objective(self, stage: Stage) -> Objective:
        if stage.objective == "language":
            if self._objective is not None:
                return self._objective(stage)
            return LanguageObjective(self._processor.tokenizer.image_id)
        rows = itertools.chain.from_iterable(self._sources[name].rows for name in stage.mixture)
        # Read once: parsing a data set takes as long as many steps.
        labelled = [{key: row.get(key) for key in ("attributes", "boxes")} for row in rows]
        return VisionObjective(
            attribute_vocabulary(labelled), box_vocabulary(labelled), self.model.config.vision
        )

    def _mixture(self, stage: Stage, index: int) -> Mixture:
        parts = [(self._sources[name], weight) for name, weight in stage.mixture.items()]
        return Mixture.of(parts, seed=self.seed + 7919 * index)

    def _batches(
        self, stage: Stage, objective: Objective
    ) -> Generator[tuple[int, Batch], None, None]:
        jitter = Jitter(brightness=stage.jitter, contrast=stage.jitter, gamma=stage.jitter)
        yield from BatchStream(
            mixture=self._mixture(stage, self.position.stage),
            processor=self._processor,
            batch_size=stage.batch_size,
            start=self.position.samples,
            max_length=stage.max_length,
            workers=self.options.workers,
            prefetch=max(4, 2 * self.options.workers),
            attributes=objective.attributes,
            boxes=objective.boxes,
            jitter=jitter if stage.jitter else None,
            hotspots=stage.hotspots,
            rank=self.engine.rank,
            ranks=self.engine.size,
        )

    def _draw_seed(self, step: int) -> int:
        return hash((self.seed, self.position.stage, step)) % 2**63

    def _advance(self, running: _Running, stream: Iterator[tuple[int, Batch]]) -> None:
        """One optimiser step."""
        stage, position = running.stage, self.position
        drawn = [next(stream) for _ in range(stage.accumulate)]
        batches = [to_device(batch, self.device) for _, batch in drawn]
        torch.manual_seed(self._draw_seed(position.step))
        set_lr(running.optimizer, lr_factor(stage, position.step))
        loss = self.engine.backward(running.objective, batches, self.precision)
        norm = self.engine.clip(running.parameters.values(), stage.clip)
        # Before the step: what is saved must stay usable.
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise UserError(
                f"stage {stage.name}: loss {loss}, gradient {norm} at step {position.step}; lower "
                f"lr in a new run, which may --start from a checkpoint in {self.folder}/after-*"
            )
        running.optimizer.step()
        running.optimizer.zero_grad(set_to_none=True)
        if running.average is not None:
            running.average.update(position.step)
        position.window.append(loss)
        position.step += 1
        position.total_step += 1
        position.samples = drawn[-1][0]

    def _report(self, running: _Running, log: MetricsLog | None, reporter: Reporter) -> None:
        position, stage = self.position, running.stage
        if not position.window:
            return
        loss = sum(position.window) / len(position.window)
        position.window = []
        lr = max(group["lr"] for group in running.optimizer.param_groups)
        self.engine.collect(running.objective.buffers.values())
        figures = running.objective.figures()
        rate = reporter.rate(position.step) * stage.batch_size * stage.accumulate
        position.results[stage.name] = {"loss": loss, "steps": position.step, **figures}
        if log is not None:
            record = {"stage": stage.name, "loss": loss, "lr": lr, "samples_per_s": rate}
            log.write(position.total_step, record | figures)
        accuracy = figures.get("accuracy", {})
        mean = f"  accuracy {sum(accuracy.values()) / len(accuracy):.3f}" if accuracy else ""
        reporter.report(position.step, f"loss {loss:.4f}{mean}  {rate:.1f} samples/s")

    def _finish(self, running: _Running) -> None:
        """Make the stage's weights final and move on to the next stage."""
        if running.average is not None:
            running.average.apply()
        self.engine.finish(self.model)
        name = running.stage.name
        accuracy = running.objective.figures().get("accuracy", {})
        for attribute, value in sorted(accuracy.items(), key=lambda item: item[1]):
            self._say(f"  {attribute:<36} {value:.3f}")
        # Before the state: killed in between, the stage's end is done again rather than left out.
        if self._on_stage_end is not None and self.engine.main:
            self._on_stage_end(name)
        self.position = replace(self.position, stage=self.position.stage + 1, step=0, samples=0)
        self.engine.save(self.folder, self.position, running.model.state_dict(), {})

    def _save(self, running: _Running) -> None:
        self.engine.collect(running.objective.buffers.values())
        self.engine.save(self.folder, self.position, running.weights(), running.others())

    def _restore(self, running: _Running, state: Path) -> None:
        """Take over what `_save` wrote for this stage beside the weights, which are in already."""
        init_moments(running.optimizer, running.parameters)
        self.engine.fill(state, running.others())
        if not self.engine.main:
            for buffer in running.objective.buffers.values():
                buffer.zero_()  # sums over the processes, of which the main one has it all


@contextmanager
def _stop_on_signal(
    request: Callable[[], None], tell: Callable[[str], None], *, alone: bool
) -> Iterator[None]:
    """Ctrl-C or SIGTERM asks for a stop after the step; a second Ctrl-C interrupts at once.

    Not so where several compute: torchrun passes on the first Ctrl-C, which they have had already.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: object) -> None:
        more = " (Ctrl-C again: at once, without saving)" if alone else ""
        tell(f"stopping after this step, then saving{more}")
        if alone:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        request()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
