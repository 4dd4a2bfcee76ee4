"""The greeter: who comes to the parked car, with what, and what the car should open.

Left and right are those of the picture. The key hangs on a cord before the chest: a green light
says that its bearer is the owner, a red one that not; tucked into the coat one cannot tell. Rule:
open nothing for nobody and for who is no owner; cannot tell while the key or the load is hidden;
else the tailgate for bags, a box or a suitcase, the rear door for a child seat, the driver's door
for an umbrella or empty hands. People walking away in the background count, but do not come.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autoneural.data.cockpit import facades, forecourt, grid, luggage, people
from autoneural.data.cockpit.base import (
    CANNOT_TELL,
    Box,
    Question,
    Rng,
    Scene,
    Split,
    ask,
    camera,
    draw_scene,
    pick,
    pool,
    rng_for,
    uniform,
    uniforms,
    weighted,
)
from autoneural.data.cockpit.tint import tint

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "who": ("nobody", "adult", "child", "elderly", "courier"),
    "carrying": (
        "none", "nothing", "shopping bags", "box", "suitcase", "child seat", "umbrella",
        CANNOT_TELL,
    ),
    "count": ("0", "1", "2", "3"),
    "distance": ("none", "near", "far"),
    "side": ("none", "left", "middle", "right"),
    "owner": ("none", "yes", "no", CANNOT_TELL),
    "open": ("nothing", "driver's door", "rear door", "tailgate", CANNOT_TELL),
    "ground": ("paving", "gravel", "grass"),
    "light": ("day", "dusk", "night"),
    "weather": ("dry", "rain", "snow"),
}  # fmt: skip
KINDS = (
    "who", "carrying", "count", "distance", "side", "owner", "open", "where", "ground", "light",
    "weather", "sentence", "json",
)  # fmt: skip
PROMPTS = {
    "who": (
        "Who is coming to the car?",
        "Who approaches: an adult, a child, an elderly person, a courier or nobody?",
        "Which kind of person comes towards the camera?",
    ),
    "carrying": (
        "What does the person who comes carry?",
        "Which load does the one who comes carry: shopping bags, a box, a suitcase, a child seat, "
        "an umbrella, nothing, nobody there or cannot tell?",
        "What has the approaching person in the hands or along?",
    ),
    "count": (
        "How many people are in the picture?",
        "Count the people, those in the background too.",
        "What is the number of people you see?",
    ),
    "distance": (
        "How far away is the person who comes: near, far or nobody there?",
        "How near is the one who comes?",
        "How close is the approaching person?",
    ),
    "side": (
        "On which side does the person come?",
        "On which side of the picture is the person who comes?",
        "From which side does somebody approach: left, middle, right or nobody there?",
    ),
    "owner": (
        "Is the person who comes the owner of the car?",
        "Does the key's light say that this is the owner: yes, no, cannot tell or nobody there?",
        "Is the approaching person recognised as the owner?",
    ),
    "open": (
        "What should the car open?",
        "Which fits: open the driver's door, the rear door, the tailgate, nothing or cannot tell?",
        "What is to be opened for the one who comes?",
    ),
    "where": (
        "Where in the picture is {thing}?",
        "In which part of the picture is {thing}?",
        "Point to {thing} in words.",
    ),
    "ground": (
        "What is the ground like?",
        "Does the person walk on paving, gravel or grass?",
        "Which ground lies before the car: paving, gravel or grass?",
    ),
    "light": (
        "Is it day, dusk or night?",
        "What time of day does the picture show?",
        "How is the light outside?",
    ),
    "weather": (
        "What is the weather like?",
        "Is it dry, or does it rain or snow?",
        "Which weather do you see?",
    ),
    "sentence": (
        "Greet whoever comes and say what opens, in one sentence.",
        "Say in one sentence who comes and what the car opens.",
    ),
    "json": (
        'Answer as JSON with the keys "who", "carrying" and "open".',
        'Report {{"who": ..., "carrying": ..., "open": ...}} as JSON.',
    ),
}
STATEMENTS = {
    ("who", "nobody"): "does nobody come to the car",
    ("who", "adult"): "does an adult come",
    ("who", "child"): "does a child come",
    ("who", "elderly"): "does an elderly person come",
    ("who", "courier"): "does a courier come",
    ("carrying", "nothing"): "do you see somebody come with empty hands",
    ("carrying", "suitcase"): "do you see somebody with a suitcase",
    ("carrying", "box"): "do you see somebody carry a box",
    ("carrying", "child seat"): "do you see somebody carry a child seat",
    ("carrying", "umbrella"): "do you see somebody under an umbrella",
    ("count", "0"): "is no person to be seen",
    ("distance", "near"): "is the one who comes near",
    ("side", "left"): "does somebody come on the left",
    ("owner", "yes"): "is it clear that the owner comes",
    ("open", "tailgate"): "should the tailgate open",
    ("open", "nothing"): "should nothing open",
    ("ground", "gravel"): "is there gravel",
    ("light", "night"): "is it night",
    ("weather", "snow"): "does it snow",
}
OPENS = {
    "nothing": "driver's door", "umbrella": "driver's door", "child seat": "rear door",
    "shopping bags": "tailgate", "box": "tailgate", "suitcase": "tailgate",
    CANNOT_TELL: CANNOT_TELL,
}  # fmt: skip
WHO = {
    "nobody": "nobody", "adult": "an adult", "child": "a child",
    "elderly": "an elderly person with a stick", "courier": "a courier",
}  # fmt: skip
LOADS = {
    "none": "nothing", "nothing": "nothing", "shopping bags": "shopping bags", "box": "a box",
    "suitcase": "a suitcase", "child seat": "a child seat", "umbrella": "an umbrella",
    CANNOT_TELL: "something hidden or nothing",
}  # fmt: skip
TIMES = {"day": "by day", "dusk": "at dusk", "night": "at night"}
SIDES = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
OWNERS = {
    "yes": "who is the owner",
    "no": "who is not the owner",
    CANNOT_TELL: "whose key is hidden",
}


def open_of(who: str, carrying: str, owner: str) -> str:
    """The module's rule."""
    if who == "nobody" or owner == "no":
        return "nothing"
    return CANNOT_TELL if owner == CANNOT_TELL else OPENS[carrying]


def _attributes(rng: Rng) -> dict[str, str]:
    who = weighted(
        rng, {"nobody": 0.11, "adult": 0.23, "child": 0.22, "elderly": 0.22, "courier": 0.22}
    )
    loads = {"nothing": 0.16, "shopping bags": 0.13, "box": 0.13, "suitcase": 0.13,
             "child seat": 0.22, "umbrella": 0.12, CANNOT_TELL: 0.11}  # fmt: skip
    carrying, distance = weighted(rng, loads), pick(rng, ("near", "far"))
    side = pick(rng, ("left", "middle", "right"))
    owner = weighted(rng, {"yes": 0.5, "no": 0.38, CANNOT_TELL: 0.12})
    if who == "nobody":
        carrying = distance = side = owner = "none"
    behind = weighted(rng, {0: 0.36, 1: 0.34, 2: 0.3})
    return {
        "who": who, "carrying": carrying, "count": str(behind + (who != "nobody")),
        "distance": distance, "side": side, "owner": owner,
        "open": open_of(who, carrying, owner),
        "ground": pick(rng, ATTRIBUTES["ground"]),
        "light": weighted(rng, {"day": 0.4, "dusk": 0.28, "night": 0.32}),
        "weather": weighted(rng, {"dry": 0.42, "rain": 0.3, "snow": 0.28}),
    }  # fmt: skip


def _clothes(rng: Rng, split: Split) -> dict[str, Any]:
    return {
        "skin": pick(rng, pool(split, people.SKIN, people.SKIN_HELD_OUT)),
        "hair": pick(rng, pool(split, people.HAIR, people.HAIR_HELD_OUT)),
        "style": pick(rng, pool(split, people.STYLES, people.STYLES_HELD_OUT)),
        "coat": tint(rng, split, people.COAT, people.COAT_HELD_OUT),
        "trousers": tint(rng, split, people.TROUSERS, people.TROUSERS_HELD_OUT),
        "garment": pick(rng, people.GARMENTS),
        "step": pick(rng, (-1, 1)),
    }


def _place(rng: Rng, truth: dict[str, str]) -> dict[str, Any]:
    """Where the one who comes stands; loads hang towards the middle, within the picture."""
    side = truth["side"]
    x = {"left": (56, 76), "right": (180, 200)}.get(side, (118, 138))
    depth = (110, 120) if truth["distance"] != "far" else (64, 72)
    return {
        "x": uniform(rng, *x),
        "depth": uniform(rng, *depth),
        "hand": {"left": 1, "right": -1}.get(side, pick(rng, (-1, 1))),
        "horizon": uniform(rng, 94, 104),
    }


def _bystanders(rng: Rng, split: Split, look: dict[str, Any]) -> list[dict[str, Any]]:
    """Two people in the background, clear of each other and of the one who comes."""
    low, high = sorted((look["x"] - look["hand"] * 44, look["x"] + look["hand"] * 74))
    free = [x for x in (24, 50, 76, 102, 154, 180, 206, 232) if not low < x < high]
    places = [free[i] for i in rng.permutation(len(free))[:2].tolist()]
    return [
        {**_clothes(rng, split), "x": x + uniform(rng, -4, 4), "depth": uniform(rng, 35, 42)}
        for x in places
    ]


def _params(rng: Rng, split: Split, truth: dict[str, str]) -> dict[str, Any]:
    veil = {
        "day": ("#fff4dc", 0.1, 0.0),
        "dusk": ("#ff8a48", 0.12, 0.04),
        "night": ("#0a1026", 0.1, 0.0),
    }[truth["light"]]
    look: dict[str, Any] = {
        **_clothes(rng, split),
        "vest": pick(rng, pool(split, people.VEST, people.VEST_HELD_OUT)),
        "load": tint(rng, split, luggage.CASE, luggage.CASE_HELD_OUT),
        "place": pick(rng, pool(split, facades.PLACES, facades.PLACES_HELD_OUT)),
        "paint": tint(rng, split, forecourt.PAINT, forecourt.PAINT_HELD_OUT),
        "wall": tint(rng, split, facades.WALL, facades.WALL_HELD_OUT),
        "door": tint(rng, split, luggage.CASE, luggage.CASE_HELD_OUT),
        "cover": pick(rng, ("hedge", "wall")),
        "shift": uniform(rng, -16, 16),
        "blocks": uniforms(rng, 20, 0, 1),
        "dots": uniforms(rng, 360, 0, 256),
        "drops": uniforms(rng, 120, 0, 256),
        "camera": camera(
            rng, noise={"day": 3.0, "dusk": 4.0, "night": 4.5}[truth["light"]], veil=veil
        ),
    }
    for _ in range(20):  # a box on a line of the grid has no one word
        look.update(_place(rng, truth))
        if all(grid.is_clear(box) for box in forecourt.boxes(truth, look).values()):
            break
    return {**look, "others": _bystanders(rng, split, look)}


class Greeter:
    """Welcome by the outer camera: who comes, with what, owner or not, and what opens."""

    name = "greeter"
    title = "Greeter"
    attributes = ATTRIBUTES
    kinds = KINDS
    statements = STATEMENTS
    alarms: Mapping[str, tuple[str, ...]] = {}

    def sample(self, seed: int, split: Split) -> Scene:
        return draw_scene(self.name, seed, split, _attributes, _params)

    def svg(self, scene: Scene) -> str:
        return forecourt.picture(scene.attributes, scene.params)

    def boxes(self, scene: Scene) -> dict[str, Box]:
        return forecourt.boxes(scene.attributes, scene.params)

    def questions(self, scene: Scene) -> list[Question]:
        truth = scene.attributes
        rng = rng_for(self.name, scene.split, scene.seed, "questions")
        thing = weighted(rng, {"load": 0.65, "person": 0.35})
        hidden = thing == "load" and truth["carrying"] == CANNOT_TELL
        words = {"load": "what the person carries", "person": "the person who comes"}[thing]
        fields = {key: truth[key] for key in ("who", "carrying", "open")}
        absent = ("carrying", "distance", "side", "owner")
        plain = ("who", "count", "open", "ground", "light", "weather")
        answers = {
            **{kind: truth[kind] for kind in plain},
            **{kind: truth[kind].replace("none", "nobody there") for kind in absent},
            "where": grid.whereabouts(self.boxes(scene), thing, hidden=hidden),
            "sentence": _sentence(truth),
            "json": json.dumps(fields),
        }
        return [ask(rng, kind, PROMPTS[kind], answers[kind], thing=words) for kind in KINDS]

    def caption(self, scene: Scene) -> str:
        truth = scene.attributes
        comes = "nobody comes"
        if truth["who"] != "nobody":
            comes = (
                f"{WHO[truth['who']]}, {OWNERS.get(truth['owner'], '')}, comes "
                f"{truth['distance']} {SIDES.get(truth['side'], '')} carrying "
                f"{LOADS[truth['carrying']]}"
            )
        number = f"{truth['count']} {'person' if truth['count'] == '1' else 'people'}"
        return (
            f"Before the car, on {truth['ground']}, {TIMES[truth['light']]}, "
            f"in {truth['weather']} weather, {comes}, with {number} in the picture. "
            f"{_opening(truth)}."
        )


def _opening(truth: dict[str, str]) -> str:
    if truth["open"] == CANNOT_TELL:
        return "What to open one cannot tell"
    return "Nothing opens" if truth["open"] == "nothing" else f"The {truth['open']} opens"


def _sentence(truth: dict[str, str]) -> str:
    opening = _opening(truth)
    if truth["who"] == "nobody":
        return f"Nobody comes: {opening[0].lower()}{opening[1:]}."
    hello = "Welcome back" if truth["owner"] == "yes" else "Hello"
    return f"{hello}, {WHO[truth['who']]} comes: {opening[0].lower()}{opening[1:]}."
