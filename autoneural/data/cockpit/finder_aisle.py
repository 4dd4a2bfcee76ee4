"""Draws the view down an aisle of a car park: cars parked askew on both sides, the level's sign.

My car is the one whose indicators flash. Lengths are centimetres, the camera at (0, `EYE`, 0).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from autoneural.data.cockpit.base import CANNOT_TELL, Box, Rng, uniform
from autoneural.data.cockpit.car_body import PAINTS, SHAPES, Car
from autoneural.data.cockpit.car_ends import Trim, draw_car
from autoneural.data.cockpit.fonts import FONTS, advances
from autoneural.data.cockpit.perspective import Camera, disc, flat, ground, panel, wall
from autoneural.data.cockpit.svg import SIDE, Canvas, box_around, dark, light, luma, mix

EYE = 165.0
CEILING = 285.0
WALL = 520.0
END = 1750.0
DEPTHS = (400.0, 760.0, 1080.0)
"""Of the cars, from near to far; mine is the first or the second."""
NOSE = 205.0
SKEW = 55.0
SIGNS = ("pillar", "hanging", "anywhere")
SIGNS_HELD_OUT = ("wall",)
CONCRETE = {"bright": "#a6a8a6", "dim": "#4a4d54"}
FLOOR = {"bright": "#7e8284", "dim": "#33363c"}
BOARDS = {
    "pillar": (250.0, 60.0, 205.0, 31.0),
    "hanging": (500.0, 132.0, 243.0, 64.0),
    "wall": (END - 2, 380.0, 178.0, 180.0),
}
"""Of each sign: how far away, how wide, how high its middle, height of a capital."""


def draw_board(rng: Rng, sign: str) -> list[float]:
    """A row of BOARDS; "anywhere" hangs at any distance and looks about as large as the others."""
    if sign != "anywhere":
        return list(BOARDS[sign])
    z, size = uniform(rng, 420, 1300), uniform(rng, 0.1, 0.13)
    tall = z * size
    return [z, tall * uniform(rng, 1.95, 2.3), max(CEILING - 10 - tall * 0.72, 180.0), tall]


def _camera(look: dict[str, Any]) -> Camera:
    return Camera(focal=look["focal"], height=EYE, centre=(look["centre"], look["horizon"]),
                  roll=look["roll"])  # fmt: skip


def _sign_at(truth: dict[str, str], look: dict[str, Any]) -> tuple[float, float, float, float]:
    """Middle (x, y), distance and half width. A pillar stands where it hides nothing of mine."""
    z, wide, y, _ = look["board"]
    x = 60.0 * look["shift"]
    if look["sign"] == "pillar":
        mine = -1 if truth["side"] == "left" else 1
        x = mine * (-1 if truth["distance"] == "near" else look["pillar"]) * 114.0
    elif look["sign"] == "wall":
        x = 0.0
    return x, y, z, wide / 2


def _hall(c: Canvas, truth: dict[str, str], camera: Camera, color: str) -> None:
    shade = CONCRETE[truth["light"]]
    floor = FLOOR[truth["light"]]
    c.rect(0, 0, SIDE, SIDE, floor)
    ceiling = f"M{-WALL} 45 L{WALL} 45 L{WALL} {END} L{-WALL} {END} Z"
    c.path(camera.warp(ceiling, ground(CEILING)), dark(shade, 0.28))
    for x in (-WALL, WALL):
        c.path(camera.warp(panel(45, 0, END, CEILING), wall(x)), dark(shade, 0.12))
        c.path(camera.warp(panel(45, 95, END, 150), wall(x)), color)
    c.path(camera.warp(panel(-WALL, 0, WALL, CEILING), flat(END)), shade)
    c.path(camera.warp(panel(-WALL, 95, WALL, 150), flat(END)), color)
    c.path(camera.warp(panel(-80, 0, 80, 210), flat(END - 1)), dark(shade, 0.55))
    for z in (300.0, 700.0, 1150.0):
        beam = camera.warp(panel(-WALL, CEILING - 26, WALL, CEILING), flat(z))
        c.path(beam, dark(shade, 0.2), stroke=dark(shade, 0.45), stroke_width=1)
    _tubes(c, truth, camera)


def _tubes(c: Canvas, truth: dict[str, str], camera: Camera) -> None:
    lit = "#fbfdf4" if truth["light"] == "bright" else "#8a8f98"
    for z in (180.0, 480.0, 860.0, 1300.0):
        tube = panel(-9, z, 9, z + 130)
        c.path(camera.warp(tube, ground(CEILING - 4)), lit)
        if truth["light"] == "bright":
            c.path(camera.warp(panel(-40, z, 40, z + 150), ground(1)), "#ffffff", fill_opacity=0.12)


def _ground(c: Canvas, truth: dict[str, str], camera: Camera) -> None:
    paint = mix(FLOOR[truth["light"]], "#ffffff", 0.6)
    for sign in (-1, 1):
        for z in (*DEPTHS, DEPTHS[-1] + 280):
            x, start = sign * (NOSE - 40), z + 40
            d = (f"M{x} {start} L{x + sign * 260} {start + 190} "
                 f"L{x + sign * 260} {start + 202} L{x} {start + 12} Z")  # fmt: skip
            c.path(camera.warp(d, ground()), paint)
    arrow = "M-9 300 L9 300 L9 400 L28 400 L0 470 L-28 400 L-9 400 Z"
    c.path(camera.warp(arrow, ground()), paint)


def _spot(truth: dict[str, str]) -> tuple[int, int]:
    """Side (0 left, 1 right) and depth of my car."""
    return int(truth["side"] == "right"), 0 if truth["distance"] == "near" else 1


def _parked(truth: dict[str, str], look: dict[str, Any], side: int, depth: int, paint: str) -> Car:
    index = side * 3 + depth
    sign = 1 if side else -1
    turn = sign * SKEW
    mine = (side, depth) == _spot(truth)
    colors = PAINTS[look["colours"][index]]
    own = paint if mine else colors[look["shade"]]
    dim = 0.0 if truth["light"] == "bright" else 0.16 if mine else 0.3
    return Car(
        camera=_camera(look).at(sign * NOSE, DEPTHS[depth], turn),
        shape=SHAPES[look["bodies"][index], "front"],
        end="front",
        paint=dark(own, dim),
        lamps=False,
        glass="#3a4854" if truth["light"] == "bright" else "#161a20",
        covered=depth == 0 or index - 1 not in look["empty"],  # the nearest by the picture's edge
    )


def _flash(c: Canvas, car: Car) -> None:
    """Amber indicators with their glow, upright before the end's curve."""
    s = car.shape
    for sign in (-1, 1):
        x, y = sign * (s.half - 12), s.top - 22
        depth = flat(car.lift(x, y)[2] - 3)
        for r, alpha in ((58, 0.25), (36, 0.5)):
            c.path(car.camera.warp(disc(x, y, r, r), depth), "#ff8c00", fill_opacity=alpha)
        lamp = car.camera.warp(disc(x, y, 19, 19), depth)
        c.path(lamp, "#ff9a00", stroke="#7a3c00", stroke_width=0.8)
        c.path(car.camera.warp(disc(x, y, 11, 11), depth), "#fff8d8")


def _cars(c: Canvas, truth: dict[str, str], look: dict[str, Any], paint: str) -> None:
    mine = _spot(truth)
    for depth in (2, 1, 0):
        for side in (0, 1):
            index = side * 3 + depth
            if (side, depth) != mine and index in look["empty"]:
                continue
            car = _parked(truth, look, side, depth, paint)
            draw_car(c, car, Trim(grille=look["grille"], lamp=look["lamp"]))
            if (side, depth) == mine:
                _flash(c, car)


def _sign(c: Canvas, truth: dict[str, str], look: dict[str, Any], color: str) -> None:
    camera = _camera(look)
    x, y, z, half = _sign_at(truth, look)
    cap = look["board"][3]
    ink = "#14161a" if luma(color) > 0.55 else "#ffffff"
    if look["sign"] == "pillar":
        shade = light(CONCRETE[truth["light"]], 0.12)
        c.path(camera.warp(panel(x - half - 3, 0, x + half + 3, CEILING), flat(z)), shade,
               stroke=dark(shade, 0.5), stroke_width=1.2)  # fmt: skip
        c.path(camera.warp(panel(x - half - 3, 0, x + half + 3, 60), flat(z)), "#e8c020")
    elif look["sign"] != "wall":
        for dx in (-half + 12, half - 12):
            c.line(camera.warp(f"M{x + dx} {y} L{x + dx} {CEILING}", flat(z)), "#2a2c30", 2)
    tall = cap * 0.72
    board = camera.warp(panel(x - half, y - tall, x + half, y + tall), flat(z))
    c.path(board, color, stroke=dark(color, 0.5), stroke_width=1.4)
    if truth["level"] == CANNOT_TELL:
        cloth = (f"M{x - half - 3} {y + tall + 4} L{x + half + 3} {y + tall + 2} "
                 f"Q{x + half} {y} {x + half + 5} {y - tall - 2} L{x} {y - tall} "
                 f"L{x - half - 4} {y - tall - 3} Z")  # fmt: skip
        c.path(camera.warp(cloth, flat(z - 1)), "#8c8674", stroke="#5a5648", stroke_width=1.2)
        fold = " ".join(
            f"M{x + half * a} {y + tall} L{x + half * b} {y - tall}"
            for a, b in ((-0.4, -0.6), (0.3, 0.5))
        )
        c.line(camera.warp(fold, flat(z - 1)), "#6e6858", 1.6)
        return
    font = FONTS[look["fonts"][0]]
    with c.group(transform=camera.matrix(x, y - cap / 2, flat(z))):
        c.label(0, 0, truth["row"] + truth["level"], cap / 0.71, fill=ink,
                font_family=font.family, font_weight=font.weight)  # fmt: skip


def draw_aisle(
    c: Canvas, truth: dict[str, str], look: dict[str, Any], paint: str, color: str
) -> None:
    """The aisle; `paint` is my car's, `color` the level's."""
    camera = _camera(look)
    _hall(c, truth, camera, color)
    if look["sign"] == "wall":
        _sign(c, truth, look, color)
    _ground(c, truth, camera)
    _cars(c, truth, look, paint)
    if look["sign"] != "wall":
        _sign(c, truth, look, color)


def aisle_boxes(truth: dict[str, str], look: dict[str, Any]) -> dict[str, Box]:
    x, y, z, half = _sign_at(truth, look)
    tall, camera = look["board"][3] * 0.72, _camera(look)
    corners = [(x + i * half, y + j * tall) for i in (-1, 1) for j in (-1, 1)]
    car = _parked(truth, look, *_spot(truth), paint="#000000")
    found = {
        "my car": box_around(car.outline()),
        "sign": box_around([camera.project(u, v, z) for u, v in corners]),
    }
    if truth["level"] == CANNOT_TELL:
        return found
    cap = look["board"][3]
    starts = advances(look["fonts"][0], truth["row"] + truth["level"], cap / 0.71)
    for name, (left, right) in zip(("row", "level"), pairwise(starts), strict=True):
        edges = [(x - starts[-1] / 2 + u, y + j * cap / 2) for u in (left, right) for j in (-1, 1)]
        found[name] = box_around([camera.project(u, v, z) for u, v in edges])
    return found
