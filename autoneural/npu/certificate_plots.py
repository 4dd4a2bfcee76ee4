"""The three plots of a certificate's page, as SVG without a script.

    depth   the three SQNRs of every layer of one graph, in the order they run
    steps   how far apart emulator and QDQ reference are, in steps of the output's grid, by operator
    fill    SQNR against the share of the output's grid in use; a constant error shows as a slope

Blue is the emulator against the QDQ reference in all three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from markupsafe import Markup

from autoneural.npu.certificate import LayerCheck, Thresholds
from autoneural.npu.certificate_text import (
    decibels,
    middle,
    percent,
    short_name,
    steps,
    with_unit,
)
from autoneural.page.plain import plain
from autoneural.page.svg import (
    SMALL_TEXT,
    Scale,
    decades,
    element,
    line,
    picture,
    spread,
    text,
    y_title,
)

_TOP_DB, _BOTTOM_DB = 100.0, -20.0
_LEFT, _RIGHT = 58.0, 790.0
_FIRST = _LEFT + 92
"""Where layers begin: left of it the thresholds have their words."""
_MOST_OPS = 14
_MATRIX = ("conv", "matmul", "gemm", "fullyconnected")


@dataclass(frozen=True, kw_only=True)
class _Series:
    """One comparison: its key in a layer, colour class, words, and the mark drawn at (x, y)."""

    key: str
    style: str
    words: str
    mark: str

    def of(self, layer: LayerCheck) -> float | None:
        return getattr(layer, self.key)


_SERIES = (
    _Series(key="sqnr_float_db", style="float", words="QDQ / float", mark="M{x} {y}m-2.5 0h5"),
    _Series(
        key="predicted_db",
        style="predicted",
        words="emulator / prediction",
        mark="M{x} {y}m-3 0l3 -3l3 3l-3 3z",
    ),
    _Series(key="sqnr_qdq_db", style="emulator", words="emulator / QDQ", mark="M{x} {y}h.01"),
)


def db_range(layers: Sequence[LayerCheck], thresholds: Thresholds) -> tuple[float, float]:
    """One range of dB for every plot of a page, in tens."""
    values = [v for layer in layers for s in _SERIES if (v := s.of(layer)) is not None]
    values = [v for v in values if math.isfinite(v)]
    values += [thresholds.layer_db, thresholds.predicted_db]
    low, high = math.floor(min(values) / 10) * 10, math.ceil((max(values) + 1) / 10) * 10
    low = min(max(low, _BOTTOM_DB), _TOP_DB - 20)
    return low, max(min(high, _TOP_DB), low + 20)


def depth_plot(
    layers: Sequence[LayerCheck], limits: tuple[float, float], thresholds: Thresholds
) -> Markup:
    """The layers of one graph, given in the order they run."""
    y = _db_scale(limits, 250, 42)
    step = (_RIGHT - _FIRST) / len(layers)
    x = [round(_FIRST + (i + 0.5) * step, 1) for i in range(len(layers))]
    label = f"SQNR of {len(layers)} layers along the depth of {layers[0].graph}"
    return picture(
        280,
        label,
        *_db_axis(y, _RIGHT),
        *_blocks(layers, step),
        *_threshold(thresholds.layer_db, "emulator", y),
        *_threshold(thresholds.predicted_db, "predicted", y),
        *(_marks(series, layers, x, y) for series in _SERIES),
        *_series_labels(layers, y),
        *_worst_name(layers, x, y),
        *_hover_columns(layers, step),
    )


def _db_scale(limits: tuple[float, float], bottom: float, top: float) -> Scale:
    return Scale(low=limits[0], high=limits[1], start=bottom, end=top)


def _rail(y: Scale) -> float:
    """Height at which exact layers are drawn, above the axis."""
    return y.end - 18


def _height(value: float, y: Scale) -> float:
    return _rail(y) if math.isinf(value) else y(value)


def _db_axis(y: Scale, right: float) -> list[Markup]:
    gap = 10 if y.high - y.low <= 60 else 20
    ticks = [t for t in range(int(y.low), int(y.high) + 1, 10) if t % gap == 0]
    marks = [y_title("SQNR, dB", (y.start + y.end) / 2)]
    for tick in ticks:
        marks.append(line(_LEFT, y(tick), right, y(tick), "grid"))
        words = f"{tick}+" if tick == _TOP_DB else str(tick)
        marks.append(text(_LEFT - 8, y(tick) + 4, words, "tick", "end"))
    marks.append(line(_LEFT, _rail(y), right, _rail(y), "rail"))
    return [*marks, text(_LEFT - 8, _rail(y) + 4, "exact", "tick", "end")]


def _threshold(value: float, style: str, y: Scale) -> list[Markup]:
    words = text(_LEFT + 2, y(value) - 4, f"required {value:g}", f"note {style}")
    return [line(_LEFT, y(value), _RIGHT, y(value), f"limit {style}"), words]


def _worst_name(layers: Sequence[LayerCheck], x: Sequence[float], y: Scale) -> list[Markup]:
    """The layer furthest from the QDQ reference, by name, below its mark."""
    finite = [(v, i) for i, c in enumerate(layers) if (v := c.sqnr_qdq_db) is not None]
    finite = [(value, index) for value, index in finite if math.isfinite(value)]
    if not finite or len(layers) == 1:
        return []
    value, index = min(finite)
    words = f"{short_name(layers[index].name)[-48:]}, {decibels(value)}"
    anchor = "end" if x[index] > (_LEFT + _RIGHT) / 2 else "start"
    return [text(x[index], min(y(value) + 15, y.start - 3), words, "note strong halo", anchor)]


def _marks(series: _Series, layers: Sequence[LayerCheck], x: Sequence[float], y: Scale) -> Markup:
    """All marks of one series as a single path; a layer that was not measured leaves a gap."""
    path = "".join(
        series.mark.format(x=place, y=_height(value, y))
        for place, layer in zip(x, layers, strict=True)
        if (value := series.of(layer)) is not None
    )
    size = " small" if len(layers) > 150 else ""
    return element("path", d=path or "M0 0", class_=f"mark {series.style}{size}")


def _series_labels(layers: Sequence[LayerCheck], y: Scale) -> list[Markup]:
    """Name and median of each series beside the plot, at the height of the median."""
    levels = [(series, middle(map(series.of, layers))) for series in _SERIES]
    shown = [(series, level) for series, level in levels if level is not None]
    places = spread([_height(m, y) for _, m in shown], 32, _rail(y), y.start - 14)
    marks: list[Markup] = []
    for (series, value), place in zip(shown, places, strict=True):
        style = f"series {series.style}"
        ends = (_RIGHT + 2, _height(value, y), _RIGHT + 14, place)
        marks += [line(*ends, f"leader {series.style}")]
        marks += [text(_RIGHT + 18, place + 2, series.words, style)]
        marks += [text(_RIGHT + 18, place + 16, f"median {with_unit(value)}", "tick")]
    return marks


def _blocks(layers: Sequence[LayerCheck], step: float) -> list[Markup]:
    """Where each block of the model begins, labelled as far as there is room."""
    marks: list[Markup] = [
        text((_FIRST + _RIGHT) / 2, 277, "layers, as they run", "axis-title", "middle")
    ]
    runs = [(name, len(list(group))) for name, group in groupby(layers, key=block_name)]
    index, free = 0, _FIRST
    for name, count in runs:
        x = _FIRST + index * step
        index += count
        if len(runs) <= 80 and index > count:
            marks.append(line(x, 42, x, 250, "block"))
        start = min(x + 2, _RIGHT - SMALL_TEXT * len(name))
        if start >= free:
            marks.append(text(start, 263, name, "tick"))
            free = start + SMALL_TEXT * len(name) + 10
    return marks


def block_name(layer: LayerCheck) -> str:
    """language_model.model.layers.3.conv.in_proj -> layers.3; without a number, the last part."""
    parts = short_name(layer.name).split(".")
    return ".".join(parts[:2] if len(parts) > 1 and parts[1].isdigit() else parts[:1])[:24]


def _hover_columns(layers: Sequence[LayerCheck], step: float) -> list[Markup]:
    """One invisible column per layer: a dot would be hard to hit."""
    size = {"y": "20", "width": f"{step:.2f}", "height": "230", "class_": "hover"}
    return [
        element("rect", hover_title(layer), x=f"{_FIRST + i * step:.2f}", **size)
        for i, layer in enumerate(layers)
    ]


def hover_title(layer: LayerCheck) -> Markup:
    figures = ", ".join(f"{s.words} {with_unit(s.of(layer))}" for s in reversed(_SERIES))
    error = f"{steps(layer.rms_lsb)} steps rms, {layer.max_lsb} at most"
    fill = f"fill {percent(layer.fill)} %" if layer.fill is not None else "fill unknown"
    rows = [layer.name, f"{layer.graph}, {layer.op} {layer.precision}", figures, f"{error}; {fill}"]
    return element("title", Markup("\n").join(plain(row) for row in rows))


def is_matrix(op: str) -> bool:
    """Whether the chip's matrix engine computes it; the rest is elementwise."""
    return any(word in op.lower() for word in _MATRIX)


def steps_plot(layers: Sequence[LayerCheck]) -> Markup:
    """One row of dots per operator, the furthest apart on top."""
    rows = _rows_by_op(layers)
    positive = [layer.rms_lsb for layer in layers if layer.rms_lsb > 0] or [1.0]
    exponents = decades(*(min(max(edge, 1e-4), 1e5) for edge in (min(positive), max(positive))))
    x = Scale(low=exponents[0], high=exponents[-1], start=230, end=720)
    bottom = 34 + 30 * len(rows)
    marks = _steps_axis(x, exponents, bottom)
    for index, (op, members) in enumerate(rows):
        marks += _steps_row(op, members, x, 49 + 30 * index)
    label = "Difference of emulator and QDQ reference in steps of the output grid, by operator"
    return picture(bottom + 42, label, *marks)


def _rows_by_op(layers: Sequence[LayerCheck]) -> list[tuple[str, list[LayerCheck]]]:
    rows: dict[str, list[LayerCheck]] = {}
    for layer in layers:
        rows.setdefault(layer.op, []).append(layer)
    ordered = sorted(rows.items(), key=lambda row: -_median_steps(row[1]))
    if len(ordered) <= _MOST_OPS:
        return ordered
    kept, rest = ordered[: _MOST_OPS - 1], ordered[_MOST_OPS - 1 :]
    return [*kept, (f"{len(rest)} other operators", [x for _, row in rest for x in row])]


def _median_steps(layers: Sequence[LayerCheck]) -> float:
    return median(layer.rms_lsb for layer in layers)


def _steps_axis(x: Scale, exponents: Sequence[int], bottom: float) -> list[Markup]:
    marks = [line(200, 30, 200, bottom, "rail"), text(200, bottom + 16, "0", "tick", "middle")]
    for exponent in exponents:
        marks.append(line(x(exponent), 30, x(exponent), bottom, "grid"))
        words = f"{10.0**exponent:g}"
        marks.append(text(x(exponent), bottom + 16, words, "tick", "middle"))
    title = "rms difference per layer, in steps of the output grid"
    marks.append(text(475, bottom + 36, title, "axis-title", "middle"))
    for place, head in ((800, "layers"), (870, "median"), (945, "largest")):
        marks.append(text(place, 20, head, "tick", "end"))
    return marks


def _steps_row(op: str, members: Sequence[LayerCheck], x: Scale, y: float) -> list[Markup]:
    style = "emulator" if is_matrix(op) else "other"
    largest = max(layer.max_lsb for layer in members)
    cells = ((800, str(len(members))), (870, steps(_median_steps(members))), (945, f"{largest:,}"))
    marks = [text(178, y + 4, op[:26], f"row {style}", "end")]
    marks += [text(place, y + 4, words, "figure", "end") for place, words in cells]
    for index, layer in enumerate(members):
        # The golden ratio scatters neighbours evenly, and the same way each time.
        jitter = 0 if len(members) == 1 else ((index * 0.618) % 1 - 0.5) * 18
        place = x(math.log10(layer.rms_lsb)) if layer.rms_lsb > 0 else 200
        marks.append(_dot(place, y + jitter, style, layer))
    return marks


def _dot(x: float, y: float, style: str, layer: LayerCheck) -> Markup:
    title = hover_title(layer)
    return element("circle", title, cx=f"{x:g}", cy=f"{y:.1f}", r="3", class_=f"dot {style}")


def fill_plot(layers: Sequence[LayerCheck], limits: tuple[float, float]) -> Markup:
    """SQNR over fill, both logarithmic; the worst three layers are named."""
    drawn = [layer for layer in layers if fill_known(layer)]
    least = min((_octave(layer) for layer in drawn), default=-4.0)
    x = Scale(low=max(min(math.floor(least), -4), -16), high=0, start=_LEFT, end=_RIGHT)
    y = _db_scale(limits, 350, 42)
    marks = [*_db_axis(y, _RIGHT), *_fill_axis(x), *_guides(x, y)]
    for layer in drawn:
        style = "emulator" if is_matrix(layer.op) else "other"
        marks.append(_dot(x(_octave(layer)), _height(layer.sqnr_qdq_db or 0.0, y), style, layer))
    label = "SQNR of the emulator against the share of the output grid in use"
    return picture(398, label, *marks, *_worst_names(drawn, x, y), *_kinds())


def fill_known(layer: LayerCheck) -> bool:
    return layer.fill is not None and layer.fill > 0 and layer.sqnr_qdq_db is not None


def _octave(layer: LayerCheck) -> float:
    return math.log2(layer.fill or 1.0)


def _fill_axis(x: Scale) -> list[Markup]:
    marks = [
        text((_LEFT + _RIGHT) / 2, 392, "share of the output grid in use", "axis-title", "middle")
    ]
    for octave in range(int(x.low), 1, 1 if x.low >= -8 else 2):
        marks.append(line(x(octave), 350, x(octave), 355, "axis"))
        words = "all" if octave == 0 else f"1/{2**-octave}"
        marks.append(text(x(octave), 370, words, "tick", "middle"))
    return marks


def _guides(x: Scale, y: Scale) -> list[Markup]:
    """An error that is constant in steps loses 6 dB whenever the range in use halves."""
    marks: list[Markup] = []
    per_octave = 20 * math.log10(2)
    for top in range(int(y.low) + 20, int(y.high) + 1, 20):
        end = max(x.low, (y.low - top) / per_octave)
        marks.append(line(x(end), y(top + end * per_octave), x(0), y(top), "guide"))
    return marks


def _worst_names(drawn: Sequence[LayerCheck], x: Scale, y: Scale) -> list[Markup]:
    finite = [layer for layer in drawn if math.isfinite(layer.sqnr_qdq_db or 0.0)]
    worst = sorted(finite, key=lambda layer: layer.sqnr_qdq_db or 0.0)[:3]
    places = spread([y(layer.sqnr_qdq_db or 0.0) + 17 for layer in worst], 14, 54, 344)
    marks: list[Markup] = []
    for layer, place in zip(worst, places, strict=True):
        left = x(_octave(layer)) > (_LEFT + _RIGHT) / 2
        shift, anchor = (4, "end") if left else (-4, "start")
        words = f"{short_name(layer.name)[-48:]}, {decibels(layer.sqnr_qdq_db)}"
        marks.append(text(x(_octave(layer)) + shift, place, words, "note strong halo", anchor))
    return marks


def _kinds() -> list[Markup]:
    """What the two kinds of dots and the dotted lines are, beside the plot."""
    marks: list[Markup] = []
    for y, style, words in (
        (60, "emulator", "matrix engine"),
        (116, "other", "all other operators"),
    ):
        marks.append(element("circle", cx="810", cy=str(y - 4), r="3.5", class_=f"dot {style}"))
        marks.append(text(820, y, words, f"series {style}"))
    rows = ((76, 820, "Conv, MatMul,"), (90, 820, "FullyConnected"))
    rows += ((146, 804, "dotted lines: 6 dB lost"), (160, 804, "whenever fill halves"))
    return [*marks, *(text(x, y, words, "tick") for y, x, words in rows)]
