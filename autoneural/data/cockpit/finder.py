"""Car finder: where is my car in the car park, on the map on the wall or down the aisle?

On a map the pin marks my car, and the blue arrow says where I stand and which way I face; down an
aisle my car is the one whose indicators flash. Rules. Way on a map: straight on, right, back or
left of where the arrow points, whichever the car is most. Way down an aisle: to its side when it
is near, straight on when it is far. Ticket: the level on my ticket is above, below or here, and
levels count upwards. What only the other view shows is "none" and not asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autoneural.data.cockpit import car_ends, finder_aisle, finder_map
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
    weighted,
)
from autoneural.data.cockpit.car_body import BODIES, PAINTS
from autoneural.data.cockpit.finder_map import BAYS, PLANS_BY_NAME, ROWS, TURNS
from autoneural.data.cockpit.fonts import COMMON, HELD_OUT
from autoneural.data.cockpit.framing import draw_framing
from autoneural.data.cockpit.grid import cell
from autoneural.data.cockpit.svg import Canvas
from autoneural.data.cockpit.tint import tint

LEVELS = ("1", "2", "3", "4", "5", "6")
LEVEL_COLOURS = {
    "red": ("#b8201c", "#a4241e", "#c43028", "#b02a3a"),
    "blue": ("#1d4fb0", "#27489a", "#2a62c8", "#34579c"),
    "green": ("#1f8048", "#2a7a3c", "#16703e", "#3a8a58"),
    "yellow": ("#f0c41c", "#e8bc28", "#f4d040", "#e0b414"),
    "purple": ("#6a2f98", "#5c2888", "#7a3ca8", "#643a80"),
}
COLOURS = ("red", "blue", "green", "yellow", "orange")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "view": ("map", "aisle"),
    "level": (*LEVELS, CANNOT_TELL),
    "row": (*ROWS, CANNOT_TELL),
    "bay": (*BAYS, "none"),
    "turn": TURNS,
    "free": ("0", "1", "2", "3", "4", "5", "none"),
    "beside": ("0", "1", "2", "none"),
    "side": ("left", "right", "none"),
    "distance": ("near", "far", "none"),
    "light": ("bright", "dim", "none"),
    "colour": COLOURS,
    "level colour": tuple(LEVEL_COLOURS),
}
KINDS = (
    "view", "level", "row", "bay", "way", "free", "beside", "side", "distance", "light", "colour",
    "level colour", "ticket", "where", "sentence", "json",
)  # fmt: skip
PROMPTS = {
    "view": (
        "Is this a map of the car park or a view down an aisle: map or aisle?",
        "Do you see a map or an aisle?",
        "Which is it, a map or an aisle?",
    ),
    "level": (
        "Which level of the car park is this?",
        "What is the number of this level?",
        "On which level am I?",
    ),
    "row": (
        "In which row is my car: A, B, C or D?",
        "What is the letter of my car's row?",
        "Which row is my car parked in?",
    ),
    "bay": (
        "In which bay is my car, as row and number?",
        "Give the row letter and the bay number of my car together.",
        "What is the full name of my car's bay, such as A1?",
    ),
    "way": (
        "Which way do I go to my car: straight on, right, back or left?",
        "Where do I turn for my car?",
        "How do I walk to my car from here?",
    ),
    "free": (
        "How many bays on the map are free?",
        "Count the free bays of this level.",
        "How many parking spaces are empty on the map?",
    ),
    "beside": (
        "How many of the bays right beside my car, in its row, are free?",
        "Count the free bays next to my car in the same row.",
        "How many direct neighbours of my car in its row are empty?",
    ),
    "side": (
        "On which side of the aisle is my car?",
        "Is my car parked on the left or the right?",
        "Left or right: where do the indicators flash?",
    ),
    "distance": (
        "Is my car near or far?",
        "How far away is the car whose indicators flash, near or far?",
        "Near or far: how close is my car?",
    ),
    "light": (
        "Is the car park bright or dim?",
        "How is the light in the aisle: bright or dim?",
        "Are the lights bright or dim here?",
    ),
    "colour": (
        "What colour is my car?",
        "Which colour does my car have in the picture?",
        "Name the colour of my car.",
    ),
    "level colour": (
        "Which colour marks this level?",
        "In which colour is this level marked?",
        "By which colour do I remember this level?",
    ),
    "ticket": (
        "My ticket says level {ticket}. Levels count upwards: do I go up, down or stay?",
        "I parked on level {ticket}; up, down or stay?",
        "Should I take the lift up, down or stay here for level {ticket}?",
    ),
    "where": (
        "Where in the picture is {thing}?",
        "In which part of the picture is {thing}?",
        "Locate {thing} in the picture.",
    ),
    "sentence": (
        "Say in one sentence where my car is.",
        "Tell me in one sentence how to find my car.",
    ),
    "json": (
        'Answer as JSON with the keys "level", "row" and "turn".',
        'Report {{"level": ..., "row": ..., "turn": ...}} as JSON.',
    ),
}
STATEMENTS = {
    ("view", "map"): "do you see a map",
    ("view", "aisle"): "do you look down an aisle",
    **{("level", level): f"is it level {level}" for level in LEVELS},
    **{("row", row): f"is my car in row {row}" for row in ROWS},
    ("level", CANNOT_TELL): "is the number of the level hidden",
    ("turn", "straight on"): "is the way to my car straight on",
    ("turn", "left"): "is the way to my car left",
    ("side", "left"): "is my car on the left of an aisle",
    ("distance", "near"): "is my car near in an aisle",
    **{("colour", colour): f"is my car {colour}" for colour in COLOURS},
    **{("level colour", colour): f"is the level marked in {colour}" for colour in LEVEL_COLOURS},
}
THINGS = {
    "map": {"my car": "my car", "lift": "the lift", "you": "the blue arrow"},
    "aisle": {"my car": "my car", "sign": "the sign with the level"},
}


def way_down_the_aisle(side: str, distance: str) -> str:
    """The module's rule."""
    return side if distance == "near" else "straight on"


def _attributes(rng: Rng, plan: str) -> dict[str, str]:
    view = pick(rng, ("map", "aisle"))
    truth = {
        "view": view, "level": pick(rng, LEVELS), "row": pick(rng, ROWS), "bay": "none",
        "turn": "none", "free": "none", "beside": "none", "side": "none",
        "distance": "none", "light": "none", "colour": pick(rng, COLOURS),
        "level colour": pick(rng, tuple(LEVEL_COLOURS)),
    }  # fmt: skip
    hidden = chance(rng, 0.1)
    truth |= _map_only(rng, plan) if view == "map" else _aisle_only(rng)
    if hidden:
        truth |= {"level": CANNOT_TELL} | ({"row": CANNOT_TELL} if view == "aisle" else {})
    return truth


def _map_only(rng: Rng, plan: str) -> dict[str, str]:
    bay, free = pick(rng, BAYS), int(rng.integers(6))
    most = min(free, len(PLANS_BY_NAME[plan].beside(bay)))
    shares = ({0: 1.0}, {0: 0.4, 1: 0.6}, {0: 0.24, 1: 0.3, 2: 0.46})[most]
    return {
        "bay": bay,
        "free": str(free),
        "beside": str(weighted(rng, shares)),
        "turn": weighted(rng, {"straight on": 0.16, "right": 0.26, "back": 0.32, "left": 0.26}),
    }


def _aisle_only(rng: Rng) -> dict[str, str]:
    side, distance = pick(rng, ("left", "right")), pick(rng, ("near", "far"))
    return {
        "side": side,
        "distance": distance,
        "light": pick(rng, ("bright", "dim")),
        "turn": way_down_the_aisle(side, distance),
    }


def _params(rng: Rng, split: Split, truth: dict[str, str], plan: str) -> dict[str, Any]:
    board = {"plan": plan, **_map_params(rng, split)}
    if truth["view"] == "map":
        board |= _standing(rng, truth, plan)
    dim = truth["light"] == "dim"
    return {
        **board,
        **_aisle_params(rng, split),
        "fonts": [pick(rng, pool(split, COMMON, HELD_OUT))],
        "shade": pick(rng, pool(split, (0, 1, 2, 3), (4, 5))),
        "level shade": pick(rng, pool(split, (0, 1, 2), (3,))),
        "camera": camera(rng, noise=4.0 if dim else 2.5, exposure=0.95 if dim else 1.0),
        "framing": draw_framing(rng, split, 0.85),
    }


def _map_params(rng: Rng, split: Split) -> dict[str, Any]:
    return {
        "paper": tint(rng, split, finder_map.PAPERS, finder_map.PAPERS_HELD_OUT, spread=20),
        "wall": tint(rng, split, finder_map.WALLS, finder_map.WALLS_HELD_OUT),
        "others": [pick(rng, finder_map.OTHERS) for _ in range(24)],
        "noses": rng.integers(0, 2, 24).tolist(),
        "order": rng.permutation(24).tolist(),
        "lift": int(rng.integers(4)),
        "lane": 0,
        "gap": 3,
        "tilt": uniform(rng, -5, 5),
        "lean": uniform(rng, -0.05, 0.05),
        "size": uniform(rng, 0.88, 0.95),
        "dx": uniform(rng, -4, 4),
        "dy": uniform(rng, -4, 4),
        "glare": chance(rng, 0.3),
    }


def _standing(rng: Rng, truth: dict[str, str], plan: str) -> dict[str, int]:
    """A place to stand from which the way to my car is clear."""
    while True:
        lane, gap = int(rng.integers(2)), int(rng.integers(1, 6))
        spot = PLANS_BY_NAME[plan], truth["row"], truth["bay"], lane, gap
        if finder_map.way(*spot)[1] > 1.5:
            return {"lane": lane, "gap": gap}


def _aisle_params(rng: Rng, split: Split) -> dict[str, Any]:
    sign = pick(rng, pool(split, finder_aisle.SIGNS, finder_aisle.SIGNS_HELD_OUT))
    return {
        "sign": sign,
        "board": finder_aisle.draw_board(rng, sign),
        "shift": pick(rng, (-1, 0, 1)),
        "pillar": weighted(rng, {1: 0.8, -1: 0.2}),  # near, it is never on my car's side
        "colours": [pick(rng, tuple(PAINTS)) for _ in range(6)],
        "bodies": [pick(rng, BODIES[:2]) for _ in range(6)],
        "empty": rng.permutation(6)[: int(rng.integers(3))].tolist(),
        "grille": pick(rng, pool(split, car_ends.GRILLES, car_ends.GRILLES_HELD_OUT)),
        "lamp": pick(rng, pool(split, car_ends.LAMPS, car_ends.LAMPS_HELD_OUT)),
        "focal": uniform(rng, 190, 206),
        "centre": uniform(rng, 121, 135),
        "horizon": uniform(rng, 104, 128),
        "roll": uniform(rng, -3, 3),
    }


class Finder:
    """Where my car stands in a car park, and how to get there."""

    name = "finder"
    title = "Car finder"
    attributes = ATTRIBUTES
    kinds = KINDS
    statements = STATEMENTS
    alarms: Mapping[str, tuple[str, ...]] = {}

    def sample(self, seed: int, split: Split) -> Scene:
        rng = rng_for(self.name, split, seed, "attributes")
        plan = pick(rng, pool(split, finder_map.PLANS, finder_map.PLANS_HELD_OUT))
        attributes = _attributes(rng, plan)
        params = _params(rng_for(self.name, split, seed, "params"), split, attributes, plan)
        return Scene(self.name, seed, split, attributes, params)

    def svg(self, scene: Scene) -> str:
        truth, look, c = scene.attributes, scene.params, Canvas()
        draw = finder_map.draw_map if truth["view"] == "map" else finder_aisle.draw_aisle
        paint = PAINTS[truth["colour"]][look["shade"]]
        draw(c, truth, look, paint, LEVEL_COLOURS[truth["level colour"]][look["level shade"]])
        return c.text()

    def boxes(self, scene: Scene) -> dict[str, Box]:
        find = finder_map.map_boxes
        if scene.attributes["view"] == "aisle":
            find = finder_aisle.aisle_boxes
        return find(scene.attributes, scene.params)

    def questions(self, scene: Scene) -> list[Question]:
        truth = scene.attributes
        rng = rng_for(self.name, scene.split, scene.seed, "questions")
        box, thing = pick(rng, tuple(THINGS[truth["view"]].items()))
        ticket, lift = _ticket(rng, truth["level"])
        answers = {
            **{kind: truth[kind] for kind in KINDS if kind in truth},
            "way": truth["turn"],
            "bay": truth["row"] + truth["bay"],
            "ticket": lift,
            "where": cell(self.boxes(scene)[box]),
            "sentence": _sentence(truth),
            "json": json.dumps({key: truth[key] for key in ("level", "row", "turn")}),
        }
        words = {"ticket": ticket, "thing": thing}
        asked = [kind for kind in KINDS if truth.get(kind) != "none"]
        return [ask(rng, kind, PROMPTS[kind], answers[kind], **words) for kind in asked]

    def caption(self, scene: Scene) -> str:
        truth = scene.attributes
        level = f"level {truth['level']}"
        if truth["level"] == CANNOT_TELL:
            level = "a level one cannot read"
        row = f"row {truth['row']}"
        if truth["row"] == CANNOT_TELL:
            row = "a row one cannot read"
        if truth["view"] == "map":
            view = f"A map of {level}, marked in {truth['level colour']}, with"
            place = f"in {row}, bay {truth['bay']}, with {truth['beside']} free beside it"
            more = f"{view} {truth['free']} free bay{'' if truth['free'] == '1' else 's'}"
        else:
            more = f"A {truth['light']} aisle of {level}, marked in {truth['level colour']}"
            place = f"{truth['distance']} on the {truth['side']}, in {row}"
        return f"{more}. My {truth['colour']} car is {place}; the way is {truth['turn']}."


def _ticket(rng: Rng, level: str) -> tuple[str, str]:
    """A level on a ticket, and whether one goes up, down or stays."""
    if level == CANNOT_TELL:
        return pick(rng, LEVELS), CANNOT_TELL
    here = LEVELS.index(level)
    ways = {"stay": LEVELS[here : here + 1], "up": LEVELS[here + 1 :], "down": LEVELS[:here]}
    answer = pick(rng, [way for way, levels in ways.items() if levels])
    return pick(rng, ways[answer]), answer


def _sentence(truth: dict[str, str]) -> str:
    """A row and a level that nothing hides are named."""
    here = "" if truth["level"] == CANNOT_TELL else f" on level {truth['level']}"
    if truth["view"] == "map":
        return f"Your {truth['colour']} car is in bay {truth['row']}{truth['bay']}{here}."
    place = f"{truth['distance']} on the {truth['side']}"
    row = f" in row {truth['row']}{here}" if here else ""
    return f"Your {truth['colour']} car is {place}{row}."
