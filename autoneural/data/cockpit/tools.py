"""What a hand may hold: crowbar, screwdriver, torch. Sizes in metres, a little larger than life."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import atan2, degrees

from autoneural.data.cockpit.svg import Canvas, dark, light

BEFORE = {"crowbar": 0.4, "screwdriver": 0.28, "torch": 0.2}
"""From the hand to the tip."""
BEHIND = {"crowbar": 0.22, "screwdriver": 0.06, "torch": 0.1}


@dataclass(frozen=True, kw_only=True)
class Held:
    """A tool in the drawing: its tip, the unit vector it points along, units per metre."""

    kind: str
    tip: tuple[float, float]
    along: tuple[float, float]
    unit: float

    def at(self, distance: float) -> tuple[float, float]:
        """A point that many metres behind the tip."""
        x, y = self.tip
        return x - self.along[0] * distance * self.unit, y - self.along[1] * distance * self.unit

    def circles(self) -> list[tuple[float, float, float]]:
        length = BEFORE[self.kind] + BEHIND[self.kind]
        return [(*self.at(length * i / 6), 0.045 * self.unit) for i in range(7)]


def beam(c: Canvas, held: Held, length: float, opacity: float) -> None:
    """The light cone of a torch, to be drawn below the torch."""
    with _laid(c, held):
        c.path(f"M0 -0.03 L{length} -0.26 Q{length + 0.12} 0 {length} 0.26 L0 0.03 Z", "#fff3b0",
               fill_opacity=opacity)  # fmt: skip
        c.ellipse(length * 0.9, 0, 0.1, 0.2, "#fffbe0", fill_opacity=min(opacity * 1.4, 1.0))


def draw(c: Canvas, held: Held, color: str) -> None:
    """The tip lies at 0, the handle towards negative x."""
    with _laid(c, held):
        if held.kind == "crowbar":
            c.line("M-0.62 0 H-0.06 Q0.02 0 0.02 -0.1", dark(color, 0.55), 0.085)
            c.line("M-0.62 0 H-0.06 Q0.02 0 0.02 -0.1", color, 0.055)
            c.line("M-0.6 -0.012 H-0.08", light(color, 0.55), 0.018)
        elif held.kind == "screwdriver":
            c.line("M-0.16 0 H-0.01", "#e8ecf0", 0.04)
            c.line("M-0.32 0 H-0.17", dark(color, 0.5), 0.11)
            c.line("M-0.32 0 H-0.18", color, 0.085)
            c.line("M-0.31 -0.02 H-0.2", light(color, 0.6), 0.022)
        else:
            c.line("M-0.28 0 H-0.1", "#14161a", 0.1)
            c.line("M-0.28 0 H-0.1", color, 0.07)
            c.line("M-0.27 -0.015 H-0.12", light(color, 0.6), 0.02)
            c.path("M-0.12 -0.05 L0 -0.08 V0.08 L-0.12 0.05 Z", "#14161a")
            c.ellipse(0, 0, 0.035, 0.075, "#fffbe0")


def _laid(c: Canvas, held: Held) -> AbstractContextManager[None]:
    x, y = held.tip
    turn = degrees(atan2(held.along[1], held.along[0]))
    flip = -1 if held.along[0] < 0 else 1
    return c.group(
        transform=f"translate({x:.2f} {y:.2f}) rotate({turn:.1f}) "
        f"scale({held.unit:.3f} {flip * held.unit:.3f})"
    )
