"""Mixed precision: which weights and states may be narrow, measured one by one on answers.

    sensitivity   how far answers move when one group alone gets its other width
    search        groups lowered one after another, the least harm per byte first, and measured
                  again after each, until the budget is met

Sensitivity by what answers become and not by weight error, as AutoQuant-class tools do (KL of
logits: SelectiveMixedPrecision of Olive); which widths there are is the target's word
(`operators.py`). Meanwhile 16-bit activations are left unrounded: their noise is far below that of
4-bit weights. The precision that comes out is calibrated like any other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoneural.compress.divergence import Divergence, answer_logits, divergence
from autoneural.compress.fake_quant import (
    Calibration,
    OutputQuantizer,
    WeightQuantizer,
    observed_encoding,
    output_quantizers,
    quantize,
    round_weights,
    weight_quantizers,
)
from autoneural.compress.groups import WIDTHS, Group, find_groups, model_bytes, with_widths
from autoneural.compress.operators import Operators
from autoneural.compress.precision import PRECISIONS, Precision
from autoneural.compress.quantize import Sample
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.target.chips import Chip

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One of: at most so many bytes of weights and state, at most so many nats of divergence per
    answer token, at least so many dB of the logits. UserError where it is not exactly one."""

    bytes: int | None = None
    nats: float | None = None
    sqnr_db: float | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) != 1:
            raise UserError(
                f"budget: {', '.join(given) or 'nothing'} given; give one of bytes, nats, sqnr_db"
            )

    def allows(self, cost: Divergence) -> bool:
        """Whether answers are still near enough; a budget of bytes never minds."""
        if self.nats is not None:
            return cost.nats <= self.nats
        return self.sqnr_db is None or cost.sqnr_db >= self.sqnr_db

    def met(self, size: int) -> bool:
        """Whether there is nothing left to save."""
        return self.bytes is not None and size <= self.bytes


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What it does to answers when `group` alone gets its other width."""

    group: Group
    cost: Divergence

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        group = self.group
        return {
            "group": group.name,
            "kind": group.kind,
            "modules": list(group.paths),
            "bits": [group.bits, group.other],
            "saved_bytes": group.saved,
            **self.cost.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class Point:
    """A model on the way down: `lowered` is the group that made it; None for the start."""

    bytes: int
    cost: Divergence
    lowered: Group | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        name = None if self.lowered is None else self.lowered.name
        return {"bytes": self.bytes, "lowered": name, **self.cost.to_dict()}


@dataclass(frozen=True, kw_only=True)
class Found:
    """The precision that meets the budget, and how it was found. The last point is its own."""

    precision: Precision
    sensitivities: tuple[Sensitivity, ...]
    front: tuple[Point, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "precision": self.precision.to_dict(),
            "sensitivities": [sensitivity.to_dict() for sensitivity in self.sensitivities],
            "front": [point.to_dict() for point in self.front],
        }


def search_precision(
    model: VLM,
    samples: Sequence[Sample],
    budget: Budget,
    *,
    base: Precision = PRECISIONS["w8a16"],
    chip: Chip | None = None,
    context: int = 1024,
    progress: Progress = lambda stage, done, total: None,
) -> Found:
    """Lower what is wide in `base`, group by group, until the budget is met or used up.

    `model` is a float one and stays as it is. With `chip` a group is lowered only to what the
    legality table says that the chip takes. `context`: tokens that the caches hold. `progress` is
    called with (stage, done, total), stages "inputs", "sensitivity" and "search".
    Raises UserError where the budget cannot be met, naming what is nearest.
    """
    bench = Workbench(model, samples, base, context, progress)
    return search(bench, budget, chip=chip, progress=progress)


def search(
    bench: Workbench,
    budget: Budget,
    *,
    chip: Chip | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Found:
    """`search_precision` on a bench, which measures the sensitivity of a group once only."""
    bench.reset()
    start = Point(bytes=bench.bytes, cost=bench.measure())
    wide = [group for group in bench.groups if group.saved > 0 and bench.may(group, (), chip)]
    _require_possible(budget, start, wide, chip)
    ranked = sorted(
        sensitivities(bench, wide, progress),
        key=lambda s: (s.cost.nats - start.cost.nats) / s.group.saved,
    )
    front = [start]
    for done, group in enumerate((s.group for s in ranked), start=1):
        if budget.met(front[-1].bytes):
            break
        if bench.may(group, _lowered(front), chip):
            bench.set(group, group.other)
            point = Point(bytes=bench.bytes, cost=bench.measure(), lowered=group)
            if budget.allows(point.cost):
                front.append(point)
            else:
                bench.set(group, group.bits)
        progress("search", done, len(ranked))
    if budget.bytes is not None and not budget.met(front[-1].bytes):
        raise UserError(f"budget: {budget.bytes} bytes; only {front[-1].bytes} could be reached")
    widths = {group: group.other for group in _lowered(front)}
    return Found(
        precision=with_widths(bench.base, widths, f"{bench.base.name}-mixed"),
        sensitivities=tuple(ranked),
        front=tuple(front),
    )


def _lowered(front: Iterable[Point]) -> list[Group]:
    return [point.lowered for point in front if point.lowered is not None]


def _require_possible(
    budget: Budget, start: Point, wide: Iterable[Group], chip: Chip | None
) -> None:
    if not budget.allows(start.cost):
        raise UserError(
            f"budget: the base precision alone is at {start.cost.nats:.4g} nats, "
            f"{start.cost.sqnr_db:.1f} dB; give a wider base or a larger budget"
        )
    least = start.bytes - sum(group.saved for group in wide)
    if budget.bytes is not None and budget.bytes < least:
        where = "" if chip is None else f" that {chip.name} takes"
        raise UserError(f"budget: {budget.bytes} bytes; the least{where} is {least}")


def sensitivities(
    bench: Workbench,
    groups: Iterable[Group] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> list[Sensitivity]:
    """Each group alone (all of the bench's, or these) in its other width, in the order given."""
    asked = list(bench.groups if groups is None else groups)
    found = []
    for done, group in enumerate(asked, start=1):
        found.append(bench.sensitivity(group))
        progress("sensitivity", done, len(asked))
    return found


class Workbench:
    """A model whose groups take either width at once: both roundings of each weight are kept.

    4-bit linears are rounded against the inputs that the float model gives them, ranges of narrow
    states are those of the float model too.
    """

    def __init__(
        self,
        model: VLM,
        samples: Sequence[Sample],
        base: Precision,
        context: int = 1024,
        progress: Progress = lambda stage, done, total: None,
    ) -> None:
        if not samples:
            raise UserError("calibration: no samples; give training rows with images and text")
        self.base, self._samples = base, samples
        self._expected = [answer_logits(model, sample) for sample in samples]
        plain = quantize(copy.deepcopy(model), base)
        self._operators = Operators(plain, samples)
        self.groups = find_groups(plain, base, self._operators, context)
        self.bytes = model_bytes(plain, base, context)
        narrow = {group: WIDTHS[group.kind][0] for group in self.groups}
        self._model = quantize(copy.deepcopy(model), with_widths(base, narrow, base.name))
        self._calibrate(progress)
        self._weights = self._rounded(model)
        self._states = self._narrow_states()
        self._bits = narrow
        self._known: dict[Group, Sensitivity] = {}
        for group in self.groups:
            self._apply(group, group.bits)

    def may(self, group: Group, lowered: Iterable[Group], chip: Chip | None) -> bool:
        """Whether the chip takes the model with `lowered` and `group` in their other width."""
        if chip is None:
            return True
        before = {other: other.other for other in lowered}
        after = {**before, group: group.other}
        return self._operators.takes(chip, self.base, with_widths(self.base, after, self.base.name))

    def set(self, group: Group, bits: int) -> None:
        """Give one group another width."""
        if bits != self._bits[group]:
            self.bytes += group.count * (bits - self._bits[group]) // 8
            self._apply(group, bits)

    def reset(self) -> None:
        """Give every group the width of `base`."""
        for group in self.groups:
            self.set(group, group.bits)

    def sensitivity(self, group: Group) -> Sensitivity:
        """What it does when `group` alone gets its other width; measured once."""
        if group not in self._known:
            self.reset()
            self.set(group, group.other)
            self._known[group] = Sensitivity(group=group, cost=self.measure())
            self.set(group, group.bits)
        return self._known[group]

    def measure(self) -> Divergence:
        """How far the answers are from the float model's."""
        logits = (answer_logits(self._model, sample) for sample in self._samples)
        return divergence(self._expected, logits)

    @torch.no_grad()
    def _apply(self, group: Group, bits: int) -> None:
        self._bits[group] = bits
        for path in group.paths:
            if group.kind == "state":
                self._states[path].mode = "round" if bits == WIDTHS["state"][0] else "off"
            else:
                parameter, rounded = self._weights[path]
                integers, scale = rounded[bits]
                shape = (-1, *[1] * (integers.ndim - 1))
                parameter.copy_(integers * scale.reshape(shape))

    @torch.inference_mode()
    def _calibrate(self, progress: Progress) -> None:
        with Calibration(self._model):
            for done, sample in enumerate(self._samples, start=1):
                sample(self._model)
                progress("inputs", done, len(self._samples))
        round_weights(self._model)

    def _rounded(self, model: VLM) -> Mapping[str, tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]]:
        """Per path the parameter to fill, and integers and scale of both widths."""
        narrow, wide = WIDTHS["weights"]
        paths = {path for group in self.groups if group.kind == "weights" for path in group.paths}
        found = {}
        for path, module, quantizer in weight_quantizers(self._model):
            if path not in paths:
                continue
            other = WeightQuantizer(quantizer.parameter, wide, quantizer.axis)
            other.round(
                model.get_submodule(path).get_parameter(quantizer.parameter).detach().clone()
            )
            parameter = module.get_parameter(quantizer.parameter)
            found[path] = parameter, {narrow: _held(quantizer), wide: _held(other)}
        return found

    def _narrow_states(self) -> dict[str, OutputQuantizer]:
        paths = {path for group in self.groups if group.kind == "state" for path in group.paths}
        found = {}
        for path, quantizer in output_quantizers(self._model):
            if path in paths:
                quantizer.set_encoding(observed_encoding(path, quantizer))
                found[path] = quantizer
        return found


def _held(quantizer: WeightQuantizer) -> tuple[Tensor, Tensor]:
    assert quantizer.integers is not None
    assert quantizer.scale is not None
    return quantizer.integers.to(torch.int8), quantizer.scale
