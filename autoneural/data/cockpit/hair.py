"""Hair and hats, in the head coordinates of `face`: what lies behind the head, and before it."""

from __future__ import annotations

from autoneural.data.cockpit.svg import Canvas, dark, light

HAIR = ("#1c1714", "#3b2618", "#6a4426", "#a8763c", "#d9b36a", "#8a8a8c", "#7c2f1c", "#26262e")
HAIR_HELD_OUT = ("#2c1d14", "#57361f", "#c29a52", "#b9b9bb")
HAT = ("#a03030", "#2f4f86", "#3a3a3e", "#3f7a4c", "#d0a83c")
HAT_HELD_OUT = ("#7c3a6a", "#4a6a78", "#8a7a5c")
STYLES = ("short", "long", "curly", "bald", "bun")
STYLES_HELD_OUT = ("bob", "bowl")


def hair_back(c: Canvas, style: str, hair: str) -> None:
    fill = c.linear(((0, light(hair, 0.12)), (1, dark(hair, 0.25))))
    if style == "long":
        c.path(
            "M-64 -20 C-72 -116 72 -116 64 -20 C66 40 72 80 62 104 "
            "C20 120 -20 120 -62 104 C-72 80 -66 40 -64 -20 Z",
            fill,
        )
    elif style == "bob":
        c.path("M-66 -16 C-72 -120 72 -120 66 -16 L70 46 C40 58 -40 58 -70 46 Z", fill)
    elif style == "bowl":
        c.path("M-60 -28 C-66 -114 66 -114 60 -28 L62 8 C30 16 -30 16 -62 8 Z", fill)
    elif style == "bun":
        c.circle(0, -90, 24, fill)
    elif style == "curly":
        for x, y in ((-58, -10), (-60, -38), (-48, -64), (48, -64), (60, -38), (58, -10)):
            c.circle(x, y, 20, fill)


def hair_front(c: Canvas, style: str, hair: str) -> None:
    fill = c.linear(((0, light(hair, 0.22)), (1, hair)))
    if style == "bald":
        c.path(
            "M-55 -22 C-56 -34 -54 -44 -50 -50 L-48 -20 Z M55 -22 C56 -34 54 -44 50 -50 L48 -20 Z",
            hair,
            opacity=0.6,
        )
    elif style == "curly":
        for x, y, r in (
            (-38, -68, 20),
            (-14, -78, 22),
            (14, -78, 22),
            (38, -68, 20),
            (-50, -48, 13),
            (50, -48, 13),
        ):
            c.circle(x, y, r, fill)
    elif style == "bob":
        c.path("M-57 -10 C-66 -116 66 -116 57 -10 L52 -44 H-52 Z", fill)
    elif style == "bowl":
        c.path("M-58 -8 C-62 -112 62 -112 58 -8 L50 -12 V-34 C20 -40 -20 -40 -50 -34 V-12 Z", fill)
    elif style == "long":
        c.path("M-57 4 C-68 -118 68 -118 57 4 C54 -30 40 -52 6 -60 C-20 -50 -50 -40 -57 4 Z", fill)
    else:
        c.path("M-56 -14 C-64 -114 64 -114 56 -14 L50 -38 C36 -58 -10 -62 -34 -52 L-50 -36 Z", fill)


def hat(c: Canvas, kind: str, color: str) -> None:
    fill = c.linear(((0, light(color, 0.25)), (1, dark(color, 0.2))))
    if kind == "cap":
        c.path("M-60 -42 C-60 -104 60 -104 60 -42 Z", fill)
        c.path(
            "M-64 -42 C-40 -60 40 -60 64 -42 C70 -34 58 -28 46 -34 "
            "C20 -44 -20 -44 -46 -34 C-58 -28 -70 -34 -64 -42 Z",
            dark(color, 0.4),
        )
    elif kind == "beanie":
        c.path("M-59 -46 C-62 -112 62 -112 59 -46 Z", fill)
        c.rect(-62, -60, 124, 22, c.linear(((0, light(color, 0.35)), (1, color))), rx=9)
        c.line(
            "M-42 -56 V-42 M-21 -56 V-42 M0 -56 V-42 M21 -56 V-42 M42 -56 V-42",
            dark(color, 0.35),
            2,
        )
        c.circle(0, -98, 9, light(color, 0.4))
