"""Emblems of invented car makers, each within a circle of radius 10 about (0, 0)."""

from __future__ import annotations

from collections.abc import Callable

from autoneural.data.cockpit.svg import Canvas, dark, light


def _velora(c: Canvas, metal: str) -> None:
    """A ring with an arrow up through it."""
    c.circle(0, 1, 7, "none", stroke=metal, stroke_width=2.4)
    c.line("M0 9 L0 -7", metal, 2.6)
    c.path("M0 -11 L5 -3.5 L-5 -3.5 Z", metal)


def _nordwind(c: Canvas, metal: str) -> None:
    """A compass star of four points."""
    c.path("M0 -11 L2.8 -2.8 L11 0 L2.8 2.8 L0 11 L-2.8 2.8 L-11 0 L-2.8 -2.8 Z", metal)


def _kitsu(c: Canvas, metal: str) -> None:
    """A fox's head."""
    c.path("M-10 -10 L-4 -5 L4 -5 L10 -10 L8.5 1 L0 10 L-8.5 1 Z", metal)
    c.path("M-6 -1.5 L-2 0.5 L-5 1.5 Z M6 -1.5 L2 0.5 L5 1.5 Z M-1.6 6 L1.6 6 L0 8 Z", "#101216")


def _altavo(c: Canvas, metal: str) -> None:
    """Three peaks."""
    c.path("M-11 7 L-5.5 -3 L-3 1 L0 -9 L3 1 L5.5 -3 L11 7 Z", metal)


def _brisa(c: Canvas, metal: str) -> None:
    """Three waves."""
    for y in (-6, 0, 6):
        c.line(f"M-9 {y} C-5 {y - 6} -4 {y + 5} 0 {y} C4 {y - 5} 5 {y + 6} 9 {y}", metal, 2.4)


def _hexon(c: Canvas, metal: str) -> None:
    """A hexagon around a dot."""
    c.path("M0 -9.5 L8.3 -4.8 L8.3 4.8 L0 9.5 L-8.3 4.8 L-8.3 -4.8 Z", "none", stroke=metal,
           stroke_width=2.6)  # fmt: skip
    c.circle(0, 0, 3.2, metal)


def _lumaro(c: Canvas, metal: str) -> None:
    """A crescent."""
    c.path("M3 -10 A10 10 0 1 0 8.5 5.5 A8 8 0 1 1 3 -10 Z", metal)


def _corvin(c: Canvas, metal: str) -> None:
    """Two wings."""
    c.path("M0 6 L-12 -6 L-5 -5 L0 -1 L5 -5 L12 -6 Z", metal)
    c.path("M0 10 L-6 3.5 L0 8 L6 3.5 Z", metal)


EMBLEMS: dict[str, Callable[[Canvas, str], None]] = {
    "velora": _velora,
    "nordwind": _nordwind,
    "kitsu": _kitsu,
    "altavo": _altavo,
    "brisa": _brisa,
    "hexon": _hexon,
    "lumaro": _lumaro,
    "corvin": _corvin,
}
RADIUS = 15
METALS = ("#f4f6f8", "#dfe6ec", "#ffffff")
METALS_HELD_OUT = ("#f2e4b8", "#e8eef8")
FIELDS = ("#14171c", "#0f2348", "#5a0f16", "#123a2c")
FIELDS_HELD_OUT = ("#2a1a3c", "#26282c")


def draw_badge(c: Canvas, brand: str, metal: str, field: str) -> None:
    """The emblem on a round field with a rim, `RADIUS` about (0, 0)."""
    c.circle(0, 0, RADIUS, dark(metal, 0.25), stroke="#101216", stroke_width=0.8)
    c.circle(0, 0, RADIUS - 1.6, field)
    c.path(f"M-11 -6 A{RADIUS - 2.5} {RADIUS - 2.5} 0 0 1 11 -6", "none", stroke=light(field, 0.3),
           stroke_width=1.2)  # fmt: skip
    with c.group(transform="scale(1.08)"):
        EMBLEMS[brand](c, metal)
