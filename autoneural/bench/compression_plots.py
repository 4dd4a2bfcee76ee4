"""The plots of a compression report, as SVG without a script.

steps    accuracy (paired with the original, 95 % interval) and weight bytes after each step
front    weight bytes against accuracy; what nothing beats on both counts is joined
layers   SQNR against the float model, in the order of the model
ranges   how wide the ranges of activations are, in the same order
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from autoneural.page.svg import (
    SMALL_TEXT,
    WIDTH,
    Scale,
    decades,
    element,
    line,
    picture,
    spread,
    text,
    y_title,
)

_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 780.0, 20.0, 250.0
_ROW = 26
_MIB = 2**20
_TOP_DB = 80


@dataclass(frozen=True, kw_only=True)
class Point:
    """A step in plots: weight bytes; accuracy and its difference to the original, with interval."""

    name: str
    weight_bytes: int
    accuracy: float | None
    difference: tuple[float, float, float] | None
    """Points: (low, difference, high)."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """A module's figure; `style` is its colour class."""

    path: str
    value: float
    style: str = "emulator"


def steps_plot(points: Sequence[Point]) -> Markup:
    """One row a step: bar of bytes on the left, difference of accuracy on the right."""
    height = 40 + _ROW * len(points)
    largest = max(point.weight_bytes for point in points)
    size = Scale(low=0, high=largest / _MIB, start=150, end=430)
    edges = [edge for point in points for edge in point.difference or ()]
    reach = max(1.0, *(abs(edge) for edge in edges)) if edges else 1.0
    points_scale = Scale(low=-reach, high=reach, start=560, end=WIDTH - 30)
    zero = points_scale(0)
    marks = [
        text(150, 14, "weights, MiB", "tick"),
        text(zero, 14, "accuracy against the original, points", "tick", "middle"),
        line(zero, 24, zero, height - 12, "axis"),
    ]
    for index, point in enumerate(points):
        marks += _step(point, 40.0 + _ROW * index, size, points_scale)
    return picture(height, f"bytes and accuracy after {len(points)} steps", *marks)


def _step(point: Point, y: float, size: Scale, points: Scale) -> list[Markup]:
    mib = point.weight_bytes / _MIB
    width = max(size(mib) - size.start, 1)
    bar = {"x": "150", "y": f"{y - 8:g}", "width": f"{width:g}", "height": "12"}
    marks = [
        text(140, y + 3, point.name, "tick row", "end"),
        element("rect", **bar, class_="bar float"),
        text(size(mib) + 6, y + 3, f"{mib:.2f}", "figure"),
    ]
    if point.difference is not None:
        low, middle, high = point.difference
        marks.append(line(points(low), y - 2, points(high), y - 2, "emulator"))
        marks.append(element("circle", **_at(points(middle), y - 2), class_="dot emulator"))
        marks.append(text(points(high) + 6, y + 3, f"{middle:+.2f}", "figure"))
    return marks


def _at(x: float, y: float, radius: float = 3.5) -> dict[str, str]:
    return {"cx": f"{x:g}", "cy": f"{y:g}", "r": f"{radius:g}"}


def front_plot(points: Sequence[Point]) -> Markup:
    """Smaller to the left, better upwards; points without accuracy are left out."""
    drawn = [point for point in points if point.accuracy is not None]
    sizes = [point.weight_bytes / _MIB for point in drawn]
    scores = [100 * (point.accuracy or 0.0) for point in drawn]
    x = Scale(low=0, high=max(sizes) * 1.05, start=_LEFT, end=_RIGHT)
    low = math.floor(min(scores) - 1)
    y = Scale(low=low, high=max(math.ceil(max(scores)), low + 2), start=_BOTTOM, end=_TOP)
    marks = _percent_axis(y) + _size_axis(x)
    best = _front(drawn)
    steps = [f"{x(p.weight_bytes / _MIB)} {y(100 * (p.accuracy or 0.0))}" for p in best]
    marks.append(element("path", d="M" + " L".join(steps), class_="guide", fill="none"))
    places = spread([y(score) for score in scores], 13, _TOP, _BOTTOM - 4)
    for point, mib, score, place in zip(drawn, sizes, scores, places, strict=True):
        style = "emulator" if point in best else "float"
        marks.append(element("circle", **_at(x(mib), y(score)), class_=f"dot {style}"))
        end = x(mib) + 8 + SMALL_TEXT * len(point.name) > WIDTH
        words = {"words": point.name, "class_": "note strong halo"}
        shift, anchor = (-8, "end") if end else (8, "start")
        marks.append(text(x(mib) + shift, place + 4, anchor=anchor, **words))
    return picture(290, "weight bytes against accuracy", *marks)


def _front(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats on both counts, smallest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.weight_bytes, -(p.accuracy or 0.0))):
        if not best or (point.accuracy or 0.0) > (best[-1].accuracy or 0.0):
            best.append(point)
    return best


def _percent_axis(y: Scale) -> list[Markup]:
    marks = [y_title("accuracy, %", (_TOP + _BOTTOM) / 2)]
    step = max(1, round((y.high - y.low) / 6))
    for value in range(int(y.low), int(y.high) + 1, step):
        marks.append(line(_LEFT, y(value), _RIGHT, y(value), "grid"))
        marks.append(text(_LEFT - 8, y(value) + 4, str(value), "tick", "end"))
    return marks


def _size_axis(x: Scale) -> list[Markup]:
    marks = [line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "axis")]
    for index in range(6):
        value = x.high * index / 5
        marks.append(text(x(value), _BOTTOM + 18, f"{value:.1f}", "tick", "middle"))
    marks.append(text((_LEFT + _RIGHT) / 2, _BOTTOM + 34, "weights, MiB", "axis-title", "middle"))
    return marks


def layers_plot(values: Sequence[Value]) -> Markup:
    """SQNR in dB of each module, beyond 80 on the edge; the worst has its name."""
    finite = [value for value in values if math.isfinite(value.value)]
    low = math.floor(min(v.value for v in finite) / 10) * 10
    highest = min(max(v.value for v in finite), _TOP_DB)
    high = max(math.ceil(highest / 10) * 10, low + 10)
    y = Scale(low=low, high=high, start=_BOTTOM, end=_TOP)
    marks = [y_title("SQNR, dB", (_TOP + _BOTTOM) / 2)]
    for value in range(low, high + 1, 10):
        marks.append(line(_LEFT, y(value), WIDTH - 20, y(value), "grid"))
        marks.append(text(_LEFT - 8, y(value) + 4, str(value), "tick", "end"))
    worst = min(finite, key=lambda v: v.value)
    marks += _columns(finite, y, lambda v: f"{v.path}: {v.value:.1f} dB", worst)
    return picture(270, f"SQNR of {len(finite)} modules", *marks)


def ranges_plot(values: Sequence[Value]) -> Markup:
    """Width of each range on a scale of decades; the widest has its name."""
    positive = [value for value in values if value.value > 0]
    exponents = decades(min(v.value for v in positive), max(v.value for v in positive))
    y = Scale(low=exponents[0], high=exponents[-1], start=_BOTTOM, end=_TOP)
    marks = [y_title("high - low", (_TOP + _BOTTOM) / 2)]
    for exponent in exponents:
        marks.append(line(_LEFT, y(exponent), WIDTH - 20, y(exponent), "grid"))
        words = f"{10.0**exponent:g}"
        marks.append(text(_LEFT - 8, y(exponent) + 4, words, "tick", "end"))
    logs = [Value(path=v.path, value=math.log10(v.value), style=v.style) for v in positive]
    widest = max(logs, key=lambda v: v.value)
    marks += _columns(logs, y, lambda v: f"{v.path}: {10**v.value:.4g}", widest)
    return picture(270, f"ranges of {len(positive)} activations", *marks)


def _columns(
    values: Sequence[Value], y: Scale, words: Callable[[Value], str], named: Value
) -> list[Markup]:
    """One dot a module from left to right, with its words where a pointer rests on it."""
    step = (WIDTH - 24 - _LEFT) / len(values)
    marks: list[Markup] = []
    for index, value in enumerate(values):
        x = _LEFT + (index + 0.5) * step
        title = element("title", words(value))
        dot = _at(x, y(value.value), 2.6)
        marks.append(element("circle", title, **dot, class_=f"dot {value.style}"))
        if value is named:
            left = x > (WIDTH + _LEFT) / 2
            shift, anchor = (-6, "end") if left else (6, "start")
            marks.append(text(x + shift, y(value.value) + 4, words(value), "note halo", anchor))
    return marks
