"""Questions of training alone: single steps of what a task asks for at once.

"Which way do I go" takes the arrow's heading, where the car lies from there, and the turn between
the two; asked for the turn alone, a small model stays at chance. Here each step has its question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from autoneural.data.cockpit import finder, finder_map, grid, hmi, plate
from autoneural.data.cockpit.base import (
    CANNOT_TELL,
    Box,
    Question,
    Rng,
    Scene,
    ask,
    chance,
    pick,
    rng_for,
)
from autoneural.data.cockpit.plate_drawing import DIGITS

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
SIDES = ("above", "right of", "below", "left of")
HEADINGS = ("up", "right", "down", "left")
"""Clockwise, as `finder_map.TURNS`."""
PROMPTS = {
    "nth": (
        "What is the {nth} character of the licence plate?",
        "Which letter or digit stands at the {nth} place of the plate?",
    ),
    "after": (
        "Which character follows the {char} on the licence plate?",
        "What stands right after the {char} on the plate?",
    ),
    "pattern": (
        "Write L for every letter and D for every digit of the plate.",
        "Letter or digit? Go through the plate with L and D.",
    ),
    "letters": (
        "How many letters are on the licence plate?",
        "Count only the letters of the plate.",
    ),
    "only letters": ("Which letters are on the licence plate, in order?",),
    "only digits": ("Which digits are on the licence plate, in order?",),
    "heading": (
        "Which way does the blue arrow point: up, right, down or left?",
        "Where in the picture does the blue arrow point to?",
    ),
    "bearing": (
        "Is my car above, right of, below or left of the blue arrow?",
        "On which side of the blue arrow is my car on the map?",
    ),
    "free bays": (
        "Which bays are free, as row and number, row by row?",
        "List all the empty bays of the map.",
    ),
    "lights": (
        "Name the lit warning lights from left to right, then say how many there are.",
        "Go through the warning lights from left to right and count them.",
    ),
    "free in row": (
        "How many bays of row {row} are free?",
        "Count the free bays in row {row}.",
    ),
}


def steps(scene: Scene) -> list[Question]:
    """The steps that a scene of training has questions for; none elsewhere."""
    if scene.split != "train" or scene.task not in _STEPS:
        return []
    return _STEPS[scene.task](scene, rng_for(scene.task, scene.split, scene.seed, "steps"))


def _plate(scene: Scene, rng: Rng) -> list[Question]:
    text = plate.plate_of(scene.attributes)
    hidden = text == CANNOT_TELL
    k = int(rng.integers(5 if hidden else len(text)))
    asked = {"nth": (CANNOT_TELL if hidden else text[k], {"nth": ORDINALS[k]})}
    if not hidden:
        once = [char for char in text[:-1] if text.count(char) == 1]
        char = pick(rng, once) if once else ""
        digits = "".join(c for c in text if c in DIGITS)
        letters = "".join(c for c in text if c not in DIGITS)
        pattern = " ".join("D" if c in DIGITS else "L" for c in text)
        asked |= {"only digits": (digits, {}), "only letters": (letters or "none", {})}
        asked |= {"pattern": (pattern, {}), "letters": (str(len(letters)), {})}
        if char:
            asked["after"] = (text[text.index(char) + 1], {"char": char})
    return [ask(rng, kind, PROMPTS[kind], answer, **w) for kind, (answer, w) in asked.items()]


def _finder(scene: Scene, rng: Rng) -> list[Question]:
    truth, look = scene.attributes, scene.params
    if truth["view"] != "map":
        return []
    plan = finder_map.PLANS_BY_NAME[look["plan"]]
    quarter, _ = finder_map.way(plan, truth["row"], truth["bay"], look["lane"], look["gap"])
    heading = (quarter - finder_map.TURNS.index(truth["turn"])) % 4
    bays = sorted(finder_map.vacant(truth, plan, look["order"]))
    free = [row for row, _ in bays]
    listed = ", ".join(row + bay for row, bay in bays) or "none"
    row = pick(rng, free if free and chance(rng, 0.7) else finder_map.ROWS)
    places = finder_map.map_boxes(truth, look)
    return [
        ask(rng, "heading", PROMPTS["heading"], HEADINGS[heading]),
        ask(rng, "bearing", PROMPTS["bearing"], SIDES[quarter]),
        ask(rng, "free bays", PROMPTS["free bays"], listed),
        ask(rng, "free in row", PROMPTS["free in row"], str(free.count(row)), row=row),
        *_places(rng, 1, places, finder.THINGS["map"], finder.PROMPTS["where"]),
    ]


def _hmi(scene: Scene, rng: Rng) -> list[Question]:
    things = {box: thing for box, thing in hmi.THINGS.items() if box != "sign"}
    lit = scene.params["lights"]
    counted = f"{', '.join(lit) or 'none'}: {len(lit)}"
    asked = [ask(rng, "lights", PROMPTS["lights"], counted)]
    return asked + _places(rng, 2, hmi.Hmi().boxes(scene), things, hmi.PROMPTS["where"])


def _places(
    rng: Rng,
    count: int,
    found: Mapping[str, Box],
    things: Mapping[str, str],
    prompts: Sequence[str],
) -> list[Question]:
    """Where some of the things are, of those that are there and that one word places."""
    clear = [box for box in things if box in found and grid.is_clear(found[box])]
    return [
        ask(rng, "where", prompts, grid.cell(found[clear[i]]), thing=things[clear[i]])
        for i in rng.permutation(len(clear))[:count].tolist()
    ]


_STEPS: dict[str, Callable[[Scene, Rng], list[Question]]] = {
    "plate": _plate,
    "finder": _finder,
    "hmi": _hmi,
}
