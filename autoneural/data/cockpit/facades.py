"""What stands behind the ground, from its far edge `base` upwards: houses, shops, trees, a farm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autoneural.data.cockpit.svg import SIDE, Canvas, dark, light, mix

PLACES = ("houses", "shops", "park", "offices", "hall", "fields", "garages")
PLACES_HELD_OUT = ("flats", "farm")
WALL = ("#e8dcc4", "#c88a6a", "#d8d4cc", "#b8c4cc", "#8a6a54", "#e0b890", "#7c8894", "#d4a0a0")
WALL_HELD_OUT = ("#b0604a", "#a8a090")
SHADE = {"day": 0.0, "dusk": 0.38, "night": 0.68}
WINDOW = {"day": "#6f8ca4", "dusk": "#ffcf80", "night": "#ffd070"}
Truth = dict[str, str]
Look = dict[str, Any]


def lit(color: str, truth: Truth) -> str:
    """A colour of the surroundings in the light of the scene."""
    tint = {"day": color, "dusk": mix(color, "#6a4a6a", 0.3), "night": mix(color, "#202c50", 0.35)}
    return dark(tint[truth["light"]], SHADE[truth["light"]] * 0.8)


def _tree(c: Canvas, truth: Truth, x: float, base: float, size: float) -> None:
    leaf = lit("#4f7f3e" if truth["weather"] != "snow" else "#8fa890", truth)
    c.rect(x - size * 0.09, base - size * 0.6, size * 0.18, size * 0.6, lit("#5a4430", truth))
    for dx, dy, r, tone in (
        (0.24, 0.7, 0.32, 0.22),
        (-0.26, 0.72, 0.3, 0.12),
        (0.16, 0.98, 0.32, 0.1),
        (-0.1, 1.04, 0.33, 0.0),
    ):
        c.circle(x + dx * size, base - dy * size, r * size, dark(leaf, tone))
    crown = ((-0.2, 1.16), (-0.04, 1.24), (-0.3, 0.84), (-0.02, 1.02), (0.2, 1.1))
    d = " ".join(
        f"M{x + dx * size:.1f} {base - dy * size:.1f} h{size * 0.06:.1f}" for dx, dy in crown
    )
    c.line(d, light(leaf, 0.08), size * 0.16)


def _window(c: Canvas, truth: Truth, x: float, y: float, w: float, h: float) -> None:
    c.rect(x, y, w, h, WINDOW[truth["light"]], stroke=lit("#f4f0e8", truth), stroke_width=1.6)
    c.line(f"M{x + w / 2} {y} v{h} M{x} {y + h / 2} h{w}", lit("#f4f0e8", truth), 1)


def _house(c: Canvas, truth: Truth, look: Look, x: float, base: float, wall: str) -> None:
    roof = lit("#8a4a3a" if truth["weather"] != "snow" else "#e8ecf2", truth)
    wall = lit(wall, truth)
    c.rect(x, base - 66, 92, 66, wall)
    c.rect(x + 80, base - 66, 12, 66, dark(wall, 0.14))
    c.path(f"M{x - 7} {base - 64} L{x + 20} {base - 98} H{x + 72} L{x + 99} {base - 64} Z", roof)
    c.line(f"M{x - 7} {base - 64} H{x + 99}", dark(roof, 0.4), 2.4)
    for dx in (10, 38, 66):
        _window(c, truth, x + dx, base - 56, 15, 17)
    c.rect(x + 62, base - 33, 17, 33, lit(look["door"], truth), stroke=lit("#f4f0e8", truth),
           stroke_width=1.6)  # fmt: skip
    c.circle(x + 75, base - 16, 1.4, "#e8d080")
    c.rect(x + 6, base - 31, 48, 31, lit("#d4d0c8", truth), stroke=dark(wall, 0.4),
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
        wall = lit(
            mix(look["wall"], ("#ffffff", "#807060", "#c0b0a0", "#a08878")[index], 0.4), truth
        )
        rise = 88 + (index * 37 % 3) * 8
        c.rect(x, base - rise, 73, rise, wall, stroke=dark(wall, 0.35), stroke_width=1)
        for dx in (9, 31, 53):
            _window(c, truth, x + dx, base - rise + 12, 13, 20)
        c.rect(x + 6, base - 36, 42, 34, WINDOW[truth["light"]], stroke=dark(wall, 0.5),
               stroke_width=2)  # fmt: skip
        c.rect(x + 53, base - 36, 15, 36, lit(look["door"], truth))
        c.path(f"M{x + 8} {base - 34} h12 L{x + 12} {base - 4} h-4 Z", "#ffffff", fill_opacity=0.25)
        color = lit((look["door"], "#2f7d5b", "#c08030", "#4a5a90")[index], truth)
        c.path(f"M{x + 2} {base - 48} H{x + 71} L{x + 74} {base - 35} H{x - 1} Z", color)
        stripes = " ".join(f"M{x + 9 + k * 14} {base - 48} h7 l1 13 h-8 Z" for k in range(5))
        c.path(stripes, light(color, 0.65))


def _park(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    hedge = lit("#3f6a38" if truth["weather"] != "snow" else "#a8b8b0", truth)
    c.path(f"M0 {base} V{base - 38} Q60 {base - 52} 128 {base - 40} T256 {base - 42} V{base} Z",
           mix(hedge, lit("#90a8b0", truth), 0.35))  # fmt: skip
    for index in range(6):
        _tree(c, truth, index * 50 + look["shift"] - 4, base - 4, 56 + 14 * look["blocks"][index])
    c.rect(0, base - 10, SIDE, 10, hedge)
    iron = lit("#3a4450", truth)
    c.line(f"M0 {base - 24} H256 M0 {base - 5} H256", iron, 2)
    c.line(" ".join(f"M{x} {base - 28} V{base}" for x in range(4, 256, 10)), iron, 1.8)


def _offices(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    """A front of glass that leaves no sky."""
    wall = lit(look["wall"], truth)
    c.rect(0, -20, SIDE, base + 20, dark(wall, 0.3))
    for row in range(5):
        for index in range(9):
            on = truth["light"] == "day" or look["blocks"][(row * 9 + index) % 20] > 0.55
            glass = WINDOW[truth["light"]] if on else dark(wall, 0.7)
            x, y = index * 33 + look["shift"] - 18, base - 122 + row * 21
            c.rect(x, y, 29, 17, glass)
            c.path(f"M{x + 4} {y + 17} l8 -17 h5 l-8 17 Z", "#ffffff", fill_opacity=0.2)
    c.rect(0, base - 15, SIDE, 15, lit("#8c8880", truth))
    x = 104 + look["shift"]
    c.rect(x, base - 32, 44, 32, dark(wall, 0.5), stroke=lit("#e0e4e8", truth), stroke_width=2)
    c.line(f"M{x + 22} {base - 32} v32", lit("#e0e4e8", truth), 2)


def _hall(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    """A warehouse of sheet metal with gates and lamps."""
    sheet, gate = lit(look["wall"], truth), lit(look["door"], truth)
    rise = 62 + 36 * look["blocks"][0]
    c.rect(0, base - rise, SIDE, rise, sheet)
    c.line(" ".join(f"M{x} {base - rise} v{rise}" for x in range(0, 256, 7)), dark(sheet, 0.16), 2)
    c.rect(0, base - rise - 4, SIDE, 7, dark(sheet, 0.45))
    for index in range(4):
        x = index * 76 + look["shift"] - 18
        c.rect(x, base - 44, 46, 44, gate, stroke=dark(gate, 0.5), stroke_width=2)
        c.line(" ".join(f"M{x + 1} {base - y} h44" for y in (9, 18, 27, 36)), dark(gate, 0.3), 1.2)
        c.circle(x + 23, base - 52, 2.6, "#ffe9a8" if truth["light"] != "day" else "#d0d4d8")


def _fields(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    """Hills, rows of a crop and a few poles."""
    for index, (tone, rise) in enumerate((("#8aa0a8", 46), ("#93a86a", 32), ("#b8a860", 18))):
        snow = truth["weather"] == "snow"
        hill = lit(mix(tone, "#f0f4f8", 0.6) if snow else tone, truth)
        low, high = rise * (0.7 + 0.6 * look["blocks"][index]), rise
        c.path(f"M0 {base} V{base - low} Q{70 + 40 * index} {base - high - 14} 140 {base - low} "
               f"T256 {base - high} V{base} Z", hill)  # fmt: skip
    rows = " ".join(f"M{x} {base} L{128 + (x - 128) * 0.72:.0f} {base - 15}"
                    for x in range(-40, 300, 13))  # fmt: skip
    c.line(rows, lit("#7c7038", truth), 2)
    for x in (40, 150, 260):
        at = x + look["shift"]
        c.line(f"M{at} {base} v-84 M{at - 9} {base - 78} h18", lit("#5a4a3c", truth), 2.2)
    _tree(c, truth, look["shift"] + 96, base - 8, 40)


def _garages(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    """A row of garages under a flat roof, a wall with ivy behind."""
    wall = lit(look["wall"], truth)
    c.rect(0, base - 98, SIDE, 98, lit(mix(look["wall"], "#806858", 0.5), truth))
    for index in range(20):
        x, y = index * 14, base - 96 + 26 * look["blocks"][index]
        c.circle(x, y, 9, lit("#4a7040" if truth["weather"] != "snow" else "#9cb0a0", truth))
    c.rect(0, base - 58, SIDE, 58, wall)
    c.rect(
        0, base - 62, SIDE, 7, lit("#e8ecf2" if truth["weather"] == "snow" else "#605c58", truth)
    )
    for index in range(5):
        x = index * 62 + look["shift"] - 24
        color = lit((look["door"], "#d8d4c8", "#6a7c60", "#b0b8c0", "#8c5040")[index], truth)
        c.rect(x, base - 46, 50, 46, color, stroke=dark(wall, 0.45), stroke_width=2)
        c.line(" ".join(f"M{x + k} {base - 45} v45" for k in (10, 20, 30, 40)), dark(color, 0.25),
               1.2)  # fmt: skip


def _flats(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    """A tall block with balconies."""
    wall = lit(look["wall"], truth)
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
                c.rect(x - 4, y + 12, 24, 10, lit("#d8dce0", truth), fill_opacity=0.8)
            else:
                c.path(f"M{x - 6} {base} V{base - 20} A14 14 0 0 1 {x + 22} {base - 20} V{base} Z",
                       dark(wall, 0.55))  # fmt: skip


def _farm(c: Canvas, truth: Truth, look: Look, base: float) -> None:
    """A barn with crossed doors, a silo and a paddock fence."""
    red = lit(mix("#9a3a2a", look["wall"], 0.25), truth)
    trim, x = lit("#f0ece0", truth), look["shift"] + 84
    c.path(f"M0 {base} V{base - 30} Q64 {base - 46} 128 {base - 30} T256 {base - 34} V{base} Z",
           lit("#86a060", truth))  # fmt: skip
    c.rect(x - 46, base - 92, 32, 92, lit("#b8bec4", truth), rx=3)
    c.path(f"M{x - 46} {base - 90} A16 14 0 0 1 {x - 14} {base - 90} Z", lit("#8a949c", truth))
    c.path(f"M{x} {base} V{base - 58} L{x + 16} {base - 80} L{x + 50} {base - 98} L{x + 84} "
           f"{base - 80} L{x + 100} {base - 58} V{base} Z", red, stroke=trim,
           stroke_width=2.4)  # fmt: skip
    c.rect(x + 26, base - 42, 48, 42, dark(red, 0.15), stroke=trim, stroke_width=2)
    c.line(f"M{x + 26} {base - 42} L{x + 50} {base} V{base - 42} L{x + 26} {base} M{x + 50} {base} "
           f"L{x + 74} {base - 42} M{x + 50} {base - 42} L{x + 74} {base}", trim, 2)  # fmt: skip
    c.rect(x + 42, base - 78, 16, 16, WINDOW[truth["light"]], stroke=trim, stroke_width=2)
    _tree(c, truth, look["shift"] + 222, base, 62)
    c.line(f"M0 {base - 14} H256 M0 {base - 6} H256", lit("#c0a880", truth), 2.4)
    c.line(" ".join(f"M{k} {base - 18} V{base + 1}" for k in range(6, 256, 26)),
           lit("#c0a880", truth), 3)  # fmt: skip


DRAW: dict[str, Callable[[Canvas, Truth, Look, float], None]] = {
    "houses": _houses,
    "shops": _shops,
    "park": _park,
    "offices": _offices,
    "hall": _hall,
    "fields": _fields,
    "garages": _garages,
    "flats": _flats,
    "farm": _farm,
}
