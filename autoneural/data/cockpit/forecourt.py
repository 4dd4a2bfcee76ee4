"""What the outer camera of a parked car sees: place, ground, people, weather, own bonnet.

The ground is a plane in perspective: what stands at height y of the picture is (y - horizon) / NEAR
of its own size.
"""

from __future__ import annotations

from collections.abc import Callable

from autoneural.data.cockpit import facades, luggage, people
from autoneural.data.cockpit.base import CANNOT_TELL, Box
from autoneural.data.cockpit.facades import SHADE, Look, Truth, lit
from autoneural.data.cockpit.grid import box_of
from autoneural.data.cockpit.svg import SIDE, Canvas, dark, light, mix

PAINT = ("#c23b32", "#2c5aa0", "#d9dce0", "#3f4650", "#2f7d5b", "#f2f2ee")
PAINT_HELD_OUT = ("#a8552c", "#4b86b4", "#b8bec6")
SKY = {
    "day": ("#7fb6e6", "#e2eff6"),
    "dusk": ("#50508c", "#f4a66c"),
    "night": ("#060a16", "#1a2444"),
}
GROUND = {"paving": "#b4ada2", "gravel": "#c8b48c", "grass": "#6f9a4c"}
NEAR = 108
"""Below the horizon, in pixels, where things have their own size."""


def _sky(c: Canvas, truth: Truth, base: float) -> None:
    top, low = SKY[truth["light"]]
    if truth["weather"] != "dry":
        grey = {"day": "#98a0a8", "dusk": "#584e60", "night": "#20242e"}[truth["light"]]
        top, low = mix(top, grey, 0.6), mix(low, grey, 0.6)
    for band in range(8):
        c.rect(0, base * band / 8, SIDE, base / 8 + 1, mix(top, low, band / 7))
    if truth["weather"] == "dry" and truth["light"] == "night":
        c.circle(226, 16, 8, "#e8ecf4")
    elif truth["weather"] == "dry" and truth["light"] == "day":
        c.circle(30, 18, 11, "#fff4c0")


def _ground(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    horizon = look["horizon"]
    color = GROUND[truth["ground"]]
    if truth["weather"] == "snow":
        color = mix(color, "#f0f4f8", 0.45)
    elif truth["weather"] == "rain":
        color = dark(color, 0.2)
    color = lit(color, truth)
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
        f"M{128 + 13 * k} {base} L{128 + k * (258 - horizon) / 2:.1f} 258" for k in range(-9, 10)
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
    return people.Figure(
        who=truth["who"],
        skin=dark(look["skin"], dim),
        hair=dark(look["hair"], dim),
        coat=dark(look["coat"], dim),
        trousers=dark(look["trousers"], dim),
        vest=dark(look["vest"], dim),
        load=dark(look["load"], dim),
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
        brick = lit("#a8604a", truth)
        c.rect(-62, top, 124, -top + 6, brick, stroke=dark(brick, 0.5), stroke_width=1.4)
        rows = range(int(-top // 9) + 1)
        c.line(" ".join(f"M-62 {top + 9 * r} H62" for r in rows), dark(brick, 0.35), 1)
        joints = (f"M{-62 + 16 * k + 8 * (r % 2)} {top + 9 * r} v9" for r in rows for k in range(8))
        c.line(" ".join(joints), dark(brick, 0.35), 1)
        c.rect(-66, top - 5, 132, 8, lit("#d0c8bc", truth), stroke=dark(brick, 0.5),
               stroke_width=1)  # fmt: skip
        return
    leaf = lit("#3f7038" if truth["weather"] != "snow" else "#8aa890", truth)
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
        scale, dim = other["depth"] / NEAR, {"day": 0.0, "dusk": 0.15, "night": 0.3}[truth["light"]]
        f = people.Figure(
            who="adult",
            skin=dark(other["skin"], dim),
            hair=dark(other["hair"], dim),
            coat=dark(other["coat"], dim),
            trousers=dark(other["trousers"], dim),
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
    x, y, scale = _feet(look)
    key = y - people.key_height(truth["who"]) * scale  # a flake would hide it
    pairs = [
        (dx, dy)
        for dx, dy in zip(drops[::2], drops[1::2], strict=True)
        if abs(dx - x) > 9 or abs(dy - key) > 11
    ]
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
        facades.DRAW[look["place"]](c, truth, look, base)
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
