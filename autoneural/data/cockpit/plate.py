"""Car brand and licence plate: the front or the rear of a car, its badge and its characters.

The makers are invented; plates leave out I, O and Q. Dirt or snow may hide the plate or the badge:
what depends on it is then "cannot tell". Rule of the even day: a car may drive when the last digit
of its plate is even, whatever letters follow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autoneural.data.cockpit import car_ends, emblems, plate_drawing, plate_scene
from autoneural.data.cockpit.base import (
    CANNOT_TELL,
    Box,
    Question,
    Rng,
    Scene,
    Split,
    ask,
    camera,
    chance,
    pick,
    pool,
    rng_for,
    uniform,
    uniforms,
    weighted,
)
from autoneural.data.cockpit.car_body import BODIES, PAINTS
from autoneural.data.cockpit.fonts import COMMON, HELD_OUT
from autoneural.data.cockpit.grid import cell
from autoneural.data.cockpit.plate_drawing import DIGITS, LETTERS
from autoneural.data.cockpit.tint import tint

SLOTS = tuple(f"char {k}" for k in range(1, 8))
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "view": ("front", "rear"),
    "brand": (*emblems.EMBLEMS, CANNOT_TELL),
    "colour": tuple(PAINTS),
    "body": BODIES,
    **{slot: (*DIGITS, *LETTERS, CANNOT_TELL) for slot in SLOTS[:5]},
    **{slot: (*DIGITS, *LETTERS, "none", CANNOT_TELL) for slot in SLOTS[5:]},
    "plate colour": (*plate_drawing.GROUNDS, CANNOT_TELL),
    "plate lines": ("one", "two", CANNOT_TELL),
    "light": ("day", "dusk", "night"),
    "weather": ("dry", "rain", "snow"),
    "lamps": ("on", "off"),
}
KINDS = (
    "plate", "match", "characters", "digits", "first", "last", "even day", "plate colour",
    "plate lines", "brand", "colour", "body", "view", "light", "weather", "lamps", "where",
    "sentence", "json",
)  # fmt: skip
PROMPTS = {
    "plate": (
        "Read the licence plate without spaces.",
        "What does the licence plate say, without spaces?",
        "Which licence plate does the car have? Write it without spaces.",
        "Spell the plate, without spaces.",
    ),
    "match": (
        "Is {candidate} the plate of this car?",
        "I wait for the car {candidate}; is it this one?",
        "Does the plate read {candidate}, spaces aside?",
    ),
    "characters": (
        "How many characters are on the licence plate?",
        "Count the letters and digits of the plate together.",
        "How many letters and digits does the plate have in all?",
    ),
    "digits": (
        "How many digits are on the licence plate?",
        "Count only the digits of the plate.",
        "How many numerals does the plate have?",
    ),
    "first": (
        "What is the first character of the licence plate?",
        "Which letter or digit does the plate begin with?",
        "With what does the plate start?",
    ),
    "last": (
        "What is the last character of the licence plate?",
        "Which letter or digit does the plate end with?",
        "What stands at the end of the plate?",
    ),
    "even day": (
        "Today only cars whose plate has an even last digit may drive: may this car?",
        "It is an even day: the last digit of the plate must be even. Is this car allowed?",
        "Is the last digit of the plate even?",
    ),
    "plate colour": (
        "What colour is the licence plate?",
        "Is the plate white, yellow, green or black?",
        "Which background colour does the plate have?",
    ),
    "plate lines": (
        "Does the licence plate have one line or two?",
        "On how many lines is the plate written, one or two?",
        "One line or two: how is the plate laid out?",
    ),
    "brand": (
        "Which brand is the car, by its badge?",
        "Who makes this car?",
        "What brand does the badge show?",
    ),
    "colour": (
        "What colour is the car?",
        "Which colour is the car painted?",
        "What is the colour of the bodywork?",
    ),
    "body": (
        "What type of car is it: saloon, suv, van or convertible?",
        "Which body style does the car have?",
        "Is this a saloon, an suv, a van or a convertible?",
    ),
    "view": (
        "Do you see the front or the rear of the car?",
        "Which end of the car is in view, front or rear?",
        "Does the picture show the car's front or its rear?",
    ),
    "light": (
        "Is it day, dusk or night?",
        "What time of day is it in the picture?",
        "How is the light around the car?",
    ),
    "weather": (
        "What is the weather like?",
        "Is it dry, or is there rain or snow?",
        "Which weather is the car standing in?",
    ),
    "lamps": (
        "Are the car's lamps on or off?",
        "Are the lamps lit: on or off?",
        "What about the lamps of the car, on or off?",
    ),
    "where": (
        "Where in the picture is the {thing}?",
        "In which part of the picture is the {thing}?",
        "Locate the {thing} in the picture.",
    ),
    "sentence": (
        "Name the car and its plate in one sentence.",
        "Say in one sentence which car this is, with its plate.",
    ),
    "json": (
        'Answer as JSON with the keys "brand", "colour" and "plate".',
        'Report {{"brand": ..., "colour": ..., "plate": ...}} as JSON.',
    ),
}
HEIGHTS = {
    "saloon": (128, 216), "convertible": (126, 216), "suv": (146, 218), "van": (162, 222),
}  # fmt: skip
"""Where the plate may lie, so that the top of the car stays in the picture."""
STATEMENTS = {
    ("view", "front"): "do you see the front of a car",
    ("view", "rear"): "do you see the rear of a car",
    **{("brand", brand): f"is the car a {brand}" for brand in emblems.EMBLEMS},
    **{("colour", colour): f"is the car {colour}" for colour in PAINTS},
    **{("body", body): f"is the car {'an' if body == 'suv' else 'a'} {body}" for body in BODIES},
    ("char 1", CANNOT_TELL): "is the licence plate hidden",
    ("plate colour", "yellow"): "is the licence plate yellow",
    ("plate colour", "white"): "is the licence plate white",
    ("plate lines", "two"): "does the licence plate have two lines",
    ("light", "night"): "is it night",
    ("weather", "snow"): "does it snow",
    ("lamps", "on"): "are the car's lamps on",
}


def plate_of(truth: dict[str, str]) -> str:
    """The characters of the plate, or that one cannot tell."""
    if truth["char 1"] == CANNOT_TELL:
        return CANNOT_TELL
    return "".join(truth[slot] for slot in SLOTS if truth[slot] != "none")


def _characters(rng: Rng, grammar: str) -> list[str]:
    """One for each slot, "none" after the last."""
    pools = {"L": LETTERS, "D": DIGITS}
    chars = [pick(rng, pools[slot]) for slot in grammar.replace(" ", "")]
    return [*chars, *["none"] * (len(SLOTS) - len(chars))]


def _attributes(rng: Rng, split: Split) -> tuple[dict[str, str], str]:
    """The attributes, and the grammar that the plate follows."""
    grammar = plate_drawing.draw_grammar(rng, split)
    light = weighted(rng, {"day": 0.4, "dusk": 0.28, "night": 0.32})
    truth = {
        "view": pick(rng, ATTRIBUTES["view"]),
        "brand": pick(rng, tuple(emblems.EMBLEMS)),
        "colour": pick(rng, ATTRIBUTES["colour"]),
        "body": pick(rng, BODIES),
        **dict(zip(SLOTS, _characters(rng, grammar), strict=True)),
        "plate colour": pick(rng, tuple(plate_drawing.GROUNDS)),
        "plate lines": pick(rng, ("one", "two")),
        "light": light,
        "weather": weighted(rng, {"dry": 0.4, "rain": 0.3, "snow": 0.3}),
        "lamps": "on" if chance(rng, {"day": 0.36, "dusk": 0.5, "night": 0.66}[light]) else "off",
    }
    if chance(rng, 0.1):
        truth |= dict.fromkeys((*SLOTS, "plate colour", "plate lines"), CANNOT_TELL)
    if chance(rng, 0.1):
        truth["brand"] = CANNOT_TELL
    return truth, grammar


def _params(rng: Rng, split: Split, truth: dict[str, str], grammar: str) -> dict[str, Any]:
    drawing, turn = plate_drawing, pick(rng, (-1, 1))
    veil = {
        "day": ("#fff4dc", 0.08, 0.0),
        "dusk": ("#ff8a48", 0.1, 0.03),
        "night": ("#0a1026", 0.1, 0.0),
    }[truth["light"]]
    return {
        "grammar": grammar,
        "hidden lines": pick(rng, ("one", "two")),
        "style": pick(rng, pool(split, drawing.STYLES, drawing.STYLES_HELD_OUT)),
        "fonts": [pick(rng, pool(split, COMMON, HELD_OUT))],
        "shade": pick(rng, pool(split, (0, 1, 2, 3), (4, 5))),
        "band": pick(rng, pool(split, drawing.BANDS, drawing.BANDS_HELD_OUT)),
        "metal": tint(rng, split, emblems.METALS, emblems.METALS_HELD_OUT, spread=16),
        "field": tint(rng, split, emblems.FIELDS, emblems.FIELDS_HELD_OUT, spread=24),
        "mud": tint(rng, split, plate_scene.MUD, plate_scene.MUD_HELD_OUT),
        "grille": pick(rng, pool(split, car_ends.GRILLES, car_ends.GRILLES_HELD_OUT)),
        "lamp": pick(rng, pool(split, car_ends.LAMPS, car_ends.LAMPS_HELD_OUT)),
        "place": pick(rng, pool(split, plate_scene.PLACES, plate_scene.PLACES_HELD_OUT)),
        "turn": round(turn * uniform(rng, 2, 24), 3),
        "roll": uniform(rng, -4, 4),
        "focal": uniform(rng, 470, 520),
        "height": uniform(rng, 105, 150),
        "aside": uniform(rng, -1, 1),
        "y": uniform(rng, *HEIGHTS[truth["body"]]),
        "specks": chance(rng, 0.3),
        "plate dirt": uniforms(rng, 24, 0, 1),
        "badge dirt": uniforms(rng, 24, 0, 1),
        "blocks": uniforms(rng, 24, 0, 1),
        "drops": uniforms(rng, 140, 0, 256),
        "camera": camera(rng, noise={"day": 2.5, "dusk": 3.5, "night": 4.0}[truth["light"]],
                         veil=veil),
    }  # fmt: skip


class Plate:
    """A car's end with badge and licence plate, to be read, matched and counted."""

    name = "plate"
    title = "Car brand and licence plate"
    attributes = ATTRIBUTES
    kinds = KINDS
    statements = STATEMENTS
    alarms: Mapping[str, tuple[str, ...]] = {}

    def sample(self, seed: int, split: Split) -> Scene:
        attributes, grammar = _attributes(rng_for(self.name, split, seed, "attributes"), split)
        params = _params(rng_for(self.name, split, seed, "params"), split, attributes, grammar)
        return Scene(self.name, seed, split, attributes, params)

    def svg(self, scene: Scene) -> str:
        return plate_scene.scene(scene.attributes, scene.params)

    def boxes(self, scene: Scene) -> dict[str, Box]:
        return plate_scene.boxes(scene.attributes, scene.params)

    def questions(self, scene: Scene) -> list[Question]:
        truth = scene.attributes
        rng = rng_for(self.name, scene.split, scene.seed, "questions")
        plate, thing = plate_of(truth), pick(rng, ("licence plate", "badge"))
        candidate, match = _candidate(rng, plate, scene.params["grammar"])
        named = ("view", "brand", "colour", "body", "plate colour", "plate lines", "light",
                 "weather", "lamps")  # fmt: skip
        fields = {"brand": truth["brand"], "colour": truth["colour"], "plate": plate}
        answers = {
            **{kind: truth[kind] for kind in named},
            **_reading(plate),
            "match": match,
            "where": cell(self.boxes(scene)[thing.split()[-1]]),
            "sentence": _sentence(truth, plate),
            "json": json.dumps(fields),
        }
        words = {"candidate": candidate, "thing": thing}
        return [ask(rng, kind, PROMPTS[kind], answers[kind], **words) for kind in KINDS]

    def caption(self, scene: Scene) -> str:
        truth = scene.attributes
        plate = f"a {truth['plate colour']} plate on {truth['plate lines']} lines: "
        plate = plate.replace("one lines", "one line")
        if truth["char 1"] == CANNOT_TELL:
            plate = "a plate that one cannot read"
        else:
            plate += plate_of(truth)
        weather = {"dry": "dry", "rain": "rainy", "snow": "snowy"}[truth["weather"]]
        return (
            f"The {truth['view']} of {_car(truth)} by {truth['light']} in {weather} "
            f"weather with the lamps {truth['lamps']}. It has {plate}."
        )


def _reading(plate: str) -> dict[str, str]:
    """Answers that take the whole plate."""
    kinds = ("plate", "characters", "digits", "first", "last", "even day")
    if plate == CANNOT_TELL:
        return dict.fromkeys(kinds, CANNOT_TELL)
    digits = [char for char in plate if char in DIGITS]
    even = "yes" if int(digits[-1]) % 2 == 0 else "no"
    answers = (plate, str(len(plate)), str(len(digits)), plate[0], plate[-1], even)
    return dict(zip(kinds, answers, strict=True))


def _candidate(rng: Rng, plate: str, grammar: str) -> tuple[str, str]:
    """A plate to compare with, which is this one or differs in one character; and the answer."""
    shown = plate
    if plate == CANNOT_TELL:
        shown = "".join(_characters(rng, grammar)).replace("none", "")
    k = int(rng.integers(len(shown)))
    others = [c for c in (DIGITS if shown[k] in DIGITS else LETTERS) if c != shown[k]]
    changed = shown[:k] + pick(rng, others) + shown[k + 1 :]
    same = chance(rng, 0.5)
    answer = CANNOT_TELL if plate == CANNOT_TELL else "yes" if same else "no"
    return (shown if same else changed), answer


def _car(truth: dict[str, str]) -> str:
    brand = "of a brand one cannot tell" if truth["brand"] == CANNOT_TELL else ""
    name = "" if brand else truth["brand"].title() + " "
    article = "an" if truth["colour"] == "orange" else "a"
    return f"{article} {truth['colour']} {name}{truth['body']}{' ' if brand else ''}{brand}"


def _sentence(truth: dict[str, str], plate: str) -> str:
    shown = "whose plate one cannot read" if plate == CANNOT_TELL else f"with the plate {plate}"
    return f"This is {_car(truth)} {shown}."
