"""Draws an instrument cluster of three bands: warning lights, menu tabs and the body between,
above or below them, where a layout says where each instrument sits and how large it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from autoneural.data.cockpit import covers, icons
from autoneural.data.cockpit.base import CANNOT_TELL
from autoneural.data.cockpit.cluster_layout import Layout, Place
from autoneural.data.cockpit.fonts import FONTS, advances
from autoneural.data.cockpit.svg import SIDE, Canvas, dark, light, mix

Look = dict[str, Any]
DIGITS = ("hundreds", "tens", "ones")
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
NEEDLE = {"low": -56.0, "middle": 0.0, "high": 56.0}
"""Degrees from upright."""
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


def _style(truth: dict[str, str], look: Look) -> Style:
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


def _dial(c: Canvas, style: Style, digits: str, ring: str) -> None:
    c.circle(0, 0, 62, c.radial(((0, light(style.ground, 0.12)), (1, dark(style.ground, 0.35)))))
    width = {"thin": 4, "thick": 9, "ticks": 3}[ring]
    c.line(_arc(60, 140, 400), style.faint, width, stroke_linecap="butt")
    if digits.strip("0"):
        end = 140 + 260 * int(digits) / 240
        c.line(_arc(60, 140, end), style.accent, width + 3, stroke_linecap="butt")
    if ring == "ticks":
        for angle in range(140, 401, 26):
            with c.group(transform=f"rotate({angle})"):
                c.line("M50 0 H56", style.ink, 2)


def _number(c: Canvas, style: Style, truth: dict[str, str], font: str) -> None:
    shown = [key for key in DIGITS if truth[key] != "none"]
    digits = "".join(truth[key] for key in shown)
    edges = advances(font, digits, 60)
    for key, start, end in zip(shown, edges, edges[1:], strict=False):
        c.mark(key, start - edges[-1] / 2, -27, end - start, 47)
    c.label(0, 18, digits, 60, fill=style.ink, **style.font)


def _speed(c: Canvas, style: Style, layout: Layout, truth: dict[str, str], look: Look) -> None:
    """The number, or the reflection that hides it."""
    hidden = truth["ones"] == CANNOT_TELL
    if layout.dial:
        speed = "".join(truth[key] for key in DIGITS if truth[key] not in ("none", CANNOT_TELL))
        _dial(c, style, speed, look["ring"])
    if not hidden:
        _number(c, style, truth, look["fonts"][0])
    c.label(0, 38, "km/h", 14, fill=mix(style.ground, style.ink, 0.75), **style.font)
    if hidden:
        covers.glare(c, 0, 0, *((80, 80) if layout.dial else (64, 46)), look["shine"])


def _sign(c: Canvas, style: Style, number: str, look: Look, layout: Layout) -> None:
    """What hides it hides whether there is one; a hand has room where no dial is."""
    if number == CANNOT_TELL and (layout.dial or look["cover"] == "glare"):
        covers.glare(c, 0, 0, 39, 39, look["shine"])
    elif number == CANNOT_TELL:
        side = -1 if layout.sign[0] < SIDE / 2 else 1
        with c.group(transform=f"scale({side} 1) translate(6 0)"):
            covers.hand(c, look["skin"], look["cloth"])
    elif number != "none":
        c.mark("sign", -29, -29, 58, 58)
        c.circle(0, 0, 29, "#ffffff")
        c.circle(0, 0, 25, "#ffffff", stroke="#d8141c", stroke_width=7)
        size = 30 if len(number) < 3 else 23
        c.label(0, size * 0.36, number, size, fill="#101010", **style.font)


def _route(c: Canvas, style: Style, truth: dict[str, str]) -> None:
    if truth["manoeuvre"] == "none":
        return
    with c.group(transform="scale(1.25)"):
        icons.arrow(c, truth["manoeuvre"], style.accent)
        c.mark("manoeuvre", -22, -23, 44, 44)


def _distance(c: Canvas, style: Style, text: str, font: str) -> None:
    if text == "none":
        return
    width = advances(font, text, 20)[-1]
    c.mark("distance", -width / 2, -15, width, 16)
    c.label(0, 0, text, 20, fill=style.ink, **style.font)


def _gear(c: Canvas, style: Style, gear: str) -> None:
    for index, letter in enumerate("PRND"):
        _letter(c, style, letter, (index - 1.5) * 27, letter == gear)


def _letter(c: Canvas, style: Style, letter: str, x: float, chosen: bool) -> None:
    """The chosen one twice as large as the others, on a plate."""
    if chosen:
        c.rect(x - 17, -18, 34, 36, style.accent, rx=7)
        c.mark("gear", x - 17, -18, 34, 36)
    color = dark(style.accent, 0.88) if chosen else mix(style.ground, style.ink, 0.35)
    size = 34 if chosen else 16
    c.label(x, size * 0.36, letter, size, fill=color, **style.font)


def _gauge(c: Canvas, style: Style, level: str, lean: float) -> None:
    """A half circle from cold to hot, its needle, a thermometer below."""
    sectors = ((180, 238, "#4aa8ff"), (242, 298, mix(style.ground, style.ink, 0.6)),
               (302, 360, "#ff4a3a"))  # fmt: skip
    for start, end, color in sectors:
        c.line(_arc(26, start, end), color, 7, stroke_linecap="butt")
    with c.group(transform=f"rotate({NEEDLE[level] + lean})"):
        c.path("M-3 4 L-1.2 -26 H1.2 L3 4 Z", style.ink, stroke=style.ground, stroke_width=1)
    c.circle(0, 0, 5, style.ink)
    c.line("M-19 3 V8 M19 3 V8", mix(style.ground, style.ink, 0.6), 2)
    c.mark("temperature", -30, -30, 60, 36)


def _charge(c: Canvas, style: Style, level: int) -> None:
    """Four cells in a battery outline; the empty one is red."""
    c.mark("charge", -57, -15, 114, 30)
    c.rect(-56, -14, 106, 28, "none", rx=6, stroke=style.ink, stroke_width=2.5)
    c.rect(51, -6, 6, 12, style.ink, rx=2)
    color = ("#ff3b30", "#ff9f2e", "#e8c93a", "#39c86a", "#39c86a")[level]
    for index in range(level):
        c.rect(-51 + index * 24.5, -9, 22, 18, color, rx=3)
    if level == 0:
        c.line("M-50 9 L-38 -9", color, 4)


def _lights(c: Canvas, look: Look, y: float) -> None:
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
            c.mark(name, -20, -20, 40, 40)
        x += 22


def _tabs(c: Canvas, style: Style, look: Look, chosen: str, y: float) -> None:
    """The selected tab opens up to its name; the others are only symbols."""
    x = 6.0
    for name in look["tabs"]:
        wide = 109.0 if name == chosen else 42.0
        with c.group(transform=f"translate({x} {y})"):
            if name == chosen:
                _open_tab(c, style, look["fonts"][0], name, wide)
            else:
                c.rect(0, -21, wide, 42, mix(style.ground, style.ink, 0.1), rx=8)
                with c.group(transform=f"translate({wide / 2} 0) scale(0.62)"):
                    icons.MENU[name](c, mix(style.ground, style.ink, 0.5))
        x += wide + 3


def _open_tab(c: Canvas, style: Style, font: str, name: str, wide: float) -> None:
    ink, text = dark(style.accent, 0.88), name.capitalize()
    c.rect(0, -22, wide, 44, style.accent, rx=9)
    c.mark("menu", 0, -22, wide, 44)
    with c.group(transform="translate(23 0) scale(0.92)"):
        icons.MENU[name](c, ink)
    size = min(22.0, 22.0 * 62 / advances(font, text, 22)[-1])
    c.label(74, size * 0.35, text, size, fill=ink, **style.font)


def _body(c: Canvas, style: Style, truth: dict[str, str], look: Look) -> None:
    layout, j = Layout(**look["layout"]), look["jitter"]
    far = (layout.arrow[0] + layout.distance[0], layout.arrow[1] + layout.distance[1], 1.0)
    with c.group(transform=_at(layout.arrow, j[2], j[3] / 2)):
        _route(c, style, truth)
    with c.group(transform=_at(far, j[2], j[3] / 2)):
        _distance(c, style, truth["distance"], look["fonts"][0])
    with c.group(transform=_at(layout.gear, j[6] / 2, 0)):
        _gear(c, style, truth["gear"])
    with c.group(transform=_at(layout.charge, 0, j[7] / 3)):
        _charge(c, style, CHARGES.index(truth["charge"]))
    with c.group(transform=_at((*layout.gauge, 0.92), j[4] / 2, j[5] / 3)):
        _gauge(c, style, truth["temperature"], look["lean"])
    with c.group(transform=_at(layout.speed, j[0] / 2, j[1] / 2)):
        _speed(c, style, layout, truth, look)
    with c.group(transform=_at(layout.sign, j[4] / 2, j[5] / 2)):
        _sign(c, style, truth["sign"], look, layout)


def cluster(truth: dict[str, str], look: Look) -> Canvas:
    """A cluster with attributes `truth` and appearance `look`."""
    c, style = Canvas(), _style(truth, look)
    c.rect(0, 0, SIDE, SIDE, dark(style.ground, 0.25))
    edge = dark(style.ground, 0.5)
    share, dx, dy = look["framing"]
    frame = (
        f"translate({128 + dx:g} {128 + dy:g}) rotate({look['tilt']}) "
        f"scale({look['zoom'] * share}) translate(-128 -128)"
    )
    with c.group(transform=frame):
        c.rect(-2, -2, 260, 260, style.ground, rx=14, stroke=edge, stroke_width=3)
        top = 2.0
        for band in look["order"]:
            with c.group(transform=f"translate(0 {top})"):
                if band == "lights":
                    _lights(c, look, BANDS["lights"] / 2)
                elif band == "tabs":
                    _tabs(c, style, look, truth["menu"], BANDS["tabs"] / 2)
                else:
                    _body(c, style, truth, look)
            top += BANDS[band]
    if look["glare"]:
        c.path("M150 0 L210 0 L110 256 L50 256 Z", "#ffffff", fill_opacity=0.06)
    return c
