"""A small SVG writer: shapes, gradients, clips and groups as text, colours as `#rrggbb`.

Everything a scene draws is 256 x 256 user units, y down, whatever the pixel size rendered later.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from autoneural.data.cockpit.base import Box

SIDE = 256
Matrix = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f of SVG: x' = a x + c y + e, y' = b x + d y + f."""
Stop = tuple[float, str] | tuple[float, str, float]


def rgb(color: str) -> tuple[int, int, int]:
    """The 8-bit channels of "#rrggbb"."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def mix(a: str, b: str, t: float) -> str:
    """The colour a fraction `t` of the way from `a` to `b`."""
    pairs = zip(rgb(a), rgb(b), strict=True)
    return "#" + "".join(f"{round(x + (y - x) * t):02x}" for x, y in pairs)


def dark(color: str, t: float) -> str:
    return mix(color, "#000000", t)


def light(color: str, t: float) -> str:
    return mix(color, "#ffffff", t)


def luma(color: str) -> float:
    """Brightness in [0, 1]."""
    red, green, blue = rgb(color)
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


def compose(outer: Matrix, inner: Matrix) -> Matrix:
    """The transform that does `inner` first."""
    a, b, c, d, e, f = outer
    p, q, r, s, t, u = inner
    return (
        a * p + c * q, b * p + d * q, a * r + c * s, b * r + d * s,
        a * t + c * u + e, b * t + d * u + f,
    )  # fmt: skip


def parse_transform(text: str) -> Matrix:
    """The matrix of a `transform` attribute."""
    matrix: Matrix = (1, 0, 0, 1, 0, 0)
    for name, arguments in re.findall(r"(\w+)\(([^)]*)\)", text):
        numbers = [float(number) for number in re.split(r"[\s,]+", arguments.strip())]
        matrix = compose(matrix, _TRANSFORMS[name](*numbers))
    return matrix


def _rotation(angle: float, x: float = 0.0, y: float = 0.0) -> Matrix:
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return (cos, sin, -sin, cos, x - cos * x + sin * y, y - sin * x - cos * y)


_TRANSFORMS = {
    "matrix": lambda a, b, c, d, e, f: (a, b, c, d, e, f),
    "translate": lambda x, y=0.0: (1, 0, 0, 1, x, y),
    "scale": lambda x, y=None: (x, 0, 0, x if y is None else y, 0, 0),
    "rotate": _rotation,
    "skewX": lambda angle: (1, 0, math.tan(math.radians(angle)), 1, 0, 0),
    "skewY": lambda angle: (1, math.tan(math.radians(angle)), 0, 1, 0, 0),
}


def box_around(points: Iterable[tuple[float, float]]) -> Box:
    """The box of points of the picture, cut at its edges."""
    xs, ys = (
        [min(max(edge / SIDE, 0.0), 1.0) for edge in side] for side in zip(*points, strict=True)
    )
    return Box(min(xs), min(ys), max(xs), max(ys))


class Canvas:
    """Collects elements in painting order; `text()` of the whole is what resvg reads.

    `boxes` are the things that the drawing marked, where they come to lie in the picture.
    """

    def __init__(self) -> None:
        self._defs: list[str] = []
        self._body: list[str] = []
        self._transforms: list[str] = []
        self.boxes: dict[str, Box] = {}

    def add(self, tag: str, content: str = "", **attributes: Any) -> None:
        """One element; `stroke_width=2` becomes `stroke-width="2"`."""
        names = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
        text = "".join(f' {key}="{_value(value)}"' for key, value in names)
        self._body.append(f"<{tag}{text}>{content}</{tag}>")

    def rect(self, x: float, y: float, w: float, h: float, fill: str, **more: Any) -> None:
        self.add("rect", x=x, y=y, width=w, height=h, fill=fill, **more)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, fill: str, **more: Any) -> None:
        self.add("ellipse", cx=cx, cy=cy, rx=rx, ry=ry, fill=fill, **more)

    def circle(self, cx: float, cy: float, r: float, fill: str, **more: Any) -> None:
        self.add("circle", cx=cx, cy=cy, r=r, fill=fill, **more)

    def path(self, d: str, fill: str = "none", **more: Any) -> None:
        self.add("path", d=d, fill=fill, **more)

    def line(self, d: str, color: str, width: float, **more: Any) -> None:
        """A round-ended stroke along path `d`."""
        style: dict[str, Any] = {"stroke_linecap": "round", "stroke_linejoin": "round", **more}
        self.add("path", d=d, fill="none", stroke=color, stroke_width=width, **style)

    def label(self, x: float, y: float, text: str, size: float, **more: Any) -> None:
        """Text centred on x, baseline y; pass `font_family`, `font_weight`, `fill`."""
        self.add("text", text, x=x, y=y, font_size=size, **{"text_anchor": "middle", **more})

    def _gradient(self, tag: str, stops: Sequence[Stop], where: str) -> str:
        name = f"g{len(self._defs)}"
        inner = "".join(
            f'<stop offset="{_value(float(stop[0]))}" stop-color="{stop[1]}"'
            + (f' stop-opacity="{_value(float(stop[2]))}"' if len(stop) == 3 else "")
            + "/>"
            for stop in stops
        )
        self._defs.append(f'<{tag} id="{name}" {where}>{inner}</{tag}>')
        return f"url(#{name})"

    def linear(self, stops: Sequence[Stop], x2: float = 0.0, y2: float = 1.0) -> str:
        """A gradient over the shape's own box, from its top left towards (x2, y2)."""
        where = f'x1="0" y1="0" x2="{_value(x2)}" y2="{_value(y2)}"'
        return self._gradient("linearGradient", stops, where)

    def radial(self, stops: Sequence[Stop], cx: float = 0.5, cy: float = 0.5) -> str:
        """A round gradient over the shape's own box, centred at (cx, cy) of it."""
        where = f'cx="{_value(cx)}" cy="{_value(cy)}" r="0.6"'
        return self._gradient("radialGradient", stops, where)

    def clip(self, d: str) -> str:
        """A clip along path `d`, for `group(clip_path=...)`."""
        name = f"c{len(self._defs)}"
        self._defs.append(f'<clipPath id="{name}"><path d="{d}"/></clipPath>')
        return f"url(#{name})"

    @contextmanager
    def group(self, **attributes: Any) -> Iterator[None]:
        """Elements added inside share `transform`, `opacity`, `clip_path`, ..."""
        names = ((key.replace("_", "-"), value) for key, value in attributes.items())
        self._body.append("<g" + "".join(f' {k}="{_value(v)}"' for k, v in names) + ">")
        self._transforms.append(attributes.get("transform", ""))
        yield
        self._transforms.pop()
        self._body.append("</g>")

    def mark(self, name: str, left: float, top: float, width: float, height: float) -> None:
        """Remember a rectangle of the current group as the box `name`, cut to the picture."""
        a, b, c, d, e, f = parse_transform(" ".join(self._transforms))
        corners = [(left + i * width, top + j * height) for i in (0, 1) for j in (0, 1)]
        box = box_around((a * x + c * y + e, b * x + d * y + f) for x, y in corners)
        if box.left < box.right and box.top < box.bottom:
            self.boxes[name] = box

    def text(self) -> str:
        """The whole document."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}">'
            f"<defs>{''.join(self._defs)}</defs>{''.join(self._body)}</svg>"
        )
