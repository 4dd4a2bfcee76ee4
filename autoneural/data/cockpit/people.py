"""Whole people walking towards the camera, or away from it.

Each stands on (0, 0), y down, and is 150 tall as an adult. Limbs are tapered between joints and lit
from the upper left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoneural.data.cockpit import luggage
from autoneural.data.cockpit.svg import Canvas, dark, light, luma, mix

Point = tuple[float, float]
SKIN = ("#f3d3bb", "#e6b791", "#d29c72", "#b67c50", "#8d5a38", "#66402a")
SKIN_HELD_OUT = ("#ebc3a2", "#c68a60", "#76492f")
COAT = ("#c03a30", "#2c5aa0", "#e0b030", "#2f7d5b", "#e4e0d6", "#3a3e48", "#7a4fa0", "#d87828")
COAT_HELD_OUT = ("#a8506c", "#4b86b4", "#8a9a3c", "#b89878")
TROUSERS = ("#22304a", "#3a3a3e", "#6a5842", "#1e2024", "#5a6478")
TROUSERS_HELD_OUT = ("#2c3f5c", "#4b4038", "#7a7468")
VEST = ("#f08018", "#d8e020")
VEST_HELD_OUT = ("#f0b010",)
HAIR = ("#1c1714", "#3b2618", "#6a4426", "#a8763c", "#d9b36a", "#7c2f1c")
HAIR_HELD_OUT = ("#2c1d14", "#57361f", "#c29a52")
STYLES = ("short", "long", "curly", "bald", "hood")
STYLES_HELD_OUT = ("bob", "bun")
GARMENTS = ("jacket", "coat", "jumper", "dress")
LIGHTS = {"green": "#20e860", "red": "#ff2a20"}
SCALE = {"adult": 1.0, "courier": 1.0, "elderly": 0.95, "child": 0.68}
HIP = 76.0
DROP = 15.0
"""How much shorter than an adult's a child's legs are, and its load lower."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Who, in what clothes and with what; `side` is the hand that carries, `step` the front leg."""

    who: str
    skin: str
    hair: str
    style: str
    coat: str
    trousers: str
    vest: str
    garment: str
    carrying: str = "nothing"
    load: str = "#808080"
    card: str = "none"
    side: int = 1
    step: int = 1
    away: bool = False


def _tapered(points: Sequence[Point], widths: Sequence[float]) -> str:
    """The outline of a limb: a strip per segment and a disc per joint, as one path."""
    parts = [
        f"M{x - w / 2:.1f} {y:.1f} a{w / 2:.1f} {w / 2:.1f} 0 1 1 {w:.1f} 0 "
        f"a{w / 2:.1f} {w / 2:.1f} 0 1 1 {-w:.1f} 0 Z"
        for (x, y), w in zip(points, widths, strict=True)
    ]
    for (x0, y0), (x1, y1), w0, w1 in zip(points, points[1:], widths, widths[1:], strict=False):
        length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-3)
        nx, ny = (y1 - y0) / length / 2, (x0 - x1) / length / 2
        parts.append(
            f"M{x0 + nx * w0:.1f} {y0 + ny * w0:.1f} L{x1 + nx * w1:.1f} {y1 + ny * w1:.1f} "
            f"L{x1 - nx * w1:.1f} {y1 - ny * w1:.1f} L{x0 - nx * w0:.1f} {y0 - ny * w0:.1f} Z"
        )
    return " ".join(parts)


def _limb(c: Canvas, points: Sequence[Point], widths: Sequence[float], color: str) -> None:
    c.path(_tapered(points, [w + 1.4 for w in widths]), dark(color, 0.5))
    c.path(_tapered(points, widths), dark(color, 0.12))
    lit = [(x - 1.2, y) for x, y in points]
    c.path(_tapered(lit, [w * 0.5 for w in widths]), light(color, 0.12))


def _leg(c: Canvas, f: Figure, sign: int) -> None:
    front = sign == f.step
    bare = f.garment == "dress" and f.who == "adult"
    color = mix(f.skin, "#30201c", 0.35) if bare else f.trousers
    color = color if front else dark(color, 0.25)
    foot = (sign * 9.5, -5.0) if front else (sign * 6.0, -14.0)
    hip = HIP - _drop(f)
    knee = (sign * 9.0, -0.5 * hip) if front else (sign * 8.0, -0.54 * hip)
    shoe = dark(mix(f.trousers, "#201814", 0.6), 0.35)
    c.ellipse(foot[0] + sign, foot[1] + 2, 5.6, 5 if front else 3.6, shoe,
              stroke=dark(shoe, 0.5), stroke_width=1)  # fmt: skip
    slim = 0.8 if bare else 1.0
    _limb(c, [(sign * 6.5, -hip), knee, foot], [14 * slim, 10.5 * slim, 7.5 * slim], color)


def _drop(f: Figure) -> float:
    return DROP if f.who == "child" else 0.0


def _shoulder(f: Figure) -> float:
    return -108.0 if f.who == "elderly" else -115.0


def _hand(f: Figure, sign: int) -> Point:
    """Where a hand is; of both when a box is held before the belly."""
    if f.who == "elderly" and sign != f.side:
        return sign * 25.0, -66.0
    if f.carrying == "umbrella" and sign == f.side:
        return sign * 20.0, -98.0
    if f.carrying == "box":
        x, y = load_at(f)
        return x + sign * 19.0, y + 2
    if f.carrying == "suitcase" and sign == f.side:
        return sign * 29.0, -68.0
    if f.carrying == "child seat" and sign == f.side:
        return sign * 30.0, -72.0
    return sign * 25.0, (-70.0 if sign == f.step else -66.0)


def load_at(f: Figure) -> Point:
    """Where the hand of the carried thing is, before scaling."""
    if f.carrying == "box":
        return (f.side * 10.0, -66.0) if f.who == "elderly" else (0.0, -73.0)
    return _hand(f, f.side)


def _arm(c: Canvas, f: Figure, sign: int) -> None:
    x, y = _hand(f, sign)
    shoulder = _shoulder(f) + 5
    elbow = (sign * max(abs(x) * 0.9, 25.0), (shoulder + y) / 2 + 4)
    if f.carrying == "umbrella" and sign == f.side:
        elbow = (sign * 27.0, -88.0)
    c.circle(x, y + 1, 4.4, f.skin, stroke=dark(f.skin, 0.45), stroke_width=1)
    color = dark(f.coat, 0.05 if sign < 0 else 0.18)
    _limb(c, [(sign * 17, shoulder), elbow, (x, y - 3)], [11, 9.5, 7], color)


def _torso(c: Canvas, f: Figure) -> None:
    top = _shoulder(f)
    hem = {"coat": -46, "dress": -42}.get(f.garment if f.who == "adult" else "", -70)
    flare = 20 if hem > -60 else 15.5
    shape = (f"M-7 {top - 4} C-15 {top - 3} -21 {top} -21 {top + 9} L-16 -84 L{-flare} {hem} "
             f"Q0 {hem + 5} {flare} {hem} L16 -84 L21 {top + 9} C21 {top} 15 {top - 3} 7 {top - 4} "
             "Z")  # fmt: skip
    fill = c.linear(
        ((0, light(f.coat, 0.22)), (0.5, f.coat), (1, dark(f.coat, 0.35))), x2=1.0, y2=0.3
    )
    c.path(shape, fill, stroke=dark(f.coat, 0.55), stroke_width=1.2)
    seam = dark(f.coat, 0.4)
    if f.away:
        c.line(f"M0 {top + 2} V{hem}", seam, 1.1)
    elif f.garment in ("jacket", "coat"):
        c.line(f"M0 {top + 8} V{hem + 2} M-13 -82 l6 2 M13 -82 l-6 2", seam, 1.5)
        lapels = f"L-10 {top + 6} L0 {top + 12} L10 {top + 6} L7 {top - 4} L0 {top + 4} Z"
        c.path(f"M-7 {top - 4} {lapels}", dark(f.coat, 0.2))
    elif f.garment == "dress":
        c.line(f"M-16 -84 Q0 -80 16 -84 M-7 -78 L-9 {hem} M7 -78 L9 {hem}", seam, 1.6)
    else:
        c.line("M-15.5 -73 Q0 -69 15.5 -73", seam, 3.4)
    if f.who == "courier":
        _vest(c, f, top)


def _vest(c: Canvas, f: Figure, top: float) -> None:
    c.path(f"M-13 {top - 2} L-18 {top + 10} L-16 -72 Q0 -67 16 -72 L18 {top + 10} L13 {top - 2} "
           f"L0 {top + 14} Z", f.vest, stroke=dark(f.vest, 0.55), stroke_width=1)  # fmt: skip
    band = {"stroke_linecap": "butt"}
    c.line("M-16.5 -92 Q0 -88 16.5 -92 M-16 -80 Q0 -76 16 -80", "#f4f6f8", 4.4, **band)
    c.line("M-16.5 -89.5 Q0 -85.5 16.5 -89.5 M-16 -77.5 Q0 -73.5 16 -77.5", "#8a9098", 1, **band)


def _card(c: Canvas, f: Figure) -> None:
    """The key on its cord; tucked into the coat where `card` is none."""
    top = _shoulder(f)
    end = top + (13 if f.card == "none" else 8)
    c.line(
        f"M-6 {top - 3} L0 {end} L6 {top - 3}", "#f2f2ee" if luma(f.coat) < 0.6 else "#20242a", 1.6
    )
    if f.card == "none":
        return
    color = LIGHTS[f.card]
    c.circle(0, top + 16, 17, color, fill_opacity=0.22)
    c.circle(0, top + 16, 12.5, color, fill_opacity=0.35)
    c.rect(-7, top + 7, 14, 18, "#14161a", rx=2.5, stroke="#f0f2f4", stroke_width=1.2)
    c.rect(-4.8, top + 10, 9.6, 11.5, color, rx=1.5)
    c.circle(0, top + 14, 2.6, "#ffffff", fill_opacity=0.7)


def _hair_back(c: Canvas, f: Figure, fill: str) -> None:
    if f.style == "long":
        c.path("M-12 -2 C-14 -20 14 -20 12 -2 L14 17 Q0 23 -14 17 Z", fill)
    elif f.style == "bob":
        c.path("M-12 -2 C-14 -20 14 -20 12 -2 L13 9 H-13 Z", fill)
    elif f.style == "bun":
        c.circle(0, -16, 6, fill)
    elif f.style == "curly":
        for x, y in ((-10, -4), (-9, -11), (9, -11), (10, -4), (0, -14)):
            c.circle(x, y, 5.4, fill)
    elif f.style == "hood":
        c.path("M-15 14 C-18 -24 18 -24 15 14 Z", dark(f.coat, 0.15), stroke=dark(f.coat, 0.5),
               stroke_width=1)  # fmt: skip


def _hair_front(c: Canvas, f: Figure, fill: str) -> None:
    if f.style == "bald":
        c.path("M-10 -1 C-11 -6 -10 -8 -9 -9 L-8 0 Z M10 -1 C11 -6 10 -8 9 -9 L8 0 Z", fill)
    elif f.style == "hood":
        c.line("M-11 11 C-15 -19 15 -19 11 11", light(f.coat, 0.12), 4.2)
        c.path("M-8 -8 Q0 -15 8 -8 Q0 -11 -8 -8 Z", fill)
    else:
        c.path("M-10.6 -1 C-12 -19 12 -19 10.6 -1 L9 -6 C5 -9 -2 -9.5 -6 -8.5 L-9 -5 Z", fill)


def _face(c: Canvas, f: Figure) -> None:
    ink, big = dark(f.skin, 0.75), 1.2 if f.who == "child" else 1.0
    for sign in (-1, 1):
        if f.who == "child":
            c.ellipse(sign * 6, 4.5, 2.6, 1.8, mix(f.skin, "#e0504c", 0.45))
        c.ellipse(sign * 4, -1, 2.1 * big, 1.8 * big * big, "#f8f6f2")
        c.circle(sign * 4, -0.8, 1.35 * big, "#181210")
        c.line(f"M{sign * 1.8} -4.4 Q{sign * 4} -5.6 {sign * 6.4} -4.2", ink, 1.1)
    c.line("M0 0 L-1.2 3.6 L1.2 3.8", dark(f.skin, 0.35), 1)
    c.line("M-3.4 7 Q0 8.8 3.4 7", mix(dark(f.skin, 0.4), "#a03838", 0.5), 1.5)
    if f.who == "elderly":
        c.line("M-7 -1 a3.2 3 0 1 0 6.2 0 a3.2 3 0 1 0 -6.2 0 M0.8 -1 a3.2 3 0 1 0 6.2 0 "
               "a3.2 3 0 1 0 -6.2 0", "#2a2622", 0.9)  # fmt: skip
        c.line("M-6 4.5 Q-7 7 -5 8.5 M6 4.5 Q7 7 5 8.5", dark(f.skin, 0.3), 0.8)


def _cap(c: Canvas, f: Figure) -> None:
    c.path("M-11 -5 C-12 -18 12 -18 11 -5 Z", f.vest, stroke=dark(f.vest, 0.5), stroke_width=1)
    if not f.away:
        c.path("M-12 -5 C-8 -9 8 -9 12 -5 C8 -1 -8 -1 -12 -5 Z", dark(f.vest, 0.5))
        c.circle(0, -10.5, 2.6, "#ffffff")


def _head_place(f: Figure) -> str:
    """The skull is 20 wide; a child's is larger for its body."""
    size = 1.6 if f.who == "child" else 1.06
    y = -136 + (8 if f.who == "elderly" else 0) - (size - 1) * 9
    return f"translate(0 {y:.2f}) scale({size})"


def _hair(c: Canvas, f: Figure) -> str:
    hair = "#dcdcda" if f.who == "elderly" else f.hair
    return c.linear(((0, light(hair, 0.25)), (1, dark(hair, 0.2))))


def _head(c: Canvas, f: Figure) -> None:
    neck = -_shoulder(f) + 10
    c.rect(-5, -neck, 10, 12, dark(f.skin, 0.3), rx=4)
    with c.group(transform=_head_place(f)):
        for sign in (-1, 1):
            c.ellipse(sign * 10, 0.5, 2, 3, dark(f.skin, 0.15))
        c.path("M-10 -3 C-10 -16 10 -16 10 -3 C10 5 6 12 0 12 C-6 12 -10 5 -10 -3 Z",
               c.radial(((0, light(f.skin, 0.16)), (0.6, f.skin), (1, dark(f.skin, 0.3))), cx=0.4),
               stroke=dark(f.skin, 0.5), stroke_width=0.8)  # fmt: skip
        if f.away:
            c.path("M-10.6 -3 C-11 -17 11 -17 10.6 -3 C10 4 6 8 0 8 C-6 8 -10 4 -10.6 -3 Z",
                   dark(f.coat, 0.1) if f.style == "hood" else _hair(c, f))  # fmt: skip
        else:
            _hair_front(c, f, _hair(c, f))
            _face(c, f)
        if f.who == "courier":
            _cap(c, f)


def _stick(c: Canvas, f: Figure) -> None:
    x = -f.side * 25
    c.line(
        f"M{x + f.side * 8} -70 Q{x + f.side * 4} -77 {x} -71 L{x - f.side * 5} -1", "#5a3416", 3.4
    )
    c.line(f"M{x - 0.8} -68 L{x - f.side * 5 - 0.8} -4", "#a06a38", 1.1)


def _load_size(f: Figure) -> float:
    return 0.78 if f.who == "child" and f.carrying != "umbrella" else 1.0


def _carried(c: Canvas, f: Figure) -> None:
    x, y = load_at(f)
    size, hands = _load_size(f), [(x, y)]
    if f.carrying == "shopping bags" and f.who != "elderly":
        hands.append(_hand(f, -f.side))
    for at in hands:
        with c.group(transform=f"translate({at[0]:.1f} {at[1]:.1f}) scale({size})"):
            luggage.DRAW[f.carrying](c, f.load)


def key_height(who: str) -> float:
    """Of the card's middle above the ground."""
    return {"child": 84.0, "elderly": 92.0}.get(who, 99.0) * SCALE.get(who, 1.0)


def extent(f: Figure) -> luggage.Extent:
    """Left, top, right, bottom of the figure without what it carries."""
    scale = SCALE[f.who]
    top = {"elderly": -146, "child": -148}.get(f.who, -153)
    return -32 * scale, top * scale, 32 * scale, 2 * scale


def load_extent(f: Figure) -> luggage.Extent:
    """Left, top, right, bottom of what it carries."""
    scale, size, (x, y) = SCALE[f.who], _load_size(f), load_at(f)
    left, top, right, bottom = (edge * size for edge in luggage.EXTENT[f.carrying])
    low, high = x + left, x + right
    if f.carrying == "shopping bags" and f.who != "elderly":
        other = _hand(f, -f.side)[0]
        low, high = min(low, other + left), max(high, other + right)
    y += _drop(f)
    return low * scale, (y + top) * scale, high * scale, (y + bottom) * scale


def _upper_body(c: Canvas, f: Figure) -> None:
    before = f.carrying in ("box", "umbrella")  # arms that reach over the load
    if not before:
        _arm(c, f, -1)
        _arm(c, f, 1)
    with c.group(transform=_head_place(f)):
        _hair_back(c, f, _hair(c, f))
    _torso(c, f)
    if not f.away:
        _card(c, f)
    _head(c, f)
    if f.carrying != "nothing":
        _carried(c, f)
    if before:
        _arm(c, f, -1)
        _arm(c, f, 1)


def person(c: Canvas, f: Figure) -> None:
    """The figure, its shadow and its load."""
    with c.group(transform=f"scale({SCALE[f.who]})"):
        c.ellipse(3, -1, 27, 5.5, "#000000", fill_opacity=0.38)
        for sign in (-f.step, f.step):
            _leg(c, f, sign)
        if f.who == "elderly":
            _stick(c, f)
        with c.group(transform=f"translate(0 {_drop(f)})"):
            _upper_body(c, f)
