"""What a chip's arithmetic costs a model, and what each counter-measure buys back.

    float checkpoint -> integers, once -> one model per counter-measure -> computed as each chip

SQNR in dB of what the chip computes, against the float model ("float": what is left of it) and
against the same quantised model as ONNX defines it ("qdq": how true the simulation without the chip
is): worst and median over the layers of the matrix engine, and at the ends of the graphs. Computed
by the closed form (`compress/chip.py`); nothing is emulated.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from autoneural.bench.answer_checkpoint import load_model
from autoneural.checkpoint import load_checkpoint
from autoneural.compress.chip import Cancel, compute_as
from autoneural.compress.fake_quant import Calibration, freeze, quantize, weight_quantizers
from autoneural.compress.precision import PRECISIONS, Precision
from autoneural.compress.quantize import Sample, calibrate
from autoneural.compress.report import compare
from autoneural.compress.snap import snap_scales
from autoneural.compress.wiring import engine_modules, trace
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.target.chips import Chip

ENDS = {
    "image_features": "projector.linear_2",
    "hidden_states": "language_model.model.embedding_norm",
    "logits": "language_model.lm_head",
}
_COMPARED = 4


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A counter-measure: how the model is calibrated, and what is done about offsets."""

    name: str
    precision: Precision = PRECISIONS["w4a16"]
    snap: bool = False
    cancel: Cancel = "no"


_KV8 = PRECISIONS["w4a16kv8"]
MEASURES = (
    Measure(name="none"),
    Measure(name="scales snapped", snap=True),
    Measure(
        name="ranges filled (99.999 %)",
        precision=replace(PRECISIONS["w4a16"], observer="percentile"),
    ),
    Measure(name="8-bit second operands", precision=_KV8),
    Measure(name="offset cancelled by a bias", cancel="inside"),
    Measure(name="offset cancelled by an Add", cancel="outside"),
    Measure(name="snapped, 8-bit, bias", precision=_KV8, snap=True, cancel="inside"),
    Measure(name="snapped, 8-bit, Add", precision=_KV8, snap=True, cancel="outside"),
)


def measure_numerics(
    checkpoint: str | Path,
    samples: Sequence[Sample],
    chips: Sequence[Chip],
    *,
    measures: Sequence[Measure] = MEASURES,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Every counter-measure on every chip: {"samples", "compared", "rows": [...]}.

    A row is {"measure", "chip", "generation", "float": figures, "qdq": figures}; of the model as
    ONNX defines it, chip and "qdq" are None. Weights are rounded once, for all of them alike.
    Raises UserError when the checkpoint is quantised already.
    """
    if load_checkpoint(checkpoint).encodings is not None:
        raise UserError(f"{checkpoint}: is quantised already; give the float checkpoint")
    reference, rounded = load_model(str(checkpoint)), load_model(str(checkpoint))
    compared = samples[:_COMPARED]
    progress(f"rounding weights ({len(samples)} samples)")
    calibrate(rounded, samples, PRECISIONS["w4a16"], snap=False)
    rows = []
    for measure in measures:
        progress(measure.name)
        model = _calibrated(reference, rounded, measure, samples)
        rows += _rows(reference, model, measure, chips, compared)
    return {"samples": len(samples), "compared": len(compared), "rows": rows}


@torch.no_grad()
def _calibrated(reference: VLM, rounded: VLM, measure: Measure, samples: Sequence[Sample]) -> VLM:
    """A copy of the float model with the integers of `rounded` and ranges of its own."""
    model = quantize(copy.deepcopy(reference), measure.precision)
    integers = {path: quantizer for path, _, quantizer in weight_quantizers(rounded)}
    for path, module, quantizer in weight_quantizers(model):
        quantizer.integers, quantizer.scale = integers[path].integers, integers[path].scale
        weight = rounded.get_submodule(path).get_parameter(quantizer.parameter)
        module.get_parameter(quantizer.parameter).copy_(weight)
    with Calibration(model):
        for sample in samples:
            sample(model)
    freeze(model, measure.precision)
    if measure.snap:
        snap_scales(model, trace(model, samples))
    return model


def _rows(
    reference: VLM,
    model: VLM,
    measure: Measure,
    chips: Sequence[Chip],
    samples: Sequence[Sample],
) -> Iterator[dict[str, Any]]:
    """One as ONNX defines it, and one per chip."""
    wiring, plain = trace(model, samples), copy.deepcopy(model)
    row: dict[str, Any] = {"measure": measure.name, "chip": None, "generation": None}
    yield {**row, "float": _figures(reference, model, samples), "qdq": None}
    for chip in chips:
        compute_as(model, chip.htp, wiring, cancel=measure.cancel)
        row |= {"chip": chip.name, "generation": chip.generation}
        against = {"float": reference, "qdq": plain}
        yield row | {name: _figures(other, model, samples) for name, other in against.items()}


def _figures(reference: VLM, model: VLM, samples: Sequence[Sample]) -> dict[str, float]:
    layers = list(engine_modules(model))
    found = compare(reference, model, [*layers, ENDS["hidden_states"]], samples)
    decibels = sorted(found[path][0] for path in layers if path in found)
    ends = {name: found[path][0] for name, path in ENDS.items() if path in found}
    figures = {"worst": decibels[0], "median": statistics.median(decibels), **ends}
    return {name: round(figure, 2) for name, figure in figures.items()}


def print_numerics(report: dict[str, Any], console: Console) -> None:
    """The model as ONNX defines it against float; per chip, against float and against ONNX."""
    chips = dict.fromkeys((row["chip"], row["generation"]) for row in report["rows"])
    for chip, generation in chips:
        rows = [row for row in report["rows"] if row["chip"] == chip]
        who = "as ONNX defines it" if chip is None else f"as {chip} ({generation}) computes it"
        for against, reference in (("float", "float"), ("qdq", "ONNX's integers")):
            if rows[0][against] is not None:
                console.print(_table(rows, against, f"SQNR in dB {who}, against {reference}"))
    console.print(f"{report['samples']} calibration rows, {report['compared']} compared")


def _table(rows: Sequence[dict[str, Any]], against: str, title: str) -> Table:
    table = Table(title=title)
    table.add_column("counter-measure", no_wrap=True)
    for name in rows[0][against]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(row["measure"], *(f"{figure:.1f}" for figure in row[against].values()))
    return table
