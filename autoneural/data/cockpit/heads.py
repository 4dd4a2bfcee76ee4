"""Heads of people seen whole, a dozen pixels high: from the side (looking right), front and back.

Each has radius 1 about (0, 0). `look`: skin, hair, hat, head (one of HEADGEAR), face ("covered" or
not) and, for covered faces, cover (a colour) and covering ("mask" or "balaclava").
"""

from __future__ import annotations

from typing import Any

from autoneural.data.cockpit.svg import Canvas, dark, light, mix

HEADGEAR = ("hair", "long hair", "cap", "beanie", "hood")
SKULL = (
    "M-0.72 0.62 C-1.02 0.2 -1.02 -0.98 0 -1 C0.86 -0.98 0.88 -0.3 0.86 0.1 "
    "C0.84 0.6 0.62 1.04 0.2 1.06 C-0.2 1.06 -0.5 0.9 -0.72 0.62 Z"
)


def _side_face(c: Canvas, look: dict[str, Any]) -> None:
    """A head of radius 1 that looks right."""
    skin, hair = look["skin"], look["hair"]
    if look["head"] == "hood":
        c.path(
            "M0.1 -1.22 C-0.9 -1.3 -1.35 -0.5 -1.1 0.3 L-0.95 1.2 H0.3 L0.42 -1 Z",
            dark(look["cloth"], 0.1),
        )
    elif look["head"] == "long hair":
        c.path("M0.2 -1.08 C-1.2 -1.2 -1.3 0.2 -1.15 1.45 L-0.35 1.35 Z", hair)
    c.path(SKULL, skin, stroke=dark(skin, 0.45), stroke_width=0.06)
    c.path("M0.8 -0.2 L1.12 0.22 L0.78 0.3 Z", skin)
    c.line("M1.1 0.24 L0.8 0.32", dark(skin, 0.4), 0.08)
    c.ellipse(-0.12, 0.05, 0.16, 0.24, dark(skin, 0.25))
    c.ellipse(0.52, -0.1, 0.1, 0.13, "#16110e")
    c.line("M0.34 -0.36 L0.72 -0.34", dark(hair, 0.3), 0.13)
    if look["face"] == "covered":
        _cover(c, look, "M0.9 -0.02 L1.16 0.24 L0.98 0.95 Q0.5 1.25 0 1.1 L-0.2 0.2 Z",
               "M-0.98 -0.32 L0.86 -0.36 L0.86 0.02 L-0.95 0.1 Z")  # fmt: skip
    else:
        c.line("M0.5 0.6 H0.76", mix(dark(skin, 0.35), "#a04040", 0.4), 0.1)
    _hat(
        c,
        look,
        "M-0.98 0.25 C-1.15 -0.9 -0.4 -1.12 0 -1.1 C0.5 -1.1 0.86 -0.75 0.84 -0.42 L0.3 -0.5 "
        "C0.2 -0.1 -0.3 -0.2 -0.4 0.1 L-0.55 0.6 Z",
        side=True,
    )


def _front_face(c: Canvas, look: dict[str, Any]) -> None:
    skin, hair = look["skin"], look["hair"]
    if look["head"] == "hood":
        c.path(
            "M0 -1.3 C-1.2 -1.3 -1.35 -0.2 -1.1 1.1 H1.1 C1.35 -0.2 1.2 -1.3 0 -1.3 Z",
            dark(look["cloth"], 0.1),
        )
    elif look["head"] == "long hair":
        c.path("M0 -1.15 C-1.3 -1.15 -1.2 0.4 -1.1 1.4 H1.1 C1.2 0.4 1.3 -1.15 0 -1.15 Z", hair)
    c.path(
        "M-0.86 -0.2 C-0.9 -1.2 0.9 -1.2 0.86 -0.2 "
        "C0.84 0.6 0.45 1.1 0 1.1 C-0.45 1.1 -0.84 0.6 -0.86 -0.2 Z",
        skin,
        stroke=dark(skin, 0.45),
        stroke_width=0.06,
    )
    for x in (-0.36, 0.36):
        c.ellipse(x, -0.08, 0.13, 0.12, "#16110e")
        c.line(f"M{x - 0.2} -0.34 H{x + 0.2}", dark(hair, 0.3), 0.12)
    c.line("M0 0 L-0.08 0.32 L0.1 0.34", dark(skin, 0.3), 0.09)
    if look["face"] == "covered":
        _cover(c, look, "M-0.86 0.1 Q0 -0.02 0.86 0.1 Q0.8 1.15 0 1.2 Q-0.8 1.15 -0.86 0.1 Z",
               "M-0.92 -0.38 H0.92 V0.08 H-0.92 Z")  # fmt: skip
    else:
        c.line("M-0.28 0.66 Q0 0.74 0.28 0.66", mix(dark(skin, 0.35), "#a04040", 0.4), 0.12)
    _hat(
        c,
        look,
        "M-0.95 0.1 C-1.15 -1.3 1.15 -1.3 0.95 0.1 "
        "C0.85 -0.45 0.5 -0.6 0.1 -0.62 C-0.5 -0.62 -0.85 -0.45 -0.95 0.1 Z",
        side=False,
    )


def _back_head(c: Canvas, look: dict[str, Any]) -> None:
    color = {"hood": look["cloth"], "cap": look["hat"], "beanie": look["hat"]}.get(
        look["head"], look["hair"]
    )
    c.path(
        "M-0.86 -0.1 C-0.9 -1.2 0.9 -1.2 0.86 -0.1 "
        "C0.84 0.6 0.5 1 0 1 C-0.5 1 -0.84 0.6 -0.86 -0.1 Z",
        dark(look["skin"], 0.1),
    )
    low = 1.3 if look["head"] in ("hood", "long hair") else 0.45
    if look["head"] in ("cap", "beanie"):
        c.path("M-0.9 0.1 H0.9 L0.7 0.75 H-0.7 Z", look["hair"])
        low = -0.05
    c.path(f"M-0.98 {low} C-1.15 -1.45 1.15 -1.45 0.98 {low} Q0 {low + 0.25} -0.98 {low} Z", color)
    c.path(
        "M-0.6 -0.2 Q-0.4 -0.9 0.2 -0.95 Q-0.3 -0.6 -0.35 -0.1 Z",
        light(color, 0.2),
        fill_opacity=0.7,
    )


def _cover(c: Canvas, look: dict[str, Any], mask: str, slit: str) -> None:
    """A mask over mouth and nose, or a balaclava with a slit for the eyes."""
    color = look["cover"]
    if look["covering"] == "mask":
        c.path(mask, color, stroke=dark(color, 0.5), stroke_width=0.07)
        c.line("M-0.15 0.3 L0.2 0.4", light(color, 0.3), 0.06)
        return
    skin = mix(look["skin"], "#000000", 0.05)
    c.path(
        "M-1 0.2 C-1.1 -1.25 1.02 -1.25 0.96 -0.1 L1.06 0.3 C0.9 0.9 0.5 1.25 0 1.25 H-0.75 Z",
        color,
    )
    c.path(slit, skin)
    eyes = (0.55,) if "0.86 -0.36" in slit else (-0.36, 0.36)
    for x in eyes:
        c.ellipse(x, -0.14, 0.13, 0.12, "#16110e")


def _hat(c: Canvas, look: dict[str, Any], hair: str, side: bool) -> None:
    if look["face"] == "covered" and look["covering"] == "balaclava" and look["head"] != "hood":
        return
    color = look["hat"]
    if look["head"] == "beanie":
        c.path("M-1.02 -0.2 C-1.1 -1.5 1.05 -1.5 0.98 -0.3 Z", color)
        c.line("M-0.98 -0.28 L0.94 -0.38", dark(color, 0.3), 0.22)
    elif look["head"] == "cap":
        c.path("M-1 -0.15 C-1.1 -1.4 0.95 -1.4 0.92 -0.4 Z", color)
        c.path(
            "M0.6 -0.56 L1.55 -0.34 L1.5 -0.2 L0.6 -0.3 Z"
            if side
            else "M-0.8 -0.5 Q0 -0.75 0.8 -0.5 L0.85 -0.25 Q0 -0.5 -0.85 -0.25 Z",
            dark(color, 0.3),
        )
    elif look["head"] == "hood":
        shade = dark(look["cloth"], 0.05)
        c.line(
            "M0.4 -1.02 C-0.6 -1.1 -0.95 -0.3 -0.85 0.9"
            if side
            else "M-0.9 1 C-1.15 -1.5 1.15 -1.5 0.9 1",
            shade,
            0.36,
        )
    else:
        c.path(hair, look["hair"])


DRAW = {"side": _side_face, "front": _front_face, "back": _back_head}
