"""What hides things from a camera: a hand, a mask, a blanket, glare, mud, mist."""

from __future__ import annotations

from collections.abc import Sequence

from autoneural.data.cockpit.svg import Canvas, dark, light

Spot = tuple[float, float]
MASK = ("#9cc4dc", "#e8ecee", "#20242c", "#a8cfae")
MASK_HELD_OUT = ("#c8b8d8", "#8fa0b0")
BLANKET = ("#e6dcc8", "#7fa8c8", "#c88a9a", "#8fb08a", "#6a6f9a")
BLANKET_HELD_OUT = ("#d8b070", "#9a86b0")
SHINE = ("#ffd070", "#a8d0ff")
SHINE_HELD_OUT = ("#d0c0ff",)
MUD = ("#6a543c", "#7c6a50", "#57483a")
MUD_HELD_OUT = ("#74604c", "#5c5444")
WEAVES = ("checks", "stripes")


def hand(c: Canvas, skin: str, cloth: str) -> None:
    """The back of a hand 80 wide and 60 high around the origin, its arm from the right."""
    line = {"stroke": dark(skin, 0.5), "stroke_width": 1.6}
    c.path("M74 -26 L240 -34 V42 L74 28 Z", cloth, stroke=dark(cloth, 0.5), stroke_width=2)
    c.path("M78 20 L240 26 V42 L76 28 Z", dark(cloth, 0.35))
    c.path("M34 -30 C54 -32 66 -24 84 -20 V22 C66 26 54 34 34 32 Z", dark(skin, 0.12), **line)
    for y, reach in ((-30, 34), (-14, 42), (2, 40), (17, 30)):
        c.rect(-reach, y, reach + 30, 16, light(skin, 0.05), rx=8, **line)
        c.rect(-reach + 2, y + 3.5, 9, 8, light(skin, 0.4), rx=4)
    c.path("M16 -30 H34 C52 -31 60 -26 70 -22 V24 C60 28 52 33 34 33 H16 Q26 2 16 -30 Z", skin)
    c.line("M24 -14 q6 2 8 0 M26 2 q6 2 8 0 M24 17 q6 2 8 0", dark(skin, 0.3), 1.6)
    c.mark("hand", -44, -32, 122, 66)


def mask(c: Canvas, color: str) -> None:
    """Over mouth and nose, in head coordinates."""
    edge = {"stroke": dark(color, 0.4), "stroke_width": 1.6}
    c.line("M-38 20 L-56 -4 M38 20 L56 -4 M-40 50 L-54 20 M40 50 L54 20", light(color, 0.4), 2.2)
    c.path("M-38 14 Q0 -2 38 14 L43 44 Q28 72 0 75 Q-28 72 -43 44 Z",
           c.linear(((0, light(color, 0.3)), (1, dark(color, 0.2)))), **edge)  # fmt: skip
    c.line("M-38 28 Q0 18 38 28 M-40 40 Q0 32 40 40 M-38 52 Q0 48 38 52", dark(color, 0.3), 1.8)
    c.mark("mask", -57, -5, 114, 81)


def mask_at_chin(c: Canvas, color: str, jaw: float) -> None:
    """Pulled down, so that it hides nothing."""
    d = f"M-47 {jaw - 32} Q-34 {jaw + 1} 0 {jaw + 5} Q34 {jaw + 1} 47 {jaw - 32}"
    c.line(d, dark(color, 0.4), 15, stroke_linecap="butt")
    c.line(d, color, 12, stroke_linecap="butt")
    c.line(d, dark(color, 0.3), 1.4)


def blanket(c: Canvas, d: str, color: str, weave: str) -> None:
    """A woven blanket in the outline `d`."""
    c.path(d, color, stroke=light(color, 0.45), stroke_width=5)
    with c.group(clip_path=c.clip(d)):
        rows = " ".join(f"M-140 {y} Q128 {y + 26} 400 {y}" for y in range(140, 290, 26))
        c.line(rows, dark(color, 0.3), 7, stroke_opacity=0.6)
        if weave == "checks":
            columns = " ".join(f"M{x} 120 Q{x + 12} 200 {x} 300" for x in range(-130, 400, 30))
            c.line(columns, light(color, 0.5), 5, stroke_opacity=0.5)


def glare(c: Canvas, x: float, y: float, rx: float, ry: float, color: str) -> None:
    """A reflection, opaque over the inner four fifths of its ellipse."""
    stops = ((0, light(color, 0.95), 1), (0.3, light(color, 0.75), 1), (0.66, color, 1),
             (0.83, color, 0))  # fmt: skip
    c.ellipse(x, y, rx, ry, c.radial(stops))
    across, up = rx * 0.95, ry * 0.95
    corners = ((x - across, y - up), (x - across, y + up))
    rays = " ".join(f"M{a} {b} L{2 * x - a} {2 * y - b}" for a, b in corners)
    c.line(rays, light(color, 0.8), 1.6, stroke_opacity=0.6)


def _spots(spots: Sequence[Spot], dx: float = 0.0, dy: float = 0.0) -> str:
    """For a round-ended stroke, which makes each a disc."""
    return " ".join(f"M{x + dx:.1f} {y + dy:.1f} h0.1" for x, y in spots)


def mud(c: Canvas, spots: Sequence[Spot], grains: Sequence[Spot], color: str, size: float) -> None:
    """Splashes of mud around the spots, opaque as wide as `size`, with lumps at the grains."""
    c.line(_spots(spots), color, size * 1.3, stroke_opacity=0.45)
    c.line(_spots(spots), color, size)
    third = len(grains) // 3
    for share, tone, wide in (
        (grains[:third], dark(color, 0.28), 0.34),
        (grains[third:-third], light(color, 0.12), 0.26),
        (grains[-third:], dark(color, 0.45), 0.12),
    ):
        c.line(_spots(share), tone, max(size * wide, 3), stroke_opacity=0.8)


def mist(c: Canvas, spots: Sequence[Spot], grains: Sequence[Spot], color: str, size: float) -> None:
    """A lens misted over around the spots, opaque as wide as `size`, drops running down it."""
    for grow, opacity in ((1.45, 0.3), (1.3, 0.4), (1.15, 0.5), (1.0, 0.97)):
        c.line(_spots(spots), color, size * grow, stroke_opacity=opacity)
    c.line(_spots(grains), light(color, 0.25), size * 0.06)
    ends = grains[::5]
    runs = " ".join(f"M{x:.1f} {y - 26 - i % 3 * 9:.1f} q3 8 0 {14 + i % 3 * 9} T{x:.1f} {y:.1f}"
                    for i, (x, y) in enumerate(ends))  # fmt: skip
    c.line(runs, dark(color, 0.22), 4)
    c.line(_spots(ends), dark(color, 0.35), 9)
    c.line(_spots(ends, -1, -1.5), light(color, 0.7), 3.5)
