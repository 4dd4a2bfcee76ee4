"""Draws an instrument cluster of three bands: warning lights, menu tabs and the body between,
above or below them, where a layout says where each instrument sits and how large it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from autoneural.data.cockpit import icons
from autoneural.data.cockpit.fonts import FONTS
from autoneural.data.cockpit.svg import SIDE, Canvas, dark, light, mix

Place = tuple[float, float, float]
"""Centre x, centre y from the top of the body, scale."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    speed: Place
    dial: bool
    arrow: Place
    distance: tuple[float, float]
    """From the centre of the arrow."""
    sign: Place
    gear: Place
    charge: Place


_BESIDE, _BELOW = (50, 6), (0, 46)
LAYOUTS_BY_NAME = {
    "left": Layout(speed=(69, 63, 1), dial=True, arrow=(167, 33, 1), distance=_BESIDE,
                   sign=(196, 93, 1), gear=(196, 139, 1), charge=(72, 143, 1)),
    "right": Layout(speed=(184, 63, 1), dial=True, arrow=(34, 33, 1), distance=_BESIDE,
                    sign=(58, 93, 1), gear=(60, 139, 1), charge=(186, 143, 1)),
    "centre": Layout(speed=(128, 51, 1.22), dial=False, arrow=(36, 43, 0.95), distance=_BELOW,
                     sign=(222, 43, 1), gear=(186, 129, 1), charge=(70, 129, 1)),
    "east": Layout(speed=(190, 94, 1.1), dial=False, arrow=(103, 40, 1), distance=_BELOW,
                   sign=(42, 62, 1), gear=(192, 22, 1), charge=(70, 138, 1)),
    "west": Layout(speed=(66, 94, 1.1), dial=False, arrow=(153, 40, 1), distance=_BELOW,
                   sign=(214, 62, 1), gear=(64, 22, 1), charge=(184, 138, 1)),
    "tower": Layout(speed=(76, 51, 1.1), dial=False, arrow=(164, 35, 0.95), distance=_BESIDE,
                    sign=(202, 95, 1), gear=(66, 112, 1), charge=(70, 144, 1)),
    "mirror": Layout(speed=(186, 53, 1.1), dial=False, arrow=(34, 35, 0.95), distance=_BESIDE,
                     sign=(52, 93, 1), gear=(184, 114, 1), charge=(180, 144, 1)),
}  # fmt: skip
LAYOUTS = ("left", "right", "centre", "east", "west")
LAYOUTS_HELD_OUT = ("tower", "mirror")
BANDS = {"lights": 48, "tabs": 46, "body": 158}
"""Heights, 252 in all."""
ORDERS = (
    ("lights", "body", "tabs"),
    ("lights", "tabs", "body"),
    ("tabs", "body", "lights"),
    ("tabs", "lights", "body"),
    ("body", "tabs", "lights"),
)
ORDERS_HELD_OUT = (("body", "lights", "tabs"),)
CHARGES = ("empty", "25 percent", "50 percent", "75 percent", "100 percent")
THEMES = {
    "dark": ("#101318", "#f2f5f8"),
    "light": ("#e4e8ec", "#14181e"),
    "blue": ("#0c2446", "#e6f0ff"),
    "red": ("#3a0d14", "#ffece8"),
}
SHADES = (0.0, 0.05, 0.1)
SHADES_HELD_OUT = (0.07, 0.14)
ACCENTS = ("#2fb5ff", "#39d98a", "#ff8a3d", "#b78bff", "#ffd23d")
ACCENTS_HELD_OUT = ("#3dd6d0", "#ff6fa8", "#a6d83d")


@dataclass(frozen=True, kw_only=True)
class Style:
    ground: str
    ink: str
    accent: str
    font: dict[str, object]

    @property
    def faint(self) -> str:
        return mix(self.ground, self.ink, 0.3)


def _style(truth: dict[str, str], look: dict[str, Any]) -> Style:
    ground, ink = THEMES[truth["theme"]]
    font = FONTS[look["fonts"][0]]
    bright = truth["theme"] == "light"
    return Style(
        ground=mix(ground, "#808890", look["shade"]),
        ink=ink,
        accent=dark(look["accent"], 0.4) if bright else look["accent"],
        font={"font_family": font.family, "font_weight": font.weight},
    )


def _at(place: Place, dx: float, dy: float) -> str:
    return f"translate({place[0] + dx:.2f} {place[1] + dy:.2f}) scale({place[2]})"


def _arc(radius: float, start: float, end: float) -> str:
    """A circular arc between two angles in degrees, clockwise from the right."""
    points = [(radius * math.cos(math.radians(a)), radius * math.sin(math.radians(a)))
              for a in (start, end)]  # fmt: skip
    large = int(end - start > 180)
    (x0, y0), (x1, y1) = points
    return f"M{x0:.2f} {y0:.2f} A{radius} {radius} 0 {large} 1 {x1:.2f} {y1:.2f}"


def _dial(c: Canvas, style: Style, speed: int, ring: str) -> None:
    c.circle(0, 0, 62, c.radial(((0, light(style.ground, 0.12)), (1, dark(style.ground, 0.35)))))
    width = {"thin": 4, "thick": 9, "ticks": 3}[ring]
    c.line(_arc(60, 140, 400), style.faint, width, stroke_linecap="butt")
    end = 140 + 260 * speed / 240
    if speed:
        c.line(_arc(60, 140, end), style.accent, width + 3, stroke_linecap="butt")
    if ring == "ticks":
        for angle in range(140, 401, 26):
            with c.group(transform=f"rotate({angle})"):
                c.line("M50 0 H56", style.ink, 2)


def _speed(c: Canvas, style: Style, layout: Layout, truth: dict[str, str], ring: str) -> None:
    digits = "".join(truth[k] for k in ("hundreds", "tens", "ones") if truth[k] != "none")
    if layout.dial:
        _dial(c, style, int(digits), ring)
    c.label(0, 18, digits, 60, fill=style.ink, **style.font)
    c.label(0, 38, "km/h", 14, fill=mix(style.ground, style.ink, 0.75), **style.font)


def _sign(c: Canvas, style: Style, number: str) -> None:
    if number == "none":
        return
    c.circle(0, 0, 29, "#ffffff")
    c.circle(0, 0, 25, "#ffffff", stroke="#d8141c", stroke_width=7)
    size = 30 if len(number) < 3 else 23
    c.label(0, size * 0.36, number, size, fill="#101010", **style.font)


def _route(c: Canvas, style: Style, truth: dict[str, str]) -> None:
    if truth["manoeuvre"] == "none":
        return
    with c.group(transform="scale(1.25)"):
        icons.arrow(c, truth["manoeuvre"], style.accent)


def _gear(c: Canvas, style: Style, gear: str) -> None:
    for index, letter in enumerate("PRND"):
        x = (index - 1.5) * 27
        if letter == gear:
            c.rect(x - 14, -15, 28, 30, style.accent, rx=6)
        chosen = letter == gear
        color = dark(style.accent, 0.85) if chosen else mix(style.ground, style.ink, 0.35)
        size = 27 if chosen else 18
        c.label(x, size * 0.36, letter, size, fill=color, **style.font)


def _charge(c: Canvas, style: Style, level: int) -> None:
    """Four cells in a battery outline; the empty one is red."""
    c.rect(-56, -14, 106, 28, "none", rx=6, stroke=style.ink, stroke_width=2.5)
    c.rect(51, -6, 6, 12, style.ink, rx=2)
    color = ("#ff3b30", "#ff9f2e", "#e8c93a", "#39c86a", "#39c86a")[level]
    for index in range(level):
        c.rect(-51 + index * 24.5, -9, 22, 18, color, rx=3)
    if level == 0:
        c.line("M-50 9 L-38 -9", color, 4)


def _lights(c: Canvas, look: dict[str, Any], y: float) -> None:
    """The lit ones in a random order, at random places of the row that leave them apart."""
    names, cuts = look["lights"], look["light_x"]
    slack = 256 - 24 - 44 * len(names)
    gaps = [cut / (sum(cuts) or 1.0) * slack for cut in cuts]
    x = 12.0
    c.rect(4, y - 23, SIDE - 8, 46, "#14161c", rx=10)
    for name, gap, dy in zip(names, gaps, look["light_y"], strict=False):
        color, draw = icons.LIGHTS[name]
        x += gap + 22
        with c.group(transform=f"translate({x:.2f} {y + dy - 1:.2f})"):
            draw(c, color)
        x += 22


def _tabs(c: Canvas, style: Style, order: list[str], chosen: str, y: float) -> None:
    for index, name in enumerate(order):
        active = name == chosen
        fill = style.accent if active else mix(style.ground, style.ink, 0.1)
        ink = dark(style.accent, 0.85) if active else mix(style.ground, style.ink, 0.5)
        x = 33 + index * 63.5
        c.rect(x - 30, y - 22, 60, 44, fill, rx=8)
        with c.group(transform=f"translate({x} {y - 7}) scale(0.62)"):
            icons.MENU[name](c, ink)
        c.label(x, y + 17, name.capitalize(), 13, fill=ink, **style.font)


def _body(c: Canvas, style: Style, truth: dict[str, str], look: dict[str, Any]) -> None:
    layout, j = LAYOUTS_BY_NAME[look["layout"]], look["jitter"]
    with c.group(transform=_at(layout.speed, j[0] / 2, j[1] / 2)):
        _speed(c, style, layout, truth, look["ring"])
    with c.group(transform=_at(layout.arrow, j[2], j[3] / 2)):
        _route(c, style, truth)
    if truth["distance"] != "none":
        x, y = (a + b for a, b in zip(layout.arrow[:2], layout.distance, strict=True))
        ink = {"fill": style.ink, **style.font}
        c.label(x + j[2], y + j[3] / 2, truth["distance"], 17, **ink)
    with c.group(transform=_at(layout.sign, j[4], j[5] / 2)):
        _sign(c, style, truth["sign"])
    with c.group(transform=_at(layout.gear, j[6] / 2, 0)):
        _gear(c, style, truth["gear"])
    with c.group(transform=_at(layout.charge, 0, j[7] / 3)):
        _charge(c, style, CHARGES.index(truth["charge"]))


def cluster(truth: dict[str, str], look: dict[str, Any]) -> str:
    """The SVG of a cluster with attributes `truth` and appearance `look`."""
    c, style = Canvas(), _style(truth, look)
    c.rect(0, 0, SIDE, SIDE, dark(style.ground, 0.25))
    edge = dark(style.ground, 0.5)
    frame = f"translate(128 128) rotate({look['tilt']}) scale({look['zoom']}) translate(-128 -128)"
    with c.group(transform=frame):
        c.rect(-2, -2, 260, 260, style.ground, rx=14, stroke=edge, stroke_width=3)
        top = 2.0
        for band in look["order"]:
            with c.group(transform=f"translate(0 {top})"):
                if band == "lights":
                    _lights(c, look, BANDS["lights"] / 2)
                elif band == "tabs":
                    _tabs(c, style, look["tabs"], truth["menu"], BANDS["tabs"] / 2)
                else:
                    _body(c, style, truth, look)
            top += BANDS[band]
    if look["glare"]:
        c.path("M150 0 L210 0 L110 256 L50 256 Z", "#ffffff", opacity=0.06)
    return c.text()
