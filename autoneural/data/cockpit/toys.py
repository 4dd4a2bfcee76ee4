"""What a child plays with: each 40 units across, centred on (0, 0)."""

from __future__ import annotations

from collections.abc import Callable

from autoneural.data.cockpit.svg import Canvas, dark, light

PAINT = ("#d8402f", "#2f6fc0", "#e8b020", "#3aa05a", "#8048a8")
PAINT_HELD_OUT = ("#c85a78", "#28a0a8", "#e07828")
REACH = {"teddy": (19.0, 22.0), "ball": (19.0, 19.0), "book": (22.0, 16.0), "tablet": (21.0, 16.0)}
"""Half the width and half the height of each."""


def _teddy(c: Canvas, paint: str) -> None:
    fur, belly = "#9a6636", "#d8ac72"
    line = {"stroke": dark(fur, 0.55), "stroke_width": 1.2}
    for sign in (-1, 1):
        c.ellipse(sign * 10, 17, 6, 5, fur, **line)
        c.ellipse(sign * 14, 5, 4.5, 7, fur, **line)
        c.circle(sign * 10, -17, 5, fur, **line)
        c.circle(sign * 10, -17, 2.4, belly)
    c.ellipse(0, 9, 12, 12, fur, **line)
    c.ellipse(0, 10, 7.5, 8, belly)
    c.circle(0, -8, 13, c.radial(((0, light(fur, 0.25)), (1, fur)), cy=0.4), **line)
    c.ellipse(0, -4, 6, 4.8, belly)
    c.path("M-2.5 -7 H2.5 L0 -4 Z", "#20140c")
    c.circle(-5, -11, 1.9, "#140c08")
    c.circle(5, -11, 1.9, "#140c08")
    c.path("M0 3.5 L-7 0 V7 Z M0 3.5 L7 0 V7 Z", paint)


def _ball(c: Canvas, paint: str) -> None:
    c.circle(0, 0, 18, "#f6f4ee", stroke=dark(paint, 0.6), stroke_width=1.4)
    c.path("M0 -18 C-10 -8 -10 8 0 18 C10 8 10 -8 0 -18 Z", paint)
    c.path("M-16 -8.5 C-12 -2 -12 4 -16 8.5 A18 18 0 0 1 -16 -8.5 Z", paint)
    c.path("M16 -8.5 C12 -2 12 4 16 8.5 A18 18 0 0 0 16 -8.5 Z", paint)
    c.path("M-11 14 A18 18 0 0 0 17 6 C10 13 -2 16 -11 14 Z", "#000000", fill_opacity=0.25)
    c.ellipse(-6, -9, 5, 3.4, "#ffffff", fill_opacity=0.75)


def _book(c: Canvas, paint: str) -> None:
    c.path("M0 -11 C-7 -15 -15 -15 -22 -13 V14 C-15 12 -7 12 0 16 C7 12 15 12 22 14 V-13 "
           "C15 -15 7 -15 0 -11 Z", paint, stroke=dark(paint, 0.5), stroke_width=1.2)  # fmt: skip
    c.path("M0 -9.5 C-6 -13 -13 -13 -19.5 -11.5 V11.5 C-13 10 -6 10 0 13.5 Z", "#f8f4e8")
    c.path("M0 -9.5 C6 -13 13 -13 19.5 -11.5 V11.5 C13 10 6 10 0 13.5 Z", "#e8e2d2")
    c.line("M-16 -6 L-4 -5 M-16 -1 L-4 0 M-16 4 L-4 5", "#6a6458", 1.6)
    c.circle(10, -3, 4.4, "#e8a030")
    c.path("M3.5 9 L9 2 L12 5 L17 1 V8.5 Z", "#4a9a58")
    c.line("M0 -10 V15", dark(paint, 0.4), 1.4)


def _tablet(c: Canvas, paint: str) -> None:
    c.rect(-21, -16, 42, 32, "#15171b", rx=4, stroke="#9aa2ac", stroke_width=1.2)
    c.rect(-17, -12.5, 34, 25, "#3fb4ee", rx=1)
    c.path("M-17 12.5 V4 Q-8 -3 1 4 T17 2 V12.5 Z", "#58c860")
    c.circle(9, -6, 4, "#ffe050")
    c.circle(-8, 1, 4.5, paint)
    c.path("M-17 -12.5 H-5 L-13 12.5 H-17 Z", "#ffffff", fill_opacity=0.18)


DRAW: dict[str, Callable[[Canvas, str], None]] = {
    "teddy": _teddy,
    "ball": _ball,
    "book": _book,
    "tablet": _tablet,
}
