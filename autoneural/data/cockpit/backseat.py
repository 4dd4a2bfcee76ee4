"""The back of a cabin, seen from the mirror: windows, bench, and the seat that a child sits in.

The seats and the child share coordinates: the origin is the child's chin, y down, in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autoneural.data.cockpit.svg import SIDE, Canvas, dark, light, mix

CABINS = ("saloon", "estate")
CABINS_HELD_OUT = ("van",)
SHELL = ("#3a4048", "#8a3038", "#2f5578", "#5a6a50", "#b8b2a6")
SHELL_HELD_OUT = ("#5c4a66", "#a0805c")
SKY = {
    "day": ("#8fc0ec", "#e2eff4", "#86a068", "#5d7a4a"),
    "dusk": ("#54548c", "#f2a873", "#4e4452", "#3a3440"),
    "night": ("#30323a", "#40434a", "#26282c", "#1c1d20"),
}


@dataclass(frozen=True, kw_only=True)
class Build:
    """Proportions by age: where the chin is, size of the head, half the shoulders, torso."""

    chin: float
    head: float
    half: float
    torso: float


BUILDS = {
    "baby": Build(chin=158, head=0.63, half=27, torso=42),
    "toddler": Build(chin=142, head=0.66, half=36, torso=62),
    "child": Build(chin=122, head=0.62, half=45, torso=84),
}


def _view(c: Canvas, truth: dict[str, str], look: dict[str, Any], trim: str, windows: str) -> None:
    """What lies outside, then the wall with holes along `windows`: a clip would cost a layer."""
    y0, y1 = 5, 92
    top, low, trees, ground = SKY[truth["light"]]
    for band in range(6):
        y = y0 + (y1 - y0) * band / 6
        c.rect(0, y, SIDE, (y1 - y0) / 6 + 1, mix(top, low, band / 5))
    edge = [y1 - (y1 - y0) * (0.2 + 0.32 * value) for value in look["trees"]]
    steps = " ".join(f"Q{i * 26 - 13} {y - 9:.1f} {i * 26} {y:.1f}" for i, y in enumerate(edge))
    c.path(f"M-30 {y1} L-26 {edge[0]} {steps} L{SIDE} {y1} Z", trees)
    c.rect(0, y1 - (y1 - y0) * 0.16, SIDE, (y1 - y0) * 0.16, ground)
    c.path(f"M-4 -4 H260 V98 H-4 Z {windows}", dark(trim, 0.15), fill_rule="evenodd")


def _saloon(c: Canvas, truth: dict[str, str], look: dict[str, Any], trim: str) -> None:
    windows = (
        "M46 14 Q128 4 210 14 L228 70 H28 Z M-2 20 L24 16 L8 84 L-2 88 Z "
        "M258 20 L232 16 L248 84 L258 88 Z"
    )
    _view(c, truth, look, trim, windows)
    c.line("M46 14 Q128 4 210 14 L228 70 H28 Z", dark(trim, 0.5), 4)
    c.path("M20 70 H236 L244 84 H12 Z", light(trim, 0.1))


def _estate(c: Canvas, truth: dict[str, str], look: dict[str, Any], trim: str) -> None:
    windows = (
        "M62 10 H194 L204 78 H52 Z M-2 8 L44 8 L30 84 L-2 90 Z M258 8 L212 8 L226 84 L258 90 Z"
    )
    _view(c, truth, look, trim, windows)
    c.line("M62 10 H194 L204 78 H52 Z", dark(trim, 0.5), 4)
    c.line("M58 44 H198 M56 56 H200 M54 68 H202", dark(trim, 0.35), 1.6)


def _van(c: Canvas, truth: dict[str, str], look: dict[str, Any], trim: str) -> None:
    """No rear window: two tall windows at the sides and a panelled wall."""
    windows = "M-2 6 H74 Q80 8 78 16 L70 92 H-2 Z M258 6 H182 Q176 8 178 16 L186 92 H258 Z"
    _view(c, truth, look, trim, windows)
    c.line("M-2 6 H74 Q80 8 78 16 L70 92 H-2 M258 6 H182 Q176 8 178 16 L186 92 H258",
           dark(trim, 0.5), 5)  # fmt: skip
    c.rect(92, 12, 72, 70, light(trim, 0.12), rx=8, stroke=dark(trim, 0.4), stroke_width=2)
    c.line("M104 30 H152 M104 46 H152 M104 62 H152", dark(trim, 0.35), 3)


CABIN: dict[str, Callable[[Canvas, dict[str, str], dict[str, Any], str], None]] = {
    "saloon": _saloon,
    "estate": _estate,
    "van": _van,
}


def _place(c: Canvas, x: float, seat: str) -> None:
    """One place of the bench: headrest, back with side bolsters."""
    edge = dark(seat, 0.5)
    c.line(f"M{x - 14} 92 V72 M{x + 14} 92 V72", "#8a9098", 4)
    c.rect(x - 30, 46, 60, 36, c.linear(((0, light(seat, 0.25)), (1, dark(seat, 0.15)))), rx=12,
           stroke=edge, stroke_width=1.6)  # fmt: skip
    c.path(f"M{x - 58} 214 C{x - 62} 150 {x - 58} 104 {x - 42} 86 H{x + 42} "
           f"C{x + 58} 104 {x + 62} 150 {x + 58} 214 Z", seat, stroke=edge,
           stroke_width=1.6)  # fmt: skip
    c.path(f"M{x - 30} 96 H{x + 30} C{x + 40} 130 {x + 40} 180 {x + 36} 210 H{x - 36} "
           f"C{x - 40} 180 {x - 40} 130 {x - 30} 96 Z", light(seat, 0.1))  # fmt: skip
    seams = " ".join(f"M{x - 37} {y} Q{x} {y + 6} {x + 37} {y}" for y in (122, 152, 182))
    c.line(seams, dark(seat, 0.3), 1.6)


def cabin(c: Canvas, truth: dict[str, str], look: dict[str, Any]) -> None:
    """Everything behind the child."""
    seat = look["seat"]
    trim = dark(mix(seat, "#6a655e", 0.35), 0.35)
    c.rect(0, 0, SIDE, SIDE, dark(trim, 0.15))
    CABIN[look["cabin"]](c, truth, look, trim)
    c.rect(-4, 92, SIDE + 8, 130, dark(seat, 0.3), rx=16)
    for x in (66, 190):
        _place(c, x, seat)
    c.path("M-4 208 H260 V260 H-4 Z", dark(seat, 0.12))
    c.path("M-4 206 Q64 198 128 206 Q192 198 260 206 L260 222 Q192 212 128 220 Q64 212 -4 222 Z",
           light(seat, 0.16))  # fmt: skip
    c.line("M128 210 V258", dark(seat, 0.45), 3)


def _carrier(c: Canvas, build: Build, shell: str) -> None:
    """A baby's egg-shaped shell with its handle."""
    edge = dark(shell, 0.55)
    c.line("M-64 30 C-74 -140 74 -140 64 30", dark(shell, 0.35), 8)
    c.line("M-63 24 C-72 -136 72 -136 63 24", light(shell, 0.3), 2)
    c.path("M0 -108 C52 -108 66 -40 62 22 C58 78 34 94 0 94 C-34 94 -58 78 -62 22 "
           "C-66 -40 -52 -108 0 -108 Z", shell, stroke=edge, stroke_width=2)  # fmt: skip
    c.path("M0 -98 C42 -98 54 -38 51 20 C48 66 28 80 0 80 C-28 80 -48 66 -51 20 "
           "C-54 -38 -42 -98 0 -98 Z", light(shell, 0.32))  # fmt: skip
    c.path("M0 -98 C42 -98 54 -38 51 20 L42 10 C44 -40 34 -84 0 -86 C-34 -84 -44 -40 -42 10 "
           "L-51 20 C-54 -38 -42 -98 0 -98 Z", dark(shell, 0.2))  # fmt: skip


def _winged(c: Canvas, build: Build, shell: str) -> None:
    """A toddler's seat: wings beside the head, padded sides."""
    edge = dark(shell, 0.55)
    c.path("M-40 -98 Q0 -112 40 -98 L54 -70 V-8 L66 30 V112 H-66 V30 L-54 -8 V-70 Z", shell,
           stroke=edge, stroke_width=2)  # fmt: skip
    c.path("M-34 -92 Q0 -102 34 -92 L44 -64 V-6 L52 34 V108 H-52 V34 L-44 -6 V-64 Z",
           light(shell, 0.34))  # fmt: skip
    for sign in (-1, 1):
        c.path(f"M{sign * 40} -82 Q{sign * 60} -86 {sign * 62} -66 V-14 Q{sign * 60} 0 "
               f"{sign * 46} -6 Z", light(shell, 0.12), stroke=edge, stroke_width=1.6)  # fmt: skip
        c.path(f"M{sign * 50} 34 Q{sign * 72} 30 {sign * 74} 52 V96 Q{sign * 70} 112 "
               f"{sign * 50} 108 Z", light(shell, 0.12), stroke=edge, stroke_width=1.6)  # fmt: skip


def _booster(c: Canvas, build: Build, shell: str) -> None:
    """Only a cushion, under the child."""
    y = build.torso - 8
    c.rect(-70, y, 140, 44, shell, rx=14, stroke=dark(shell, 0.55), stroke_width=2)
    c.rect(-62, y + 3, 124, 14, light(shell, 0.3), rx=7)
    for sign in (-1, 1):
        c.rect(sign * 68 - 9, y - 12, 18, 26, dark(shell, 0.2), rx=7)


CHILD_SEAT: dict[str, Callable[[Canvas, Build, str], None]] = {
    "baby": _carrier,
    "toddler": _winged,
    "child": _booster,
}
