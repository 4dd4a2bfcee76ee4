"""The own car as its cameras see it: a flank running away, or the nose or tail below the camera.

`SPOTS` says where the things lie that can be touched, in the metres of `parking`; `damage` is drawn
on a panel or a pane, through a map from metres of the panel to the drawing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin
from typing import Any

from autoneural.data.cockpit.parking import View, dim
from autoneural.data.cockpit.svg import Canvas, dark, light

Spot = tuple[float, float, float]
Panel = Callable[[float, float], tuple[float, float]]
FLANK_SPOTS: dict[str, Spot] = {
    "door handle": (0.02, 0.9, 2.05),
    "wheel": (0.06, 0.5, 0.98),
    "mirror": (0.2, 1.04, 1.5),
    "charging port": (0.02, 0.84, 1.24),
    "window": (-0.04, 1.2, 1.95),
    "door": (0.02, 0.6, 2.0),
}
SPOTS: dict[str, dict[str, Spot]] = {
    "left": FLANK_SPOTS,
    "right": FLANK_SPOTS,
    "front": {
        "bonnet": (0.42, 0.88, 1.3),
        "charging port": (-0.3, 0.86, 1.32),
        "bumper": (0.1, 0.8, 1.44),
    },
    "rear": {
        "boot": (0.42, 0.94, 1.12),
        "charging port": (-0.3, 0.94, 1.12),
        "bumper": (0.1, 0.8, 1.26),
    },
}
EDGE = {"front": 1.45, "rear": 1.26}
BELT, SILL = 0.96, 0.24


def _wheel(c: Canvas, view: View, z: float, time: str) -> None:
    """Arch, tyre and spoked rim in the plane of the flank."""

    def ring(r: float, x: float) -> str:
        turns = [2 * pi * i / 24 for i in range(24)]
        return view.path([(x, max(0.34 + r * sin(t), 0.0), z + r * cos(t)) for t in turns])

    c.path(ring(0.42, 0.0), dim("#101114", time))
    c.path(ring(0.35, 0.05), dim("#222328", time), stroke="#08090a", stroke_width=0.8)
    c.path(ring(0.24, 0.06), dim("#b9bec6", time), stroke=dim("#6a7078", time), stroke_width=1)
    spokes = [
        view.path([(0.06, 0.34, z), (0.06, 0.34 + 0.22 * sin(t), z + 0.22 * cos(t))], close=False)
        for t in (2 * pi * (i / 5) + 0.3 for i in range(5))
    ]
    c.line(" ".join(spokes), dim("#4a4e56", time), 2.2)


def _band(view: View, low: float, high: float, x: float = 0.0) -> str:
    return view.path([(x, low, 0.25), (x, low, 4.5), (x, high, 4.5), (x, high, 0.25)])


def _flank_body(c: Canvas, view: View, paint: str, time: str) -> None:
    shadow = [(-0.3, 0, 0.2), (0.28, 0, 0.2), (0.22, 0, 4.7), (-0.3, 0, 4.7)]
    c.path(view.path(shadow), "#000000", fill_opacity=0.45)
    outline = [(0, SILL, 0.2), (0, SILL, 4.5), (0, 0.55, 4.62), (0, 0.98, 4.5), (0, BELT, 1.05),
               (0, 0.9, 0.2)]  # fmt: skip
    c.path(view.path(outline), paint, stroke=dark(paint, 0.6), stroke_width=1)
    for low, high, color in (
        (SILL, 0.36, dark(paint, 0.4)),
        (0.36, 0.5, dark(paint, 0.2)),
        (0.72, 0.8, light(paint, 0.26)),
        (0.8, 0.88, light(paint, 0.11)),
    ):
        c.path(_band(view, low, high), color)
    roof = [
        (0, BELT, 0.98),
        (-0.2, 1.42, 1.62),
        (-0.24, 1.46, 2.4),
        (-0.2, 1.4, 3.5),
        (0, 0.98, 4.4),
    ]
    c.path(view.path(roof), dark(paint, 0.15), stroke=dark(paint, 0.6), stroke_width=1)
    for pane in PANES:
        c.path(view.path(pane), dim("#1c2730", time), stroke=dark(paint, 0.7), stroke_width=0.8)
    shine = [(-0.03, 1.02, 1.35), (-0.16, 1.34, 1.75), (-0.16, 1.34, 1.9), (-0.03, 1.02, 1.55)]
    c.path(view.path(shine), dim("#a8c4d8", time), fill_opacity=0.45)
    seams = " ".join(
        view.path([(0, SILL + 0.06, z), (0, BELT, z)], close=False) for z in (1.34, 2.3, 3.25)
    )
    c.line(seams, dark(paint, 0.65), 1.1)


PANES = (
    [(-0.02, 1.0, 1.2), (-0.16, 1.36, 1.68), (-0.17, 1.39, 2.24), (-0.02, 1.0, 2.24)],
    [(-0.02, 1.0, 2.34), (-0.17, 1.39, 2.34), (-0.16, 1.36, 3.3), (-0.02, 1.0, 3.3)],
)


def _handle(c: Canvas, view: View, z: float, time: str) -> None:
    pocket = [(0.01, 0.85, z - 0.16), (0.01, 0.85, z + 0.12), (0.01, 0.95, z + 0.12),
              (0.01, 0.95, z - 0.16)]  # fmt: skip
    c.path(view.path(pocket), "#0c0d10", fill_opacity=0.7)
    c.line(view.path([(0.03, 0.91, z - 0.15), (0.03, 0.91, z + 0.11)], close=False),
           dim("#e6eaee", time), view.scale(0, z) * 0.05)  # fmt: skip


def _port(c: Canvas, spot: tuple[float, float], unit: float, paint: str, flip: int) -> None:
    """An open flap and the glowing socket."""
    x, y = spot
    r = 0.085 * unit
    c.rect(x + flip * 1.9 * r - 0.8 * r, y - 1.2 * r, 1.6 * r, 2.4 * r, light(paint, 0.2),
           rx=0.4 * r, stroke=dark(paint, 0.6), stroke_width=0.8)  # fmt: skip
    c.circle(x, y, 1.25 * r, dark(paint, 0.5))
    c.circle(x, y, r, "#14181c", stroke="#3fe08a", stroke_width=0.35 * r)
    c.circle(x - 0.3 * r, y, 0.2 * r, "#d8dce0")
    c.circle(x + 0.3 * r, y, 0.2 * r, "#d8dce0")


def _blinker(c: Canvas, x: float, y: float, r: float, on: bool) -> None:
    if on:
        c.circle(x, y, 4.2 * r, "#ffae2a", fill_opacity=0.22)
        c.circle(x, y, 2.4 * r, "#ffb638", fill_opacity=0.45)
    c.ellipse(x, y, 1.5 * r, r, "#ffd25a" if on else "#6a5030", stroke="#2a2018", stroke_width=0.6)


def flank(c: Canvas, view: View, truth: dict[str, str], look: dict[str, Any]) -> None:
    time, on = truth["light"], truth["lamps"] == "flashing"
    paint = dim(look["own"], time)
    _flank_body(c, view, paint, time)
    for z in (3.55, 0.9):
        _wheel(c, view, z, time)
    for z in (3.05, 2.05):
        _handle(c, view, z, time)
    sign = -1 if view.mirrored else 1
    _port(c, view.at(*FLANK_SPOTS["charging port"]), view.scale(0, 1.24) * 0.8, paint, sign)
    x, y, z = FLANK_SPOTS["mirror"]
    u, v = view.at(x, y, z)
    s = view.scale(x, z)
    c.line(f"M{u - sign * 0.2 * s:.1f} {v + 0.05 * s:.1f} L{u:.1f} {v + 0.03 * s:.1f}",
           dark(paint, 0.5), 0.07 * s)  # fmt: skip
    c.rect(u - 0.13 * s, v - 0.1 * s, 0.26 * s, 0.2 * s, light(paint, 0.1), rx=0.06 * s,
           stroke=dark(paint, 0.65), stroke_width=1)  # fmt: skip
    c.rect(u - 0.1 * s, v - 0.065 * s, 0.2 * s, 0.12 * s, dim("#9fb6c6", time), rx=0.03 * s)
    _blinker(c, u + sign * 0.04 * s, v + 0.12 * s, 2.0, on)
    _blinker(c, *view.at(0.01, 0.76, 0.72), 3.2, on)
    _blinker(c, *view.at(0.01, 0.78, 4.3), 1.6, on)


def _deck(place: str) -> list[Spot]:
    """The rim of bonnet or boot lid, from the left corner of the windows over the far edge."""
    far = EDGE[place]
    high = 0.86 if place == "front" else 0.94
    base = 0.98 if place == "front" else 1.02
    half = [(0.74, base, 0.5), (0.78, high + 0.02, 0.8), (0.76, high, far - 0.3),
            (0.68, high - 0.02, far - 0.12), (0.46, high - 0.03, far - 0.03),
            (0.16, high - 0.04, far)]  # fmt: skip
    return [(-x, y, z) for x, y, z in half] + half[::-1]


def _wings(place: str) -> list[Spot]:
    far = EDGE[place]
    half = [(0.9, 0.7, 0.35), (0.9, 0.72, far - 0.45), (0.8, 0.66, far - 0.14), (0.5, 0.62, far)]
    return [(-x, y, z) for x, y, z in half] + half[::-1]


def rim(place: str) -> list[Spot]:
    """The points of nose or tail that may stand out against what lies behind."""
    lip = [(-0.68, 0.96, 1.14), (0, 1.01, 1.26), (0.68, 0.96, 1.14)] if place == "rear" else []
    return [*_wings(place), *_deck(place), *lip]


def end(c: Canvas, view: View, truth: dict[str, str], look: dict[str, Any]) -> None:
    """Nose or tail, seen from the edge of the roof."""
    place, time, on = truth["place"], truth["light"], truth["lamps"] == "flashing"
    paint, far = dim(look["own"], time), EDGE[place]
    deck = _deck(place)
    c.path(view.path(_wings(place)), dark(paint, 0.35), stroke=dark(paint, 0.7), stroke_width=1)
    c.path(view.path(deck), dark(paint, 0.12), stroke=dark(paint, 0.6), stroke_width=1.4)
    for wide, color in ((0.94, paint), (0.72, light(paint, 0.1)), (0.44, light(paint, 0.2))):
        c.path(view.path([(x * wide, y, z) for x, y, z in deck]), color)
    for sign in (-1, 1):
        crease = [(sign * 0.42, deck[0][1], 0.5), (sign * 0.34, deck[3][1] + 0.02, far - 0.1)]
        c.line(view.path(crease, close=False), dark(paint, 0.3), 1.2)
        shine = [(sign * 0.4, deck[0][1], 0.5), (sign * 0.32, deck[3][1] + 0.02, far - 0.1)]
        c.line(view.path(shine, close=False), light(paint, 0.4), 1.2)
        _corner_lamp(c, view, place, sign, time, on)
    x, y, z = SPOTS[place]["charging port"]
    port = view.at(x * look["side"], y, z - 0.06)
    _port(c, port, view.scale(x, z) * 0.7, paint, -look["side"])
    if place == "rear":
        lip = [(-0.68, 0.96, far - 0.12), (-0.4, 1.0, far - 0.02), (0, 1.01, far),
               (0.4, 1.0, far - 0.02), (0.68, 0.96, far - 0.12)]  # fmt: skip
        foot = [(x, 0.92, z - 0.08) for x, _, z in lip[::-1]]
        c.path(view.path([*lip, *foot]), dark(paint, 0.4), stroke=dark(paint, 0.65), stroke_width=1)
        c.line(view.path(lip, close=False), light(paint, 0.4), 1)
    _pane(c, view, place, paint, time)


def _corner_lamp(c: Canvas, view: View, place: str, sign: int, time: str, on: bool) -> None:
    """Clear headlamps at the nose, red lamps at the tail; the blinker sits outside."""
    far = EDGE[place]
    inner, lift = (0.46, 0.0) if place == "front" else (0.3, 0.06)
    lens = [(sign * inner, 0.81 + lift, far - 0.08), (sign * 0.74, 0.84 + lift, far - 0.27),
            (sign * 0.79, 0.72, far - 0.27), (sign * (inner + 0.03), 0.7, far - 0.05)]  # fmt: skip
    color = "#d8e4ee" if place == "front" else "#d81c1c"
    c.path(view.path(lens), dim(color, time), stroke="#20242a", stroke_width=0.8)
    streak = [(sign * (inner + 0.08), 0.77 + lift, far - 0.09), (sign * 0.72, 0.79, far - 0.26)]
    c.line(view.path(streak, close=False), light(color, 0.6), 1.2)
    u, v = view.at(sign * 0.8, 0.79, far - 0.3)
    _blinker(c, u, v, 3.0, on)


def _pane(c: Canvas, view: View, place: str, paint: str, time: str) -> None:
    """The lower edge of the windscreen or rear window, with a wiper."""
    base = _deck(place)[0][1]
    glass = [(-0.35, 1.1, 0.14), (-0.74, base, 0.5), (0, base - 0.01, 0.56), (0.74, base, 0.5),
             (0.35, 1.1, 0.14)]  # fmt: skip
    c.path(view.path(glass), dim("#1a242e", time), stroke=dark(paint, 0.7), stroke_width=2)
    gleam = [
        (-0.5, base + 0.02, 0.46),
        (-0.2, base + 0.02, 0.48),
        (-0.24, 1.2, 0.2),
        (-0.5, 1.2, 0.2),
    ]
    c.path(view.path(gleam), dim("#8fb0c8", time), fill_opacity=0.35)
    wiper = [(-0.1, base, 0.5), (0.5, base + 0.04, 0.42)]
    c.line(view.path(wiper, close=False), "#08090b", 3)
    if place == "front":
        second = [(-0.62, base, 0.48), (-0.04, base + 0.04, 0.43)]
        c.line(view.path(second, close=False), "#08090b", 3)


def panel(view: View, place: str, kind: str, at: tuple[float, float]) -> Panel:
    """The map of the panel where damage of a kind lies; `at` in [0, 1]^2 moves it about."""
    a, b = at
    if place in ("left", "right"):
        if kind == "broken window":
            return lambda x, y: view.at(-0.06, 1.16 + y * 0.8, 1.58 + 0.2 * a + x * 1.3)
        return lambda x, y: view.at(0.01, 0.46 + 0.2 * b + y, 1.52 + 0.35 * a + x * 1.25)
    base = 0.98 if place == "front" else 1.02
    if kind == "broken window":  # a pane seen this steeply would flatten its cracks to nothing
        u, v = view.at(-0.26 + 0.52 * a, base + 0.1, 0.38)
        return lambda x, y: (u + 92 * x, v + 5 - 62 * y)
    high = 0.88 if place == "front" else 0.96
    far = EDGE[place]
    return lambda x, y: view.at(-0.45 + 0.9 * a + x * 0.9, high, (0.42 + far) / 2 + 0.08 * b + y)


SCRATCH = ((-0.3, -0.1), (-0.14, 0.02), (-0.02, -0.04), (0.12, 0.08), (0.3, 0.04))
CRACKS = 9
SPLINTERS = ((-0.5, 0.02), (-0.3, -0.1), (-0.22, 0.12), (-0.05, 0.0), (0.1, 0.14), (0.16, -0.08),
             (0.36, 0.06), (0.48, -0.06), (-0.4, 0.16))  # fmt: skip


def _polyline(on: Panel, points: list[tuple[float, float]], close: str = "") -> str:
    spots = (on(x, y) for x, y in points)
    return "M" + " L".join(f"{u:.1f} {v:.1f}" for u, v in spots) + close


def _ring(r: float, tall: float, jag: float = 0.0) -> list[tuple[float, float]]:
    turns = [(2 * pi * i / 18, 1 + jag * (-1) ** i) for i in range(18)]
    return [(r * k * cos(t), r * tall * k * sin(t)) for t, k in turns]


def damage(c: Canvas, on: Panel, kind: str, paint: str) -> None:
    if kind == "scratch":
        for lift, color in ((0.0, "#1a1a1c"), (0.015, "#f4f4f2")):
            for shift in (-0.08, 0.04):
                line = [(x, y + lift + shift) for x, y in SCRATCH]
                c.line(_polyline(on, line), color, 1.5)
    elif kind == "dent":
        c.path(_polyline(on, _ring(0.25, 0.72), " Z"), dark(paint, 0.55))
        c.path(_polyline(on, [(x + 0.02, y - 0.025) for x, y in _ring(0.19, 0.7)], " Z"),
               dark(paint, 0.25))  # fmt: skip
        c.path(_polyline(on, [(x + 0.05, y - 0.07) for x, y in _ring(0.11, 0.6)], " Z"),
               light(paint, 0.4))  # fmt: skip
        c.line(_polyline(on, [(-0.26, 0.12), (-0.1, 0.02), (0.06, 0.08), (0.24, -0.06)]),
               dark(paint, 0.75), 1.1)  # fmt: skip
    elif kind == "broken window":
        turns = [2 * pi * i / CRACKS + 0.2 for i in range(CRACKS)]
        cracks = [[(0.08 * cos(t), 0.08 * sin(t)), (0.3 * cos(t + 0.1), 0.26 * sin(t + 0.1))]
                  for t in turns]  # fmt: skip
        c.path(_polyline(on, _ring(0.2, 0.8), " Z"), "#c8dcea", fill_opacity=0.45)
        c.line(" ".join(_polyline(on, line) for line in cracks), "#f4faff", 1.3)
        c.line(_polyline(on, _ring(0.19, 0.8, 0.12), " Z"), "#dcecf6", 1.0)
        c.path(_polyline(on, _ring(0.12, 0.8, 0.35), " Z"), "#040506")


def damage_points(on: Panel, kind: str) -> list[tuple[float, float]]:
    """The rim of damage in the drawing."""
    points = {
        "scratch": [(x, y + k) for x, y in SCRATCH for k in (-0.08, 0.055)],
        "dent": _ring(0.25, 0.72),
        "broken window": _ring(0.3, 0.86),
    }[kind]
    return [on(x, y) for x, y in points]


def impact(c: Canvas, spot: tuple[float, float], ground: tuple[float, float], unit: float) -> None:
    """A starred scrape where the thing hit, and splinters on the ground below."""
    x, y = spot
    rays = " ".join(
        f"M{x + 0.08 * unit * cos(t):.1f} {y + 0.08 * unit * sin(t):.1f} "
        f"L{x + (0.2 + 0.12 * (i % 2)) * unit * cos(t):.1f} "
        f"{y + (0.2 + 0.12 * (i % 2)) * unit * sin(t):.1f}"
        for i, t in enumerate(2 * pi * i / 10 for i in range(10))
    )
    c.line(rays, "#a03a10", 2.6)
    c.line(rays, "#ffd23c", 1.7)
    gx, gy = ground
    for i, (dx, dy) in enumerate(SPLINTERS):
        color = ("#f2f4f6", "#d83a2c", "#f0a030")[i % 3]
        s = (0.03 + 0.02 * (i % 2)) * unit
        x, y = gx + dx * unit, gy + dy * unit
        c.path(f"M{x:.1f} {y:.1f} l{1.8 * s:.1f} {-s:.1f} l{0.6 * s:.1f} {1.7 * s:.1f} Z", color)
