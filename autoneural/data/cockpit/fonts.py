"""Fonts from PyPI packages (`font-*`), as files for resvg; the test split has its own families."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

from autoneural.errors import UserError

_UNITS = 1000


@dataclass(frozen=True, kw_only=True)
class Font:
    """One face: the package that ships it, its file there, and what an SVG calls it."""

    package: str
    file: str
    family: str
    weight: int
    style: str = "normal"


FONTS = {
    "roboto-bold": Font(package="font_roboto", file="Roboto-Bold.ttf", family="Roboto", weight=700),
    "roboto-medium": Font(
        package="font_roboto", file="Roboto-Medium.ttf", family="Roboto", weight=500
    ),
    "roboto-black": Font(
        package="font_roboto", file="Roboto-Black.ttf", family="Roboto", weight=900
    ),
    "manrope": Font(package="font_manrope", file="Manrope-Bold.ttf", family="Manrope", weight=700),
    "caladea": Font(package="font_caladea", file="Caladea-Bold.ttf", family="Caladea", weight=700),
    "fredoka": Font(
        package="font_fredoka_one",
        file="FredokaOne-Regular.ttf",
        family="Fredoka One",
        weight=400,
    ),
    "hanken": Font(
        package="font_hanken_grotesk",
        file="HankenGrotesk-Bold.otf",
        family="Hanken Grotesk",
        weight=700,
    ),
    "source": Font(
        package="font_source_sans_pro",
        file="SourceSansPro-Bold.ttf",
        family="Source Sans Pro",
        weight=700,
    ),
    "roboto-italic": Font(
        package="font_roboto",
        file="Roboto-BoldItalic.ttf",
        family="Roboto",
        weight=700,
        style="italic",
    ),
    "roboto-regular": Font(
        package="font_roboto", file="Roboto-Regular.ttf", family="Roboto", weight=400
    ),
    "manrope-medium": Font(
        package="font_manrope", file="Manrope-Medium.ttf", family="Manrope", weight=500
    ),
    "lato-regular": Font(package="font_lato", file="Lato-Regular.ttf", family="Lato", weight=400),
    "lato-bold": Font(package="font_lato", file="Lato-Bold.ttf", family="Lato", weight=700),
    "lato-black": Font(package="font_lato", file="Lato-Black.ttf", family="Lato", weight=900),
    "caladea-regular": Font(
        package="font_caladea", file="Caladea-Regular.ttf", family="Caladea", weight=400
    ),
    "roboto-light": Font(
        package="font_roboto", file="Roboto-Light.ttf", family="Roboto", weight=300
    ),
    "roboto-black-italic": Font(
        package="font_roboto",
        file="Roboto-BlackItalic.ttf",
        family="Roboto",
        weight=900,
        style="italic",
    ),
    "manrope-extrabold": Font(
        package="font_manrope", file="Manrope-ExtraBold.ttf", family="Manrope", weight=800
    ),
    "manrope-light": Font(
        package="font_manrope", file="Manrope-Light.ttf", family="Manrope", weight=300
    ),
    "lato-light": Font(package="font_lato", file="Lato-Light.ttf", family="Lato", weight=300),
    "lato-black-italic": Font(
        package="font_lato", file="Lato-BlackItalic.ttf", family="Lato", weight=900, style="italic"
    ),
    "caladea-bold-italic": Font(
        package="font_caladea",
        file="Caladea-BoldItalic.ttf",
        family="Caladea",
        weight=700,
        style="italic",
    ),
    "serif-regular": Font(
        package="font_source_serif_pro",
        file="SourceSerifPro-Regular.ttf",
        family="Source Serif Pro",
        weight=400,
    ),
    "serif-bold": Font(
        package="font_source_serif_pro",
        file="SourceSerifPro-Bold.ttf",
        family="Source Serif Pro",
        weight=700,
    ),
    "serif-black": Font(
        package="font_source_serif_pro",
        file="SourceSerifPro-Black.ttf",
        family="Source Serif Pro",
        weight=900,
    ),
}
HELD_OUT = ("hanken", "source")
COMMON = tuple(name for name in FONTS if name not in HELD_OUT)


@cache
def font_file(name: str) -> str:
    """Path of a font's file. UserError when its package is not installed."""
    font = FONTS[name]
    spec = find_spec(font.package)
    if spec is None or spec.origin is None:
        package = font.package.replace("_", "-")
        raise UserError(f"font package missing: {package}; run `pip install {package}`")
    return str(Path(spec.origin).parent / "files" / font.file)


@cache
def advances(name: str, text: str, size: float) -> tuple[float, ...]:
    """Where the characters of a text of that size begin, and where the last one ends."""
    font = ImageFont.truetype(font_file(name), _UNITS)
    return tuple(font.getlength(text[:end]) * size / _UNITS for end in range(len(text) + 1))
