"""A child's head: rounder than an adult's, with big low eyes, a small nose and full cheeks.

Head coordinates are those of `hair`: the skull's top at y -80, here the chin at y 58.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autoneural.data.cockpit.hair import hair_back, hair_front, hat
from autoneural.data.cockpit.svg import Canvas, dark, light, luma, mix

HEAD = (
    "M-57 -16 C-60 -60 -34 -80 0 -80 C34 -80 60 -60 57 -16 "
    "C62 30 36 58 0 58 C-36 58 -62 30 -57 -16 Z"
)
HAIR = ("#1c1714", "#3b2618", "#6a4426", "#a8763c", "#d9b36a", "#7c2f1c", "#26262e")
HAIR_HELD_OUT = ("#2c1d14", "#57361f", "#c29a52")
STYLES = ("short", "long", "curly", "bunches", "fringe")
STYLES_HELD_OUT = ("bob", "puffs")
OWN_STYLES = ("bunches", "fringe", "puffs", "tuft")
EYES = {
    "happy": "open",
    "calm": "open",
    "crying": "squeezed",
    "angry": "narrow",
    "asleep": "shut",
    "scared": "wide",
}
BROWS = {  # height of the inner and of the outer end
    "happy": (-33, -30),
    "calm": (-29, -28),
    "crying": (-36, -20),
    "angry": (-12, -31),
    "asleep": (-23, -22),
    "scared": (-43, -31),
}


def _own_hair_back(c: Canvas, style: str, hair: str) -> None:
    fill = c.linear(((0, light(hair, 0.15)), (1, dark(hair, 0.25))))
    if style == "bunches":
        for sign in (-1, 1):
            c.path(
                f"M{sign * 52} -34 C{sign * 96} -62 {sign * 104} 6 {sign * 84} 34 "
                f"C{sign * 74} 22 {sign * 66} -4 {sign * 52} -22 Z",
                fill,
            )
    elif style == "puffs":
        for sign in (-1, 1):
            c.circle(sign * 46, -76, 30, fill)
    elif style == "fringe":
        c.path("M-62 -10 C-70 -112 70 -112 62 -10 C62 6 -62 6 -62 -10 Z", fill)


def _own_hair_front(c: Canvas, style: str, hair: str) -> None:
    fill = c.linear(((0, light(hair, 0.22)), (1, hair)))
    if style == "tuft":
        c.line("M-10 -76 C-12 -92 2 -96 8 -88 M0 -78 C4 -90 14 -88 16 -80", hair, 5)
        c.path("M-48 -46 C-40 -88 40 -88 48 -46 C30 -72 -30 -72 -48 -46 Z", hair, fill_opacity=0.45)
    elif style == "fringe":
        c.path("M-60 -6 C-66 -112 66 -112 60 -6 L53 -34 C20 -42 -20 -42 -53 -34 Z", fill)
        c.line("M-26 -40 L-22 -66 M0 -42 V-68 M26 -40 L22 -66", dark(hair, 0.35), 2)
    else:
        c.path("M-58 -18 C-64 -108 64 -108 58 -18 C52 -44 26 -58 0 -70 C-26 -58 -52 -44 -58 -18 Z",
               fill)  # fmt: skip
        c.line("M0 -70 V-92", dark(hair, 0.4), 2)


def _hair_back(c: Canvas, style: str, hair: str) -> None:
    if style in OWN_STYLES:
        _own_hair_back(c, style, hair)
    else:
        hair_back(c, style, hair)


def _hair_front(c: Canvas, style: str, hair: str) -> None:
    if style in OWN_STYLES:
        _own_hair_front(c, style, hair)
    else:
        with c.group(transform="scale(1.04 1)"):
            hair_front(c, style, hair)


def _open_eye(c: Canvas, kind: str, look: dict[str, Any]) -> None:
    skin = look["skin"]
    top, bottom, iris = {
        "open": (-22, 20, 11.0),
        "wide": (-33, 29, 8.0),
        "narrow": (-9, 17, 9.0),
    }[kind]
    shape = f"M-18 1 C-12 {top} 12 {top} 18 1 C12 {bottom} -12 {bottom} -18 1 Z"
    c.path(shape, "#fbf8f4")
    c.circle(look["gaze"], 0, iris, look["iris"])
    c.circle(look["gaze"], 0, iris * 0.58, "#0a0808")
    c.circle(look["gaze"] - 4, -4, 3.2, "#ffffff")
    if kind == "narrow":  # a lid over the iris: a clip would cost a layer
        c.path(f"M-19 1 C-12 {top} 12 {top} 19 1 L17 -13 H-17 Z", dark(skin, 0.1))
    c.line(f"M-18 1 C-12 {top} 12 {top} 18 1", dark(skin, 0.8), 4 if kind == "narrow" else 3)
    c.line(f"M-17 3 C-12 {bottom} 12 {bottom} 17 3", dark(skin, 0.45), 1.3)


def _eye(c: Canvas, kind: str, look: dict[str, Any]) -> None:
    """The right one of the picture; the left one is its mirror image."""
    lash = dark(look["skin"], 0.8)
    if kind == "shut":
        c.path("M-18 0 C-12 -17 12 -17 18 0 C12 14 -12 14 -18 0 Z", light(look["skin"], 0.12))
        c.line("M-18 1 Q0 18 18 1", lash, 4.4)
        c.line("M-11 9 L-14 15 M0 11 V18 M11 9 L14 15", lash, 2.4)
    elif kind == "squeezed":
        c.line("M-17 9 Q-2 -7 17 -3", lash, 5.5)
        c.line("M-15 10 Q0 6 15 5", dark(look["skin"], 0.5), 2.2)
        c.line("M19 -8 L25 -12 M20 2 L26 4", dark(look["skin"], 0.5), 2.2)
    else:
        _open_eye(c, kind, look)


def _tears(c: Canvas) -> None:
    """Two streams, outlined because near-infrared has no blue."""
    for sign in (-1, 1):
        stream = (
            f"M{sign * 20} 11 C{sign * 22} 26 {sign * 27} 36 {sign * 25} 52 "
            f"Q{sign * 33} 62 {sign * 39} 50 C{sign * 42} 34 {sign * 38} 22 {sign * 34} 9 Z"
        )
        c.path(stream, "#bfe6ff", fill_opacity=0.92, stroke="#3f7fae", stroke_width=2)
        c.line(f"M{sign * 28} 18 C{sign * 31} 30 {sign * 33} 36 {sign * 32} 48", "#ffffff", 3.4)


def _shut_mouth(c: Canvas, emotion: str, skin: str) -> None:
    """The quieter look of a feeling that `_mouth` shows loudly."""
    lip = mix(dark(skin, 0.35), "#b84850", 0.5)
    if emotion == "happy":
        c.line("M-25 28 Q0 54 25 28", dark(lip, 0.3), 5)
        c.line("M-29 24 Q-26 26 -24 30 M29 24 Q26 26 24 30", dark(skin, 0.4), 2.6)
    elif emotion == "angry":
        c.line("M-20 45 Q0 24 20 45", dark(lip, 0.3), 5.5)
        c.line("M-9 50 Q0 46 9 50", dark(skin, 0.35), 2)
    elif emotion == "scared":
        c.path("M-19 44 Q-10 28 0 34 Q10 28 19 44 Q8 40 0 44 Q-8 40 -19 44 Z", "#fdfaf4",
               stroke=dark(lip, 0.3), stroke_width=3.2)  # fmt: skip
        c.line("M-12 39 Q-6 35 0 39 Q6 43 12 39", dark(lip, 0.2), 1.6)
    else:
        c.line("M-10 37 Q0 42 10 37", dark(lip, 0.3), 3.4)


def _mouth(c: Canvas, emotion: str, skin: str) -> None:
    lip = mix(dark(skin, 0.25), "#b84850", 0.55)
    if emotion == "happy":
        c.path("M-25 27 Q0 35 25 27 Q20 52 0 53 Q-20 52 -25 27 Z", "#4a1418", stroke=lip,
               stroke_width=3)  # fmt: skip
        c.path("M-21 30 Q0 37 21 30 L18 38 Q0 44 -18 38 Z", "#fdfaf4")
        c.ellipse(0, 48, 10, 4.5, "#d8646c")
    elif emotion == "crying":
        c.path("M-23 50 C-27 30 -14 24 0 24 C14 24 27 30 23 50 Q0 40 -23 50 Z", "#4a1418",
               stroke=lip, stroke_width=3.5)  # fmt: skip
        c.path("M-15 45 Q0 31 15 45 Q0 40 -15 45 Z", "#d8646c")
    elif emotion == "angry":
        c.path("M-23 44 Q0 22 23 44 Q0 38 -23 44 Z", "#fdfaf4", stroke=dark(lip, 0.35),
               stroke_width=4)  # fmt: skip
        c.line("M-8 33 V40 M0 32 V39 M8 33 V40", dark(lip, 0.2), 1.6)
    elif emotion == "scared":
        c.ellipse(0, 39, 11, 12, "#3c1014", stroke=lip, stroke_width=3)
    elif emotion == "asleep":
        c.ellipse(0, 37, 6, 4, "#5a2024", stroke=lip, stroke_width=2.6)
    else:
        c.path("M-13 36 Q-5 31 0 33 Q5 31 13 36 Q0 44 -13 36 Z", lip)
        c.line("M-14 36 Q0 38 14 36", dark(lip, 0.5), 1.8)


def _features(c: Canvas, emotion: str, look: dict[str, Any]) -> None:
    skin, hair = look["skin"], look["hair"]
    blush = 0.5 if emotion in ("crying", "angry") else 0.28
    inner, outer = BROWS[emotion]
    brow = dark(hair, 0.1 if luma(hair) < 0.5 else 0.4)
    for sign in (-1, 1):
        c.ellipse(sign * 38, 27, 14, 10, mix(skin, "#e0504c", 0.55), fill_opacity=blush)
        with c.group(transform=f"translate({sign * 26} 2) scale({sign} 1)"):
            _eye(c, EYES[emotion], {**look, "gaze": sign * look["gaze"]})
            c.line(f"M-15 {inner} Q2 {(inner + outer) / 2 - 5} 17 {outer}", brow, 5)
    c.path("M-5 14 Q0 8 5 14 Q10 22 0 23 Q-10 22 -5 14 Z", dark(skin, 0.14))
    c.line("M-6 20 Q0 25 6 20", dark(skin, 0.45), 2.2)
    if emotion == "angry":
        c.line("M-5 -20 L-3 -10 M5 -20 L3 -10", dark(skin, 0.45), 2.4)
    if look["freckles"]:
        dots: Sequence[tuple[int, int]] = ((-40, 20), (-33, 24), (-28, 19), (30, 20), (36, 24))
        c.line(" ".join(f"M{x} {y} h0.1" for x, y in dots), dark(skin, 0.3), 2.6)
    (_shut_mouth if look["quiet"] and emotion not in ("crying", "calm") else _mouth)(
        c, emotion, skin
    )
    if emotion == "crying":
        _tears(c)


def hair_behind(c: Canvas, truth: dict[str, str], look: dict[str, Any]) -> None:
    covered = truth["headwear"] != "none" and look["hair_style"] == "puffs"
    _hair_back(c, "tuft" if covered else _style(truth, look), look["hair"])


def _style(truth: dict[str, str], look: dict[str, Any]) -> str:
    return "tuft" if truth["age"] == "baby" else look["hair_style"]


def _skull(c: Canvas, skin: str) -> None:
    for sign in (-1, 1):
        c.ellipse(sign * 58, 0, 10, 15, dark(skin, 0.1), stroke=dark(skin, 0.3), stroke_width=1.5)
    c.path(HEAD, c.radial(((0, light(skin, 0.16)), (0.6, skin), (1, dark(skin, 0.32))), cy=0.45))


def _turned_head(c: Canvas, truth: dict[str, str], look: dict[str, Any]) -> None:
    """Seen from behind: no face, whatever the child feels."""
    skin, hair = look["skin"], look["hair"]
    _skull(c, dark(skin, 0.06))
    if truth["age"] != "baby":
        fill = c.radial(((0, light(hair, 0.22)), (1, dark(hair, 0.3))), cy=0.3)
        c.path(HEAD.replace("58 0 58", "44 0 44"), fill)
        strands = (
            "M0 -70 C-6 -40 -4 -10 -8 30 M22 -64 C30 -30 26 0 28 30 M-24 -62 C-34 -30 -30 4 -30 28"
        )
        c.line(strands, dark(hair, 0.35), 2)
    else:
        c.line("M-8 -30 C-2 -44 12 -38 8 -26 C4 -18 -6 -22 -2 -28", dark(hair, 0.1), 4)


def _cap_from_behind(c: Canvas, color: str) -> None:
    c.path("M-61 -30 C-60 -104 60 -104 61 -30 Q0 -18 -61 -30 Z",
           c.linear(((0, light(color, 0.25)), (1, dark(color, 0.2)))))  # fmt: skip
    c.path("M-17 -26 Q0 -50 17 -26 Q0 -22 -17 -26 Z", dark(color, 0.65))
    c.line("M-61 -31 Q0 -19 61 -31", dark(color, 0.35), 4)


def head(c: Canvas, truth: dict[str, str], look: dict[str, Any], *, turned: bool) -> None:
    """The head with its hat; no features where the emotion cannot be told."""
    style = "short" if truth["headwear"] != "none" else _style(truth, look)
    if turned:
        _turned_head(c, truth, look)
    else:
        _skull(c, look["skin"])
        _hair_front(c, style if truth["age"] != "baby" else "tuft", look["hair"])
        if truth["emotion"] != "cannot tell":
            _features(c, truth["emotion"], look)
    with c.group(transform="translate(0 -6) scale(1.03 1)"):
        if turned and truth["headwear"] == "cap":
            _cap_from_behind(c, look["hat"])
        else:
            hat(c, truth["headwear"], look["hat"])
