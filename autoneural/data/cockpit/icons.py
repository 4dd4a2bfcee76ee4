"""Self-drawn signs: warning lights in the manner of ISO 2575, menu symbols, manoeuvre arrows.

Each draws around the origin inside a 40 x 40 box, in one colour.
"""

from __future__ import annotations

from collections.abc import Callable

from autoneural.data.cockpit.svg import Canvas

RED, AMBER, BLUE = "#ff3b30", "#ffb000", "#3d8bff"
Draw = Callable[[Canvas, str], None]


def _seat_belt(c: Canvas, color: str) -> None:
    c.circle(0, -12, 6.5, color)
    c.path("M-13 19 C-14 2 -10 -4 0 -4 C10 -4 14 2 13 19 Z", color)
    c.line("M-13 -6 L12 17", "#14161c", 4)
    c.line("M-17 -10 L-10 -4 M8 14 L17 21", color, 3.5)


def _brake(c: Canvas, color: str) -> None:
    c.circle(0, 0, 12.5, "none", stroke=color, stroke_width=3.5)
    c.line("M0 -7 V2", color, 4)
    c.circle(0, 7, 2.4, color)
    c.line("M-14 -14 A20 20 0 0 0 -14 14 M14 -14 A20 20 0 0 1 14 14", color, 3.5)


def _oil(c: Canvas, color: str) -> None:
    c.path("M-12 -4 H5 L18 -10 L20 -7 L8 12 H-12 Z", color)
    c.line("M-12 0 L-19 -5", color, 4)
    c.line("M-8 -10 H2 M-3 -10 V-4", color, 3.5)
    c.path("M18 2 C22 8 22 12 18 12 C14 12 14 8 18 2 Z", color)


def _battery(c: Canvas, color: str) -> None:
    c.rect(-18, -9, 36, 24, "none", rx=2, stroke=color, stroke_width=3.5)
    c.rect(-13, -15, 8, 6, color)
    c.rect(5, -15, 8, 6, color)
    c.line("M-13 3 H-5 M5 3 H13 M9 -1 V7", color, 3)


def _engine(c: Canvas, color: str) -> None:
    c.path("M-12 -6 H-6 L-3 -10 H8 L12 -5 H15 V0 H19 V12 H14 L9 16 H-6 L-12 9 Z", color)
    c.line("M-4 -15 H7 M2 -15 V-10 M-18 -5 V9 M-18 2 H-12", color, 3.5)


def _tyre(c: Canvas, color: str) -> None:
    c.line("M-10 15 C-22 2 -20 -10 -14 -16 M10 15 C22 2 20 -10 14 -16", color, 3.8)
    c.line("M-12 15 H12", color, 3.8)
    c.line("M-10 15 L-8 19 M-3 15 V19 M4 15 V19 M10 15 L9 19", color, 2.6)
    c.line("M0 -13 V2", color, 4.5)
    c.circle(0, 8.5, 2.8, color)


def _abs(c: Canvas, color: str) -> None:
    """The letters as strokes: a picture without a font needs none."""
    c.circle(0, 0, 13.5, "none", stroke=color, stroke_width=2.8)
    c.line("M-16.5 -11 A20 20 0 0 0 -16.5 11 M16.5 -11 A20 20 0 0 1 16.5 11", color, 3)
    c.line("M-10 5 L-7 -5 L-4 5 M-9 2 H-5", color, 2)
    c.line("M-2 -5 V5 H0.5 C3.5 5 3.5 0 0.5 0 H-2 M0.5 0 C3 0 3 -5 0.5 -5 H-2", color, 2)
    c.line("M9 -4 C6 -7 3.5 -1.5 7 0 C11 1.5 8 7 4.8 3.8", color, 2)


def _high_beam(c: Canvas, color: str) -> None:
    c.path("M2 -14 C16 -14 20 -6 20 0 C20 6 16 14 2 14 C5 6 5 -6 2 -14 Z", color)
    c.line("M-19 -12 H-3 M-19 -4 H-1 M-19 4 H-1 M-19 12 H-3", color, 3.4)


LIGHTS: dict[str, tuple[str, Draw]] = {
    "seat belt": (RED, _seat_belt),
    "brake": (RED, _brake),
    "oil": (RED, _oil),
    "battery": (RED, _battery),
    "engine": (AMBER, _engine),
    "tyre pressure": (AMBER, _tyre),
    "abs": (AMBER, _abs),
    "high beam": (BLUE, _high_beam),
}


def _music(c: Canvas, color: str) -> None:
    c.line("M-6 10 V-13 L13 -17 V6", color, 4)
    c.ellipse(-11, 11, 7, 5.5, color)
    c.ellipse(8, 7, 7, 5.5, color)


def _handset(c: Canvas, color: str) -> None:
    c.line("M-13 -12 C-12 4 -4 12 12 13", color, 7)
    c.line("M-13 -12 L-6 -13 M12 13 L13 6", color, 9)


def _pin(c: Canvas, color: str) -> None:
    c.path("M0 19 C-18 -2 -14 -18 0 -18 C14 -18 18 -2 0 19 Z M0 -10 A5 5 0 0 0 0 0 "
           "A5 5 0 0 0 0 -10 Z", color, fill_rule="evenodd")  # fmt: skip


def _fan(c: Canvas, color: str) -> None:
    for angle in (0, 90, 180, 270):
        with c.group(transform=f"rotate({angle})"):
            c.path("M0 0 C-9 -6 -10 -19 2 -18 C10 -16 8 -6 0 0 Z", color)


MENU: dict[str, Draw] = {"music": _music, "phone": _handset, "maps": _pin, "climate": _fan}

ARROWS = {
    "turn left": ("M12 20 V-2 Q12 -8 5 -8 H-8", "M-6 -20 L-22 -8 L-6 4 Z"),
    "turn right": ("M-12 20 V-2 Q-12 -8 -5 -8 H8", "M6 -20 L22 -8 L6 4 Z"),
    "straight on": ("M0 20 V-6", "M-13 -4 L0 -22 L13 -4 Z"),
    "u-turn": ("M14 20 V-6 A11 11 0 0 0 -8 -6 V4", "M-20 3 L-8 20 L4 3 Z"),
}


def arrow(c: Canvas, manoeuvre: str, color: str) -> None:
    """The manoeuvre's arrow; nothing for "none"."""
    if manoeuvre in ARROWS:
        shaft, tip = ARROWS[manoeuvre]
        c.line(shaft, color, 8, stroke_linecap="butt")
        c.path(tip, color)
