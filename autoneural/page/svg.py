"""The few pieces of SVG that plots are drawn with: elements, scales, labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from autoneural.page.plain import visible

WIDTH = 960
SMALL_TEXT = 6.3
"""Width of a letter of a tick's label, near enough to keep labels apart."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Numbers between `low` and `high` on the pixels from `start` to `end`; beyond, on the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def element(name: str, *children: str, **attributes: object) -> Markup:
    """`<name ...>children</name>`, text escaped; `text_anchor` stands for `text-anchor`."""
    pairs = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape(visible(value))}"'
        for key, value in attributes.items()
    )
    inner = "".join(escape(visible(child)) for child in children)
    return Markup(f"<{name}{pairs}>{inner}</{name}>")


def picture(height: float, label: str, *children: str) -> Markup:
    """A whole plot, WIDTH wide; `label` is what a screen reader says."""
    box = f"0 0 {WIDTH} {height:g}"
    return element("svg", *children, viewBox=box, role="img", aria_label=label)


def text(x: float, y: float, words: str, class_: str, anchor: str = "start") -> Markup:
    return element("text", words, x=f"{x:g}", y=f"{y:g}", class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return element("line", **{k: f"{v:g}" for k, v in ends.items()}, class_=class_)


def y_title(words: str, middle: float) -> Markup:
    """The name of the vertical axis, along it."""
    turn = f"translate(13 {middle:g}) rotate(-90)"
    return element("text", words, transform=turn, class_="axis-title", text_anchor="middle")


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near `wanted`, at least `gap` apart and within [low, high] where there is room."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = [0.0] * len(wanted)
    floor = low
    for index in order:
        places[index] = max(wanted[index], floor)
        floor = places[index] + gap
    ceiling = high
    for index in reversed(order):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - gap
    return places


def decades(low: float, high: float) -> list[int]:
    """Exponents of ten from below `low` to above `high`, at least one decade."""
    first = math.floor(math.log10(low))
    return list(range(first, max(math.ceil(math.log10(high)), first + 1) + 1))
