"""The world around a parked car in metres, and a wide-angle camera on the car that looks at it.

X runs out from the middle of what the camera looks along, Y up, Z away from the camera. For a flank
the car's side is the plane X = 0 and the world lies at X > 0; the right flank is the left one
mirrored. At the front and the rear X = 0 is the car's middle. Distances here are undistorted; the
fisheye comes after (`lens`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, sin
from typing import Any

from autoneural.data.cockpit import street
from autoneural.data.cockpit.figures import Stand
from autoneural.data.cockpit.svg import SIDE, Canvas, dark, light, mix

GROUNDS = ("bays", "slabs", "asphalt")
GROUNDS_HELD_OUT = ("cobbles", "lawn")
GROUND = {"bays": "#74777c", "slabs": "#a49c90", "asphalt": "#66696e", "cobbles": "#8c8078",
          "lawn": "#7d8a5c"}  # fmt: skip
DIM = {"day": ("#ffffff", 0.0), "dusk": ("#38284a", 0.36), "night": ("#0c1428", 0.48)}
NEAR = 0.12


def dim(color: str, time: str) -> str:
    """A colour by day, at dusk or at night."""
    return mix(color, *DIM[time])


@dataclass(frozen=True, kw_only=True)
class View:
    """A pinhole camera; `yaw` turns it towards positive X."""

    focal: float
    x: float
    height: float
    yaw: float
    horizon: float
    mirrored: bool

    def _depth(self, x: float, z: float) -> float:
        return max((x - self.x) * sin(self.yaw) + z * cos(self.yaw), NEAR)

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        """A point of the world in the drawing."""
        depth = self._depth(x, z)
        across = (x - self.x) * cos(self.yaw) - z * sin(self.yaw)
        u = SIDE / 2 + self.focal * across / depth
        v = self.horizon + self.focal * (self.height - y) / depth
        return (SIDE - u if self.mirrored else u), v

    def scale(self, x: float, z: float) -> float:
        """Units per metre there."""
        return self.focal / self._depth(x, z)

    def stand(self, x: float, z: float, facing: int, size: float = 1.0) -> Stand:
        """A place on the ground; `facing` is towards positive X."""
        u, v = self.at(x, 0, z)
        turned = -facing if self.mirrored else facing
        return Stand(x=u, y=v, scale=self.scale(x, z) * size, facing=turned)

    def path(self, points: Sequence[tuple[float, float, float]], close: bool = True) -> str:
        spots = (self.at(*point) for point in points)
        return "M" + " L".join(f"{u:.1f} {v:.1f}" for u, v in spots) + (" Z" if close else "")


def view_of(place: str, look: Mapping[str, Any]) -> View:
    """The camera on that side of the car: `front`, `rear`, `left` or `right`."""
    flank = place in ("left", "right")
    return View(
        focal=look["focal"] * (1.06 if flank else 1.0),
        x=1.0 if flank else 0.0,
        height=1.45,
        yaw=-0.16 if flank else 0.0,
        horizon=look["horizon"] + (0 if flank else 13),
        mirrored=place == "right",
    )


def _ground_color(truth: dict[str, str], look: dict[str, Any]) -> str:
    color = GROUND[look["ground"]]
    if truth["weather"] == "rain":
        color = mix(dark(color, 0.28), "#5a6a80", 0.25)
    elif truth["weather"] == "snow":
        color = mix(color, "#f0f3f8", 0.72)
    return dim(color, truth["light"])


def _line(view: View, a: tuple[float, float], b: tuple[float, float]) -> str:
    """A line on the ground between two (x, z), cut near the picture: long strokes are slow."""
    (u0, v0), (u1, v1) = view.at(a[0], 0, a[1]), view.at(b[0], 0, b[1])
    low, high = 0.0, 1.0
    for start, step in ((u0, u1 - u0), (v0, v1 - v0)):
        ends = sorted(((edge - start) / (step or 1e-9)) for edge in (-16.0, SIDE + 16.0))
        low, high = max(low, ends[0]), min(high, ends[1])
    if low >= high:
        return ""
    points = ((u0 + (u1 - u0) * t, v0 + (v1 - v0) * t) for t in (low, high))
    return "M" + " L".join(f"{u:.1f} {v:.1f}" for u, v in points)


def _marks(view: View, kind: str) -> tuple[str, str, float]:
    """Lines on the ground as (path, what they are mixed with, width)."""
    rows = (0.6, 1.0, 1.5, 2.1, 2.8, 3.7, 4.8, 6.2, 8.0, 11.0)
    lines: list[tuple[tuple[float, float], tuple[float, float]]]
    if kind == "bays":
        lines = [((x, 0.2), (x, 5.2)) for x in (-6.2, -3.7, -1.3, 1.3, 3.7, 6.2)]
        tint, width = "#ffffff", 2.2
        lines.append(((-9, 5.2), (9, 5.2)))
    elif kind in ("slabs", "cobbles"):
        apart, tint, width = (1.2 if kind == "slabs" else 0.6), "#40382e", 1.0
        rows = rows if kind == "slabs" else (*rows, *(z * 1.17 for z in rows))
        lines = [((apart * i, 0.25), (apart * i, 11)) for i in range(-8, 9)]
        lines += [((-9, z), (9, z)) for z in rows]
    else:
        edge, tint, width = (3.4 if kind == "asphalt" else 6.2), "#e8e4d8", 2.4
        lines = [((-9, edge), (9, edge))]
    return " ".join(_line(view, *line) for line in lines), tint, width


def world(c: Canvas, view: View, truth: dict[str, str], look: dict[str, Any]) -> None:
    """Sky, skyline, ground with its marks, a street lamp."""
    horizon = view.horizon
    street.sky(c, truth, horizon)
    street.PLACE[look["skyline"]](c, truth, look, horizon)
    base = _ground_color(truth, look)
    edges = [horizon + (SIDE - horizon) * (band / 5) ** 2 for band in range(6)]
    for band, (y, end) in enumerate(zip(edges, edges[1:], strict=False)):
        shade = mix(light(base, 0.12), dark(base, 0.12), band / 4)
        c.rect(0, y, SIDE, end - y + 0.5, shade)
    path, tint, width = _marks(view, look["ground"])
    faint = 0.8 if look["ground"] in ("bays", "asphalt") else 0.35
    faint *= 0.45 if truth["weather"] == "snow" else 1.0
    c.line(path, mix(base, dim(tint, truth["light"]), faint), width)
    for index in range(7):
        x, z = look["blocks"][index] * 7 - 3, 0.9 + 4 * look["blocks"][index + 9]
        u, v = view.at(x, 0, z)
        if not -20 < u < SIDE + 20:
            continue
        r = view.scale(x, z) * 0.22
        tone = light(base, 0.25) if truth["weather"] == "rain" else dark(base, 0.2)
        c.ellipse(u, v, r * 1.8, r * 0.5, tone, fill_opacity=0.4)
    _street_lamp(c, view, truth, look)


def _street_lamp(c: Canvas, view: View, truth: dict[str, str], look: dict[str, Any]) -> None:
    x, z = look["lamp"], 6.0
    u, v = view.at(x, 0, z)
    unit = view.scale(x, z)
    pole = dim("#5a6068", truth["light"])
    c.line(f"M{u:.1f} {v:.1f} V{v - 3.6 * unit:.1f} h{0.5 * unit:.1f}", pole, 2)
    if truth["light"] == "day":
        return
    lamp = "#ffe2a0"
    c.ellipse(u, v + 2, 2.4 * unit, 0.6 * unit, lamp, fill_opacity=0.22)
    c.circle(u + 0.5 * unit, v - 3.55 * unit, 0.7 * unit, lamp, fill_opacity=0.25)
    c.circle(u + 0.5 * unit, v - 3.55 * unit, 0.22 * unit, "#fff6d8")


def fall(c: Canvas, truth: dict[str, str], look: dict[str, Any]) -> None:
    """Rain or snow in the air."""
    drops = look["drops"]
    pairs = list(zip(drops[::2], drops[1::2], strict=True))
    if truth["weather"] == "rain":
        rain = " ".join(f"M{x} {y} l-4 16" for x, y in pairs)
        c.line(rain, "#dce8f4", 1.4, stroke_opacity=0.55)
    elif truth["weather"] == "snow":
        for flakes, size in ((pairs[:26], 3.6), (pairs[26:], 5.6)):
            snow = " ".join(f"M{x} {y} h0.1" for x, y in flakes)
            c.line(snow, "#ffffff", size, stroke_opacity=0.9)
