"""The upright end of a car: bumper, lamps and grille of the front, boot and lamps of the rear."""

from __future__ import annotations

from dataclasses import dataclass

from autoneural.data.cockpit.car_body import (
    Car,
    draw_cabin,
    draw_flank,
    draw_mirrors,
    draw_shadow,
)
from autoneural.data.cockpit.perspective import disc, panel
from autoneural.data.cockpit.svg import Canvas, dark, light

GRILLES = ("bars", "mesh", "slot")
GRILLES_HELD_OUT = ("columns",)
LAMPS = ("round", "slim")
LAMPS_HELD_OUT = ("square",)


@dataclass(frozen=True, kw_only=True)
class Trim:
    grille: str
    lamp: str


def draw_car(c: Canvas, car: Car, trim: Trim) -> None:
    """The whole car but for its badge and plate."""
    draw_shadow(c, car)
    draw_flank(c, car)
    if car.end == "rear":
        draw_mirrors(c, car)
    draw_cabin(c, car)
    if car.end == "front":
        _front(c, car, trim)
        draw_mirrors(c, car)
    else:
        _rear(c, car, trim)


def _face(c: Canvas, car: Car) -> None:
    s, paint = car.shape, car.paint
    w, top = s.half, s.top
    d = (
        f"M{-w + 3} 26 Q{-w - 1} 44 {-w + 1} 60 Q{-w + 3} {top - 4} {-w + 15} {top} "
        f"L{w - 15} {top} Q{w - 3} {top - 4} {w - 1} 60 Q{w + 1} 44 {w - 3} 26 "
        f"Q{w - 6} 19 {w - 22} 18 L{-w + 22} 18 Q{-w + 6} 19 {-w + 3} 26 Z"
    )
    fill = c.linear(((0, light(paint, 0.22)), (0.45, paint), (1, dark(paint, 0.4))))
    c.path(car.on(d), fill, stroke=dark(paint, 0.65), stroke_width=1.5)
    if 160 < s.roof < 190:
        _cladding(c, car)


def _cladding(c: Canvas, car: Car) -> None:
    """The bare plastic below an suv's waist."""
    w = car.shape.half
    d = (
        f"M{-w + 1} 46 L{-w + 24} 40 L{w - 24} 40 L{w - 1} 46 Q{w - 4} 19 {w - 22} 18 "
        f"L{-w + 22} 18 Q{-w + 4} 19 {-w + 1} 46 Z"
    )
    c.path(car.on(d), "#2a2c30")


def _deck(c: Canvas, car: Car) -> None:
    """The bonnet or the boot lid, between the end and the window."""
    s, paint = car.shape, car.paint
    x0, x1 = s.half - 14, s.half - 10
    lid = f"M{-x0} {s.top} L{-x1} {s.base} L{x1} {s.base} L{x0} {s.top} Z"
    c.path(car.on(lid), light(paint, 0.12), stroke=dark(paint, 0.55), stroke_width=1.2)
    c.line(car.on(f"M-46 {s.top} L-34 {s.base} M46 {s.top} L34 {s.base}"), dark(paint, 0.2), 1.5)
    shine = f"M-30 {s.top + 2} L-24 {s.base - 2} L24 {s.base - 2} L30 {s.top + 2} Z"
    c.path(car.on(shine), "#ffffff", fill_opacity=0.14)


def _front(c: Canvas, car: Car, trim: Trim) -> None:
    s = car.shape
    _deck(c, car)
    _face(c, car)
    x0, x1 = s.half - 10, s.half - 26
    c.path(car.on(f"M{-x0} 27 Q0 13 {x0} 27 L{x1} 17 L{-x1} 17 Z"), "#141519")
    _grille(c, car, trim.grille)
    for sign in (-1, 1):
        _headlamp(c, car, sign, trim.lamp)
        c.path(car.on(disc(sign * (s.half - 15), 36, 6, 4)), "#c8ccd0")
    c.line(car.on(f"M{-s.half + 6} 52 Q0 48 {s.half - 6} 52"), dark(car.paint, 0.35), 1.2)


def _grille(c: Canvas, car: Car, kind: str) -> None:
    top = car.shape.top - 4
    low = top - 24
    edge = f"M-42 {top} L42 {top} L34 {low} L-34 {low} Z"
    c.path(car.on(edge), "#0e1013", stroke="#b8bec4", stroke_width=1.8)
    steel, lines = "#6a7078", ""
    if kind == "bars":
        lines = " ".join(f"M-37 {y} L37 {y}" for y in (low + 6, low + 12, low + 18))
    elif kind == "mesh":
        lines = " ".join(f"M{x} {low + 1} L{x + 10} {top - 1} M{x + 10} {low + 1} L{x} {top - 1}"
                         for x in range(-34, 30, 10))  # fmt: skip
    elif kind == "columns":
        lines = " ".join(f"M{x} {low + 2} L{x} {top - 2}" for x in range(-32, 33, 8))
    if lines:
        c.line(car.on(lines), steel, 1.4)
    else:
        c.line(car.on(f"M-38 {low + 12} L38 {low + 12}"), "#c8ced4", 4)


def _headlamp(c: Canvas, car: Car, sign: int, kind: str) -> None:
    s = car.shape
    x, y = sign * (s.half - 24), s.top - 16
    rx, ry = {"round": (14, 12), "slim": (20, 7), "square": (16, 9)}[kind]
    shape = panel(x - rx, y - ry, x + rx, y + ry) if kind == "square" else disc(x, y, rx, ry)
    if car.lamps:
        c.path(car.on(disc(x, y, rx * 2.1, ry * 2.6)), "#fff0b0", fill_opacity=0.28)
        c.path(car.on(disc(x, y, rx * 1.5, ry * 1.7)), "#fff6cc", fill_opacity=0.5)
    c.path(car.on(shape), "#fffbe4" if car.lamps else "#7c8894", stroke="#20242a", stroke_width=1.8)
    if not car.lamps:
        c.path(car.on(disc(x, y, rx * 0.6, ry * 0.6)), "#4a545e", stroke="#aab4bc", stroke_width=1)
        c.path(car.on(disc(x - 4, y + ry * 0.35, 3, 2)), "#dce4ea")


def _rear(c: Canvas, car: Car, trim: Trim) -> None:
    s, paint = car.shape, car.paint
    _deck(c, car)
    _face(c, car)
    c.path(car.on(f"M{-s.half + 12} 27 L{s.half - 12} 27 L{s.half - 22} 17 L{-s.half + 22} 17 Z"),
           "#16171b")  # fmt: skip
    c.line(car.on(f"M{-s.half + 4} 36 Q0 32 {s.half - 4} 36"), dark(paint, 0.45), 1.5)
    for sign in (-1, 1):
        _tail_lamp(c, car, sign, trim.lamp)
        c.path(car.on(disc(sign * (s.half - 34), 20, 8, 4)), "#b0b4b8", stroke="#30343a")
    if s.roof > 190:
        c.line(car.on(f"M0 24 L0 {s.roof - 6}"), dark(paint, 0.6), 2)
        c.line(car.on(f"M6 {s.top - 8} L6 {s.top - 22}"), "#16171b", 4)
    elif s.roof > 160:
        c.line(car.on(f"M{-s.half + 22} 40 L{-s.half + 18} {s.top}"), dark(paint, 0.45), 1.2)
        c.line(car.on(f"M{s.half - 22} 40 L{s.half - 18} {s.top}"), dark(paint, 0.45), 1.2)


def _tail_lamp(c: Canvas, car: Car, sign: int, kind: str) -> None:
    s = car.shape
    x, y = sign * (s.half - 17), s.top - 18
    rx, ry = {"round": (12, 12), "slim": (17, 8), "square": (11, 15)}[kind]
    shape = panel(x - rx, y - ry, x + rx, y + ry) if kind == "square" else disc(x, y, rx, ry)
    if car.lamps:
        c.path(car.on(disc(x, y, rx * 1.9, ry * 1.9)), "#ff4030", fill_opacity=0.35)
    c.path(car.on(shape), "#ff3a28" if car.lamps else "#7c1418", stroke="#2a0a0c", stroke_width=1.8)
    if car.lamps:
        c.path(car.on(disc(x, y, rx * 0.55, ry * 0.55)), "#ffc8b0")
    else:
        c.path(car.on(disc(x, y - ry * 0.45, rx * 0.6, ry * 0.3)), "#c8ccd0", fill_opacity=0.7)
