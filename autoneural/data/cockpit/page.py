"""Pages of plates: a drill for learning to read, in training alone.

A picture of a car has seven characters to learn from; a page has up to eighty, in more faces,
widths, weights, slants and colours. Plates are like those of the task `plate`, in one column or
two, and are asked for by their number in reading order.

An attribute is called after its plate and its place there ("2.char 3"): a part of a page, read
where it stands in the picture and by no head of its own (`train.vision_heads`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autoneural.data.cockpit import plate_drawing
from autoneural.data.cockpit.base import (
    Box,
    Question,
    Rng,
    Scene,
    Split,
    ask,
    camera,
    chance,
    draw_scene,
    pick,
    rng_for,
    uniform,
    weighted,
)
from autoneural.data.cockpit.fonts import COMMON
from autoneural.data.cockpit.plate_drawing import DIGITS, LETTERS
from autoneural.data.cockpit.svg import SIDE, Canvas, luma

COUNTS = {3: 0.1, 4: 0.1, 5: 0.1, 8: 0.2, 10: 0.2, 12: 0.3}
"""Plates on a page, and how likely; more than five stand in two columns."""
ONE_COLUMN, LONGEST, ASKED = 5, 7, 3
SLOTS = {
    plate: tuple(f"{plate}.char {k}" for k in range(1, LONGEST + 1))
    for plate in range(1, max(COUNTS) + 1)
}
KINDS = ("one", "all", "sentence", "json")
PROMPTS = {
    "one": ("Read plate {number} of the page.", "What does plate number {number} say?"),
    "all": ("Read all plates in order.", "Spell every plate of the page."),
    "sentence": ("Say in one sentence how many plates there are.", "Count the plates."),
    "json": ('Answer as JSON with the key "plates".', 'Report {{"plates": [...]}} as JSON.'),
}


def _attributes(rng: Rng) -> dict[str, str]:
    truth: dict[str, str] = {}
    plates = weighted(rng, COUNTS)
    for plate, slots in SLOTS.items():
        length = int(rng.integers(3, LONGEST + 1)) if plate <= plates else 0
        chars = [pick(rng, LETTERS if chance(rng, 0.55) else DIGITS) for _ in range(length)]
        truth |= dict(zip(slots, [*chars, *["none"] * (LONGEST - length)], strict=True))
    return truth


def _color(rng: Rng) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in rng.integers(0, 256, 3))


def _ground(rng: Rng) -> str:
    """A colour of a plate, or any on which the ink shows."""
    if chance(rng, 0.6):
        return pick(rng, plate_drawing.GROUNDS[pick(rng, tuple(plate_drawing.GROUNDS))])
    color = _color(rng)
    return color if abs(luma(color) - 0.5) > 0.12 else "#e8eae6"


def _plate(rng: Rng, text: str) -> dict[str, Any]:
    groups, rest = [], text
    while rest:
        size = len(rest) if len(rest) <= 4 and chance(rng, 0.4) else int(rng.integers(1, 5))
        groups.append(rest[:size])
        rest = rest[size:]
    return {
        "groups": groups,
        "lines": "two" if len(groups) > 1 and chance(rng, 0.25) else "one",
        "style": pick(rng, plate_drawing.STYLES),
        "ground": _ground(rng),
        "band": pick(rng, plate_drawing.BANDS),
        "fonts": [pick(rng, COMMON)],
        "zoom": uniform(rng, 0.85, 1.5),
        "wide": uniform(rng, 0.75, 1.3),
        "slant": uniform(rng, -9, 9),
        "turn": uniform(rng, -7, 7),
        "bold": uniform(rng, 0, 1.1) if chance(rng, 0.4) else 0.0,
        "aside": uniform(rng, -1, 1),
    }


def _params(rng: Rng, split: Split, truth: dict[str, str]) -> dict[str, Any]:
    plates = [_plate(rng, text) for text in _texts(truth)]
    return {
        "plates": plates,
        "fonts": sorted({plate["fonts"][0] for plate in plates}),
        "ground": [_color(rng), _color(rng)],
        "blots": [[*(uniform(rng, 0, SIDE) for _ in range(3)), _color(rng)] for _ in range(6)],
        "camera": camera(rng, noise=uniform(rng, 1, 6), exposure=uniform(rng, 0.6, 1.1)),
    }


def _texts(truth: Mapping[str, str]) -> list[str]:
    """The plates in reading order."""
    texts = ("".join(truth[s] for s in slots if truth[s] != "none") for slots in SLOTS.values())
    return [text for text in texts if text]


def _draw_plate(c: Canvas, number: int, look: dict[str, Any], place: Box) -> None:
    """One plate in its part of the page, in SVG units."""
    plan = plate_drawing.layout(look["groups"], look["lines"], look["style"])
    half_width, half_height = plan.half_width + 3, plan.half_height + 3
    room, height = (place.right - place.left) / 2 - 3, (place.bottom - place.top) / 2
    zoom = min(look["zoom"], height / half_height, room / half_width / look["wide"])
    aside = look["aside"] * (room - zoom * look["wide"] * half_width)
    move = (
        f"translate({place.left + room + 3 + aside:.2f} {place.top + height:.2f}) "
        f"rotate({look['turn']}) skewX({look['slant']}) "
        f"scale({zoom * look['wide']:.3f} {zoom:.3f})"
    )
    with c.group(transform=move):
        plate_drawing.draw_plate(c, plan, look["ground"], look, look["style"], 0.0, look["bold"])
        for k, (_, x, base) in enumerate(plan.glyphs, start=1):
            c.mark(f"{number}.char {k}", x + plan.shift - 5, base - 14, 10, 14)


def page(look: dict[str, Any]) -> Canvas:
    c = Canvas()
    c.rect(0, 0, SIDE, SIDE, c.linear(tuple(enumerate(look["ground"]))))
    for x, y, size, color in look["blots"]:
        c.rect(x - size / 4, y - size / 4, size / 2, size / 3, color, fill_opacity=0.6)
    columns = 1 if len(look["plates"]) <= ONE_COLUMN else 2
    width, height = SIDE / columns, SIDE * columns / len(look["plates"])
    for index, plate in enumerate(look["plates"]):
        line, column = divmod(index, columns)
        left, top = column * width, line * height
        _draw_plate(c, index + 1, plate, Box(left, top, left + width, top + height))
    return c


class Page:
    """Three to twelve plates on a page, to be read."""

    name = "page"
    title = "Pages to read"
    attributes: dict[str, tuple[str, ...]] = {
        slot: (*DIGITS, *LETTERS, "none") for slots in SLOTS.values() for slot in slots
    }
    kinds = KINDS
    statements: Mapping[tuple[str, str], str] = {}
    alarms: Mapping[str, tuple[str, ...]] = {}

    def sample(self, seed: int, split: Split) -> Scene:
        return draw_scene(self.name, seed, split, _attributes, _params)

    def svg(self, scene: Scene) -> str:
        return page(scene.params).text()

    def boxes(self, scene: Scene) -> dict[str, Box]:
        return page(scene.params).boxes

    def questions(self, scene: Scene) -> list[Question]:
        rng = rng_for(self.name, scene.split, scene.seed, "questions")
        texts = _texts(scene.attributes)
        some = rng.permutation(len(texts))[:ASKED].tolist()
        each = [ask(rng, "one", PROMPTS["one"], texts[i], number=str(i + 1)) for i in some]
        answers = {
            "all": " ".join(texts),
            "sentence": f"There are {len(texts)} plates.",
            "json": json.dumps({"plates": texts}),
        }
        return [*each, *(ask(rng, kind, PROMPTS[kind], answers[kind]) for kind in KINDS[1:])]

    def caption(self, scene: Scene) -> str:
        return f"A page of plates: {', '.join(_texts(scene.attributes))}."
