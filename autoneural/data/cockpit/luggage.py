"""What a person carries. Each hangs or stands at (0, 0), the hand; the ground is at `floor`."""

from __future__ import annotations

from typing import Any

from autoneural.data.cockpit.svg import Canvas, dark, light, mix

CASE = ("#b8382e", "#2c5a94", "#e0a020", "#37404a", "#2f8a78")
CASE_HELD_OUT = ("#8a4a98", "#5a88b8", "#a8763c")
Extent = tuple[float, float, float, float]
EXTENT: dict[str, Extent] = {
    "shopping bags": (-14, 0, 14, 46),
    "box": (-20, -15, 20, 17),
    "suitcase": (-16, 0, 16, 68),
    "child seat": (-25, -6, 25, 49),
    "umbrella": (-42, -86, 42, 8),
}
"""Left, top, right, bottom, from the hand."""


def bag(c: Canvas, color: str) -> None:
    """A paper carrier bag with shopping sticking out."""
    line = {"stroke": dark(color, 0.55), "stroke_width": 1.3}
    c.line("M-6 14 C-7 -2 7 -2 6 14", dark(color, 0.45), 2)
    c.path("M-9 16 C-13 4 -6 2 -4 14 Z M-3 16 C-6 2 2 0 2 14 Z", "#4f9a3c")
    c.path("M2 16 L7 3 L12 5 L9 16 Z", "#d8a050", **line)
    c.path("M-13 14 H13 L14 46 H-14 Z",
           c.linear(((0, light(color, 0.25)), (1, dark(color, 0.12))), x2=1.0), **line)  # fmt: skip
    c.path("M6 14 H13 L14 46 H8 Z", dark(color, 0.22))
    c.circle(-3, 31, 5.5, light(color, 0.55))


def box(c: Canvas, color: str) -> None:
    """A parcel of cardboard, its lid seen a little from above."""
    card = mix("#c0905a", color, 0.12)
    line = {"stroke": dark(card, 0.5), "stroke_width": 1.3}
    c.path("M-20 -9 L-16 -15 H16 L20 -9 Z", light(card, 0.3), **line)
    c.path("M-20 -9 H20 V17 H-20 Z", c.linear(((0, light(card, 0.1)), (1, dark(card, 0.15)))),
           **line)  # fmt: skip
    c.path("M-4 -9 L-3 -15 H3 L4 -9 V2 H-4 Z", "#e8d8b0")
    c.rect(6, 4, 10, 8, "#f4f0e6")
    c.line("M8 7 h6 M8 9.5 h4", "#4a4a4a", 1)
    c.line("M-15 12 V4 M-17 6.5 L-15 3.5 L-13 6.5", dark(card, 0.6), 1.4)


def suitcase(c: Canvas, color: str) -> None:
    """On wheels, 68 below the hand."""
    line = {"stroke": dark(color, 0.6), "stroke_width": 1.5}
    c.line("M-6 20 V0 H6 V20", "#b8bec6", 2.4)
    c.circle(-10, 65.5, 3.2, "#16181c")
    c.circle(10, 65.5, 3.2, "#16181c")
    c.rect(-16, 16, 32, 48, c.linear(((0, light(color, 0.3)), (1, dark(color, 0.25))), x2=1.0),
           rx=5, **line)  # fmt: skip
    c.line("M-8 20 V60 M0 20 V60 M8 20 V60", dark(color, 0.35), 1.8)
    c.line("M-13.5 21 V58", light(color, 0.55), 1.6)
    c.rect(-5, 14, 10, 4, "#22252a", rx=2)


def child_seat(c: Canvas, color: str) -> None:
    """High back with wings, armrests, harness and buckle; carried by the headrest."""
    line = {"stroke": dark(color, 0.6), "stroke_width": 1.5}
    pad = light(color, 0.6)
    c.path("M-13 -3 Q0 -7 13 -3 L16 30 H-16 Z", color, **line)
    c.path("M-9 8 H9 L11 34 H-11 Z", pad)
    for sign in (-1, 1):
        c.path(f"M{sign * 8} -2 Q{sign * 19} -3 {sign * 20} 4 V14 Q{sign * 18} 18 {sign * 11} 15 Z",
               color, **line)  # fmt: skip
    c.rect(-10, 0, 20, 12, pad, rx=4)
    c.path("M-24 46 V36 Q-22 31 -14 31 H14 Q22 31 24 36 V46 Q0 52 -24 46 Z", color, **line)
    c.path("M-14 33 H14 L17 42 Q0 46 -17 42 Z", pad)
    for sign in (-1, 1):
        c.rect(sign * 20 - 4.5, 22, 9, 16, light(color, 0.15), rx=4, **line)
    c.line("M-6 11 L-2 25 M6 11 L2 25 M0 27 V38", "#1c1e22", 3)
    c.rect(-4, 23, 8, 7.5, "#d8281c", rx=1.5)


def umbrella(c: Canvas, color: str) -> None:
    """Open, over the head: the shaft rises from the hand."""
    line = {"stroke": dark(color, 0.55), "stroke_width": 1.3}
    c.line("M0 8 V-84", "#3a3026", 2.6)
    c.path("M-42 -54 C-38 -92 38 -92 42 -54 Q35 -60 28 -54 Q21 -61 14 -54 Q7 -61 0 -54 "
           "Q-7 -61 -14 -54 Q-21 -61 -28 -54 Q-35 -60 -42 -54 Z",
           c.linear(((0, light(color, 0.3)), (1, dark(color, 0.2)))), **line)  # fmt: skip
    c.path("M-14 -54 C-13 -70 -8 -80 0 -83 C8 -80 13 -70 14 -54 Q7 -61 0 -54 Q-7 -61 -14 -54 Z",
           dark(color, 0.2))  # fmt: skip
    c.path("M-42 -54 C-40 -70 -26 -80 -12 -82 C-22 -76 -27 -66 -28 -54 Q-35 -60 -42 -54 Z",
           dark(color, 0.28))  # fmt: skip


DRAW: dict[str, Any] = {
    "shopping bags": bag,
    "box": box,
    "suitcase": suitcase,
    "child seat": child_seat,
    "umbrella": umbrella,
}
