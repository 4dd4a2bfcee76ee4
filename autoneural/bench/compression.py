"""What a compression recipe did, step by step: report.json and report.html.

Every figure of a step is measured (`bench.measure`); differences are paired with the original over
the same questions and texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoneural import __version__
from autoneural.bench.compression_plots import (
    Point,
    Value,
    front_plot,
    layers_plot,
    ranges_plot,
    steps_plot,
)
from autoneural.bench.measure import Measures, compare_measures
from autoneural.checkpoint import load_checkpoint
from autoneural.files import write_text
from autoneural.page.template import render_page

REPORT = "report.json"
PAGE = "report.html"
_TEMPLATE = Path(__file__).with_name("compression.html.jinja")
_HEADS = ("Step", "Seconds", "Parameters", "Weights, MiB", "MACs per image, M", "MACs per token, M")
_HEADS += ("Features, dB", "Logits, dB", "Perplexity", "Accuracy, %", "Against original, points")
_HEADS += ("Binaries, MiB",)
_IN_TERMINAL = (3, 7, 8, 9, 10)
_UNKNOWN = "–"
_FEATURES, _LOGITS = "projector.linear_2", "language_model.lm_head"


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """A step's figures, and what they are against the original's.

    `difference` is [low, difference, high] of the accuracy in points, `perplexity` the same of the
    perplexity in per cent; None for the original and where nothing was asked.
    """

    name: str
    words: str
    seconds: float
    notes: tuple[str, ...]
    measures: Measures
    difference: tuple[float, float, float] | None
    perplexity: tuple[float, float, float] | None

    @property
    def point(self) -> Point:
        return Point(
            name=self.name,
            weight_bytes=self.measures.weight_bytes,
            accuracy=self.measures.mean_accuracy,
            difference=self.difference,
        )


@dataclass(frozen=True, kw_only=True)
class CompressionReport:
    """A recipe's run. `settings` is the recipe as data; the first step is the original."""

    checkpoint: str
    recipe: str
    settings: dict[str, Any]
    chip: str | None
    steps: tuple[StepReport, ...]
    made_by: str = f"autoneural {__version__}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; answers and losses of single questions are left out."""
        steps = [
            {
                **vars(step),
                "notes": list(step.notes),
                "accuracy": step.measures.mean_accuracy,
                "measures": step.measures.to_dict(),
            }
            for step in self.steps
        ]
        return {**vars(self), "steps": steps}

    def save(self, folder: Path) -> None:
        """Write both files into `folder`, which holds the last step's checkpoint."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        write_text(folder / REPORT, text + "\n")
        write_text(folder / PAGE, page(self, _ranges(folder)))

    def print(self, console: Console) -> None:
        """One row per step, as much as a terminal is wide; the page has the rest."""
        table = Table(box=SIMPLE, pad_edge=False)
        table.add_column(_HEADS[0], overflow="fold")
        for column in _IN_TERMINAL:
            table.add_column(_HEADS[column], justify="right")
        for step in self.steps:
            cells = _cells(step)
            table.add_row(Text(step.name), *(cells[column - 1] for column in _IN_TERMINAL))
        console.print(table)


def step_report(
    name: str,
    words: str,
    seconds: float,
    notes: Sequence[str],
    measures: Measures,
    original: Measures,
) -> StepReport:
    """A step's report; differences are None where `measures` is the original's own."""
    found: dict[str, Any] = {} if measures is original else compare_measures(original, measures)
    return StepReport(
        name=name,
        words=words,
        seconds=seconds,
        notes=tuple(notes),
        measures=measures,
        difference=_in_points(found.get("accuracy")),
        perplexity=_in_per_cent(found.get("perplexity")),
    )


def page(report: CompressionReport, ranges: Sequence[Value]) -> str:
    """The report as one HTML file that needs nothing but a browser."""
    points = [step.point for step in report.steps]
    last = report.steps[-1].measures
    layers = [Value(path=path, value=sqnr) for path, sqnr in last.sqnr_db.items()]
    asked = any(point.accuracy is not None for point in points)
    values = {
        "r": report,
        "compiled": any(step.measures.compiled_bytes for step in report.steps),
        "questions": f"{len(last.records):,}",
        "texts": f"{len(last.losses):,}",
        "tiles": _tiles(report.steps),
        "heads": _HEADS,
        "rows": [{"name": s.name, "words": s.words, "cells": _cells(s)} for s in report.steps],
        "steps_plot": steps_plot(points),
        "front_plot": front_plot(points) if asked else None,
        "layers_plot": layers_plot(layers) if any(math.isfinite(v.value) for v in layers) else None,
        "ranges_plot": ranges_plot(ranges) if any(v.value > 0 for v in ranges) else None,
        "notes": [(step.name, step.notes) for step in report.steps if step.notes],
    }
    return render_page(_TEMPLATE, values, {})


def _ranges(folder: Path) -> list[Value]:
    """high - low of every activation of a quantised checkpoint; empty for a float one."""
    encodings = load_checkpoint(folder).encodings or {"activations": {}}
    return [
        Value(
            path=path,
            value=entry["scale"] * (2 ** entry["bits"] - 1),
            style="emulator" if entry["bits"] > 8 else "predicted",
        )
        for path, entry in encodings["activations"].items()
    ]


def _cells(step: StepReport) -> list[str]:
    m = step.measures
    perplexity = _figure(m.perplexity, 3)
    if step.perplexity is not None:
        perplexity += f" ({step.perplexity[1]:+.2f} %)"
    return [
        f"{step.seconds:,.0f}",
        f"{m.parameters:,}",
        f"{m.weight_bytes / 2**20:.2f}",
        f"{m.encode_macs / 1e6:,.0f}",
        f"{m.decode_macs / 1e6:,.2f}",
        _figure(m.sqnr_db.get(_FEATURES), 1),
        _figure(m.sqnr_db.get(_LOGITS), 1),
        perplexity,
        _figure(None if m.mean_accuracy is None else 100 * m.mean_accuracy, 2),
        _interval(step.difference),
        _figure(None if m.compiled_bytes is None else m.compiled_bytes / 2**20, 2),
    ]


def _figure(value: float | None, digits: int) -> str:
    return _UNKNOWN if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def _interval(values: tuple[float, float, float] | None) -> str:
    if values is None:
        return _UNKNOWN
    low, middle, high = values
    return f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"


def _tiles(steps: Sequence[StepReport]) -> list[dict[str, str]]:
    first, last = steps[0].measures, steps[-1].measures
    share = last.weight_bytes / first.weight_bytes
    tiles = [
        {
            "name": "Weights",
            "value": f"{last.weight_bytes / 2**20:.2f}",
            "unit": "MiB",
            "more": f"{100 * share:.1f} % of the original's {first.weight_bytes / 2**20:.2f} MiB",
        }
    ]
    if last.mean_accuracy is not None and first.mean_accuracy is not None:
        more = (
            f"original {100 * first.mean_accuracy:.2f} %; {_interval(steps[-1].difference)} points"
        )
        accuracy = f"{100 * last.mean_accuracy:.2f}"
        tiles.append({"name": "Accuracy", "value": accuracy, "unit": "%", "more": more})
    more = f"original {first.perplexity:.3f}"
    perplexity = f"{last.perplexity:.3f}"
    tiles.append({"name": "Perplexity", "value": perplexity, "unit": "", "more": more})
    return tiles


def _in_points(found: dict[str, Any] | None) -> tuple[float, float, float] | None:
    if found is None:
        return None
    low, high = found["ci95"]
    return 100 * low, 100 * found["difference"], 100 * high


def _in_per_cent(found: dict[str, Any] | None) -> tuple[float, float, float] | None:
    return None if found is None else (found["ci95"][0], found["increase"], found["ci95"][1])
