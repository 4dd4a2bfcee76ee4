"""Draws the driver's place: cabin, seat, torso, seat belt or what covers it, and the head on top.

Body coordinates are those of the picture, before the driver is moved (`shift`) and scaled (`zoom`).
"""

from __future__ import annotations

from typing import Any

from autoneural.data.cockpit import covers, face
from autoneural.data.cockpit.base import CANNOT_TELL
from autoneural.data.cockpit.svg import SIDE, Canvas, dark, light, luma, mix

SEATS = ("round", "square")
SEATS_HELD_OUT = ("split",)
SHOULDERS = ("M-130 300 V148 Q-40 128 18 146 C58 160 88 178 108 196 Q128 210 148 196 "
             "C176 182 214 182 242 200 L270 228 L390 300 Z")  # fmt: skip
LAP = "M-20 300 L4 246 Q60 232 128 240 Q200 232 252 246 L276 300 Z"
"""Where a blanket lies: over the belt and its pillar, or clear of both."""


def _window(c: Canvas, truth: dict[str, str], look: dict[str, Any]) -> None:
    sky = {
        "day": ("#9cc7ee", "#e4f0f4", "#8aa070"),
        "dusk": ("#5a5a8c", "#f0a878", "#4c4450"),
        "night": ("#0b1020", "#1c2438", "#12141c"),
        "infrared": ("#3a3a3a", "#4a4a4a", "#2c2c2c"),
    }[truth["camera"]]
    cabin = dark(look["seat"], 0.45)
    c.rect(0, 0, SIDE, SIDE, cabin)
    for sign in (-1, 1):
        side = f"translate({128 + look['shift']} 0) scale({-sign} 1) translate(-128 0)"
        with c.group(transform=side):
            for band in range(7):
                y, drop = 30 + band * 9.5, 1 - band / 7
                d = f"M-64 {y + 6} L{66.0 + band * 0.8} {y - 8 * drop} L73 98 L-64 102 Z"
                c.path(d, mix(sky[0], sky[1], band / 6))
            c.path("M-64 97 L72.5 92 L74 112 L-64 133 Z", sky[2])
            c.line("M-64 37 L66 22 L74 112 L-64 133 Z", dark(cabin, 0.5), 5)
    if truth["camera"] == "night":
        for x, y, r, color in (
            (24, 86, 6, "#ffd890"),
            (48, 92, 4, "#ff6050"),
            (228, 84, 6, "#ffe8b0"),
        ):
            c.circle(x, y, r * 2.2, color, fill_opacity=0.25)
            c.circle(x, y, r, color, fill_opacity=0.85)


def _seat(c: Canvas, look: dict[str, Any]) -> None:
    seat = look["seat"]
    radius = {"round": 44, "square": 18, "split": 26}[look["seat_style"]]
    c.rect(22, 132, 212, 160, dark(seat, 0.12), rx=40, stroke=dark(seat, 0.5), stroke_width=2)
    c.rect(
        70,
        30,
        116,
        100,
        c.linear(((0, light(seat, 0.18)), (1, dark(seat, 0.2)))),
        rx=radius,
        stroke=dark(seat, 0.5),
        stroke_width=2,
    )
    if look["seat_style"] == "split":
        c.line("M128 34 V128", dark(seat, 0.55), 8)
    c.line("M44 180 V256 M212 180 V256", light(seat, 0.3), 2, stroke_opacity=0.5)


def _torso(c: Canvas, look: dict[str, Any]) -> None:
    cloth, skin = look["cloth"], look["skin"]
    c.path(
        "M102 160 L100 214 H156 L154 160 Z",
        c.linear(((0, dark(skin, 0.35)), (0.6, dark(skin, 0.12)))),
    )
    body = "M100 196 C60 204 26 214 14 270 H242 C230 214 196 204 156 196 C146 218 110 218 100 196 Z"
    c.path(body, cloth)  # flat with two shadows: a gradient this large costs milliseconds
    c.path(
        "M14 270 C26 214 60 204 100 196 C70 214 50 236 48 270 Z", dark(cloth, 0.3), fill_opacity=0.7
    )
    c.path(
        "M242 270 C230 214 196 204 156 196 C186 214 206 236 208 270 Z",
        dark(cloth, 0.4),
        fill_opacity=0.7,
    )
    c.line("M52 270 C54 246 56 238 62 230 M204 270 C202 246 200 238 194 230", dark(cloth, 0.4), 2)
    trim = light(cloth, 0.45) if luma(cloth) < 0.55 else dark(cloth, 0.3)
    if look["collar"] == "shirt":
        c.path("M100 194 L92 206 L118 236 L128 216 Z M156 194 L164 206 L138 236 L128 216 Z", trim)
        c.line("M128 218 V262", trim, 2)
    elif look["collar"] == "hood":
        c.line("M92 200 C98 232 158 232 164 200", dark(cloth, 0.25), 13)
        c.line("M112 226 V250 M144 226 V250", trim, 3)
    else:
        c.line("M99 197 C110 222 146 222 157 197", trim, 5)


def _belt(c: Canvas, truth: dict[str, str], look: dict[str, Any]) -> None:
    """A wide band across the chest; nothing where it hangs beside the seat or cannot be seen."""
    if truth["belt"] != "fastened":
        return
    band = "#15161a" if luma(look["cloth"]) > 0.3 else "#b4b8be"
    edge = light(band, 0.5) if luma(band) < 0.5 else dark(band, 0.5)
    for color, width in ((edge, 23), (band, 19)):
        c.line("M22 156 C66 192 140 236 176 276", color, width, stroke_linecap="butt")
    c.mark("belt", 14, 148, 166, 126)


def _hanging_belt(c: Canvas) -> None:
    """On the pillar at the edge of the picture, wherever the driver sits."""
    c.line("M14 138 C16 178 11 220 12 260", light("#45484e", 0.3), 9, stroke_linecap="butt")
    c.rect(3, 196, 19, 26, "#c9ccd2", rx=3, stroke="#50545a", stroke_width=2)
    c.mark("belt", 3, 138, 19, 120)


def cabin(truth: dict[str, str], look: dict[str, Any]) -> Canvas:
    """A driver with attributes `truth` and appearance `look`."""
    c = Canvas()
    _window(c, truth, look)
    head = (
        f"translate({128 + look['dx']} {112 + look['dy']}) scale({look['scale']}) "
        f"rotate({look['tilt']} 0 70) scale({look['width']} 1)"
    )
    body = f"translate({look['dx'] * 0.6} 0)"
    driver = (
        f"translate({128 + look['shift']} {266 + look['drop']}) scale({look['zoom']}) "
        "translate(-128 -266)"
    )
    with c.group(transform=driver):
        with c.group(transform=body):
            _seat(c, look)
        with c.group(transform=head):
            face.hair_behind(c, truth, look)
        with c.group(transform=body):
            _torso(c, look)
            _belt(c, truth, look)
    if truth["belt"] == "not fastened":
        _hanging_belt(c)
    with c.group(transform=driver):
        if truth["belt"] == CANNOT_TELL:
            covers.blanket(c, SHOULDERS, look["blanket"], look["weave"])
        elif look["lap"]:
            covers.blanket(c, LAP, look["blanket"], look["weave"])
        with c.group(transform=head):
            face.head(c, truth, look)
            if truth["phone"] != "none":
                face.phone(c, truth["phone"], look)
            if truth["mouth"] == CANNOT_TELL and look["cover"] == "hand":
                face.hand(c, truth, look)
    return c
