"""What may come near a parked car besides people on foot: dog, trolley, cyclist, car.

Each is drawn in metres, from the side, facing right, wheels or paws on (0, 0), y up negative as in
SVG, within a group that scales and mirrors; `EXTENT` is (length behind 0, length before 0, height).
"""

from __future__ import annotations

from typing import Any

from autoneural.data.cockpit import heads, vehicles
from autoneural.data.cockpit.figures import HEAD, Stand
from autoneural.data.cockpit.svg import Canvas, dark, light

EXTENT = {
    "dog": (0.52, 0.56, 0.78),
    "shopping trolley": (0.5, 0.52, 1.06),
    "cyclist": (0.88, 0.88, 1.78),
    "car": (2.1, 2.1, 1.46),
    "car front": (0.98, 0.98, 1.66),
}


def _wheels(c: Canvas, spots: tuple[float, ...], r: float, rim: str, thick: float) -> None:
    for x in spots:
        c.circle(x, -r, r - thick / 2, "none", stroke="#15161a", stroke_width=thick)
        c.circle(x, -r, r * 0.2, rim)


def dog(c: Canvas, look: dict[str, Any], calm: bool) -> None:
    """Trotting, or standing with the nose to the ground."""
    coat = look["coat"]
    legs = "M-0.3 -0.4 L-0.42 -0.2 L-0.36 -0.02 M0.22 -0.4 L0.34 -0.2 L0.42 -0.04"
    if calm:
        legs = "M-0.3 -0.4 L-0.32 -0.02 M0.2 -0.4 L0.2 -0.02"
    c.line(legs, dark(coat, 0.35), 0.075)
    c.line("M-0.34 -0.5 Q-0.5 -0.6 -0.48 -0.74", coat, 0.07)
    c.path("M-0.4 -0.5 Q-0.4 -0.64 -0.2 -0.62 L0.16 -0.64 Q0.32 -0.62 0.3 -0.44 "
           "Q0.26 -0.3 0.1 -0.34 Q-0.1 -0.4 -0.24 -0.34 Q-0.4 -0.32 -0.4 -0.5 Z", coat)  # fmt: skip
    c.path(
        "M-0.36 -0.56 Q-0.1 -0.6 0.2 -0.6 L0.2 -0.54 Q-0.1 -0.55 -0.36 -0.5 Z", light(coat, 0.25)
    )
    near = "M-0.26 -0.4 L-0.2 -0.2 L-0.3 -0.02 M0.2 -0.4 L0.12 -0.2 L0.18 -0.02"
    c.line("M-0.24 -0.4 L-0.25 -0.02 M0.26 -0.4 L0.27 -0.02" if calm else near, coat, 0.08)
    with c.group(transform="translate(0.24 -0.58) rotate(38)" if calm else "translate(0.24 -0.58)"):
        c.line("M-0.04 0.02 L0.1 -0.1", coat, 0.17)
        c.circle(0.14, -0.12, 0.12, coat)
        c.path("M0.16 -0.2 L0.36 -0.12 Q0.38 -0.05 0.3 -0.03 L0.14 -0.01 Z", coat)
        c.circle(0.35, -0.11, 0.035, "#101010")
        c.circle(0.2, -0.15, 0.022, "#101010")
        c.path("M0.04 -0.2 Q0 -0.06 0.07 0.02 Q0.14 -0.06 0.12 -0.2 Z", dark(coat, 0.4))
        c.line("M-0.02 -0.06 L0.08 0.06", look["collar"], 0.05)


def trolley(c: Canvas, look: dict[str, Any], calm: bool) -> None:
    wire = "#c4cad2"
    c.line("M-0.4 -0.12 L0.42 -0.12 L0.3 -0.4 L-0.3 -0.4", dark(wire, 0.3), 0.035)
    c.path("M-0.42 -0.95 L0.5 -0.8 L0.36 -0.42 L-0.32 -0.42 Z", "#9aa4b0", fill_opacity=0.45)
    bars = " ".join(
        f"M{-0.42 + 0.92 * t:.2f} {-0.95 + 0.15 * t:.2f} L{-0.32 + 0.68 * t:.2f} -0.42"
        for t in (0, 0.17, 0.33, 0.5, 0.67, 0.83, 1)
    )
    rows = "M-0.39 -0.78 L0.46 -0.69 M-0.35 -0.6 L0.41 -0.56"
    c.line(f"{bars} {rows}", wire, 0.022)
    c.line("M-0.42 -0.95 L0.5 -0.8 L0.36 -0.42 H-0.32 Z", light(wire, 0.3), 0.035)
    c.line("M-0.4 -0.12 L-0.32 -0.42 L-0.44 -0.98", wire, 0.04)
    c.line("M-0.52 -1.02 L-0.36 -0.98", look["collar"], 0.08)
    _wheels(c, (-0.36, 0.38), 0.07, "#888", 0.06)


def cyclist(c: Canvas, look: dict[str, Any], calm: bool) -> None:
    paint, cloth = look["paint"], look["cloth"]
    _wheels(c, (-0.54, 0.54), 0.34, "#9aa0a8", 0.05)
    c.line("M-0.1 -0.92 L0.02 -0.62 L0.16 -0.5 L0.1 -0.3", dark(look["trousers"], 0.3), 0.13)
    c.line("M-0.54 -0.34 L-0.02 -0.32 L0.4 -0.8 L-0.2 -0.74 L-0.02 -0.32 M-0.54 -0.34 L-0.2 -0.74 "
           "L-0.24 -0.92 M0.54 -0.34 L0.4 -0.8 L0.36 -0.98 L0.48 -1", paint, 0.055)  # fmt: skip
    c.line("M-0.34 -0.93 H-0.14", "#15161a", 0.07)
    c.line("M-0.18 -0.92 L0.18 -0.66 L0 -0.26", look["trousers"], 0.15)
    c.line("M-0.04 -0.22 H0.12", look["shoe"], 0.09)
    c.line("M0.2 -1.36 L0.28 -1.14 L0.46 -1.04", dark(cloth, 0.25), 0.11)
    fill = c.linear(((0, light(cloth, 0.2)), (1, dark(cloth, 0.25))))
    c.path(
        "M-0.34 -0.92 Q-0.24 -1.3 0.08 -1.46 Q0.26 -1.5 0.28 -1.36 Q0.14 -1.1 -0.06 -0.9 Z", fill
    )
    c.line("M0.18 -1.38 L0.22 -1.12 L0.46 -1.02", cloth, 0.1)
    c.circle(0.46, -1.03, 0.05, look["skin"])
    c.line("M0.2 -1.44 L0.26 -1.56", dark(look["skin"], 0.2), 0.1)
    r = 0.112 * HEAD["adult"]
    with c.group(transform=f"translate(0.28 -1.6) scale({r:.3f})"):
        heads.DRAW["side"](c, {**look, "head": "hair"})
        c.path("M-1.1 -0.3 C-1.2 -1.6 1.1 -1.6 1.1 -0.4 Z", look["hat"])
        c.line("M-0.5 -0.6 L-0.3 -1.15 M0.1 -0.6 L0.2 -1.2", dark(look["hat"], 0.5), 0.15)


def car(c: Canvas, look: dict[str, Any], calm: bool) -> None:
    paint = look["paint"]
    c.ellipse(0, 0, 2.1, 0.12, "#000000", fill_opacity=0.4)
    fill = c.linear(((0, light(paint, 0.3)), (0.5, paint), (1, dark(paint, 0.35))))
    c.path("M-2.08 -0.36 Q-2.14 -0.86 -1.9 -0.92 L-1.5 -0.98 Q-1.1 -1.44 -0.5 -1.46 H0.1 "
           "Q0.6 -1.42 1 -0.98 Q1.9 -0.9 2.04 -0.62 Q2.12 -0.4 2.06 -0.26 H-2 Z", fill,
           stroke=dark(paint, 0.6), stroke_width=0.03)  # fmt: skip
    c.path("M-1.3 -0.98 Q-1 -1.34 -0.5 -1.36 H-0.32 V-0.98 Z M-0.22 -1.36 H0.08 Q0.46 -1.32 0.78 "
           "-0.98 H-0.22 Z", "#1e2a34")  # fmt: skip
    c.path("M-0.14 -1.3 H0.06 L-0.06 -1.02 H-0.2 Z", "#a8c4d8", fill_opacity=0.5)
    c.line("M-0.27 -0.96 V-0.4 M0.72 -0.9 L0.62 -0.4", dark(paint, 0.5), 0.025)
    c.line("M-0.56 -0.82 h0.2 M0.42 -0.82 h0.2", light(paint, 0.5), 0.04)
    for x in (-1.28, 1.3):
        c.circle(x, -0.32, 0.38, "#0e0f12")
        c.circle(x, -0.31, 0.31, "#1c1d22")
        c.circle(x, -0.31, 0.19, "#b4bac2", stroke="#5a6068", stroke_width=0.04)
    c.path("M1.72 -0.76 Q1.98 -0.72 2.02 -0.58 L1.8 -0.6 Z", "#fff8dc")
    c.path("M-2.06 -0.8 L-1.9 -0.84 V-0.66 L-2.09 -0.64 Z", "#d02020")
    if not calm:
        c.path("M2 -0.66 L3.3 -0.9 V-0.2 L2 -0.56 Z", "#fff4c0", fill_opacity=0.3)


def car_front(c: Canvas, look: dict[str, Any], calm: bool) -> None:
    with c.group(transform="scale(0.0192)"):
        vehicles.car(c, {**look, "body": "saloon"}, not calm)


DRAW = {
    "dog": dog,
    "shopping trolley": trolley,
    "cyclist": cyclist,
    "car": car,
    "car front": car_front,
}


def draw(c: Canvas, kind: str, stand: Stand, look: dict[str, Any], calm: bool) -> None:
    """`calm`: a dog that sniffs, a car without beams."""
    if kind != "car":
        c.ellipse(
            stand.x, stand.y, 0.5 * stand.scale, 0.07 * stand.scale, "#000000", fill_opacity=0.3
        )
    size = f"scale({stand.facing * stand.scale:.3f} {stand.scale:.3f})"
    with c.group(transform=f"translate({stand.x:.2f} {stand.y:.2f}) {size}"):
        DRAW[kind](c, look, calm)


def outline(kind: str, stand: Stand) -> tuple[float, float, float, float]:
    """Left, top, right, bottom in the drawing."""
    behind, before, height = EXTENT[kind]
    ends = (
        stand.x - stand.facing * stand.scale * behind,
        stand.x + stand.facing * stand.scale * before,
    )
    return min(ends), stand.y - height * stand.scale, max(ends), stand.y
