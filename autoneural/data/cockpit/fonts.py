"""Fonts from PyPI packages (`font-*`), as files for resvg; the test split has its own families."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from autoneural.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Font:
    """One face: the package that ships it, its file there, and what an SVG calls it."""

    package: str
    file: str
    family: str
    weight: int


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
}
COMMON = ("roboto-bold", "roboto-medium", "roboto-black", "manrope", "caladea", "fredoka")
HELD_OUT = ("hanken", "source")


@cache
def font_file(name: str) -> str:
    """Path of a font's file. UserError when its package is not installed."""
    font = FONTS[name]
    spec = find_spec(font.package)
    if spec is None or spec.origin is None:
        package = font.package.replace("_", "-")
        raise UserError(f"font package missing: {package}; run `pip install {package}`")
    return str(Path(spec.origin).parent / "files" / font.file)
