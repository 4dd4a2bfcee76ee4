"""Draws a car's front or rear with its plate and badge, in a place, a light and a weather."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from autoneural.data.cockpit import emblems, plate_drawing, street
from autoneural.data.cockpit.base import CANNOT_TELL, Box
from autoneural.data.cockpit.car_body import PAINTS, SHAPES, Car
from autoneural.data.cockpit.car_ends import Trim, draw_car
from autoneural.data.cockpit.perspective import Camera, flat, ground
from autoneural.data.cockpit.svg import SIDE, Canvas, box_around, dark, mix

PLACES = ("city", "trees", "hills", "wall")
PLACES_HELD_OUT = ("village", "harbour")
MUD = ("#6b4c2e", "#5c4128", "#7a5a38")
MUD_HELD_OUT = ("#665a48", "#4f3d2c")
NIGHT = {"day": 0.0, "dusk": 0.07, "night": 0.18}
"""How much darker a car's paint gets, so little that its colour keeps its name."""
ZOOM = {"saloon": 1.0, "convertible": 1.0, "suv": 0.95, "van": 0.88}
"""Tall cars are seen from further away, so that their roofs stay in the picture."""


def _camera(truth: dict[str, str], look: dict[str, Any]) -> Camera:
    """Aimed so that the plate lies where it was drawn to, wholly in the picture."""
    aim = Camera(
        focal=look["focal"] * ZOOM[truth["body"]],
        height=look["height"],
        centre=(0.0, 0.0),
        z=430.0,
        turn=look["turn"],
        roll=look["roll"],
    )
    u, v = aim.project(0.0, _plate_height(truth), 0.0)
    room = 125.0 - (plan_of(truth, look).half_width + 2.0) * aim.focal / aim.z
    x = 128.0 + room * math.copysign(abs(look["aside"]) ** 0.5, look["aside"])
    return replace(aim, centre=(x - u, look["y"] - v))


def _plate_height(truth: dict[str, str]) -> float:
    if truth["view"] == "front":
        return 34.0
    return SHAPES[truth["body"], "rear"].top - 50.0


def _badge_height(truth: dict[str, str]) -> float:
    shape = SHAPES[truth["body"], truth["view"]]
    return shape.top - (9.0 if truth["view"] == "front" else 8.0)


def _car(truth: dict[str, str], look: dict[str, Any]) -> Car:
    paint = PAINTS[truth["colour"]][look["shade"]]
    glass = {"day": "#44586a", "dusk": "#3a3444", "night": "#141b28"}[truth["light"]]
    return Car(
        camera=_camera(truth, look),
        shape=SHAPES[truth["body"], truth["view"]],
        end=truth["view"],
        paint=dark(paint, NIGHT[truth["light"]]),
        lamps=truth["lamps"] == "on",
        glass=glass,
    )


def plan_of(truth: dict[str, str], look: dict[str, Any]) -> plate_drawing.Layout:
    """Where the characters of the plate stand; of a hidden one, those that would be there."""
    chars = iter(truth[f"char {k}"] for k in range(1, 8) if truth[f"char {k}"] != "none")
    hidden = truth["plate lines"] == CANNOT_TELL
    groups = ["".join("0" if hidden else next(chars, "") for _ in group)
              for group in look["grammar"].split()]  # fmt: skip
    return plate_drawing.layout(groups, look["hidden lines"] if hidden else truth["plate lines"],
                                look["style"])  # fmt: skip


def _wall(c: Canvas, truth: dict[str, str], look: dict[str, Any], horizon: float) -> None:
    """A garage wall of bricks."""
    brick = {"day": "#a8705a", "dusk": "#6e4a4a", "night": "#2e2426"}[truth["light"]]
    c.rect(-5, -5, SIDE + 10, horizon + 12, brick)
    rows = range(int((horizon + 12) // 11) + 1)
    c.line(" ".join(f"M-5 {11 * k} H261" for k in rows), dark(brick, 0.25), 1)
    joints = (f"M{x + 13 * (k % 2)} {11 * k} v11" for k in rows for x in range(0, SIDE + 26, 26))
    c.line(" ".join(joints), dark(brick, 0.25), 1)
    c.rect(-5, horizon + 2, SIDE + 10, 12, dark(brick, 0.5))


def _floor(c: Canvas, truth: dict[str, str], look: dict[str, Any], camera: Camera) -> None:
    horizon = camera.centre[1]
    road = street.ROAD[truth["light"]]
    if truth["weather"] == "rain":
        road = dark(road, 0.22)
    elif truth["weather"] == "snow":
        road = mix(road, "#ffffff" if truth["light"] == "day" else "#a8b0c4", 0.5)
    c.rect(-10, horizon, SIDE + 20, SIDE + 20, road)
    paint = mix(road, "#ffffff", 0.6)
    for x in (-150.0, 150.0):
        d = f"M{x - 5} -220 L{x + 5} -220 L{x + 5} 1200 L{x - 5} 1200 Z"
        c.path(camera.warp(d, ground()), paint)
    if truth["weather"] == "rain":
        puddle = camera.warp(
            "M-110 -60 Q-40 -95 40 -70 Q130 -60 90 -110 Q0 -140 -90 -110 Z", ground()
        )
        c.path(puddle, mix(road, street.SKY[truth["light"]][1], 0.5), fill_opacity=0.8)


def _place(c: Canvas, truth: dict[str, str], look: dict[str, Any], camera: Camera) -> None:
    horizon = camera.centre[1]
    y = horizon + (128 - camera.centre[0]) * math.tan(math.radians(look["roll"]))
    turn = (
        f"translate(128 {y:.2f}) rotate({look['roll']}) scale(1.25) translate(-128 {-horizon:.2f})"
    )
    with c.group(transform=turn):  # larger, so that the roll bares no corner
        street.sky(c, truth, horizon)
        draw = _wall if look["place"] == "wall" else street.PLACE[look["place"]]
        draw(c, truth, look, horizon)
    _floor(c, truth, look, camera)


def _on(car: Car, y: float) -> str:
    return car.camera.matrix(0.0, y, flat(-2.0))


def _snow_on(c: Canvas, car: Car) -> None:
    """On the bonnet or boot below the window, and on a roof."""
    s, white = car.shape, "#f4f7fb"
    x, y = s.half - 20, s.base
    c.path(car.on(f"M{-x} {y} Q-20 {y + 9} 10 {y + 3} Q40 {y + 10} {x} {y} Q0 {y - 6} {-x} {y} Z"),
           white)  # fmt: skip
    if not s.open:
        x, y = s.cabin - 6, s.roof - 3
        cap = f"M{-x} {y} Q{14 - x} {y + 12} 0 {y + 14} Q{x - 14} {y + 12} {x} {y}"
        c.path(car.on(f"{cap} Q0 {y + 6} {-x} {y} Z"), white)


def _badge(c: Canvas, truth: dict[str, str], look: dict[str, Any], car: Car, dirt: str) -> None:
    with c.group(transform=_on(car, _badge_height(truth))):
        if truth["brand"] == CANNOT_TELL:
            r = emblems.RADIUS
            c.circle(0, 0, r, "#101216")
            plate_drawing.draw_dirt(c, r * 0.86, r * 0.86, dirt, look["badge dirt"])
        else:
            emblems.draw_badge(c, truth["brand"], look["metal"], look["field"])


def _plate(c: Canvas, truth: dict[str, str], look: dict[str, Any], car: Car, dirt: str) -> None:
    plan = plan_of(truth, look)
    w, h = plan.half_width, plan.half_height
    with c.group(transform=_on(car, _plate_height(truth))):
        if truth["plate colour"] == CANNOT_TELL:
            c.rect(-w - 2, -h - 2, 2 * w + 4, 2 * h + 4, "#0c0d10", rx=2.5)
            plate_drawing.draw_dirt(c, w, h, dirt, look["plate dirt"])
            return
        tone = plate_drawing.GROUNDS[truth["plate colour"]][look["shade"]]
        dim = NIGHT[truth["light"]] * 0.6
        plate_drawing.draw_plate(c, plan, tone, look, look["style"], dim)
        if look["specks"]:
            plate_drawing.draw_specks(c, w, h, dirt, look["plate dirt"])


def _weather(c: Canvas, truth: dict[str, str], look: dict[str, Any], keep: Sequence[Box]) -> None:
    """Rain or snow in front of the car, but not in front of what is to be read."""

    def clear(x: float, y: float) -> bool:
        return not any(
            box.left * SIDE - 4 < x < box.right * SIDE + 8
            and box.top * SIDE - 18 < y < box.bottom * SIDE + 4
            for box in keep
        )

    drops = look["drops"]
    pairs = [(x, y) for x, y in zip(drops[::2], drops[1::2], strict=True) if clear(x, y)]
    if truth["weather"] == "rain":
        c.line(" ".join(f"M{x} {y} l-4 15" for x, y in pairs), "#dce8f4", 1.4, stroke_opacity=0.6)
    elif truth["weather"] == "snow":
        c.line(" ".join(f"M{x} {y} h0.1" for x, y in pairs[::2]), "#ffffff", 4, stroke_opacity=0.9)
        c.line(" ".join(f"M{x} {y} h0.1" for x, y in pairs[1::2]), "#ffffff", 6, stroke_opacity=0.9)


def scene(truth: dict[str, str], look: dict[str, Any]) -> str:
    """The SVG of a car with attributes `truth` and appearance `look`."""
    c, car = Canvas(), _car(truth, look)
    dirt = look["mud"]
    if truth["weather"] == "snow":
        dirt = "#eef2f6"
    dirt = dark(dirt, NIGHT[truth["light"]])
    _place(c, truth, look, car.camera)
    draw_car(c, car, Trim(grille=look["grille"], lamp=look["lamp"]))
    if truth["weather"] == "snow":
        _snow_on(c, car)
    _plate(c, truth, look, car, dirt)
    _badge(c, truth, look, car, dirt)
    shown = boxes(truth, look)
    _weather(c, truth, look, (shown["plate"], shown["badge"]))
    return c.text()


def _flat_box(car: Car, y: float, half_width: float, half_height: float, x_0: float = 0.0) -> Box:
    half = ((x, dy) for x in (-half_width, half_width) for dy in (-half_height, half_height))
    corners = [(x_0 + x, y + dy) for x, dy in half]
    return box_around([car.camera.project(x, up, -2.0) for x, up in corners])


def boxes(truth: dict[str, str], look: dict[str, Any]) -> dict[str, Box]:
    car, plan, r = _car(truth, look), plan_of(truth, look), emblems.RADIUS
    plate = (plan.half_width + 2, plan.half_height + 2)
    hidden = truth["plate colour"] == CANNOT_TELL
    glyphs = () if hidden else plan.glyphs
    return {
        **{
            f"char {k}": _flat_box(car, _plate_height(truth) - y + 7, 5, 7, x + plan.shift)
            for k, (_, x, y) in enumerate(glyphs, start=1)
        },
        "plate": _flat_box(car, _plate_height(truth), *plate),
        "badge": _flat_box(car, _badge_height(truth), r, r),
        "car": box_around(car.outline()),
    }
