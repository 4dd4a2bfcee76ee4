"""Whole people, for any scene: a pose in metres, a place to stand, and clothes.

A pose is a side view that faces right (`facing=-1` mirrors it) or a view from the front or back: x
forward (or to the right), y up, feet near (0, 0). Hips, feet and hands are given and knees and
elbows follow, so that a hand lies exactly where it touches. `draw` paints, `outline` gives the
circles that the painted body fills; both follow from `joints`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, hypot, sin, sqrt
from typing import Any

from autoneural.data.cockpit import heads
from autoneural.data.cockpit.svg import Canvas, dark, light

Point = tuple[float, float]
Circle = tuple[float, float, float]
TORSO, ARM, LEG = 0.54, (0.3, 0.3), (0.45, 0.46)
SIZE = {"adult": 1.0, "child": 0.68}
HEAD = {"adult": 1.12, "child": 1.45}
"""Heads a little large, and a child's larger still: they must show at a dozen pixels."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where the given joints are, in metres; the far limb of each pair first."""

    view: str = "side"
    hip: Point = (0.0, 0.92)
    lean: float = 0.04
    nod: float = 0.0
    feet: tuple[Point, Point] = ((0.08, 0.0), (-0.06, 0.0))
    hands: tuple[Point, Point] = ((0.06, 0.82), (0.02, 0.8))


@dataclass(frozen=True, kw_only=True)
class Stand:
    """The ground point in the picture, the scale, and the way faced.

    `scale` is units per metre of the body: for a child, SIZE["child"] times that of the place.
    """

    x: float
    y: float
    scale: float
    facing: int = 1

    def at(self, point: Point) -> Point:
        return self.x + self.facing * self.scale * point[0], self.y - self.scale * point[1]

    def metres(self, x: float, y: float) -> Point:
        """The inverse of `at`."""
        return self.facing * (x - self.x) / self.scale, (self.y - y) / self.scale


def walking(step: float) -> Pose:
    """In mid-stride; `step` in [0, 1] is the length of it."""
    reach = 0.26 + 0.12 * step
    return Pose(
        hip=(0, 0.9 - 0.05 * step),
        lean=0.09,
        feet=((reach, 0.03), (-reach - 0.06, 0.09)),
        hands=((-0.24 - 0.1 * step, 0.9), (0.34 + 0.08 * step, 1.0)),
    )


def walking_off(step: float, view: str) -> Pose:
    """Seen from behind or in front, one foot lifted."""
    return Pose(
        view=view,
        hip=(0, 0.93),
        lean=0.02,
        feet=((-0.09, 0.16 + 0.08 * step), (0.1, 0.0)),
        hands=((-0.3, 0.84), (0.29, 1.0)),
    )


def standing(hands: tuple[Point, Point], view: str = "side") -> Pose:
    feet = ((0.07, 0.0), (-0.06, 0.0)) if view == "side" else ((-0.12, 0.0), (0.12, 0.0))
    return Pose(view=view, hip=(0, 0.96), feet=feet, hands=hands)


def peering(target: Point) -> Pose:
    """Bent to a pane, both hands against it beside the eyes."""
    x, y = target
    return Pose(
        hip=(x - 0.62, 0.94),
        lean=0.42,
        nod=0.1,
        feet=((x - 0.5, 0.0), (x - 0.78, 0.0)),
        hands=((x, y + 0.1), (x - 0.02, y - 0.06)),
    )


def reaching(target: Point, other: Point | None = None) -> Pose:
    """A hand at the target: upright, bent or crouched as its height asks."""
    x, y = target
    second = other or (x - 0.08, y + 0.08)
    if y < 0.62:
        return Pose(
            hip=(x - 0.62, 0.42),
            lean=0.5,
            nod=0.15,
            feet=((x - 0.2, 0.0), (x - 0.72, 0.06)),
            hands=(second, target),
        )
    bend = min(max(1.25 - y, 0.0), 0.6)
    return Pose(
        hip=(x - 0.52 - 0.2 * bend, 0.95 - 0.1 * bend),
        lean=0.1 + 0.9 * bend,
        nod=0.25,
        feet=((x - 0.38, 0.0), (x - 0.66, 0.0)),
        hands=(second, target),
    )


def _bend(a: Point, b: Point, lengths: Point, side: int) -> tuple[Point, Point]:
    """Elbow or knee between `a` and `b`, and where the end comes to lie when `b` is too far."""
    first, second = lengths
    dx, dy = b[0] - a[0], b[1] - a[1]
    far = hypot(dx, dy) or 1e-6
    reach = min(max(far, abs(first - second) + 0.02), (first + second) * 0.995)
    ux, uy = dx / far, dy / far
    along = (first**2 - second**2 + reach**2) / (2 * reach)
    off = side * sqrt(max(first**2 - along**2, 0.0))
    joint = (a[0] + ux * along - uy * off, a[1] + uy * along + ux * off)
    return joint, (a[0] + ux * reach, a[1] + uy * reach)


def _between(a: Point, b: Point, out: float) -> Point:
    return (a[0] + b[0]) / 2 + out, (a[1] + b[1]) / 2


def joints(pose: Pose, head: float) -> dict[str, Point]:
    """Every joint in metres of the body; `head` is the size of the head, 1 for life size."""
    hip, side = pose.hip, pose.view == "side"
    neck = (hip[0] + TORSO * sin(pose.lean), hip[1] + TORSO * cos(pose.lean))
    tilt, rise = pose.lean * 0.6 + pose.nod, 0.1 + 0.1 * head
    points = {
        "hip": hip,
        "neck": neck,
        "head": (neck[0] + rise * sin(tilt), neck[1] + rise * cos(tilt)),
    }
    for index, name in enumerate(("far", "near")):
        out = (-1, 1)[index]
        apart = 0 if side else out
        shoulder = (neck[0] + apart * 0.19, neck[1] - 0.05)
        pelvis = (hip[0] + apart * 0.085, hip[1])
        foot = (pose.feet[index][0], pose.feet[index][1] + 0.07)
        points |= {f"{name} shoulder": shoulder, f"{name} pelvis": pelvis}
        hand = pose.hands[index]
        if side:
            points[f"{name} knee"], points[f"{name} foot"] = _bend(pelvis, foot, LEG, 1)
            points[f"{name} elbow"], points[f"{name} hand"] = _bend(shoulder, hand, ARM, -1)
        else:  # what bends, bends towards the camera or away from it
            points |= {f"{name} knee": _between(pelvis, foot, out * 0.02), f"{name} foot": foot}
            points |= {f"{name} elbow": _between(shoulder, hand, out * 0.06), f"{name} hand": hand}
    return points


def _limb(c: Canvas, points: Sequence[Circle], color: str) -> None:
    """Tapered segments with round joints, lit from above on the left."""
    d = ""
    for (x0, y0, r0), (x1, y1, r1) in zip(points, points[1:], strict=False):
        far = hypot(x1 - x0, y1 - y0) or 1e-6
        nx, ny = (y0 - y1) / far, (x1 - x0) / far
        d += (
            f"M{x0 + nx * r0:.2f} {y0 + ny * r0:.2f} L{x1 + nx * r1:.2f} {y1 + ny * r1:.2f} "
            f"A{r1:.2f} {r1:.2f} 0 0 0 {x1 - nx * r1:.2f} {y1 - ny * r1:.2f} "
            f"L{x0 - nx * r0:.2f} {y0 - ny * r0:.2f} "
            f"A{r0:.2f} {r0:.2f} 0 0 0 {x0 + nx * r0:.2f} {y0 + ny * r0:.2f} Z "
        )
    c.path(d, color, stroke=dark(color, 0.5), stroke_width=0.8)
    c.path(d, color)  # again, over the outlines within
    thin = points[-1][2]
    line = " L".join(f"{x - r * 0.3:.2f} {y - r * 0.3:.2f}" for x, y, r in points)
    c.line(f"M{line}", light(color, 0.2), thin * 0.6, stroke_opacity=0.55)


RADII = {"thigh": 0.095, "knee": 0.07, "ankle": 0.05, "shoulder": 0.075, "elbow": 0.055,
         "wrist": 0.045, "hand": 0.052}  # fmt: skip


class Figure:
    """One person placed in the picture."""

    def __init__(self, pose: Pose, age: str, stand: Stand) -> None:
        self.pose, self.stand, self.unit = pose, stand, stand.scale
        self.head_radius = 0.112 * HEAD[age] * self.unit
        self.points = {k: stand.at(point) for k, point in joints(pose, HEAD[age]).items()}

    def _circle(self, joint: str, part: str) -> Circle:
        return (*self.points[joint], RADII[part] * self.unit)

    def leg(self, side: str) -> list[Circle]:
        return [
            self._circle(f"{side} pelvis", "thigh"),
            self._circle(f"{side} knee", "knee"),
            self._circle(f"{side} foot", "ankle"),
        ]

    def arm(self, side: str) -> list[Circle]:
        return [
            self._circle(f"{side} shoulder", "shoulder"),
            self._circle(f"{side} elbow", "elbow"),
            self._circle(f"{side} hand", "wrist"),
        ]

    def hand(self, side: str) -> Circle:
        return self._circle(f"{side} hand", "hand")

    def head(self) -> Circle:
        return (*self.points["head"], self.head_radius)

    def outline(self) -> list[Circle]:
        """Circles that fill the painted body, hat and shoes included."""
        x, y, r = self.head()
        circles = [(x, y - 0.12 * r, 1.22 * r), *self.arms_outline()]
        for side in ("far", "near"):
            circles += _beads(self.leg(side))
            fx, fy = self.points[f"{side} foot"]
            toe = self.stand.facing * 0.1 * self.unit if self.pose.view == "side" else 0.0
            circles.append((fx + toe, fy + 0.025 * self.unit, 0.045 * self.unit))
        return circles

    def arms_outline(self) -> list[Circle]:
        sides = ("far", "near")
        beads = [circle for side in sides for circle in _beads(self.arm(side))]
        return beads + [self.hand(side) for side in sides]

    def draw(self, c: Canvas, look: dict[str, Any]) -> None:
        """`look`: cloth, trousers, skin, shoe, and what `heads` needs."""
        self._far_limbs(c, look)
        if self.pose.view == "back":
            self._head(c, look)
            self._torso(c, look["cloth"])
            self._leg(c, look, "near")
            self.arms(c, look, ("far", "near"))
            return
        self._leg(c, look, "near")
        self._torso(c, look["cloth"])
        self._head(c, look)
        self.arms(c, look, ("near",) if self.pose.view == "side" else ("far", "near"))

    def _far_limbs(self, c: Canvas, look: dict[str, Any]) -> None:
        self._leg(c, {**look, "trousers": dark(look["trousers"], 0.22)}, "far")
        if self.pose.view == "side":
            self.arms(c, {**look, "cloth": dark(look["cloth"], 0.3)}, ("far",))

    def _leg(self, c: Canvas, look: dict[str, Any], side: str) -> None:
        x, y = self.points[f"{side} foot"]
        u, f = self.unit, self.stand.facing
        _limb(c, self.leg(side), look["trousers"])
        shoe = look["shoe"]
        if self.pose.view == "side":
            with c.group(transform=f"translate({x:.2f} {y:.2f}) scale({f * u:.3f} {u:.3f})"):
                c.path("M-0.07 0.07 Q-0.08 -0.03 0.05 -0.02 Q0.2 0.01 0.19 0.07 Z", shoe)
        else:
            c.ellipse(x, y + 0.03 * u, 0.06 * u, 0.05 * u, shoe)

    def arms(self, c: Canvas, look: dict[str, Any], sides: Sequence[str]) -> None:
        """Sleeves and hands, apart from `draw` for arms that reach over something."""
        for side in sides:
            _limb(c, self.arm(side), look["cloth"])
            x, y, r = self.hand(side)
            skin = look.get("glove") or look["skin"]
            c.circle(x, y, r, skin, stroke=dark(skin, 0.4), stroke_width=0.4)

    def _torso(self, c: Canvas, cloth: str) -> None:
        (hx, hy), (nx, ny) = self.points["hip"], self.points["neck"]
        u, f = self.unit, self.stand.facing
        far = hypot(nx - hx, ny - hy) or 1e-6
        ax, ay = (nx - hx) / far, (ny - hy) / far
        px, py = -ay, ax
        if self.pose.view == "side":
            back, chest, hips = 0.115 * u * f, 0.13 * u * f, 0.115 * u
        else:
            back = chest = 0.215 * u
            hips = 0.16 * u
        sign = 1 if self.pose.view != "side" else f

        def corner(along: float, across: float) -> str:
            at = far * along
            return f"{hx + ax * at + px * across:.2f} {hy + ay * at + py * across:.2f}"

        b, w, h = abs(back), abs(chest), hips
        left, right = (b, w) if sign > 0 else (w, b)
        d = (
            f"M{corner(-0.12, -h)} Q{corner(0.4, -left * 0.9)} {corner(0.82, -left)} "
            f"Q{corner(1.03, -left * 0.95)} {corner(1.06, -left * 0.3)} "
            f"L{corner(1.06, right * 0.3)} "
            f"Q{corner(1.03, right * 0.95)} {corner(0.82, right)} "
            f"Q{corner(0.4, right * 0.95)} {corner(-0.12, h)} Z"
        )
        fill = c.linear(
            ((0, light(cloth, 0.22)), (0.55, cloth), (1, dark(cloth, 0.3))), x2=1, y2=0.25
        )
        c.path(d, fill, stroke=dark(cloth, 0.5), stroke_width=0.5)
        if self.pose.view == "front":
            c.line(f"M{corner(-0.1, 0)} L{corner(0.98, 0)}", dark(cloth, 0.45), 0.022 * u)
        c.line(f"M{corner(-0.08, -h * 0.9)} L{corner(-0.08, h * 0.9)}", dark(cloth, 0.4), 0.02 * u)

    def _head(self, c: Canvas, look: dict[str, Any]) -> None:
        x, y, r = self.head()
        nx, ny = self.points["neck"]
        c.line(f"M{nx:.2f} {ny:.2f} L{x:.2f} {y:.2f}", dark(look["skin"], 0.25), r * 0.95)
        turn = (self.pose.lean * 0.5 + self.pose.nod) * 57 * self.stand.facing
        scale = f"scale({self.stand.facing * r:.3f} {r:.3f})"
        with c.group(transform=f"translate({x:.2f} {y:.2f}) rotate({turn:.1f}) {scale}"):
            heads.DRAW[self.pose.view](c, look)


def _beads(limb: Sequence[Circle]) -> list[Circle]:
    """A limb as circles along it."""
    return [
        tuple(a[i] + (b[i] - a[i]) * t / 4 for i in range(3))  # type: ignore[misc]
        for a, b in zip(limb, limb[1:], strict=False)
        for t in range(5)
    ]
