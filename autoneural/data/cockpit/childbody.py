"""A child's body in its seat, the harness, the blanket and what the hands hold.

Coordinates: the origin is the chin, y down, in pixels; sizes from `backseat.BUILDS`.
"""

from __future__ import annotations

from math import cos, radians, sin
from typing import Any

from autoneural.data.cockpit import childface, toys
from autoneural.data.cockpit.backseat import BUILDS, CHILD_SEAT, Build, cabin
from autoneural.data.cockpit.base import CANNOT_TELL, Box
from autoneural.data.cockpit.grid import box_of
from autoneural.data.cockpit.svg import Canvas, dark, light, luma

BLANKET = ("#e6dcc8", "#7fa8c8", "#c88a9a", "#8fb08a", "#6a6f9a")
BLANKET_HELD_OUT = ("#d8b070", "#9a86b0")
EXTENT = {"baby": (66, 110, 96), "toddler": (76, 108, 116), "child": (78, 88, 150)}
"""Half the width, the height above the chin and below it, seat included."""
Truth = dict[str, str]
Look = dict[str, Any]


def cover_of(truth: Truth, look: Look) -> str:
    """What hides the face: nothing where the emotion can be told."""
    if truth["emotion"] != CANNOT_TELL:
        return "none"
    return "turned" if look["cover"] == "toy" and truth["toy"] == "none" else look["cover"]


def _toy_place(truth: Truth, look: Look, build: Build) -> tuple[float, float, float]:
    """Centre and scale of the toy held."""
    if cover_of(truth, look) == "toy":
        return 0, -50 * build.head, 2.15
    side = {"lap": 0, "left": -1, "right": 1}[look["hold"]]
    if side:
        return side * (build.half + 9), build.torso * 0.26, 1.1
    return look["lap_x"], build.torso + 8, 1.15


def _on_picture(truth: Truth, look: Look, box: tuple[float, float, float, float]) -> Box:
    build, zoom = BUILDS[truth["age"]], look["zoom"]
    x, y = look["x"], build.chin + look["dy"]
    left, top, right, bottom = box
    return box_of(x + zoom * left, y + zoom * top, x + zoom * right, y + zoom * bottom)


def _face(look: Look, build: Build) -> tuple[float, float, float, float]:
    """Chin to fringe of the head, which tilts about the chin."""
    tilt, reach, half = radians(look["tilt"]), 58 * build.head, 60 * build.head
    x, y = reach * sin(tilt), reach * (1 - cos(tilt))
    return x - half, y - 2 * reach, x + half, y + 4


def boxes(truth: Truth, look: Look) -> dict[str, Box]:
    """Child (with its seat), and face and toy where they can be seen."""
    build = BUILDS[truth["age"]]
    wide, top, bottom = EXTENT[truth["age"]]
    found = {"child": _on_picture(truth, look, (-wide, -top, wide, bottom))}
    if truth["emotion"] != CANNOT_TELL:
        found["face"] = _on_picture(truth, look, _face(look, build))
    if truth["toy"] != "none":
        x, y, scale = _toy_place(truth, look, build)
        across, up = (scale * reach for reach in toys.REACH[truth["toy"]])
        found["toy"] = _on_picture(truth, look, (x - across, y - up, x + across, y + up))
    return found


def _limb(c: Canvas, d: str, color: str, width: float) -> None:
    """Round and lit from the upper left."""
    c.line(d, dark(color, 0.45), width + 1.6)
    c.line(d, dark(color, 0.1), width)
    c.line(d, light(color, 0.14), width * 0.45, transform="translate(-1.6 -1.4)")


def _legs(c: Canvas, truth: Truth, look: Look, build: Build) -> None:
    trousers, torso, half = look["trousers"], build.torso, build.half
    if truth["age"] == "baby":
        for sign in (-1, 1):
            _limb(c, f"M{sign * 12} {torso - 4} Q{sign * 26} {torso + 6} {sign * 22} {torso + 22}",
                  look["cloth"], 20)  # fmt: skip
            c.ellipse(sign * 21, torso + 28, 11, 12, light(look["cloth"], 0.25),
                      stroke=dark(look["cloth"], 0.5), stroke_width=1.4)  # fmt: skip
        return
    wide, long = (19, 34) if truth["age"] == "toddler" else (24, 46)
    for sign in (-1, 1):
        knee = f"{sign * half * 0.62} {torso + 20}"
        _limb(c, f"M{sign * half * 0.4} {torso - 4} L{knee} L{sign * half * 0.58} {torso + long}",
              trousers, wide)  # fmt: skip
        c.ellipse(sign * half * 0.58, torso + long + 12, wide * 0.56, 10, look["shoes"],
                  stroke=dark(look["shoes"], 0.5), stroke_width=1.4)  # fmt: skip


def _torso(c: Canvas, truth: Truth, look: Look, build: Build) -> None:
    cloth, half, torso = look["cloth"], build.half, build.torso
    belly = half + (5 if truth["age"] != "child" else -3)
    c.rect(-9, -8, 18, 22, dark(look["skin"], 0.25), rx=6)
    c.path(
        f"M-9 4 C{-half * 0.7} 6 {-half} 12 {-half - 2} 26 L{-belly} {torso} "
        f"Q0 {torso + 14} {belly} {torso} L{half + 2} 26 C{half} 12 {half * 0.7} 6 9 4 "
        "Q0 12 -9 4 Z",
        c.linear(((0, light(cloth, 0.16)), (0.55, cloth), (1, dark(cloth, 0.3))), x2=0.7),
        stroke=dark(cloth, 0.55),
        stroke_width=1.4,
    )
    trim = light(cloth, 0.5) if luma(cloth) < 0.55 else dark(cloth, 0.35)
    c.line("M-10 4 Q0 14 10 4", trim, 3.4)
    if look["print"] == "stripes":
        rows = (0.5, 0.68, 0.86)
        c.line(" ".join(f"M{-half + 1} {torso * t} Q0 {torso * t + 6} {half - 1} {torso * t}"
                        for t in rows), trim, 3.2, stroke_opacity=0.7)  # fmt: skip
    elif look["print"] == "dots":
        dots = ((x * half, y * torso) for x in (-0.6, 0, 0.6) for y in (0.55, 0.8))
        c.line(" ".join(f"M{x} {y} h0.1" for x, y in dots), trim, 5, stroke_opacity=0.8)


def _strap(c: Canvas, d: str, ground: str) -> None:
    """Dark on a light ground, light on a dark one."""
    band, edge = ("#1b1d22", "#aab0ba") if luma(ground) > 0.35 else ("#d4d7dc", "#2a2d33")
    c.line(d, edge, 11, stroke_linecap="butt")
    c.line(d, band, 8, stroke_linecap="butt")


def _buckle(c: Canvas, x: float, y: float) -> None:
    c.rect(x - 9, y - 8, 18, 17, "#d4d7dc", rx=4, stroke="#30343a", stroke_width=1.6)
    c.rect(x - 4.5, y - 4, 9, 9, "#d8281c", rx=2)


def _tongue(c: Canvas, x: float, y: float) -> None:
    c.rect(x - 7, y, 14, 17, "#eceef2", rx=3, stroke="#30343a", stroke_width=1.8)
    c.rect(x - 3, y + 7, 6, 6, "#30343a", rx=1)


def _belt(c: Canvas, truth: Truth, look: Look, build: Build) -> None:
    """The car's own belt, from the pillar of the child's side."""
    half, torso, cloth = build.half, build.torso, look["cloth"]
    out = -1 if truth["side"] == "left" else 1
    if truth["buckled"] == "fastened":
        _strap(c, f"M{-half} {torso - 8} Q0 {torso + 4} {half} {torso - 8}", cloth)
        _strap(c, f"M{out * (half + 12)} -44 L{out * half * 0.62} 12 L{-out * half * 0.9} "
               f"{torso - 6}", cloth)  # fmt: skip
        _buckle(c, -out * (half - 1), torso - 6)
        return
    x = out * (half + 15)
    _strap(c, f"M{x} -60 V{torso - 24}", look["seat"])
    _tongue(c, x, torso - 26)


def _harness(c: Canvas, truth: Truth, look: Look, build: Build) -> None:
    half, torso, cloth = build.half, build.torso, look["cloth"]
    if truth["age"] == "child":
        _belt(c, truth, look, build)
    elif truth["buckled"] == "fastened":
        y = torso * 0.52
        _strap(c, f"M0 {y} V{torso + 4}", cloth)
        for sign in (-1, 1):
            _strap(c, f"M{sign * half * 0.66} 0 L{sign * half * 0.52} {y * 0.6} L0 {y}", cloth)
            _strap(c, f"M{sign * half} {torso - 6} L0 {y}", cloth)
        _buckle(c, 0, y)
    else:
        for sign in (-1, 1):
            x = sign * (half + 12)
            _strap(
                c,
                f"M{sign * half * 0.8} -2 Q{x + sign * 4} 8 {x} {torso * 0.5}",
                light(look["shell"], 0.34),
            )
            _tongue(c, x, torso * 0.5 - 2)


def _arms(c: Canvas, truth: Truth, look: Look, build: Build) -> None:
    x, y, scale = _toy_place(truth, look, build)
    holds = truth["toy"] != "none"
    width = {"baby": 14, "toddler": 15, "child": 16}[truth["age"]]
    for sign in (-1, 1):
        side = {"lap": 0, "left": -1, "right": 1}[look["hold"]]
        hand = (sign * build.half * 0.62, build.torso + 2)
        if holds and (cover_of(truth, look) == "toy" or side in (0, sign)):
            reach = toys.REACH[truth["toy"]][0] * scale
            hand = (x + (sign if side != sign else -sign * 0.3) * reach, y + 6 * scale)
        elbow = (sign * (build.half + 8), (build.torso * 0.62 + hand[1]) / 2)
        _limb(c, f"M{sign * (build.half - 4)} 18 L{elbow[0]} {elbow[1]} L{hand[0]} {hand[1]}",
              look["cloth"], width)  # fmt: skip


def _hands(c: Canvas, truth: Truth, look: Look, build: Build) -> None:
    x, y, scale = _toy_place(truth, look, build)
    skin = look["skin"]
    line = {"stroke": dark(skin, 0.45), "stroke_width": 1.3}
    side = {"lap": 0, "left": -1, "right": 1}[look["hold"]]
    covers = cover_of(truth, look) == "toy"
    for sign in (-1, 1):
        if truth["toy"] != "none" and (covers or side in (0, sign)):
            reach = toys.REACH[truth["toy"]][0] * scale
            at = (x + (sign if covers or side != sign else -sign * 0.3) * reach, y + 6 * scale)
        else:
            at = (sign * build.half * 0.62, build.torso + 2)
        c.ellipse(*at, 7.5, 7, light(skin, 0.05), **line)
        c.line(f"M{at[0] - 3} {at[1] + 1} v4 M{at[0]} {at[1] + 1} v5 M{at[0] + 3} {at[1] + 1} v4",
               dark(skin, 0.35), 1.1)  # fmt: skip


def _blanket(c: Canvas, look: Look, build: Build, top: float) -> None:
    """Spread over the child from height `top` downwards."""
    color, wide = look["blanket"], build.half + 30
    low = build.torso + 60
    shape = (f"M{-wide * 0.72} {top + 16} Q{-wide * 0.4} {top - 4} 0 {top + 5} Q{wide * 0.4} "
             f"{top - 4} {wide * 0.72} {top + 16} L{wide} {low} Q0 {low + 14} {-wide} {low} "
             "Z")  # fmt: skip
    c.path(shape, color, stroke=dark(color, 0.5), stroke_width=1.6)
    with c.group(clip_path=c.clip(shape)):
        for step in range(6):
            y = top + 26 + step * 24
            c.line(f"M{-wide} {y + 6} Q0 {y - 8} {wide} {y + 6}", light(color, 0.4), 5)
        c.line(f"M{-wide * 0.3} {top + 10} Q{-wide * 0.5} {top + 60} {-wide * 0.45} {low} "
               f"M{wide * 0.35} {top + 10} Q{wide * 0.42} {top + 70} {wide * 0.6} {low}",
               dark(color, 0.3), 3, stroke_opacity=0.6)  # fmt: skip
    c.line(f"M{-wide * 0.72} {top + 16} Q{-wide * 0.4} {top - 4} 0 {top + 5} Q{wide * 0.4} "
           f"{top - 4} {wide * 0.72} {top + 16}", light(color, 0.45), 6)  # fmt: skip


def _head_place(look: Look, build: Build) -> str:
    return f"translate(0 {2 - 56 * build.head:.2f}) scale({build.head}) rotate({look['tilt']} 0 56)"


def _child(c: Canvas, truth: Truth, look: Look) -> None:
    build, cover = BUILDS[truth["age"]], cover_of(truth, look)
    CHILD_SEAT[truth["age"]](c, build, look["shell"])
    with c.group(transform=_head_place(look, build)):
        childface.hair_behind(c, truth, look)
    _torso(c, truth, look, build)
    _legs(c, truth, look, build)
    if truth["buckled"] != CANNOT_TELL:
        _harness(c, truth, look, build)
        if look["lap_blanket"]:
            _blanket(c, look, build, build.torso + 2)
    _arms(c, truth, look, build)
    with c.group(transform=_head_place(look, build)):
        childface.head(c, truth, look, turned=cover == "turned")
    if truth["buckled"] == CANNOT_TELL:
        _blanket(c, look, build, -66 * build.head if cover == "blanket" else -4)
    if truth["toy"] != "none":
        x, y, scale = _toy_place(truth, look, build)
        with c.group(transform=f"translate({x:.2f} {y:.2f}) scale({scale})"):
            toys.DRAW[truth["toy"]](c, look["paint"])
    _hands(c, truth, look, build)


def _extras(c: Canvas, truth: Truth, look: Look) -> None:
    """Toys that lie on the free place."""
    count = int(truth["toys"]) - (truth["toy"] != "none")
    first, second = (224, 184) if truth["side"] == "left" else (32, 72)
    kinds = [kind for kind in look["extras"] if kind != truth["toy"]]
    for index in range(min(count, len(kinds))):
        x, y = (first, second)[index] + look["spread"], 200 + index * 10
        c.ellipse(x, y + 19, 22, 5, "#000000", fill_opacity=0.35)
        with c.group(transform=f"translate({x:.2f} {y}) rotate({look['lean']})"):
            toys.DRAW[kinds[index]](c, look["paint_free"])


def picture(truth: Truth, look: Look) -> str:
    """The SVG of a child on the back seat."""
    c, build = Canvas(), BUILDS[truth["age"]]
    cabin(c, truth, look)
    _extras(c, truth, look)
    place = f"translate({look['x']} {build.chin + look['dy']}) scale({look['zoom']})"
    with c.group(transform=place):
        _child(c, truth, look)
    return c.text()
