"""Safety when getting on or off: what comes from behind while a door is about to open.

The camera looks back over the own car's tail; left and right are those of the picture. One door is
ajar. Rule: wait when something near passes on the door's side, or a motor vehicle (car, scooter)
that is still far does; otherwise open. What passes on the other side never matters. Mud, mist or
a glare may hide what comes: then one cannot tell, and waits.
"""

from __future__ import annotations

import json
from typing import Any

from autoneural.data.cockpit import covers, grid, street
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
    "object": ("none", "car", "cyclist", "scooter", "pedestrian", CANNOT_TELL),
    "distance": ("none", "near", "far", CANNOT_TELL),
    "side": ("none", "left", "right", CANNOT_TELL),
    "door": ("left", "right"),
    "ground": ("puddle", "kerb", "clear"),
    "light": ("day", "dusk", "night"),
    "weather": ("dry", "rain", "snow"),
    "action": ("open", "wait"),
}
KINDS = (
    "object", "distance", "side", "door", "ground", "light", "weather", "action", "where",
    "sentence", "json",
)  # fmt: skip
PROMPTS = {
    "object": (
        "What is coming from behind?",
        "What is approaching: a car, a cyclist, a scooter, a pedestrian, nothing or cannot tell?",
        "Who or what is on the road behind the car?",
    ),
    "distance": (
        "How far away is what is coming: near, far, nothing there or cannot tell?",
        "How near is the thing behind the car?",
        "How close is what is approaching?",
    ),
    "side": (
        "On which side will it pass?",
        "Which side of the picture is it on?",
        "Does it come along the left, the right, is nothing there or cannot one tell?",
    ),
    "door": (
        "Which door is ajar?",
        "On which side is the door open a little?",
        "Which door is about to open?",
    ),
    "ground": (
        "What is on the ground beside the door?",
        "What would one step onto: a puddle, a kerb or clear ground?",
        "How is the ground at the door?",
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
    "action": (
        "Is it safe to get out, open or wait?",
        "Should the passenger open the door or wait?",
        "What should the car advise: open or wait?",
        "May the door that is ajar be opened now, or wait?",
    ),
    "where": (
        "Where in the picture is {thing}?",
        "In which part of the picture is {thing}?",
        "Point to {thing} in words.",
    ),
    "sentence": (
        "Give the passenger a one-sentence warning or an all-clear.",
        "Say in one sentence what comes and what to do.",
    ),
    "json": (
        'Answer as JSON with the keys "object", "side" and "action".',
        'Report {{"object": ..., "side": ..., "action": ...}} as JSON.',
    ),
}
THINGS = {"object": "what comes from behind", "door": "the door that is ajar"}
STATEMENTS = {
    ("object", "car"): "is a car coming",
    ("object", "cyclist"): "is a cyclist coming",
    ("object", "scooter"): "is a scooter coming",
    ("object", "pedestrian"): "is a pedestrian coming",
    ("object", "none"): "is nothing coming",
    ("object", CANNOT_TELL): "is the view back hidden",
    ("distance", "near"): "is something near",
    ("side", "left"): "does something come along the left",
    ("door", "left"): "is the left door ajar",
    ("ground", "puddle"): "is there a puddle beside the door",
    ("ground", "kerb"): "is there a kerb beside the door",
    ("light", "night"): "is it night",
    ("weather", "snow"): "does it snow",
    ("action", "open"): "is it safe to open the door",
}
STAINS = ((40.0, 30.0), (216.0, 30.0), (128.0, 166.0), (128.0, 238.0))
"""Where dirt on the lens hides nothing that is asked."""
MOTOR = ("car", "scooter")


def action_of(thing: str, distance: str, side: str, door: str) -> str:
    """The module's rule."""
    if thing == CANNOT_TELL:
        return "wait"
    if thing == "none" or side != door:
        return "open"
    return "wait" if distance == "near" or thing in MOTOR else "open"


def _attributes(rng: Rng) -> dict[str, str]:
    weights = {"none": 0.14, "car": 0.22, "cyclist": 0.21, "scooter": 0.22, "pedestrian": 0.21}
    thing = weighted(rng, weights)
    distance, side = pick(rng, ("near", "far")), pick(rng, ("left", "right"))
    other = "left" if side == "right" else "right"
    door = side if chance(rng, 0.78) else other
    if thing == "none":
        distance = side = "none"
    if chance(rng, 0.1):
        thing = distance = side = CANNOT_TELL
    return {
        "object": thing, "distance": distance, "side": side, "door": door,
        "ground": pick(rng, ATTRIBUTES["ground"]),
        "light": weighted(rng, {"day": 0.4, "dusk": 0.28, "night": 0.32}),
        "weather": weighted(rng, {"dry": 0.42, "rain": 0.3, "snow": 0.28}),
        "action": action_of(thing, distance, side, door),
    }  # fmt: skip


def _params(rng: Rng, split: Split, truth: dict[str, str]) -> dict[str, Any]:
    near = truth["distance"] == "near"
    veil = {
        "day": ("#fff4dc", 0.1, 0.0),
        "dusk": ("#ff8a48", 0.14, 0.06),
        "night": ("#0a1026", 0.12, 0.0),
    }[truth["light"]]
    return {
        "place": pick(rng, pool(split, street.PLACES, street.PLACES_HELD_OUT)),
        "paint": tint(rng, split, street.PAINT, street.PAINT_HELD_OUT),
        "own": tint(rng, split, street.PAINT, street.PAINT_HELD_OUT),
        "cloth": tint(rng, split, street.CLOTH, street.CLOTH_HELD_OUT),
        "trousers": tint(rng, split, street.TROUSERS, street.TROUSERS_HELD_OUT),
        "helmet": tint(rng, split, street.CLOTH, street.CLOTH_HELD_OUT),
        "skin": pick(rng, pool(split, street.SKIN, street.SKIN_HELD_OUT)),
        "body": pick(rng, ("saloon", "tall")),
        "y": uniform(rng, 180, 196) if near else uniform(rng, 118, 125),
        "lane": uniform(rng, 0.76, 0.86) if near else uniform(rng, 0.85, 1.15),
        "shift": uniform(rng, -13, 13),
        "cover": pick(rng, ("mud", "mist", "glare")),
        "mud": pick(rng, pool(split, covers.MUD, covers.MUD_HELD_OUT)),
        "shine": pick(rng, pool(split, covers.SHINE, covers.SHINE_HELD_OUT)),
        "stain": list(pick(rng, STAINS)) if chance(rng, 0.2) else None,
        "horizon": uniform(rng, 82, 92),
        "blocks": uniforms(rng, 24, 0, 1),
        "drops": uniforms(rng, 120, 0, 256),
        "camera": camera(
            rng,
            noise={"day": 3.0, "dusk": 4.0, "night": 4.5}[truth["light"]],
            veil=veil,
        ),
    }


class Boarding:
    """Door-opening safety: what approaches, where, over which ground, and whether to wait."""

    name = "boarding"
    title = "Safety when getting on or off"
    attributes = ATTRIBUTES
    kinds = KINDS
    statements = STATEMENTS
    alarms = {"object": ("car", "scooter", "cyclist"), "action": ("wait",)}

    def sample(self, seed: int, split: Split) -> Scene:
        return draw_scene(self.name, seed, split, _attributes, _params)

    def svg(self, scene: Scene) -> str:
        return street.street(scene.attributes, scene.params).text()

    def boxes(self, scene: Scene) -> dict[str, Box]:
        """`ground` is the place beside the door, whatever lies there."""
        return street.street(scene.attributes, scene.params).boxes

    def questions(self, scene: Scene) -> list[Question]:
        truth = scene.attributes
        rng = rng_for(self.name, scene.split, scene.seed, "questions")
        nothing = {"object": "nothing", "distance": "nothing there", "side": "nothing there"}
        found, ground = self.boxes(scene), truth["ground"]
        things = THINGS if ground == "clear" else {**THINGS, "ground": f"the {ground}"}
        sought = {k: 2.5 if k == "object" else 1.0 for k in grid.tellable(found, things)}
        thing = weighted(rng, sought)
        hidden = thing == "object" and truth["object"] == CANNOT_TELL
        fields = {key: truth[key] for key in ("object", "side", "action")}
        answers = {
            **{kind: truth[kind] for kind in ("door", "ground", "light", "weather", "action")},
            **{k: words if truth[k] == "none" else truth[k] for k, words in nothing.items()},
            "where": grid.whereabouts(found, thing, hidden=hidden),
            "sentence": _sentence(truth),
            "json": json.dumps(fields),
        }
        return [ask(rng, k, PROMPTS[k], answers[k], thing=things[thing]) for k in KINDS]

    def caption(self, scene: Scene) -> str:
        truth = scene.attributes
        thing = "nothing comes"
        if truth["object"] == CANNOT_TELL:
            thing = "what comes one cannot tell"
        elif truth["object"] != "none":
            thing = f"a {truth['object']} comes {truth['distance']} on the {truth['side']}"
        ground = {"puddle": "a puddle", "kerb": "a kerb", "clear": "clear ground"}
        advice = "it is safe to open" if truth["action"] == "open" else "wait before opening"
        return (
            f"A view behind the car by {truth['light']} in {truth['weather']} weather: {thing}. "
            f"The {truth['door']} door is ajar beside {ground[truth['ground']]}; {advice}."
        )


def _sentence(truth: dict[str, str]) -> str:
    advice = "Wait" if truth["action"] == "wait" else "You can open"
    if truth["object"] == CANNOT_TELL:
        return f"{advice}, the view back is hidden."
    if truth["object"] == "none":
        return f"{advice}, nothing is coming."
    return f"{advice}, a {truth['object']} is {truth['distance']} on the {truth['side']}."
