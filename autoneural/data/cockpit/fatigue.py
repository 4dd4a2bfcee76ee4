"""Fatigue driving: the driver's face in a cabin camera.

Rules. asleep: eyes closed; drowsy: eyes half closed or yawning; distracted: a phone at the ear or
a gaze off the road; else alert; the first that applies. A break is needed when asleep or drowsy.
Left and right are those of the picture. Sunglasses hide the eyes, which count as open; the head
still shows the gaze. A mask or a hand hides the mouth, which counts as not yawning. A blanket may
hide the seat belt and what hangs at its pillar.
"""

from __future__ import annotations

import json

from autoneural.data.cockpit import cabin, covers, face, grid, hair
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
    weighted,
)

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "eyes": ("open", "half closed", "closed", CANNOT_TELL),
    "mouth": ("neutral", "smiling", "yawning", CANNOT_TELL),
    "gaze": ("road", "left", "right", "down", "none"),
    "phone": ("none", "left", "right"),
    "belt": ("fastened", "not fastened", CANNOT_TELL),
    "eyewear": ("none", "glasses", "sunglasses"),
    "headwear": ("none", "cap", "beanie"),
    "camera": ("day", "dusk", "night", "infrared"),
    "state": ("alert", "drowsy", "asleep", "distracted"),
    "break": ("yes", "no"),
}
KINDS = (
    "eyes", "mouth", "gaze", "phone", "belt", "eyewear", "state", "break", "where", "sentence",
    "json",
)  # fmt: skip
PROMPTS = {
    "eyes": (
        "Are the driver's eyes open, half closed, closed or cannot tell?",
        "How open are the driver's eyes?",
        "What can you say about the driver's eyes?",
        "Describe the state of the eyes.",
    ),
    "mouth": (
        "What is the driver's mouth doing?",
        "Is the mouth neutral, smiling, yawning or cannot tell?",
        "What does the mouth show?",
    ),
    "gaze": (
        "Where is the driver looking, seen in the picture?",
        "Which way does the driver look: road, left, right or down?",
        "What is the gaze direction in this picture?",
    ),
    "phone": (
        "Is there a phone at the ear, and on which side of the picture?",
        "On which side of the picture is the phone?",
        "Does the driver hold a phone at the ear: left, right or no phone?",
    ),
    "belt": (
        "Is the seat belt fastened, not fastened or cannot tell?",
        "What about the seat belt?",
        "Check the seat belt.",
    ),
    "eyewear": (
        "What is the driver wearing over the eyes?",
        "Does the driver wear glasses, sunglasses or nothing over the eyes?",
        "Which eyewear do you see?",
    ),
    "state": (
        "What state is the driver in?",
        "Is the driver alert, drowsy, asleep or distracted?",
        "How would you rate the driver's condition?",
        "Which word fits the driver: alert, drowsy, asleep or distracted?",
    ),
    "break": (
        "Does the driver need a break?",
        "Should the car suggest a break now?",
        "Is it time for the driver to rest?",
    ),
    "where": (
        "Where in the picture is {thing}?",
        "In which part of the picture is {thing}?",
        "Point to {thing} in words.",
    ),
    "sentence": (
        "Say in one sentence how the driver is and whether a break is needed.",
        "Summarise the driver's condition in one sentence.",
    ),
    "json": (
        'Answer as JSON with the keys "eyes", "mouth" and "state".',
        'Report {{"eyes": ..., "mouth": ..., "state": ...}} as JSON.',
    ),
}
THINGS = {
    "phone": "the phone",
    "mouth": "the driver's mouth",
    "headwear": "the driver's cap or beanie",
    "face": "the driver's face",
}
PHONE_ANSWERS = {"none": "no phone", "left": "left", "right": "right"}
EYEWEAR_ANSWERS = {"none": "nothing", "glasses": "glasses", "sunglasses": "sunglasses"}
STATEMENTS = {
    ("eyes", "closed"): "are the driver's eyes closed",
    ("eyes", "open"): "are the driver's eyes fully open",
    ("mouth", "yawning"): "does the driver yawn",
    ("mouth", "smiling"): "does the driver smile",
    ("mouth", CANNOT_TELL): "is the driver's mouth hidden",
    ("gaze", "road"): "does the driver look at the road",
    ("belt", "fastened"): "is the seat belt clearly fastened",
    ("belt", "not fastened"): "is the seat belt clearly open",
    ("eyewear", "sunglasses"): "does the driver wear sunglasses",
    ("phone", "none"): "is there no phone",
    ("state", "asleep"): "is the driver asleep",
    ("state", "alert"): "is the driver alert",
    ("break", "yes"): "does the driver need a break",
}
LOOKING = {
    "road": "looking at the road",
    "left": "looking to the left",
    "right": "looking to the right",
    "down": "looking down",
    "none": "with no gaze",
}


def state_of(eyes: str, mouth: str, gaze: str, phone: str) -> str:
    """The module's rule, in its order."""
    if eyes == "closed":
        return "asleep"
    if eyes == "half closed" or mouth == "yawning":
        return "drowsy"
    if phone != "none" or gaze not in ("road", "none"):
        return "distracted"
    return "alert"


def _attributes(rng: Rng) -> dict[str, str]:
    """Drawn from a wanted state, because independent draws would leave few drivers alert."""
    wanted = weighted(rng, {"alert": 0.27, "drowsy": 0.25, "asleep": 0.24, "distracted": 0.24})
    sunglasses = wanted != "asleep" and chance(rng, 0.2)
    eyes, mouth = "open", weighted(rng, {"neutral": 0.48, "smiling": 0.52})
    phone, gaze = "none", "road"
    if wanted == "asleep":
        eyes, gaze = "closed", "none"
        mouth = weighted(rng, {"neutral": 0.5, "smiling": 0.2, "yawning": 0.3})
    elif wanted == "drowsy":
        eyes = "open" if sunglasses or chance(rng, 0.3) else "half closed"
        mouth = "yawning" if eyes == "open" or chance(rng, 0.5) else mouth
        gaze = weighted(rng, {"road": 0.22, "left": 0.26, "right": 0.26, "down": 0.26})
    elif wanted == "distracted":
        gaze = weighted(rng, {"road": 0.15, "left": 0.3, "right": 0.3, "down": 0.25})
        phone = "any" if gaze == "road" or chance(rng, 0.7) else "none"
    if wanted in ("asleep", "drowsy") and chance(rng, 0.62):
        phone = "any"
    if phone == "any":
        phone = pick(rng, ("left", "right"))
    eyes = CANNOT_TELL if sunglasses else eyes
    mouth = CANNOT_TELL if chance(rng, 0.11) else mouth
    eyewear = "sunglasses" if sunglasses else weighted(rng, {"none": 0.55, "glasses": 0.45})
    state = state_of(eyes, mouth, gaze, phone)
    return {
        "eyes": eyes, "mouth": mouth, "gaze": gaze, "phone": phone,
        "belt": weighted(rng, {"fastened": 0.45, "not fastened": 0.45, CANNOT_TELL: 0.1}),
        "eyewear": eyewear,
        "headwear": weighted(rng, {"none": 0.6, "cap": 0.2, "beanie": 0.2}),
        "camera": weighted(rng, {"day": 0.35, "dusk": 0.2, "night": 0.2, "infrared": 0.25}),
        "state": state, "break": "yes" if state in ("asleep", "drowsy") else "no",
    }  # fmt: skip


def _place(rng: Rng, phone: str) -> dict[str, float]:
    """Where the driver is in the picture; a phone stays within it."""
    free = {"left": (0, 1), "right": (-1, 0)}.get(phone, (-1, 0, 1))
    return {
        "shift": round(pick(rng, free) * 52 + uniform(rng, -8, 8), 3),
        "drop": round(pick(rng, (2, 28)) + uniform(rng, -4, 6), 3),
        "zoom": uniform(rng, 0.84, 1.02),
        "dx": uniform(rng, -10, 10),
        "dy": uniform(rng, -4, 10),
    }


def _params(rng: Rng, split: Split, attributes: dict[str, str]) -> dict:
    light = attributes["camera"]
    exposure = {"day": 1.0, "dusk": 0.95, "night": 0.95, "infrared": 1.0}[light]
    veil = {"day": ("#fff2d0", 0.28, 0.0), "dusk": ("#ff9a50", 0.28, 0.0),
            "night": ("#0a1228", 0.42, 0.18), "infrared": None}[light]  # fmt: skip
    if veil and chance(rng, 0.5):
        veil = (veil[0], veil[2], veil[1])
    asleep = attributes["state"] == "asleep"
    return {
        "skin": pick(rng, pool(split, face.SKIN, face.SKIN_HELD_OUT)),
        "hair": pick(rng, pool(split, hair.HAIR, hair.HAIR_HELD_OUT)),
        "hair_style": pick(rng, pool(split, hair.STYLES, hair.STYLES_HELD_OUT)),
        "cloth": pick(rng, pool(split, face.CLOTH, face.CLOTH_HELD_OUT)),
        "collar": pick(rng, ("crew", "shirt", "hood")),
        "seat": pick(rng, pool(split, face.SEAT, face.SEAT_HELD_OUT)),
        "seat_style": pick(rng, pool(split, cabin.SEATS, cabin.SEATS_HELD_OUT)),
        "iris": pick(rng, pool(split, face.IRIS, face.IRIS_HELD_OUT)),
        "hat": pick(rng, pool(split, hair.HAT, hair.HAT_HELD_OUT)),
        "mask": pick(rng, pool(split, covers.MASK, covers.MASK_HELD_OUT)),
        "blanket": pick(rng, pool(split, covers.BLANKET, covers.BLANKET_HELD_OUT)),
        "weave": pick(rng, covers.WEAVES),
        "cover": pick(rng, ("mask", "hand")),
        "hand": pick(rng, ("left", "right")),
        "chin_mask": chance(rng, 0.12),
        "lap": chance(rng, 0.15),
        "beard": chance(rng, 0.22),
        "width": uniform(rng, 0.92, 1.06),
        "tilt": uniform(rng, 8, 20) * pick(rng, (-1, 1)) if asleep else uniform(rng, -7, 7),
        "scale": uniform(rng, 0.92, 1.08),
        **_place(rng, attributes["phone"]),
        "camera": camera(
            rng,
            noise={"day": 3.0, "dusk": 5.0, "night": 6.0, "infrared": 7.0}[light],
            exposure=exposure,
            infrared=light == "infrared",
            veil=veil,
        ),
    }


class Fatigue:
    """Driver monitoring: eyes, mouth, gaze, phone, belt, eyewear, and what follows from them."""

    name = "fatigue"
    title = "Fatigue driving"
    attributes = ATTRIBUTES
    kinds = KINDS
    statements = STATEMENTS
    alarms = {"state": ("asleep",)}

    def sample(self, seed: int, split: Split) -> Scene:
        return draw_scene(self.name, seed, split, _attributes, _params)

    def svg(self, scene: Scene) -> str:
        return cabin.cabin(scene.attributes, scene.params).text()

    def boxes(self, scene: Scene) -> dict[str, Box]:
        """Of the eyes one, on the left of the picture."""
        return cabin.cabin(scene.attributes, scene.params).boxes

    def questions(self, scene: Scene) -> list[Question]:
        truth = scene.attributes
        rng = rng_for(self.name, scene.split, scene.seed, "questions")
        rest = "needs a break" if truth["break"] == "yes" else "needs no break"
        fields = {key: truth[key] for key in ("eyes", "mouth", "state")}
        found = self.boxes(scene)
        sought = {k: 1.0 if k in found else 0.3 for k in grid.tellable(found, THINGS)}
        thing = weighted(rng, sought)
        hidden = thing == "mouth" and truth["mouth"] == CANNOT_TELL
        answers = {
            **{kind: truth[kind] for kind in ("eyes", "mouth", "gaze", "belt", "state", "break")},
            "phone": PHONE_ANSWERS[truth["phone"]],
            "eyewear": EYEWEAR_ANSWERS[truth["eyewear"]],
            "where": grid.whereabouts(found, thing, hidden=hidden),
            "sentence": f"The driver is {truth['state']} and {rest}.",
            "json": json.dumps(fields),
        }
        asked = [kind for kind in KINDS if kind != "gaze" or truth["gaze"] != "none"]
        return [ask(rng, k, PROMPTS[k], answers[k], thing=THINGS[thing]) for k in asked]

    def caption(self, scene: Scene) -> str:
        truth = scene.attributes
        eyes, mouth = ("hidden" if truth[k] == CANNOT_TELL else truth[k] for k in ("eyes", "mouth"))
        belt = "hidden" if truth["belt"] == CANNOT_TELL else truth["belt"]
        wears = [truth[key] for key in ("eyewear", "headwear") if truth[key] != "none"]
        wearing = f", wearing {' and '.join(wears)}," if wears else ""
        phone = "no phone" if truth["phone"] == "none" else f"a phone on the {truth['phone']}"
        need = "a break is needed" if truth["break"] == "yes" else "no break is needed"
        view = "An infrared" if truth["camera"] == "infrared" else f"A {truth['camera']}"
        return (
            f"{view} picture of a driver with {eyes} eyes and a {mouth} mouth{wearing} "
            f"{LOOKING[truth['gaze']]}, with {phone} and the seat belt {belt}. "
            f"The driver is {truth['state']}; {need}."
        )
