"""What the outer camera of a parked car sees: place, ground, people, weather, own bonnet.

The ground is a plane in perspective: what stands at height y of the picture is (y - horizon) / NEAR
of its own size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autoneural.data.cockpit import luggage, people
from autoneural.data.cockpit.base import CANNOT_TELL, Box
from autoneural.data.cockpit.grid import box_of
from autoneural.data.cockpit.svg import SIDE, Canvas, dark, light, mix

PLACES = ("houses", "shops", "park")
PLACES_HELD_OUT = ("flats", "farm")
PAINT = ("#c23b32", "#2c5aa0", "#d9dce0", "#3f4650", "#2f7d5b", "#f2f2ee")
PAINT_HELD_OUT = ("#a8552c", "#4b86b4", "#b8bec6")
WALL = ("#e8dcc4", "#c88a6a", "#d8d4cc", "#b8c4cc")
WALL_HELD_OUT = ("#b0604a", "#a8a090")
SKY = {
    "day": ("#7fb6e6", "#e2eff6"),
    "dusk": ("#50508c", "#f4a66c"),
    "night": ("#060a16", "#1a2444"),
}
GROUND = {"paving": "#b4ada2", "gravel": "#c8b48c", "grass": "#6f9a4c"}
SHADE = {"day": 0.0, "dusk": 0.38, "night": 0.68}
WINDOW = {"day": "#6f8ca4", "dusk": "#ffcf80", "night": "#ffd070"}
NEAR = 108
"""Below the horizon, in pixels, where things have their own size."""
Truth = dict[str, str]
Look = dict[str, Any]


def _lit(color: str, truth: Truth) -> str:
    """A colour of the surroundings in the light of the scene."""
    tint = {"day": color, "dusk": mix(color, "#6a4a6a", 0.3), "night": mix(color, "#202c50", 0.35)}
    return dark(tint[truth["light"]], SHADE[truth["light"]] * 0.8)


def _sky(c: Canvas, truth: Truth, base: float) -> None:
    top, low = SKY[truth["light"]]
    if truth["weather"] != "dry":
        grey = {"day": "#98a0a8", "dusk": "#584e60", "night": "#20242e"}[truth["light"]]
        top, low = mix(top, grey, 0.6), mix(low, grey, 0.6)
    for band in range(8):
        c.rect(0, base * band / 8, SIDE, base - base * band / 8, mix(top, low, band / 7))
    if truth["weather"] == "dry" and truth["light"] == "night":
        c.circle(226, 16, 8, "#e8ecf4")
    elif truth["weather"] == "dry" and truth["light"] == "day":
        c.circle(30, 18, 11, "#fff4c0")


def _tree(c: Canvas, truth: Truth, x: float, base: float, size: float) -> None:
    leaf = _lit("#4f7f3e" if truth["weather"] != "snow" else "#8fa890", truth)
    c.rect(x - size * 0.09, base - size * 0.6, size * 0.18, size * 0.6, _lit("#5a4430", truth))
    for dx, dy, r, tone in (
        (0.24, 0.7, 0.32, 0.22),
        (-0.26, 0.72, 0.3, 0.12),
        (0.16, 0.98, 0.32, 0.1),
        (-0.1, 1.04, 0.33, 0.0),
    ):
        c.circle(x + dx * size, base - dy * size, r * size, dark(leaf, tone))
    crown = ((-0.2, 1.16), (-0.04, 1.24), (-0.3, 0.84), (-0.02, 1.02), (0.2, 1.1))
    d = " ".join(f"M{x + dx * size:.1f} {base - dy * size:.1f} h{size * 0.06:.1f}" for dx, dy in crown)
    c.line(d, light(leaf, 0.08), size * 0.16)


def _window(c: Canvas, truth: Truth, x: float, y: float, w: float, h: float) -> None:
    c.rect(x, y, w, h, WINDOW[truth["light"]], stroke=_lit("#f4f0e8", truth), stroke_width=1.6)
    c.line(f"M{x + w / 2} {y} v{h} M{x} {y + h / 2} h{w}", _lit("#f4f0e8", truth), 1)


def _house(c: Canvas, truth: Truth, look: Look, x: float, base: float, wall: str) -> None:
    roof = _lit("#8a4a3a" if truth["weather"] != "snow" else "#e8ecf2", truth)
    wall = _lit(wall, truth)
    c.rect(x, base - 66, 92, 66, wall)
    c.rect(x + 80, base - 66, 12, 66, dark(wall, 0.14))
    c.path(f"M{x - 7} {base - 64} L{x + 20} {base - 98} H{x + 72} L{x + 99} {base - 64} Z", roof)
    c.line(f"M{x - 7} {base - 64} H{x + 99}", dark(roof, 0.4), 2.4)
    for dx in (10, 38, 66):
        _window(c, truth, x + dx, base - 56, 15, 17)
    c.rect(x + 62, base - 33, 17, 33, _lit(look["door"], truth), stroke=_lit("#f4f0e8", truth),
           stroke_width=1.6)  # fmt: skip
    c.circle(x + 75, base - 16, 1.4, "#e8d080")
    c.rect(x + 6, base - 31, 48, 31, _lit("#d4d0c8", truth), stroke=dark(wall, 0.4),
           stroke_width=1.6)  # fmt: skip
    c.line(" ".join(f"M{x + 7} {base - y} h46" for y in (24, 16, 8)), dark(wall, 0.35), 1.2)


def _houses(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    shift = look["shift"]
    _tree(c, truth, shift - 12, base, 60)
    _tree(c, truth, shift + 128, base, 52)
    _house(c, truth, look, shift + 8, base, look["wall"])
    _house(c, truth, look, shift + 150, base, mix(look["wall"], "#ffffff", 0.35))
    _tree(c, truth, shift + 262, base, 60)


def _shops(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    for index in range(4):
        x = index * 74 + look["shift"] - 28
        wall = _lit(mix(look["wall"], ("#ffffff", "#807060", "#c0b0a0", "#a08878")[index], 0.4), truth)
        rise = 88 + (index * 37 % 3) * 8
        c.rect(x, base - rise, 73, rise, wall, stroke=dark(wall, 0.35), stroke_width=1)
        for dx in (9, 31, 53):
            _window(c, truth, x + dx, base - rise + 12, 13, 20)
        c.rect(x + 6, base - 36, 42, 34, WINDOW[truth["light"]], stroke=dark(wall, 0.5),
               stroke_width=2)  # fmt: skip
        c.rect(x + 53, base - 36, 15, 36, _lit(look["door"], truth))
        c.path(f"M{x + 8} {base - 34} h12 L{x + 12} {base - 4} h-4 Z", "#ffffff", fill_opacity=0.25)
        color = _lit((look["door"], "#2f7d5b", "#c08030", "#4a5a90")[index], truth)
        c.path(f"M{x + 2} {base - 48} H{x + 71} L{x + 74} {base - 35} H{x - 1} Z", color)
        stripes = " ".join(f"M{x + 9 + k * 14} {base - 48} h7 l1 13 h-8 Z" for k in range(5))
        c.path(stripes, light(color, 0.65))


def _park(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    hedge = _lit("#3f6a38" if truth["weather"] != "snow" else "#a8b8b0", truth)
    c.path(f"M0 {base} V{base - 38} Q60 {base - 52} 128 {base - 40} T256 {base - 42} V{base} Z",
           mix(hedge, _lit("#90a8b0", truth), 0.35))  # fmt: skip
    for index in range(6):
        _tree(c, truth, index * 50 + look["shift"] - 4, base - 4, 56 + 14 * look["blocks"][index])
    c.rect(0, base - 10, SIDE, 10, hedge)
    iron = _lit("#3a4450", truth)
    c.line(f"M0 {base - 24} H256 M0 {base - 5} H256", iron, 2)
    c.line(" ".join(f"M{x} {base - 28} V{base}" for x in range(4, 256, 10)), iron, 1.8)


def _flats(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    """A tall block with balconies."""
    wall = _lit(look["wall"], truth)
    c.rect(0, 4, SIDE, base - 4, wall)
    for row in range(4):
        y = base - 104 + row * 27
        if row < 3:
            c.line(f"M0 {y + 24} H256", dark(wall, 0.25), 1.4)
        for index in range(7):
            x = index * 42 + look["shift"] - 14
            if row < 3:
                lamp = truth["light"] == "day" or look["blocks"][(row * 7 + index) % 20] > 0.4
                c.rect(x, y, 16, 18, WINDOW[truth["light"]] if lamp else dark(wall, 0.6))
                c.rect(x - 4, y + 12, 24, 10, _lit("#d8dce0", truth), fill_opacity=0.8)
            else:
                c.path(f"M{x - 6} {base} V{base - 20} A14 14 0 0 1 {x + 22} {base - 20} V{base} Z",
                       dark(wall, 0.55))  # fmt: skip


def _farm(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    """A barn with crossed doors, a silo and a paddock fence."""
    red = _lit(mix("#9a3a2a", look["wall"], 0.25), truth)
    trim, x = _lit("#f0ece0", truth), look["shift"] + 84
    c.path(f"M0 {base} V{base - 30} Q64 {base - 46} 128 {base - 30} T256 {base - 34} V{base} Z",
           _lit("#86a060", truth))  # fmt: skip
    c.rect(x - 46, base - 92, 32, 92, _lit("#b8bec4", truth), rx=3)
    c.path(f"M{x - 46} {base - 90} A16 14 0 0 1 {x - 14} {base - 90} Z", _lit("#8a949c", truth))
    c.path(f"M{x} {base} V{base - 58} L{x + 16} {base - 80} L{x + 50} {base - 98} L{x + 84} "
           f"{base - 80} L{x + 100} {base - 58} V{base} Z", red, stroke=trim,
           stroke_width=2.4)  # fmt: skip
    c.rect(x + 26, base - 42, 48, 42, dark(red, 0.15), stroke=trim, stroke_width=2)
    c.line(f"M{x + 26} {base - 42} L{x + 50} {base} V{base - 42} L{x + 26} {base} M{x + 50} {base} "
           f"L{x + 74} {base - 42} M{x + 50} {base - 42} L{x + 74} {base}", trim, 2)  # fmt: skip
    c.rect(x + 42, base - 78, 16, 16, WINDOW[truth["light"]], stroke=trim, stroke_width=2)
    _tree(c, truth, look["shift"] + 222, base, 62)
    c.line(f"M0 {base - 14} H256 M0 {base - 6} H256", _lit("#c0a880", truth), 2.4)
    c.line(" ".join(f"M{k} {base - 18} V{base + 1}" for k in range(6, 256, 26)),
           _lit("#c0a880", truth), 3)  # fmt: skip


PLACE: dict[str, Callable[[Canvas, Truth, Look, float], None]] = {
    "houses": _houses,
    "shops": _shops,
    "park": _park,
    "flats": _flats,
    "farm": _farm,
}


def _ground(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    horizon = look["horizon"]
    color = GROUND[truth["ground"]]
    if truth["weather"] == "snow":
        color = mix(color, "#f0f4f8", 0.45)
    elif truth["weather"] == "rain":
        color = dark(color, 0.2)
    color = _lit(color, truth)
    c.rect(0, base, SIDE, SIDE, color)
    for step in range(5):
        c.rect(0, base + step * 6, SIDE, 6, dark(color, 0.2 - 0.04 * step))
    _TEXTURE[truth["ground"]](c, look, color, horizon, base)
    if truth["light"] == "night":
        glow = light(color, 0.4)
        c.path(f"M-20 260 L88 {base + 4} H168 L276 260 Z", glow, fill_opacity=0.25)
        c.path(f"M20 260 L104 {base + 10} H152 L236 260 Z", glow, fill_opacity=0.3)


def _paving(c: Canvas, look: Look, color: str, horizon: float, base: float) -> None:
    rays = " ".join(
        f"M{128 + k * (base - horizon) / 26 * 13:.1f} {base} L{128 + k * (258 - horizon) / 26 * 13:.1f} 258"
        for k in range(-9, 10)
    )
    rows = " ".join(f"M0 {horizon + 26 * 1.32**n:.1f} H256" for n in range(1, 8))
    c.line(rays, dark(color, 0.38), 1.5)
    c.line(rows, dark(color, 0.38), 1.8)


def _stipple(look: Look, horizon: float, base: float, per_size: int) -> list[tuple[float, float]]:
    """Points of the plane, further apart where it is nearer."""
    dots = look["dots"]
    return [
        (dots[i], base + (250 - base) * ((i // 2 % per_size + dots[i + 1] / 256) / per_size) ** 1.5)
        for i in range(0, len(dots), 2)
    ]


def _gravel(c: Canvas, look: Look, color: str, horizon: float, base: float) -> None:
    points = _stipple(look, horizon, base, 12)
    for low, high, size in ((0, 40, 2.2), (40, 80, 3.6), (80, 170, 5.2)):
        near = [(x, y) for x, y in points if low <= y - base < high]
        for part, tone in ((0, dark(color, 0.35)), (1, light(color, 0.35)), (2, dark(color, 0.18))):
            d = " ".join(f"M{x} {y:.1f} h{size * 0.5}" for x, y in near[part::3])
            if d:
                c.line(d, tone, size)


def _grass(c: Canvas, look: Look, color: str, horizon: float, base: float) -> None:
    points = _stipple(look, horizon, base, 10)
    for low, high, size in ((0, 40, 3), (40, 80, 6), (80, 170, 9)):
        near = [(x, y) for x, y in points if low <= y - base < high]
        for part, tone in ((0, dark(color, 0.4)), (1, light(color, 0.25))):
            d = " ".join(f"M{x - size * 0.4:.1f} {y - size:.1f} L{x} {y:.1f} L{x + size * 0.3:.1f} "
                         f"{y - size * 1.1:.1f}" for x, y in near[part::2])  # fmt: skip
            if d:
                c.line(d, tone, max(1.1, size * 0.2))


_TEXTURE: dict[str, Callable[[Canvas, Look, str, float, float], None]] = {
    "paving": _paving,
    "gravel": _gravel,
    "grass": _grass,
}


def figure(truth: Truth, look: Look) -> people.Figure:
    """The one who comes to the car."""
    dim = {"day": 0.0, "dusk": 0.1, "night": 0.08}[truth["light"]]
    colors = {
        key: dark(look[key], dim) for key in ("skin", "hair", "coat", "trousers", "vest", "load")
    }
    return people.Figure(
        who=truth["who"],
        **colors,
        style=look["style"],
        garment=look["garment"],
        carrying="nothing" if truth["carrying"] == CANNOT_TELL else truth["carrying"],
        card={"yes": "green", "no": "red"}.get(truth["owner"], "none"),
        side=look["hand"],
        step=look["step"],
    )


def _feet(look: Look) -> tuple[float, float, float]:
    """Where the one who comes stands, and at which scale."""
    return look["x"], look["horizon"] + look["depth"], look["depth"] / NEAR


def _hide(truth: Truth) -> float:
    """Height of the cover before the person, where it hides what is carried."""
    height = {"elderly": 79, "child": 71}.get(truth["who"], 85)
    return height * people.SCALE[truth["who"]] if truth["carrying"] == CANNOT_TELL else 0.0


def boxes(truth: Truth, look: Look) -> dict[str, Box]:
    """The visible part of the one who comes, and what is carried."""
    if truth["who"] == "nobody":
        return {}
    (x, y, scale), f = _feet(look), figure(truth, look)

    def placed(extent: luggage.Extent, cut: float = 0.0) -> Box:
        left, top, right, bottom = (edge * scale for edge in extent)
        return box_of(x + left, y + top, x + right, y + min(bottom, -cut * scale))

    found = {"person": placed(people.extent(f), _hide(truth) or -9)}
    if f.carrying != "nothing":
        found["load"] = placed(people.load_extent(f), -9)
    return found


def _cover(c: Canvas, truth: Truth, look: Look) -> None:
    """A hedge or a wall before the person, who stands at (0, 0)."""
    top = -_hide(truth)
    if look["cover"] == "wall":
        brick = _lit("#a8604a", truth)
        c.rect(-62, top, 124, -top + 6, brick, stroke=dark(brick, 0.5), stroke_width=1.4)
        rows = range(int(-top // 9) + 1)
        c.line(" ".join(f"M-62 {top + 9 * r} H62" for r in rows), dark(brick, 0.35), 1)
        joints = (f"M{-62 + 16 * k + 8 * (r % 2)} {top + 9 * r} v9" for r in rows for k in range(8))
        c.line(" ".join(joints), dark(brick, 0.35), 1)
        c.rect(-66, top - 5, 132, 8, _lit("#d0c8bc", truth), stroke=dark(brick, 0.5),
               stroke_width=1)  # fmt: skip
        return
    leaf = _lit("#3f7038" if truth["weather"] != "snow" else "#8aa890", truth)
    bumps = " ".join(f"Q{-46 + 18 * k} {top - 12} {-38 + 18 * k} {top + 3}" for k in range(6))
    c.path(f"M-58 6 Q-66 -4 -60 -14 Q-68 {top / 2} -60 {top + 20} Q-64 {top + 6} -56 {top + 3} "
           f"{bumps} Q66 {top + 10} 60 {top + 24} Q68 {top / 2} 61 -12 Q66 -2 58 6 Z", leaf,
           stroke=dark(leaf, 0.45), stroke_width=1.6)  # fmt: skip
    dots = look["dots"][:72]
    spots = [(dots[i] / 256 * 112 - 56, top + 6 + dots[i + 1] / 256 * (-top - 8))
             for i in range(0, 72, 2)]  # fmt: skip
    c.line(" ".join(f"M{x:.1f} {y:.1f} h2" for x, y in spots[::2]), dark(leaf, 0.35), 4.5)
    c.line(" ".join(f"M{x:.1f} {y:.1f} h2" for x, y in spots[1::2]), light(leaf, 0.22), 4)


def _bystanders(c: Canvas, truth: Truth, look: Look) -> None:
    """Small, walking away."""
    for other in look["others"][: int(truth["count"]) - (truth["who"] != "nobody")]:
        scale = other["depth"] / NEAR
        f = people.Figure(
            who="adult",
            **{key: _lit(other[key], truth) for key in ("skin", "hair", "coat", "trousers")},
            vest=other["coat"],
            style=other["style"],
            garment=other["garment"],
            step=other["step"],
            away=True,
        )
        at = f"translate({other['x']} {look['horizon'] + other['depth']}) scale({scale:.3f})"
        with c.group(transform=at):
            people.person(c, f)


def _bonnet(c: Canvas, truth: Truth, look: Look) -> None:
    paint = dark(look["paint"], SHADE[truth["light"]] * 0.6)
    c.path("M-4 252 Q128 226 260 252 V260 H-4 Z", paint, stroke=dark(paint, 0.6), stroke_width=1.6)
    c.line("M6 252 Q128 229 250 252", light(paint, 0.5), 2)


def _weather(c: Canvas, truth: Truth, look: Look) -> None:
    drops = look["drops"]
    pairs = list(zip(drops[::2], drops[1::2], strict=True))
    if truth["weather"] == "rain":
        c.line(" ".join(f"M{x} {y} l-4 15" for x, y in pairs), "#dce8f4", 1.5, stroke_opacity=0.55)
    elif truth["weather"] == "snow":
        c.line(" ".join(f"M{x} {y} h0.1" for x, y in pairs[:35]), "#ffffff", 4, stroke_opacity=0.9)
        c.line(" ".join(f"M{x} {y} h0.1" for x, y in pairs[35:]), "#ffffff", 6, stroke_opacity=0.9)


def picture(truth: Truth, look: Look) -> str:
    """The SVG of somebody coming to the car."""
    c, base = Canvas(), look["horizon"] + 26
    _sky(c, truth, base)
    with c.group(transform=f"translate(128 {base}) scale(1.15) translate(-128 {-base})"):
        PLACE[look["place"]](c, truth, look, base)
    _ground(c, truth, look, base)
    _bystanders(c, truth, look)
    if truth["who"] != "nobody":
        x, y, scale = _feet(look)
        with c.group(transform=f"translate({x} {y}) scale({scale:.3f})"):
            people.person(c, figure(truth, look))
            if truth["carrying"] == CANNOT_TELL:
                _cover(c, truth, look)
    _bonnet(c, truth, look)
    _weather(c, truth, look)
    return c.text()
