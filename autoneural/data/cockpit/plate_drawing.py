"""A licence plate: groups of characters on one or two lines, bands and seals, and dirt over it.

Drawn about (0, 0), y down, in centimetres; a character is 14 high and its cell 11 wide or more, so
that the model's patches can tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autoneural.data.cockpit.base import Rng, Split, chance, pick, pool
from autoneural.data.cockpit.fonts import FONTS
from autoneural.data.cockpit.svg import Canvas, dark, light, luma, mix

LETTERS = tuple("ABCDEFGHJKLMNPRSTUVWXYZ")
DIGITS = tuple("0123456789")
GRAMMARS = (
    "LL DDDD", "DDD LLL", "L DD LLL", "LLDD LLL", "LLL DDDD", "DD LLL DD", "LL DDD", "D LLDD",
)  # fmt: skip
GRAMMARS_HELD_OUT = ("L DDD LL", "DDDD LLL", "LLL DD")
"""L is a letter, D a digit; a space parts groups and may break the line."""
SHORTEST, LONGEST = 5, 7
STYLES = ("plain", "left band", "both bands", "seal", "dash")
STYLES_HELD_OUT = ("right band", "double frame")
GROUNDS = {
    "white": ("#f6f6f2", "#ecefee", "#fbfbf6", "#f0eee8", "#f2f5f7", "#e8eae6"),
    "yellow": ("#f4cb1c", "#ecc02e", "#f8d431", "#e8bd18", "#f0d04a", "#e2b62a"),
    "green": ("#1d7a44", "#24854e", "#17703c", "#2c8a50", "#1f6e4a", "#35824a"),
    "black": ("#16181b", "#1d1f23", "#121316", "#202226", "#191a1f", "#23211f"),
}
BANDS = ("#1c4aa8", "#b0261f", "#20242a")
BANDS_HELD_OUT = ("#3a2a80", "#0e6a70")
SQUEEZE = {
    "roboto-bold": 0.82, "roboto-medium": 0.84, "roboto-black": 0.8, "manrope": 0.8,
    "caladea": 0.8, "fredoka": 0.8, "hanken": 0.8, "source": 0.9,
}  # fmt: skip
"""How much narrower than its font a character is drawn; real plates use condensed letters."""
WIDE = {"W": 0.74, "M": 0.82}
CAP = {"caladea": 0.67, "manrope": 0.73, "fredoka": 0.74, "hanken": 0.69, "source": 0.66}
"""Height of a capital by its font size, where it is not Roboto's 0.71."""
BAND = 9.0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each character stands (centre, baseline), and the plate's half width and height."""

    glyphs: tuple[tuple[str, float, float], ...]
    gaps: tuple[tuple[float, float], ...]
    half_width: float
    half_height: float
    shift: float
    """Of the characters, beside a band."""


def draw_grammar(rng: Rng, split: Split) -> str:
    """A grammar of the split's; in training mostly any other that has a digit.

    A model that sees eight grammars reads a ninth as the nearest of the eight: 7839MRC as 783MMC.
    """
    written = pick(rng, pool(split, GRAMMARS, GRAMMARS_HELD_OUT))
    if split == "test" or chance(rng, 0.3):
        return written
    held_out = {grammar.replace(" ", "") for grammar in GRAMMARS_HELD_OUT}
    while True:
        grammar = _any_grammar(rng)
        slots = grammar.replace(" ", "")
        if "D" in slots and SHORTEST <= len(slots) <= LONGEST and slots not in held_out:
            return grammar


def _any_grammar(rng: Rng) -> str:
    """Two or three groups of up to four, in each letters, digits, or now and then both."""
    groups = []
    for _ in range(2 + chance(rng, 0.5)):
        kinds = pick(rng, ("L", "D", "L", "D", "LD"))
        groups.append("".join(pick(rng, kinds) for _ in range(int(rng.integers(1, 5)))))
    return " ".join(groups)


def _line(groups: Sequence[str], y: float, cell: float, gap: float) -> tuple[list, list, float]:
    """Characters and the middles of the gaps of a line about x = 0, and its half width."""
    half = (sum(map(len, groups)) * cell + (len(groups) - 1) * gap) / 2
    glyphs, gaps, x = [], [], -half
    for index, group in enumerate(groups):
        if index:
            gaps.append((x + gap / 2, y))
            x += gap
        for char in group:
            glyphs.append((char, x + cell / 2, y))
            x += cell
    return glyphs, gaps, half


def _break(groups: Sequence[str]) -> int:
    """The group that starts the second line, so that the lines are about as long."""
    whole = sum(map(len, groups))
    return min(range(1, len(groups)), key=lambda i: abs(whole - 2 * sum(map(len, groups[:i]))))


def layout(groups: Sequence[str], lines: str, style: str) -> Layout:
    left, right = style in ("left band", "both bands"), style in ("right band", "both bands")
    gap = 11.0 if style in ("seal", "dash") else 5.0
    if lines == "one":
        glyphs, gaps, half = _line(groups, 7, 11.4, gap)
        height = 12.0
    else:
        cut = _break(groups)
        upper, _, wide = _line(groups[:cut], -3.2, 13, 6)
        lower, _, long = _line(groups[cut:], 15.8, 13, 6)
        glyphs, gaps, half, height = upper + lower, [], max(wide, long, 22), 20.0
    bands = BAND * (left + right)
    return Layout(
        glyphs=tuple(glyphs),
        gaps=tuple(gaps),
        half_width=half + 4 + bands / 2,
        half_height=height,
        shift=BAND * (left - right) / 2,
    )


def _band(c: Canvas, x: float, height: float, color: str) -> None:
    c.rect(x, -height + 0.8, BAND, 2 * height - 1.6, color)
    for k in range(6):
        dx, dy = ((0, -3), (2.6, -1.5), (2.6, 1.5), (0, 3), (-2.6, 1.5), (-2.6, -1.5))[k]
        c.circle(x + BAND / 2 + dx, dy - height * 0.3, 0.7, "#ffe080")


def _marks(c: Canvas, plan: Layout, style: str, ink: str, color: str) -> None:
    """What stands in the gaps between groups."""
    for x, y in plan.gaps:
        if style == "dash":
            c.rect(x + plan.shift - 3, y - 8, 6, 2.4, ink)
        elif style == "seal":
            c.circle(x + plan.shift, y - 7, 4, color)
            c.circle(x + plan.shift, y - 7, 2, light(color, 0.5))


def draw_plate(
    c: Canvas,
    plan: Layout,
    ground: str,
    look: dict[str, Any],
    style: str,
    dim: float,
    bold: float = 0.0,
) -> None:
    """The plate with all its characters; `dim` darkens it, `bold` thickens their strokes."""
    w, h = plan.half_width, plan.half_height
    fill = dark(ground, dim)
    ink = "#f4f4f0" if luma(ground) < 0.5 else "#14161a"
    c.rect(-w - 2, -h - 2, 2 * w + 4, 2 * h + 4, "#0c0d10", rx=2.5)
    c.rect(-w, -h, 2 * w, 2 * h, fill, rx=1.6, stroke=mix(fill, ink, 0.55), stroke_width=0.9)
    if style == "double frame":
        c.rect(-w + 1.6, -h + 1.6, 2 * w - 3.2, 2 * h - 3.2, "none", rx=1.2, stroke=ink,
               stroke_width=0.9)  # fmt: skip
    if style in ("left band", "both bands"):
        _band(c, -w + 0.6, h, look["band"])
    if style in ("right band", "both bands"):
        _band(c, w - BAND - 0.6, h, look["band"])
    _marks(c, plan, style, ink, look["band"])
    name = look["fonts"][0]
    font = FONTS[name]
    size = 14.2 / CAP.get(name, 0.71)
    more = {"stroke": ink, "stroke_width": bold} if bold else {}
    with c.group(font_family=font.family, font_weight=font.weight, font_style=font.style,
                 font_size=size, fill=ink, text_anchor="middle", **more):  # fmt: skip
        for char, x, y in plan.glyphs:
            narrow = SQUEEZE.get(name, 0.82) * WIDE.get(char, 1.0)
            c.add("text", char, transform=f"matrix({narrow:.3f} 0 0 1 {x + plan.shift:.2f} {y})")


def draw_dirt(
    c: Canvas, half_width: float, half_height: float, color: str, noise: Sequence[float]
) -> None:
    """A crust over everything within the half width and height, ragged along its edge."""
    w, h = half_width, half_height
    rim = [(-w, -h), (-w / 2, -h), (0, -h), (w / 2, -h), (w, -h), (w, 0), (w, h), (w / 2, h),
           (0, h), (-w / 2, h), (-w, h), (-w, 0)]  # fmt: skip
    swell = [1.02 + 0.16 * value for value in noise]
    points = [(x * a, y * b) for (x, y), a, b in zip(rim, swell, swell[12:], strict=False)]
    middles = [
        ((x + u) / 2, (y + v) / 2)
        for (x, y), (u, v) in zip(points, points[1:] + points[:1], strict=True)
    ]
    curve = " ".join(
        f"Q{x:.2f} {y:.2f} {u:.2f} {v:.2f}"
        for (x, y), (u, v) in zip(points[1:] + points[:1], middles[1:] + middles[:1], strict=True)
    )
    c.path(f"M{middles[0][0]:.2f} {middles[0][1]:.2f} {curve} Z", color, stroke=color,
           stroke_width=3)  # fmt: skip
    for k in range(10):
        x, y = (2 * noise[k] - 1) * w * 0.85, (2 * noise[k + 10] - 1) * h * 0.75
        shade = dark(color, 0.22) if k % 2 else light(color, 0.16)
        c.ellipse(x, y, w * 0.12 + 2, h * 0.2 + 1, shade, fill_opacity=0.7)


def draw_specks(c: Canvas, half_width: float, half_height: float, color: str,
                noise: Sequence[float]) -> None:  # fmt: skip
    """Dirt that leaves every character readable."""
    spots = " ".join(
        f"M{(2 * x - 1) * half_width:.2f} {(2 * y - 1) * half_height:.2f} l0.1 0"
        for x, y in zip(noise[::2], noise[1::2], strict=True)
    )
    c.line(spots, color, 1.5)
