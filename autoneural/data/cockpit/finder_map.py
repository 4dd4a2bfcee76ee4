"""Draws the map board of a car park: rows A to D of six bays, my car under a pin, where I stand.

Board coordinates are 256 x 256 before the board is turned. Along a row lies u, across the rows v;
a board of "columns" swaps the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autoneural.data.cockpit.base import CANNOT_TELL, Box
from autoneural.data.cockpit.fonts import FONTS
from autoneural.data.cockpit.perspective import Point
from autoneural.data.cockpit.svg import SIDE, Canvas, box_around, dark, light, luma, mix

ROWS = ("A", "B", "C", "D")
BAYS = ("1", "2", "3", "4", "5", "6")
SPOTS = tuple((row, bay) for row in ROWS for bay in BAYS)
PAPERS = ("#eef0ec", "#dfe6ee", "#e8e2d2", "#242a32")
PAPERS_HELD_OUT = ("#e4ece4", "#1c2a30")
WALLS = ("#8a8c8e", "#a09a90", "#6f7880")
WALLS_HELD_OUT = ("#98908a", "#7c8484")
OTHERS = ("#8a9098", "#b4b8bc", "#5c6268", "#cfd2d4")
TURNS = ("straight on", "right", "back", "left")
"""Clockwise from where one faces."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A layout of rows: extent along them, the middle of each row and lane across them."""

    columns: bool
    split: float = 0.0
    """Width of a gap between two bays of a row."""
    after: int = 3
    """How many bays stand before the gap."""
    mirrored: bool = False
    """Bays are numbered from the far end."""

    @property
    def along(self) -> tuple[float, float]:
        return (83.0, 226.0) if self.columns else (38.0, 214.0)

    @property
    def across(self) -> tuple[float, ...]:
        return (31.0, 109.0, 147.0, 225.0) if self.columns else (69.5, 134.5, 165.5, 230.5)

    @property
    def lanes(self) -> tuple[float, float]:
        return (70.0, 186.0) if self.columns else (102.0, 198.0)

    @property
    def bay(self) -> tuple[float, float]:
        """Size of a bay along and across its row."""
        start, end = self.along
        return (end - start - self.split) / 6, 38.0 if self.columns else 31.0

    def point(self, u: float, v: float) -> Point:
        return (v, u) if self.columns else (u, v)

    def beside(self, bay: str) -> list[str]:
        """The bays next to a bay of the same row, with no gap between."""
        k = self._place(bay)
        near = [other for other in BAYS if abs(self._place(other) - k) == 1]
        if not self.split:
            return near
        return [other for other in near if (self._place(other) < self.after) == (k < self.after)]

    def _place(self, bay: str) -> int:
        """How many bays stand before it."""
        k = BAYS.index(bay)
        return 5 - k if self.mirrored else k

    def middle(self, row: str, bay: str) -> tuple[float, float]:
        """Of a bay: along and across."""
        k = self._place(bay)
        u = self.along[0] + (k + 0.5) * self.bay[0] + (self.split if k >= self.after else 0.0)
        return u, self.across[ROWS.index(row)]


SPLITS = {
    f"{'columns' if columns else 'rows'}{mirrored} {width} after {after}": Plan(
        columns=columns, mirrored=bool(mirrored), split=width, after=after
    )
    for columns in (False, True)
    for mirrored in ("", " mirrored")
    for after in (1, 2, 4, 5)
    for width in (10, 18)
}
"""With a gap anywhere but in the middle, as the held-out plans have it."""
PLANS_BY_NAME = {
    "rows": Plan(columns=False),
    "rows mirrored": Plan(columns=False, mirrored=True),
    "columns": Plan(columns=True),
    "columns mirrored": Plan(columns=True, mirrored=True),
    "split rows": Plan(columns=False, split=16),
    "split columns": Plan(columns=True, split=16),
    **SPLITS,
}
PLANS = (*("rows", "rows mirrored", "columns", "columns mirrored") * 4, *SPLITS)
PLANS_HELD_OUT = ("split rows", "split columns")


def stand(plan: Plan, lane: int, gap: int) -> tuple[float, float]:
    """Where I stand: in a lane, between the bays `gap` and `gap + 1` counted along it."""
    u = plan.along[0] + gap * plan.bay[0] + (plan.split if gap > plan.after else 0.0)
    return u + (plan.split / 2 if gap == plan.after else 0.0), plan.lanes[lane] + 7


def way(plan: Plan, row: str, bay: str, lane: int, gap: int) -> tuple[int, float]:
    """To my car: the nearer of up, right, down, left as quarter turns from up, and how clearly."""
    x0, y0 = plan.point(*stand(plan, lane, gap))
    x1, y1 = plan.point(*plan.middle(row, bay))
    dx, dy = x1 - x0, y1 - y0
    quarter = (1 if dx > 0 else 3) if abs(dx) > abs(dy) else (2 if dy > 0 else 0)
    return quarter, max(abs(dx), abs(dy)) / max(min(abs(dx), abs(dy)), 1.0)


def vacant(truth: dict[str, str], plan: Plan, order: list[int]) -> set[tuple[str, str]]:
    """The free bays: as many as wanted beside mine, the rest elsewhere, in a given order."""
    mine = (truth["row"], truth["bay"])
    near = [(truth["row"], bay) for bay in plan.beside(truth["bay"])]
    spots = [SPOTS[i] for i in order if SPOTS[i] != mine]
    close = [spot for spot in spots if spot in near][: int(truth["beside"])]
    rest = [spot for spot in spots if spot not in near]
    return {*close, *rest[: int(truth["free"]) - len(close)]}


def _pin(c: Canvas, x: float, y: float) -> None:
    d = (
        f"M{x} {y} C{x - 3} {y - 6} {x - 8} {y - 8} {x - 8} {y - 14} A8 8 0 1 1 {x + 8} {y - 14} "
        f"C{x + 8} {y - 8} {x + 3} {y - 6} {x} {y} Z"
    )
    c.path(d, "#e0218a", stroke="#ffffff", stroke_width=1.6)
    c.circle(x, y - 14, 3.4, "#ffffff")


def _you(c: Canvas, x: float, y: float, heading: float) -> None:
    c.circle(x, y, 10.5, "#ffffff")
    c.circle(x, y, 9.2, "#1668e0")
    with c.group(transform=f"translate({x:.2f} {y:.2f}) rotate({heading})"):
        c.path("M0 -7.8 L5.6 5.2 L0 2.2 L-5.6 5.2 Z", "#ffffff")


def _lift(c: Canvas, x: float, y: float) -> None:
    c.rect(x - 11, y - 11, 22, 22, "#10151c", rx=4, stroke="#ffffff", stroke_width=1.4)
    c.path(
        f"M{x - 5.5} {y - 7.5} l4.5 6.5 h-9 Z",
        "#ffffff",
    )
    c.path(f"M{x + 5.5} {y + 1} h4.5 l-4.5 6.5 l-4.5 -6.5 Z", "#ffffff")
    c.line(f"M{x - 5.5} {y - 1} v8 M{x + 5.5} {y - 7} v8", "#ffffff", 2.4)


def _header(c: Canvas, truth: dict[str, str], look: dict[str, Any], color: str) -> None:
    font = FONTS[look["fonts"][0]]
    style = {"font_family": font.family, "font_weight": font.weight}
    ink = "#14161a" if luma(color) > 0.55 else "#ffffff"
    c.rect(6, 6, 244, 42, color, rx=6)
    c.label(96, 37, "LEVEL", 27, fill=ink, **style)
    if truth["level"] == CANNOT_TELL:
        c.path("M150 10 L190 7 L196 44 L172 47 L148 43 Z", "#d8d2c4", stroke="#8a8474")
        c.line("M154 16 L186 38 M160 40 L190 18", "#b4ac9a", 2)
    else:
        c.label(172, 41, truth["level"], 38, fill=ink, **style)


def _row_at(plan: Plan, row: str) -> Point:
    """The middle of a row's letter."""
    return plan.point(62.0 if plan.columns else 22.0, plan.middle(row, "1")[1])


def _bay_at(plan: Plan, lane: float, bay: str) -> Point:
    """The middle of a bay's number along a lane."""
    return plan.point(plan.middle("A", bay)[0], lane - 8)


def _floor(c: Canvas, truth: dict[str, str], look: dict[str, Any], plan: Plan) -> None:
    paper = look["paper"]
    ink = "#e8ecf0" if luma(paper) < 0.4 else "#1c2026"
    font = FONTS[look["fonts"][0]]
    style = {"font_family": font.family, "font_weight": font.weight, "fill": ink}
    long, wide = plan.bay
    lines = []
    for row, bay in SPOTS:
        u, v = plan.middle(row, bay)
        x, y = plan.point(u, v)
        w, h = plan.point(long, wide)
        lines.append(f"M{x - w / 2:.1f} {y - h / 2:.1f} h{w:.1f} v{h:.1f} h{-w:.1f} Z")
    c.path(" ".join(lines), mix(paper, ink, 0.06), stroke=mix(paper, ink, 0.55), stroke_width=1.2)
    for row in ROWS:
        x, y = _row_at(plan, row)
        c.label(x, y + 7.5, row, 22, **style)
    for lane in plan.lanes:
        for bay in BAYS:
            x, y = _bay_at(plan, lane, bay)
            c.label(x, y + 5.5, bay, 15, **style)


def _pane(plan: Plan, x: float, y: float, sign: int, shape: Sequence[Point]) -> str:
    """A shape given along and across a car whose nose is up or left, or the other way."""
    points = [plan.point(across, sign * along) for along, across in shape]
    return "M" + " L".join(f"{x + u:.1f} {y + v:.1f}" for u, v in points) + " Z"


def _cars(c: Canvas, truth: dict[str, str], look: dict[str, Any], plan: Plan, paint: str) -> None:
    """Cars from above; shadows and panes are one element each, which resvg draws faster."""
    free, mine = vacant(truth, plan, look["order"]), (truth["row"], truth["bay"])
    long, wide = (plan.bay[1] - 4.5) / 2, min(plan.bay[0] * 0.3, 9.0)
    w, h = plan.point(wide, long)
    front = [
        (-long * a, wide * b) for a, b in ((0.42, -0.74), (0.42, 0.74), (0.06, 0.6), (0.06, -0.6))
    ]
    back = [(long * a, wide * b) for a, b in ((0.5, -0.6), (0.5, 0.6), (0.72, 0.7), (0.72, -0.7))]
    shadows, bodies, panes = [], [], []
    for index, spot in enumerate(SPOTS):
        if spot in free:
            continue
        x, y = plan.point(*plan.middle(*spot))
        sign = 1 if look["noses"][index] else -1
        shadows.append(
            f"M{x - w + 2:.1f} {y - h + 2:.1f} h{2 * w:.1f} v{2 * h:.1f} h{-2 * w:.1f} Z"
        )
        color = light(paint, 0.15) if spot == mine else look["others"][index]
        edge = light(color, 0.4) if luma(look["paper"]) < 0.4 else dark(color, 0.5)
        bodies.append((x, y, color, edge))
        panes += [_pane(plan, x, y, sign, shape) for shape in (front, back)]
    c.path(" ".join(shadows), "#000000", fill_opacity=0.25)
    for x, y, color, edge in bodies:
        c.rect(x - w, y - h, 2 * w, 2 * h, color, rx=wide * 0.6, stroke=edge,
               stroke_width=1)  # fmt: skip
    c.path(" ".join(panes), "#26303a")


def _marks(c: Canvas, truth: dict[str, str], look: dict[str, Any], plan: Plan) -> None:
    x, y = plan.point(*plan.middle(truth["row"], truth["bay"]))
    w, h = plan.point(*plan.bay)
    c.rect(x - w / 2, y - h / 2, w, h, "none", stroke="#e0218a", stroke_width=2.6)
    _lift(c, *_lift_at(look, plan))
    quarter, _ = way(plan, truth["row"], truth["bay"], look["lane"], look["gap"])
    heading = 90 * (quarter - TURNS.index(truth["turn"]))
    _you(c, *plan.point(*stand(plan, look["lane"], look["gap"])), heading)
    _pin(c, x, y - 3)


def _lift_at(look: dict[str, Any], plan: Plan) -> Point:
    start, end = plan.along
    u = start - 16.0 if look["lift"] % 2 else end + 14.0
    return plan.point(u, plan.lanes[look["lift"] // 2])


def _pose(look: dict[str, Any]) -> tuple[float, ...]:
    """The affine map from the board to the picture."""
    share, right, down = look["framing"]
    turn, lean, size = math.radians(look["tilt"]), look["lean"], look["size"] * share
    a, b = size * math.cos(turn), size * math.sin(turn)
    c, d = -b + a * lean, a + b * lean
    x, y = 128 + look["dx"] - 128 * (a + c) + right, 128 + look["dy"] - 128 * (b + d) + down
    return a, b, c, d, x, y


def draw_map(
    c: Canvas, truth: dict[str, str], look: dict[str, Any], paint: str, color: str
) -> None:
    """The board on its wall; `paint` is my car's, `color` the level's."""
    plan = PLANS_BY_NAME[look["plan"]]
    c.rect(0, 0, SIDE, SIDE, look["wall"])
    c.line("M0 60 H256 M0 190 H256 M70 0 V60 M190 60 V190 M40 190 V256", dark(look["wall"], 0.2), 2)
    with c.group(transform=f"matrix({' '.join(f'{value:.4f}' for value in _pose(look))})"):
        c.rect(3, 5, 256, 256, "#000000", rx=10, fill_opacity=0.35)
        c.rect(0, 0, 256, 256, look["paper"], rx=9, stroke="#3a3e44", stroke_width=4)
        _header(c, truth, look, color)
        _floor(c, truth, look, plan)
        _cars(c, truth, look, plan, paint)
        _marks(c, truth, look, plan)
        for x, y in ((10, 10), (246, 10), (10, 246), (246, 246)):
            c.circle(x, y, 2.6, "#c8ccd0", stroke="#50545a", stroke_width=0.8)
        if look["glare"]:
            c.path("M150 0 L206 0 L96 256 L40 256 Z", "#ffffff", fill_opacity=0.1)


def _box(look: dict[str, Any], x: float, y: float, w: float, h: float) -> Box:
    a, b, c, d, e, f = _pose(look)
    corners = [(x + i * w / 2, y + j * h / 2) for i in (-1, 1) for j in (-1, 1)]
    return box_around([(a * u + c * v + e, b * u + d * v + f) for u, v in corners])


def map_boxes(truth: dict[str, str], look: dict[str, Any]) -> dict[str, Box]:
    plan = PLANS_BY_NAME[look["plan"]]
    x, y = plan.point(*plan.middle(truth["row"], truth["bay"]))
    w, h = plan.point(*plan.bay)
    return {
        "my car": _box(look, x, y, w, h),
        "pin": _box(look, x, y - 14, 17, 23),
        "lift": _box(look, *_lift_at(look, plan), 23, 23),
        "you": _box(look, *plan.point(*stand(plan, look["lane"], look["gap"])), 21, 21),
        "sign": _box(look, 128, 27, 244, 42),
        "row": _box(look, *_row_at(plan, truth["row"]), 16, 17),
        "bay": _box(look, *min((_bay_at(plan, lane, truth["bay"]) for lane in plan.lanes),
                               key=lambda at: math.dist(at, (x, y))), 10, 12),
        **({} if truth["level"] == CANNOT_TELL else {"level": _box(look, 172, 27, 24, 29)}),
    }  # fmt: skip
