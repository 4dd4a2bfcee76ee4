"""What comes between a camera and what it should see: a hand, a mask, a blanket, a glare."""

from __future__ import annotations

from autoneural.data.cockpit.svg import Canvas, dark, light

MASK = ("#9cc4dc", "#e8ecee", "#20242c", "#a8cfae")
MASK_HELD_OUT = ("#c8b8d8", "#8fa0b0")
BLANKET = ("#e6dcc8", "#7fa8c8", "#c88a9a", "#8fb08a", "#6a6f9a")
BLANKET_HELD_OUT = ("#d8b070", "#9a86b0")
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
    c.mark("mask", -44, 5, 88, 71)


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
