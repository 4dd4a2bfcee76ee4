"""What can approach, seen from the front. Each stands on (0, 0), y up is negative, in pixels at
the near distance; `lit` switches the lamps on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autoneural.data.cockpit.svg import Canvas, dark, light


def _lamp(c: Canvas, x: float, y: float, r: float, lit: bool) -> None:
    if lit:
        c.circle(x, y, r * 2.6, "#fff2b8", opacity=0.3)
        c.circle(x, y, r * 1.7, "#fff4c8", opacity=0.5)
    c.circle(x, y, r, "#fffbe6" if lit else "#e8f0f4", stroke="#50565e", stroke_width=1.2)


def _shadow(c: Canvas, rx: float) -> None:
    c.ellipse(0, 0, rx, 6, "#000000", opacity=0.4)


def car(c: Canvas, look: dict[str, Any], lit: bool) -> None:
    paint = dark(look["paint"], 0.3) if lit else look["paint"]
    roof = -84 if look["body"] == "tall" else -72
    _shadow(c, 52)
    c.rect(-43, -18, 17, 20, "#121316", rx=4)
    c.rect(26, -18, 17, 20, "#121316", rx=4)
    c.path(
        f"M-40 -42 L-28 {roof} Q0 {roof - 8} 28 {roof} L40 -42 Z",
        dark(paint, 0.1),
        stroke=dark(paint, 0.6),
        stroke_width=2,
    )
    c.path(f"M-34 -44 L-25 {roof + 5} Q0 {roof - 1} 25 {roof + 5} L34 -44 Z", "#26323e")
    c.path(f"M-30 -44 L-22 {roof + 6} L-8 {roof + 4} L-14 -44 Z", "#7f98ac", opacity=0.55)
    fill = c.linear(((0, light(paint, 0.3)), (1, dark(paint, 0.25))))
    c.path(
        "M-46 -12 V-34 Q-45 -45 -34 -46 H34 Q45 -45 46 -34 V-12 "
        "Q46 -6 38 -6 H-38 Q-46 -6 -46 -12 Z",
        fill,
        stroke=dark(paint, 0.6),
        stroke_width=2,
    )
    c.rect(-20, -30, 40, 11, "#16181c", rx=4)
    c.rect(-13, -16, 26, 7, "#f0f2f4", rx=1)
    c.path("M-51 -48 H-43 V-40 H-51 Z M51 -48 H43 V-40 H51 Z", dark(paint, 0.3))
    for x in (-34, 34):
        _lamp(c, x, -30, 7, lit)


def _rider(c: Canvas, look: dict[str, Any], hip: float, shoulder: float) -> None:
    """Torso and arms reaching forward to a bar 18 to each side, at the height of the hip."""
    cloth = look["cloth"]
    fill = c.linear(((0, light(cloth, 0.2)), (1, dark(cloth, 0.25))))
    c.line(
        f"M-15 {shoulder + 5} L-24 {hip - 8} L-20 {hip + 2} "
        f"M15 {shoulder + 5} L24 {hip - 8} L20 {hip + 2}",
        dark(cloth, 0.25),
        8,
    )
    c.path(f"M-17 {shoulder + 4} Q0 {shoulder - 6} 17 {shoulder + 4} L13 {hip} H-13 Z", fill)


def cyclist(c: Canvas, look: dict[str, Any], lit: bool) -> None:
    _shadow(c, 18)
    c.line("M-12 -54 L-13 -34 L-9 -14 M12 -54 L13 -30 L9 -22", look["trousers"], 10)
    c.ellipse(0, -20, 4.5, 21, "none", stroke="#15161a", stroke_width=5)
    c.line("M0 -40 V-62", look["paint"], 5)
    c.line("M-22 -58 H22", "#22242a", 5)
    _rider(c, look, -58, -92)
    c.circle(0, -104, 10, look["skin"])
    c.path("M-13 -105 C-14 -124 14 -124 13 -105 Z", look["helmet"])
    c.line("M-5 -117 V-107 M5 -117 V-107", dark(look["helmet"], 0.5), 2)
    _lamp(c, 0, -50, 4.5, lit)


def scooter(c: Canvas, look: dict[str, Any], lit: bool) -> None:
    paint = look["paint"]
    _shadow(c, 28)
    c.rect(-8, -26, 16, 27, "#121316", rx=7)
    c.line("M-22 -30 L-27 -8 M22 -30 L27 -8", look["trousers"], 11)
    _rider(c, look, -60, -94)
    c.path(
        "M-26 -12 C-30 -40 -22 -62 0 -66 C22 -62 30 -40 26 -12 C14 -22 -14 -22 -26 -12 Z",
        c.linear(((0, light(paint, 0.35)), (1, dark(paint, 0.3)))),
        stroke=dark(paint, 0.6),
        stroke_width=2,
    )
    c.line("M-32 -64 H32", "#1c1e22", 5)
    c.line("M-26 -66 L-32 -80 M26 -66 L32 -80", "#1c1e22", 2.5)
    c.ellipse(-33, -83, 7, 5, "#4a5a68")
    c.ellipse(33, -83, 7, 5, "#4a5a68")
    c.circle(0, -108, 16, look["helmet"], stroke=dark(look["helmet"], 0.5), stroke_width=1.5)
    c.path("M-13 -110 Q0 -116 13 -110 V-103 Q0 -98 -13 -103 Z", "#14181e")
    _lamp(c, 0, -48, 9, lit)


def pedestrian(c: Canvas, look: dict[str, Any], lit: bool) -> None:
    cloth = look["cloth"]
    _shadow(c, 20)
    c.line("M-6 -50 L-11 -4 M7 -50 L11 -8", look["trousers"], 12)
    c.line("M-14 -2 H-8 M9 -6 H15", "#18181a", 7)
    c.line("M-18 -86 L-25 -54 M18 -86 L26 -56", dark(cloth, 0.25), 9)
    c.circle(-25, -50, 5, look["skin"])
    c.circle(26, -52, 5, look["skin"])
    c.path(
        "M-20 -88 Q0 -98 20 -88 L16 -46 H-16 Z",
        c.linear(((0, light(cloth, 0.2)), (1, dark(cloth, 0.25)))),
    )
    c.circle(0, -106, 12, look["skin"])
    c.path("M-12 -106 C-14 -124 14 -124 12 -106 C8 -114 -8 -114 -12 -106 Z", "#2a1e16")
    if lit:
        c.line("M-16 -66 H16", "#f4ff90", 4)


EXTENT = {
    "car": (-52, -90, 52, 3),
    "cyclist": (-29, -120, 29, 4),
    "scooter": (-41, -125, 41, 2),
    "pedestrian": (-32, -120, 32, 0),
}
"""Left, top, right, bottom; of a saloon the top is 12 lower."""
DRAW: dict[str, Callable[[Canvas, dict[str, Any], bool], None]] = {
    "car": car,
    "cyclist": cyclist,
    "scooter": scooter,
    "pedestrian": pedestrian,
}
