"""A car in perspective: shell, cabin, flank and wheels, seen towards one of its ends.

An end (front or rear) is an elevation, x from -`half` to `half` and y up from the ground; its
profile says how far back each height lies. Lengths are centimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoneural.data.cockpit.perspective import Camera, disc, ground, panel, wall
from autoneural.data.cockpit.svg import Canvas, dark, light, mix

Profile = tuple[tuple[float, float], ...]
"""(height, how far back), from the ground to the roof."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One body style from one end."""

    half: float
    top: float
    """Of the upright part of the end: the front edge of the bonnet or boot."""
    base: float
    """Of the window."""
    roof: float
    cabin: float
    """Half the width of the roof."""
    profile: Profile
    length: float = 430
    open: bool = False

    def back(self, y: float) -> float:
        """How far back the end lies at a height."""
        low = self.profile[0]
        for high in self.profile:
            if y <= high[0]:
                rise = high[0] - low[0] or 1.0
                return low[1] + (high[1] - low[1]) * (y - low[0]) / rise
            low = high
        return low[1]


def _shape(
    end: tuple[float, float, float],
    *,
    half: float = 90,
    cabin: float = 62,
    length: float = 430,
    back: Sequence[float],
    open: bool = False,
) -> Shape:
    top, base, roof = end
    heights = (0, 26, top - 10, top, base, roof - 5, roof)
    profile = tuple(zip(heights, (6, 0, 0, *back), strict=True))
    return Shape(half=half, top=top, base=base, roof=roof, cabin=cabin, profile=profile,
                 length=length, open=open)  # fmt: skip


SHAPES = {
    ("saloon", "front"): _shape((84, 100, 146), back=(8, 105, 165, 190)),
    ("saloon", "rear"): _shape((96, 104, 146), back=(4, 62, 130, 160)),
    ("suv", "front"): _shape((96, 112, 178), half=93, cabin=72, back=(8, 80, 132, 155)),
    ("suv", "rear"): _shape((104, 108, 178), half=93, cabin=74, back=(2, 6, 30, 46)),
    ("van", "front"): _shape(
        (92, 108, 214), half=96, cabin=87, length=500, back=(8, 40, 92, 104)
    ),
    ("van", "rear"): _shape((112, 116, 214), half=96, cabin=89, length=500, back=(0, 1, 8, 18)),
    ("convertible", "front"): _shape(
        (82, 97, 136), cabin=66, length=400, back=(8, 105, 150, 156), open=True
    ),
    ("convertible", "rear"): _shape(
        (92, 99, 136), cabin=66, length=400, back=(4, 50, 190, 194), open=True
    ),
}  # fmt: skip
PAINTS = {
    "red": ("#c0241c", "#a81820", "#d03028", "#b41c14", "#cc1c30", "#98141a"),
    "blue": ("#1f4fa8", "#1a3f88", "#2a62c4", "#24489c", "#2f70b8", "#1c3878"),
    "white": ("#f4f4f0", "#eceeee", "#faf9f4", "#f0f0ea", "#f6f2ea", "#eef2f6"),
    "black": ("#17181b", "#1e2024", "#121316", "#1b1b20", "#201e1e", "#15181d"),
    "silver": ("#9aa2aa", "#8f979f", "#a2a8ae", "#959ba4", "#9ca0a0", "#8c96a2"),
    "green": ("#1f7040", "#2a7f4a", "#185c34", "#23784c", "#3a8038", "#1a6a50"),
    "yellow": ("#f0cc18", "#e8c410", "#f6d62a", "#ecc820", "#f2d24a", "#e2bc10"),
    "orange": ("#e86a14", "#de5e10", "#f07820", "#e4661c", "#ee8030", "#d85c18"),
}
BODIES = ("saloon", "suv", "van", "convertible")


@dataclass(frozen=True, kw_only=True)
class Car:
    """Where a car stands for the camera, and how it looks."""

    camera: Camera
    shape: Shape
    end: str
    paint: str
    lamps: bool
    glass: str = "#2a3642"
    """What the windows reflect, darkest."""
    covered: bool = False
    """The flank is, by a nearer car."""

    def lift(self, x: float, y: float) -> tuple[float, float, float]:
        """A point of the end's elevation in space; the end curves away towards its corners."""
        curve = 20 * min(abs(x) / self.shape.half, 1.0) ** 4
        return x, y, self.shape.back(y) + curve

    def on(self, d: str) -> str:
        """A path drawn on the elevation of the end, as the camera sees it."""
        return self.camera.warp(d, self.lift)

    def mirror(self, sign: int, out: float, up: float) -> tuple[float, float, float]:
        """A point of a door mirror: how far out from the waist and above it."""
        s = self.shape
        back = s.profile[4][1] + (16 if self.end == "front" else s.length * 0.45)
        return sign * (s.half - 11 + out), s.base + up, back

    @property
    def side(self) -> int:
        """Which flank the camera sees past the corner: -1 left, 1 right, 0 none."""
        aside = self.camera.aside()
        if self.covered or abs(aside) <= self.shape.half:
            return 0
        return 1 if aside > 0 else -1

    def outline(self) -> list[tuple[float, float]]:
        """Points around what the camera sees of the car."""
        s = self.shape
        corners = [(-s.half, 4.0), (s.half, 4.0), (-s.half - 1, 50.0), (s.half + 1, 50.0),
                   (-s.half, s.base), (s.half, s.base),
                   (-s.cabin, s.roof), (s.cabin, s.roof)]  # fmt: skip
        points = [self.camera.project(*self.lift(x, y)) for x, y in corners]
        points += [self.camera.project(*self.mirror(sign, 19.0, 10.0)) for sign in (-1, 1)]
        if self.side:
            side = self.side * s.half
            ends = ((s.length, 20.0), (s.length, s.base))
            points += [self.camera.project(side, y, z) for z, y in ends]
        return points


def draw_shadow(c: Canvas, car: Car) -> None:
    half, length = car.shape.half, car.shape.length
    shade = f"M{-half - 14} -16 Q0 -34 {half + 14} -16 L{half + 6} {length} L{-half - 6} {length} Z"
    c.path(car.camera.warp(shade, ground()), "#000000", fill_opacity=0.45)
    for x in (-half + 14, half - 14):
        tyre = f"M{x - 13} 4 L{x + 13} 4 L{x + 12} 40 L{x - 12} 40 Z"
        c.path(car.camera.warp(tyre, lambda a, b: (a, b, 26.0)), "#101114")


def _wheel(c: Canvas, camera: Camera, side: float, z: float) -> None:
    on = wall(side)
    c.path(camera.warp(disc(z, 36, 42, 42), on), "#0c0d10")
    c.path(camera.warp(disc(z, 33, 33, 33), on), "#1b1c20")
    c.path(camera.warp(disc(z, 33, 21, 21), on), "#9aa0a8")
    c.path(camera.warp(disc(z, 33, 7, 7), on), "#3a3e44")


def draw_flank(c: Canvas, car: Car) -> None:
    """The side that the camera sees past the corner, if it does."""
    camera, s = car.camera, car.shape
    if not car.side:
        return
    side = car.side * s.half
    (_, _, _, _, (_, glass), (_, rear), _) = s.profile
    end = s.length - 16
    body = (f"M16 20 L14 {s.top - 10} L{glass} {s.base} L{end} {s.base - 2} L{s.length} 70 "
            f"L{s.length - 6} 22 Z")  # fmt: skip
    c.path(camera.warp(body, wall(side)), dark(car.paint, 0.28))
    c.line(camera.warp(f"M30 {s.base - 22} L{end} {s.base - 22}", wall(side)),
           light(car.paint, 0.2), 1.5)  # fmt: skip
    doors = " ".join(f"M{s.length * t} 30 L{s.length * t} {s.base}" for t in (0.36, 0.62))
    c.line(camera.warp(doors, wall(side)), dark(car.paint, 0.55), 1)
    if not s.open:
        _side_windows(c, car, side, glass, rear)
    for z in (78.0, s.length - 82):
        _wheel(c, camera, side, z)


def _rails(c: Canvas, car: Car) -> None:
    """Rails along the roof, as on an suv."""
    s, (*_, (_, near)) = car.shape, car.shape.profile
    for x in (-s.cabin + 12, s.cabin - 12):
        rail = f"M{near} {s.roof - 2} L{near + 14} {s.roof + 9} L{near + 150} {s.roof + 9}"
        c.line(car.camera.warp(rail, wall(x)), "#14161a", 5)
        c.line(car.camera.warp(rail, wall(x)), "#aab0b6", 2)


def _side_windows(c: Canvas, car: Car, side: float, glass: float, roof: float) -> None:
    s, end = car.shape, car.shape.length - 30

    def lift(z: float, y: float) -> tuple[float, float, float]:
        t = min(max((y - s.base) / (s.roof - s.base), 0.0), 1.0)
        return side + (s.cabin - s.half) * t * (1 if side > 0 else -1), y, z

    tail = end - (20 if s.roof > 160 else 70)
    c.path(
        car.camera.warp(
            f"M{glass} {s.base} L{roof} {s.roof - 2} L{tail} {s.roof - 3} L{end} {s.base} Z", lift
        ),
        dark(car.paint, 0.4),
    )
    c.path(
        car.camera.warp(
            f"M{glass + 22} {s.base + 2} L{roof + 14} {s.roof - 10} L{tail - 14} {s.roof - 10} "
            f"L{end - 30} {s.base + 2} Z",
            lift,
        ),
        car.glass,
    )


def draw_cabin(c: Canvas, car: Car) -> None:
    """Roof, pillars and the window of this end, or an open car's screen and seats."""
    s, paint = car.shape, car.paint
    if s.open and car.end == "rear":
        _screen(c, car)
        _seats(c, car, 110)
        return
    if s.open:
        _seats(c, car, 215)
        _screen(c, car)
        return
    bow = s.roof + 5
    c.path(
        car.on(
            f"M{-s.half + 10} {s.base} C{-s.cabin - 6} {s.roof - 14} {-s.cabin} {s.roof} "
            f"{-s.cabin + 14} {s.roof + 1} Q0 {bow} {s.cabin - 14} {s.roof + 1} "
            f"C{s.cabin} {s.roof} {s.cabin + 6} {s.roof - 14} {s.half - 10} {s.base} Z"
        ),
        mix(paint, "#000000", 0.14),
        stroke=dark(paint, 0.6),
        stroke_width=1.2,
    )
    _window(c, car)
    if 160 < s.roof < 190:
        _rails(c, car)
    c.line(car.on(f"M{-s.cabin + 14} {s.roof - 1} Q0 {bow - 2} {s.cabin - 14} {s.roof - 1}"),
           light(paint, 0.4), 1.6)  # fmt: skip


def _window(c: Canvas, car: Car) -> None:
    s = car.shape
    low = s.base + 2 if car.end == "front" or s.roof < 190 else s.base + 24
    wide, slim = s.half - 18, s.cabin - 7
    high = s.roof - (9 if s.roof < 190 else 30)
    glass = (
        f"M{-wide} {low} Q{-slim - 4} {high - 9} {-slim + 6} {high + 1} "
        f"Q0 {high + 4} {slim - 6} {high + 1} Q{slim + 4} {high - 9} {wide} {low} Z"
    )
    fill = c.linear(((0, light(car.glass, 0.3)), (1, dark(car.glass, 0.35))))
    c.path(car.on(glass), fill, stroke="#0c0e12", stroke_width=1.5)
    streak = (
        f"M{-wide * 0.72} {low + 3} L{-slim * 0.4} {high} L{-slim * 0.05} {high} "
        f"L{-wide * 0.3} {low + 3} Z"
    )
    c.path(car.on(streak), "#ffffff", fill_opacity=0.16)
    if car.end == "front":
        c.path(car.on(disc(-28, low + 9, 15, 10)), "none", stroke="#0a0b0e", stroke_width=2.5)
        c.path(car.on(panel(-9, high - 5, 9, high)), "#0a0b0e")
        c.line(car.on(f"M-40 {low + 1} L-8 {low + 8} M14 {low + 1} L46 {low + 8}"), "#0a0b0e", 1.8)
    else:
        c.line(car.on(f"M0 {low + 2} L{wide * 0.5} {low + 12}"), "#0a0b0e", 2)


def _screen(c: Canvas, car: Car) -> None:
    """The windscreen of an open car: a frame with air behind."""
    s = car.shape
    z0, z1 = (100.0, 148.0) if car.end == "front" else (s.length - 130, s.length - 175)
    wide, slim = s.half - 12, s.cabin - 6
    frame = (
        f"M{-wide} {s.base} Q{-slim - 8} {s.roof - 6} {-slim} {s.roof} "
        f"L{slim} {s.roof} Q{slim + 8} {s.roof - 6} {wide} {s.base}"
    )

    def lift(x: float, y: float) -> tuple[float, float, float]:
        return x, y, z0 + (z1 - z0) * (y - s.base) / (s.roof - s.base)

    c.path(car.camera.warp(frame + " Z", lift), "#b8d0e0", fill_opacity=0.28)
    c.line(car.camera.warp(frame, lift), dark(car.paint, 0.25), 4)
    c.path(car.camera.warp(panel(-9, s.roof - 12, 9, s.roof - 6), lift), "#0a0b0e")


def _seats(c: Canvas, car: Car, z: float) -> None:
    """Two seats with head restraints and a hoop behind each."""
    leather, low = "#7a4a2c", car.shape.base - 16
    for x in (-34.0, 34.0):
        back = (
            f"M{x - 24} {low} Q{x - 26} {low + 36} {x - 15} {low + 38} "
            f"L{x + 15} {low + 38} Q{x + 26} {low + 36} {x + 24} {low} Z"
        )
        head = (
            f"M{x - 13} {low + 40} L{x - 11} {low + 54} Q{x} {low + 57} {x + 11} {low + 54} "
            f"L{x + 13} {low + 40} Z"
        )
        for d, color in ((back, leather), (head, light(leather, 0.12))):
            c.path(car.camera.warp(d, lambda a, b: (a, b, z)), color, stroke="#2a1a10",
                   stroke_width=1.2)  # fmt: skip


def draw_mirrors(c: Canvas, car: Car) -> None:
    glass = "M-1 2 Q-1 15 9 15 Q19 15 19 2 Z"
    for sign in (-1, 1):
        d = car.camera.warp(glass, lambda out, up, sign=sign: car.mirror(sign, out, up))
        c.path(d, dark(car.paint, 0.2), stroke=dark(car.paint, 0.6), stroke_width=1)
