"""What quantisation costs two vision encoders, side by side: a CNN and a ViT on the same pictures.

    pictures -> encoder, float                       -> its output
             -> 8-bit weights alone (the ceiling)    -> SQNR and RMS error of it
             -> W8A16, W8A8, W4A16                   -> the same, as ONNX defines it
                                                     -> the same, as each chip computes it

Calibrated on training rows, compared on held-out ones. A row names the layers that lose most: by
how many dB a layer's output is worse than the worst of what it reads. Computed by the closed form
(`compress/chip.py`); nothing is emulated.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from autoneural.compress.chip import compute_as
from autoneural.compress.derive import open_float
from autoneural.compress.fake_quant import RANGE_MODULES, quantize
from autoneural.compress.precision import PRECISIONS, Precision, Rule
from autoneural.compress.quantize import Sample, calibrate
from autoneural.compress.report import Run, compare
from autoneural.compress.rounding import Rounding
from autoneural.compress.wiring import Wiring, trace
from autoneural.errors import UserError
from autoneural.export.graphs import GraphKey, build_graph
from autoneural.target.chips import Chip

OUTPUT = "vision_encoder"
_LANGUAGE = "language_model"
_NAMED = 3
_CEILING = "8-bit weights alone"


def _vision(name: str, **changes: Any) -> Precision:
    """A precision without rules that spell out modules of the decoder, which is not there."""
    found = PRECISIONS[name]
    kept = tuple(rule for rule in found.activations if not rule.pattern.startswith(_LANGUAGE))
    return replace(found, **{"activations": kept, **changes})


PRECISION: Mapping[str, Precision] = {
    _CEILING: _vision("w8a16", activations=(Rule("*", None),)),
    "W8A16": _vision("w8a16"),
    "W8A8": _vision("w8a8"),
    "W4A16": _vision("w4a16full"),
}


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """One of the twins: its vision part in float, and what it is calibrated on and compared on."""

    name: str
    module: nn.Module
    calibration: Sequence[Run]
    held_out: Sequence[Run]


def load_encoder(
    checkpoint: str | Path, calibration: Sequence[Sample], held_out: Sequence[Sample]
) -> Encoder:
    """The vision part of a float checkpoint. UserError where a side has no picture."""
    vlm = open_float(checkpoint).model()
    size = vlm.config.vision.image_size
    graph = build_graph(vlm, GraphKey(role="vision", image_size=size))
    sides = (_pictures(calibration), _pictures(held_out))
    if not all(sides):
        raise UserError(f"{checkpoint}: no picture among the samples")
    return Encoder(
        name=str(checkpoint), module=graph.module, calibration=sides[0], held_out=sides[1]
    )


def _pictures(samples: Sequence[Sample]) -> list[Run]:
    found = [s.pixels_BCHW for s in samples if s.pixels_BCHW is not None]
    return [partial(_see, picture.float() / 255) for pixels in found for picture in pixels.split(1)]


def _see(pixels_BCHW: Tensor, module: nn.Module) -> object:
    return module(pixels_BCHW)


def measure_twins(
    encoders: Mapping[str, Encoder],
    chips: Sequence[Chip],
    *,
    rounding: Rounding = "compensated",
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Every precision of every encoder, as ONNX defines it and as each chip computes it.

    {"encoders": {name: checkpoint}, "chips", "pictures", "rounding", "rows": [...]}: a row has
    "encoder", "precision", "chip" (None: ONNX), "sqnr_db", "rms_error" and "worst", and where a
    chip's arithmetic is not known, "why" instead of figures.
    """
    rows: list[dict[str, Any]] = []
    for name, encoder in encoders.items():
        wiring = _wiring(encoder)
        for precision in PRECISION:
            progress(f"{name}: {precision}")
            for row in _rows(encoder, precision, chips, wiring, rounding):
                rows.append({"encoder": name, "precision": precision, **row})
    return {
        "encoders": {name: encoder.name for name, encoder in encoders.items()},
        "chips": [chip.name for chip in chips],
        "rounding": rounding,
        "pictures": min(len(encoder.held_out) for encoder in encoders.values()),
        "rows": rows,
    }


def _wiring(encoder: Encoder) -> Wiring:
    """Which modules each layer reads."""
    module = quantize(copy.deepcopy(encoder.module), PRECISION["W8A16"])
    return trace(module, encoder.calibration[:1])


def _rows(
    encoder: Encoder, precision: str, chips: Sequence[Chip], wiring: Wiring, rounding: Rounding
) -> Iterator[dict[str, Any]]:
    model = copy.deepcopy(encoder.module)
    calibrate(model, encoder.calibration, PRECISION[precision], rounding=rounding)
    yield {"chip": None, **_figures(encoder, model, wiring)}
    for chip in chips if precision != _CEILING else ():
        row: dict[str, Any] = {"chip": chip.name}
        try:
            compute_as(model, chip.htp, trace(model, encoder.calibration[:1]))
            yield row | _figures(encoder, model, wiring)
        except UserError as error:
            yield row | {"sqnr_db": None, "rms_error": None, "worst": [], "why": str(error)}


def _figures(encoder: Encoder, model: nn.Module, wiring: Wiring) -> dict[str, Any]:
    paths = [p for p, m in encoder.module.named_modules() if isinstance(m, RANGE_MODULES)]
    found = compare(encoder.module, model, [OUTPUT, *paths], encoder.held_out)
    sqnr, rms = found[OUTPUT]
    lost = {path: _lost(path, wiring[path], found) for path in wiring if path in found}
    worst = sorted(lost, key=lambda path: -lost[path])[:_NAMED]
    return {
        "sqnr_db": round(sqnr, 2) if math.isfinite(sqnr) else None,
        "rms_error": rms,
        "worst": [{"layer": path, "lost_db": round(lost[path], 2)} for path in worst],
        "why": "",
    }


def _lost(path: str, sources: Sequence[str], found: Mapping[str, tuple[float, float]]) -> float:
    """dB between the worst of what a layer reads and what it returns; of exact inputs, from 100."""
    read = min(min((found[s][0] for s in sources if s in found), default=math.inf), 100.0)
    return read - min(found[path][0], 100.0)


def print_twins(report: Mapping[str, Any], console: Console) -> None:
    """Precisions down, encoders across, as ONNX defines them and per chip; then the layers."""
    names = list(report["encoders"])
    table = Table(box=SIMPLE, pad_edge=False)
    for head in ("precision", "as computed by"):
        table.add_column(head)
    for name in names:
        for head in (f"{name}, dB", f"{name}, RMS %"):
            table.add_column(head, justify="right")
    if len(names) == 2:
        table.add_column("ratio of RMS", justify="right")
    by_place: dict[tuple[str, str | None], dict[str, dict[str, Any]]] = {}
    for row in report["rows"]:
        by_place.setdefault((row["precision"], row["chip"]), {})[row["encoder"]] = row
    for (precision, chip), found in by_place.items():
        cells = [cell for name in names for cell in _cells(found[name])]
        if len(names) == 2:
            cells.append(_ratio(*(found[name]["rms_error"] for name in names)))
        table.add_row(precision, chip or "ONNX", *cells)
    console.print(table)
    what = (
        f"SQNR and RMS error of the encoder's output, {report['pictures']} held-out pictures, "
        f"weights rounded: {report['rounding']}"
    )
    console.print(what, highlight=False)
    for row in report["rows"]:
        console.print(_words(row), highlight=False, markup=False)


def _cells(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["rms_error"] is None:
        return "–", "–"
    decibels = "equal" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}"
    return decibels, f"{100 * row['rms_error']:.3f}"


def _ratio(a: float | None, b: float | None) -> str:
    """How many times the second one's error is the first one's."""
    return f"{b / a:.2f}" if a and b else "–"


def _words(row: Mapping[str, Any]) -> str:
    where = f"{row['encoder']}, {row['precision']}, {row['chip'] or 'ONNX'}"
    if row["why"]:
        return f"{where}: {row['why']}"
    layers = ", ".join(f"{one['layer']} ({one['lost_db']:.1f} dB)" for one in row["worst"])
    return f"{where}: most is lost in {layers}"
