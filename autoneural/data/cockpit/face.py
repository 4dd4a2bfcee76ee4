"""Draws a driver's head: face, eyewear, hat, mask, and the hand with the phone.

Head coordinates: origin between the eyes and the nose, face about 108 wide and 140 high. The face's
features slide over the head with the gaze (`Pose.x`, `Pose.y`), which reads as a turned head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoneural.data.cockpit import covers
from autoneural.data.cockpit.base import CANNOT_TELL
from autoneural.data.cockpit.hair import hair_back, hair_front, hat
from autoneural.data.cockpit.svg import Canvas, dark, light, luma, mix

SKIN = ("#f3d3bb", "#e6b791", "#d29c72", "#b67c50", "#8d5a38", "#66402a", "#f0c8a8", "#4c3122")
SKIN_HELD_OUT = ("#ebc3a2", "#c68a60", "#a06a44", "#76492f", "#f7dcc8")
CLOTH = ("#28446e", "#7a2630", "#2e5c44", "#d8d4cc", "#44464c", "#c47a2c", "#5d4a7e", "#e8e2d4",
         "#1f2228", "#3b8794")  # fmt: skip
CLOTH_HELD_OUT = ("#36608f", "#8f4a52", "#6d7a3c", "#b9bec8", "#33303c")
SEAT = ("#2b2d31", "#5a4634", "#8b8278", "#3a4250", "#6b3a30")
SEAT_HELD_OUT = ("#40444a", "#76604a", "#57606c")
IRIS = ("#4a3020", "#5a7a94", "#54704a", "#2e2018")
IRIS_HELD_OUT = ("#6a4a30", "#6b8a7c", "#3c3a4c")
HEAD = ("M-54 -18 C-55 -62 -32 -80 0 -80 C32 -80 55 -62 54 -18 "
        "C53 22 34 {jaw} 0 {jaw} C-34 {jaw} -53 22 -54 -18 Z")  # fmt: skip


MOUTHS = {
    "neutral": (-20, -6, 40, 13), "smiling": (-36, -15, 72, 35), "yawning": (-22, -18, 44, 52),
}  # fmt: skip
"""Left, top, width, height of each, the top from the line of the lips."""
HATS = {"cap": (-66, -89, 132, 59), "beanie": (-62, -107, 124, 69)}


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How far the features slide, and how far the jaw is down."""

    x: float
    y: float
    jaw: float


def _pose(truth: dict[str, str]) -> Pose:
    x, y = {"left": (-17, 0), "right": (17, 0), "down": (0, 17)}.get(truth["gaze"], (0, 0))
    return Pose(x=x, y=y, jaw=76 if truth["mouth"] == "yawning" else 66)


def _eye(
    c: Canvas, x: float, openness: str, gaze: tuple[float, float], look: dict[str, Any]
) -> None:
    """One eye, 32 wide. The almond is filled with lid first, then the open part is cut into it."""
    skin = look["skin"]
    lash = dark(skin, 0.82)
    with c.group(transform=f"translate({x} -8)"):
        c.ellipse(0, 0, 21, 16, dark(skin, 0.35), fill_opacity=0.35)
        if openness == "closed":
            c.path("M-17 1 Q0 -15 17 1 Q0 15 -17 1 Z", light(skin, 0.1))
            c.line("M-17 2 Q0 13 17 2", lash, 4.2)
            c.line("M-12 8 L-15 13 M-4 11 L-5 17 M4 11 L5 17 M12 8 L15 13", lash, 2.2)
            return
        half = openness == "half closed"
        top, bottom = (-1, 16) if half else (-22, 18)
        if half:
            c.path(
                "M-17 1 Q0 -22 17 1 Z",
                mix(skin, "#a06060", 0.25),
                stroke=dark(skin, 0.45),
                stroke_width=1.5,
            )
        shape = f"M-17 1 Q0 {top} 17 1 Q0 {bottom} -17 1 Z"
        c.path(shape, "#f7f4ef")
        with c.group(clip_path=c.clip(shape)):
            gx, gy = gaze
            c.circle(gx, gy, 9, look["iris"])
            c.circle(gx, gy, 5, "#0a0808")
            c.circle(gx - 3, gy - 3, 2.2, "#ffffff")
        c.line(f"M-17 1 Q0 {top} 17 1", lash, 5 if half else 3.4)
        c.line(f"M-16 2 Q0 {bottom} 16 2", dark(skin, 0.45), 1.3)


def _mouth(c: Canvas, kind: str, y: float, skin: str) -> None:
    lip = mix(dark(skin, 0.25), "#b04848", 0.5)
    left, top, width, height = MOUTHS[kind]
    c.mark("mouth", left, y + top, width, height)
    if kind == "yawning":
        c.ellipse(0, y + 8, 22, 26, dark(lip, 0.15))
        c.ellipse(0, y + 8, 17, 21.5, "#2a0d10")
        c.path(f"M-13 {y - 5} Q0 {y - 15} 13 {y - 5} Q0 {y - 2} -13 {y - 5} Z", "#f4efe6")
        c.ellipse(0, y + 21, 12, 8, "#b4525a")
    elif kind == "smiling":
        c.path(
            f"M-27 {y - 6} Q0 {y + 2} 27 {y - 6} "
            f"Q16 {y + 19} 0 {y + 19} Q-16 {y + 19} -27 {y - 6} Z",
            dark(lip, 0.2),
        )
        c.path(
            f"M-22 {y - 3} Q0 {y + 4} 22 {y - 3} "
            f"Q12 {y + 12} 0 {y + 12} Q-12 {y + 12} -22 {y - 3} Z",
            "#fbf7f0",
        )
        c.line(
            f"M-34 {y - 14} Q-36 {y - 4} -30 {y + 2} M34 {y - 14} Q36 {y - 4} 30 {y + 2}",
            dark(skin, 0.3),
            2,
        )
    else:
        c.path(f"M-19 {y} Q-6 {y - 6} 0 {y - 3} Q6 {y - 6} 19 {y} Q0 {y + 11} -19 {y} Z", lip)
        c.line(f"M-19 {y} Q0 {y + 2} 19 {y}", dark(lip, 0.5), 2)


def _eyewear(c: Canvas, kind: str) -> None:
    if kind == "none":
        return
    c.mark("eyewear", -58, -27, 116, 38)
    frame = "#15151a"
    c.line("M-9 -10 Q0 -15 9 -10", frame, 4)
    for x in (-25, 25):
        if kind == "sunglasses":
            fill = c.linear(((0, "#0c0d12"), (0.6, "#23262e"), (1, "#565c68")))
            c.rect(x - 22, -25, 44, 33, fill, rx=12, stroke="#050506", stroke_width=2.5)
            c.line(f"M{x - 12} -4 L{x - 2} -18", "#ffffff", 3, stroke_opacity=0.35)
        else:
            c.rect(
                x - 21,
                -25,
                42,
                34,
                "#ffffff",
                rx=13,
                fill_opacity=0.1,
                stroke=frame,
                stroke_width=3,
            )
            c.line(f"M{x - 12} -16 L{x - 16} -8", "#ffffff", 2.5, stroke_opacity=0.6)
    for sign in (-1, 1):
        c.line(f"M{sign * 46} -14 L{sign * 56} -18", frame, 4)


def _features(c: Canvas, truth: dict[str, str], look: dict[str, Any], pose: Pose) -> None:
    skin, openness = look["skin"], truth["eyes"]
    gaze = {"left": (-6.5, 0), "right": (6.5, 0), "down": (0, 4)}.get(truth["gaze"], (0, 0))
    with c.group(transform=f"translate({pose.x} {pose.y})"):
        if openness != CANNOT_TELL:
            c.mark("eyes", -46, -24, 42, 34)  # one of the two: eyewear is between both
        for x in (-25, 25):
            if openness != CANNOT_TELL:
                _eye(c, x, openness, gaze, look)
            lift = -33 if openness in ("open", CANNOT_TELL) else -29
            c.line(
                f"M{x - 16} {lift + 2} Q{x} {lift - 6} {x + 16} {lift + 2}",
                dark(look["hair"], 0.1) if luma(look["hair"]) < 0.5 else dark(look["hair"], 0.4),
                4.5,
            )
        nose = pose.x * 0.35
        c.path(
            f"M{nose - 4} -8 L{nose - 9} 17 Q{nose} 24 {nose + 9} 17 L{nose + 4} -8 Z",
            dark(skin, 0.1),
            fill_opacity=0.7,
        )
        c.line(f"M{nose - 9} 17 Q{nose} 24 {nose + 9} 17", dark(skin, 0.42), 2.4)
        if truth["mouth"] != CANNOT_TELL:
            _mouth(c, truth["mouth"], 39, skin)
            if look["chin_mask"]:
                covers.mask_at_chin(c, look["mask"], pose.jaw)
        elif look["cover"] == "mask":
            covers.mask(c, look["mask"])
        _eyewear(c, truth["eyewear"])


def hair_behind(c: Canvas, truth: dict[str, str], look: dict[str, Any]) -> None:
    covered = truth["headwear"] != "none" and look["hair_style"] == "bun"
    hair_back(c, "bald" if covered else look["hair_style"], look["hair"])


def head(c: Canvas, truth: dict[str, str], look: dict[str, Any]) -> None:
    skin, pose = look["skin"], _pose(truth)
    covered = truth["headwear"] != "none"
    for sign in (-1, 1):
        if sign * pose.x <= 0:
            c.ellipse(
                sign * 55, -4, 10, 17, dark(skin, 0.12), stroke=dark(skin, 0.3), stroke_width=1.5
            )
    shape = HEAD.format(jaw=pose.jaw)
    c.mark("face", -56, -80, 112, 80 + pose.jaw)
    c.path(
        shape,
        c.radial(
            ((0, light(skin, 0.14)), (0.55, skin), (1, dark(skin, 0.4))),
            cx=0.5 + pose.x / 160,
            cy=0.42,
        ),
    )
    if look["beard"]:
        with c.group(clip_path=c.clip(shape)):
            d = f"M-56 2 C-46 26 -34 24 {pose.x} 22 C34 24 46 26 56 2 L56 90 H-56 Z"
            c.path(d, look["hair"], fill_opacity=0.75)
    hair_front(
        c,
        "short" if covered and look["hair_style"] == "curly" else look["hair_style"],
        look["hair"],
    )
    _features(c, truth, look, pose)
    if truth["headwear"] != "none":
        hat(c, truth["headwear"], look["hat"])
        c.mark("headwear", *HATS[truth["headwear"]])


def hand(c: Canvas, truth: dict[str, str], look: dict[str, Any]) -> None:
    """Before the mouth, from the side that holds no phone."""
    pose, busy = _pose(truth), truth["phone"]
    side = look["hand"] if busy == "none" else {"left": "right", "right": "left"}[busy]
    flip = "" if side == "right" else " scale(-1 1)"
    with c.group(transform=f"translate({pose.x} {pose.y + 46}){flip} rotate(28)"):
        covers.hand(c, look["skin"], look["cloth"])


def _handset(c: Canvas) -> None:
    fill = c.linear(((0, "#3a3f48"), (1, "#0b0c10")), x2=1.0)
    c.rect(-15, -48, 30, 88, fill, rx=7, stroke="#d4d8de", stroke_width=2.5)
    c.circle(3, -36, 4, "#8088a0")
    c.mark("phone", -16, -49, 32, 90)


def phone(c: Canvas, side: str, look: dict[str, Any]) -> None:
    """A hand from below holding a phone against the ear; drawn for the right, mirrored for left."""
    skin = look["skin"]
    with c.group(transform="" if side == "right" else "scale(-1 1)"):
        c.path(
            "M66 96 L98 84 L128 190 L70 190 Z",
            c.linear(((0, look["cloth"]), (1, dark(look["cloth"], 0.4)))),
        )
        c.path(
            "M58 34 C56 62 62 84 70 100 L98 90 C100 64 98 44 90 26 Z",
            c.linear(((0, skin), (1, dark(skin, 0.25))), x2=1.0, y2=0.4),
        )
        with c.group(transform="translate(66 4) rotate(8)"):
            _handset(c)
        for index in range(4):
            c.rect(
                60,
                -12 + index * 14,
                36,
                12,
                light(skin, 0.06),
                rx=6,
                stroke=dark(skin, 0.45),
                stroke_width=1.5,
            )
