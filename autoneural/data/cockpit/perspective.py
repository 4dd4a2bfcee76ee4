"""A pinhole camera for SVG: shapes drawn flat, lifted onto surfaces in space, seen in perspective.

Space: x to the right, y up from the ground, z away from the camera; about a centimetre a unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

Point = tuple[float, float]
Lift = Callable[[float, float], tuple[float, float, float]]
"""From the two numbers of a flat drawing to a point of a thing's own space."""
NEAR = 40.0
_PAIR = re.compile(r"(-?[\d.]+) (-?[\d.]+)")


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Sees a thing that stands `x` aside and `z` away, turned by `turn` degrees."""

    focal: float
    height: float
    centre: Point
    x: float = 0.0
    z: float = 0.0
    turn: float = 0.0
    roll: float = 0.0

    def at(self, x: float, z: float, turn: float = 0.0) -> Camera:
        return replace(self, x=x, z=z, turn=turn)

    @cached_property
    def _angles(self) -> tuple[Point, Point]:
        """Cosine and sine of turn and roll, which every point needs."""
        turn, roll = math.radians(self.turn), math.radians(self.roll)
        return (math.cos(turn), math.sin(turn)), (math.cos(roll), math.sin(roll))

    def project(self, x: float, y: float, z: float) -> Point:
        """Where a point of the thing appears in the picture."""
        (cos, sin), (right, down) = self._angles
        depth = max(self.z + z * cos - x * sin, NEAR)
        u = self.focal * (self.x + x * cos + z * sin) / depth
        v = self.focal * (self.height - y) / depth
        return self.centre[0] + u * right - v * down, self.centre[1] + u * down + v * right

    def aside(self) -> float:
        """How far to the right of the thing's middle the camera stands, in its own space."""
        (cos, sin), _ = self._angles
        return self.z * sin - self.x * cos

    def warp(self, d: str, lift: Lift) -> str:
        """A flat path (absolute M, L, C, Q, Z; numbers in pairs) on a surface in space.

        Control points are projected, which is a curve's true perspective only nearly.
        """

        def moved(pair: re.Match[str]) -> str:
            u, v = self.project(*lift(float(pair[1]), float(pair[2])))
            return f"{u:.2f} {v:.2f}"

        return _PAIR.sub(moved, d)

    def matrix(self, x: float, y: float, lift: Lift) -> str:
        """The transform that draws things, y down, at (x, y) of a surface as if it were flat."""
        u, v = self.project(*lift(x, y))
        right, below = self.project(*lift(x + 1, y)), self.project(*lift(x, y - 1))
        numbers = (right[0] - u, right[1] - v, below[0] - u, below[1] - v, u, v)
        return f"matrix({' '.join(f'{number:.4f}' for number in numbers)})"


def flat(z: float = 0.0) -> Lift:
    """A wall across the view."""
    return lambda x, y: (x, y, z)


def ground(y: float = 0.0) -> Lift:
    """A floor: pairs are x and z."""
    return lambda x, z: (x, y, z)


def wall(x: float) -> Lift:
    """A wall along the view: pairs are z and y."""
    return lambda z, y: (x, y, z)


def disc(x: float, y: float, rx: float, ry: float) -> str:
    """An ellipse as a path for `warp`."""
    k, m = rx * 0.552, ry * 0.552
    return (
        f"M{x - rx:.2f} {y:.2f} C{x - rx:.2f} {y + m:.2f} {x - k:.2f} {y + ry:.2f} "
        f"{x:.2f} {y + ry:.2f} C{x + k:.2f} {y + ry:.2f} {x + rx:.2f} {y + m:.2f} "
        f"{x + rx:.2f} {y:.2f} C{x + rx:.2f} {y - m:.2f} {x + k:.2f} {y - ry:.2f} "
        f"{x:.2f} {y - ry:.2f} C{x - k:.2f} {y - ry:.2f} {x - rx:.2f} {y - m:.2f} "
        f"{x - rx:.2f} {y:.2f} Z"
    )


def panel(x0: float, y0: float, x1: float, y1: float) -> str:
    """A rectangle as a path for `warp`."""
    return f"M{x0:.2f} {y0:.2f} L{x1:.2f} {y0:.2f} L{x1:.2f} {y1:.2f} L{x0:.2f} {y1:.2f} Z"
