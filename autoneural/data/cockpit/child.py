"""The child on the back seat: how it feels, whether it is safe, what the driver should do.

Left and right are those of the picture. Rules. Comfort is needed when the child cries, is scared or
angry. Advice, the first that applies: harness not fastened: stop and buckle up; harness or face
hidden: look back; crying: pull over; scared or angry: play music; asleep: keep quiet; else nothing.
A blanket may hide the harness; a blanket, a toy or a head turned away the face. Then one cannot
tell, nor whether comfort is needed.
"""

from __future__ import annotations

import json
from typing import Any

from autoneural.data.cockpit import backseat, childbody, childface, face, grid, hair, toys
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
from autoneural.data.cockpit.svg import luma

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "emotion": ("happy", "crying", "angry", "asleep", "scared", "calm", CANNOT_TELL),
    "buckled": ("fastened", "not fastened", CANNOT_TELL),
    "comfort": ("yes", "no", CANNOT_TELL),
    "toy": ("none", "teddy", "ball", "book", "tablet"),
    "toys": ("0", "1", "2", "3"),
    "side": ("left", "right"),
    "age": ("baby", "toddler", "child"),
    "headwear": ("none", "cap", "beanie"),
    "light": ("day", "dusk", "night"),
    "advice": (
        "stop and buckle up", "look back", "pull over", "play music", "keep quiet", "nothing",
    ),
}  # fmt: skip
KINDS = (
    "emotion", "buckled", "comfort", "toy", "count", "side", "age", "headwear", "where", "advice",
    "sentence", "json",
)  # fmt: skip
PROMPTS = {
    "emotion": (
        "How does the child on the back seat feel?",
        "Is the child happy, crying, angry, asleep, scared, calm or cannot tell?",
        "What does the child's face show?",
    ),
    "buckled": (
        "Is the child's harness fastened?",
        "Is the child buckled in: fastened, not fastened or cannot tell?",
        "Check the child's belt.",
    ),
    "comfort": (
        "Does the child need comfort?",
        "Should somebody comfort the child: yes, no or cannot tell?",
        "Is comforting needed on the back seat?",
    ),
    "toy": (
        "What does the child hold?",
        "Is a teddy, a ball, a book, a tablet or nothing in the child's hands?",
        "Which toy is the child holding?",
    ),
    "count": (
        "How many toys are there, books and tablets included?",
        "Count the toys in the picture, a book or a tablet too.",
        "What is the number of toys on the back seat, with books and tablets?",
    ),
    "side": (
        "On which side of the picture does the child sit?",
        "Does the child sit left or right in the picture?",
        "Which seat is taken by the child, the left or the right one of the picture?",
    ),
    "age": (
        "Is it a baby, a toddler or a child?",
        "About how old is the child: baby, toddler or child?",
        "Which age group sits on the back seat?",
    ),
    "headwear": (
        "What does the child wear on the head?",
        "Does the child wear a cap, a beanie or nothing on the head?",
        "Which headwear do you see?",
    ),
    "where": (
        "Where in the picture is the {thing}?",
        "In which part of the picture is the {thing}?",
        "Point to the {thing} in words.",
    ),
    "advice": (
        "What should the driver do about the child?",
        "What does the car advise the driver because of the child?",
        "Which advice fits: stop and buckle up, look back, pull over, play music, keep quiet or "
        "nothing?",
    ),
    "sentence": (
        "Tell the driver in one sentence how the child is.",
        "Summarise the back seat for the driver in one sentence.",
    ),
    "json": (
        'Answer as JSON with the keys "emotion", "buckled" and "advice".',
        'Report {{"emotion": ..., "buckled": ..., "advice": ...}} as JSON.',
    ),
}
THINGS = {"face": "child's face", "toy": "toy in the child's hands"}
STATEMENTS = {
    ("emotion", "happy"): "do you see a happy child",
    ("emotion", "crying"): "do you see a crying child",
    ("emotion", "asleep"): "do you see a sleeping child",
    ("emotion", "scared"): "do you see a scared child",
    ("emotion", "angry"): "do you see an angry child",
    ("emotion", CANNOT_TELL): "is the child's face hidden",
    ("buckled", "fastened"): "is the child's harness clearly fastened",
    ("buckled", "not fastened"): "is the child's harness clearly open",
    ("comfort", "yes"): "does the child clearly need comfort",
    ("toy", "none"): "are the child's hands empty",
    ("toy", "teddy"): "does the child hold a teddy",
    ("toy", "book"): "does the child hold a book",
    ("side", "left"): "does the child sit on the left",
    ("age", "baby"): "is the child a baby",
    ("headwear", "none"): "does the child wear nothing on the head",
    ("light", "night"): "is it night",
    ("advice", "nothing"): "is there nothing to do for the driver",
}
FEELS = {
    "happy": "is happy", "crying": "is crying", "angry": "is angry", "asleep": "is asleep",
    "scared": "is scared", "calm": "is calm", CANNOT_TELL: "hides its face",
}  # fmt: skip
HARNESS = {
    "fastened": "the harness is fastened",
    "not fastened": "the harness is not fastened",
    CANNOT_TELL: "the harness is covered",
}
NEEDS = {
    "yes": "comfort is needed",
    "no": "no comfort is needed",
    CANNOT_TELL: "whether comfort is needed one cannot tell",
}
UPSET = ("crying", "scared", "angry")


def comfort_of(emotion: str) -> str:
    """The module's rule."""
    if emotion == CANNOT_TELL:
        return CANNOT_TELL
    return "yes" if emotion in UPSET else "no"


def advice_of(emotion: str, buckled: str) -> str:
    """The module's rule, in its order."""
    if buckled == "not fastened":
        return "stop and buckle up"
    if CANNOT_TELL in (buckled, emotion):
        return "look back"
    moods = {"crying": "pull over", "scared": "play music", "angry": "play music"}
    return {**moods, "asleep": "keep quiet"}.get(emotion, "nothing")


def _attributes(rng: Rng) -> dict[str, str]:
    moods = {"happy": 0.16, "crying": 0.16, "angry": 0.14, "asleep": 0.15, "scared": 0.13,
             "calm": 0.15, CANNOT_TELL: 0.11}  # fmt: skip
    emotion = weighted(rng, moods)
    buckled = weighted(rng, {"fastened": 0.46, "not fastened": 0.43, CANNOT_TELL: 0.11})
    toy = pick(rng, ATTRIBUTES["toy"])
    beside = {0: 0.45, 1: 0.33, 2: 0.22} if toy == "none" else {0: 0.3, 1: 0.36, 2: 0.34}
    return {
        "emotion": emotion, "buckled": buckled, "comfort": comfort_of(emotion), "toy": toy,
        "toys": str(weighted(rng, beside) + (toy != "none")),
        "side": pick(rng, ATTRIBUTES["side"]), "age": pick(rng, ATTRIBUTES["age"]),
        "headwear": weighted(rng, {"none": 0.42, "cap": 0.29, "beanie": 0.29}),
        "light": weighted(rng, {"day": 0.42, "dusk": 0.26, "night": 0.32}),
        "advice": advice_of(emotion, buckled),
    }  # fmt: skip


def _covers(truth: dict[str, str]) -> list[str]:
    """What may hide the face here."""
    toy = ["toy"] if truth["toy"] in ("teddy", "book", "tablet") else []
    return ["turned", *toy, *(["blanket"] if truth["buckled"] == CANNOT_TELL else [])]


def _look(rng: Rng, split: Split, truth: dict[str, str]) -> dict[str, Any]:
    """Clothes, seat and what lies about."""
    others = [kind for kind in toys.DRAW if kind != truth["toy"]]
    return {
        "skin": pick(rng, pool(split, face.SKIN, face.SKIN_HELD_OUT)),
        "hair": pick(rng, pool(split, childface.HAIR, childface.HAIR_HELD_OUT)),
        "hair_style": pick(rng, pool(split, childface.STYLES, childface.STYLES_HELD_OUT)),
        "iris": pick(rng, pool(split, face.IRIS, face.IRIS_HELD_OUT)),
        "hat": pick(rng, pool(split, hair.HAT, hair.HAT_HELD_OUT)),
        "cloth": pick(rng, pool(split, face.CLOTH, face.CLOTH_HELD_OUT)),
        "trousers": pick(rng, pool(split, face.CLOTH, face.CLOTH_HELD_OUT)),
        "shoes": pick(rng, pool(split, hair.HAT, hair.HAT_HELD_OUT)),
        "seat": pick(rng, pool(split, face.SEAT, face.SEAT_HELD_OUT)),
        "shell": pick(rng, pool(split, backseat.SHELL, backseat.SHELL_HELD_OUT)),
        "blanket": pick(rng, pool(split, childbody.BLANKET, childbody.BLANKET_HELD_OUT)),
        "paint": pick(rng, pool(split, toys.PAINT, toys.PAINT_HELD_OUT)),
        "paint_free": pick(rng, pool(split, toys.PAINT, toys.PAINT_HELD_OUT)),
        "cabin": pick(rng, pool(split, backseat.CABINS, backseat.CABINS_HELD_OUT)),
        "print": pick(rng, ("plain", "stripes", "dots")),
        "extras": [others[i] for i in rng.permutation(len(others)).tolist()],
        "trees": uniforms(rng, 11, 0, 1),
        "freckles": chance(rng, 0.2),
        "quiet": chance(rng, 0.4),
        "lap_blanket": chance(rng, 0.22),
    }


def _pose(rng: Rng, truth: dict[str, str]) -> dict[str, Any]:
    """Where the child sits and how it moves; nothing tells a hidden feeling."""
    asleep = truth["emotion"] == "asleep"
    cover = pick(rng, _covers(truth))
    free = 20 if truth["emotion"] == CANNOT_TELL and cover == "turned" else 7
    tilt = uniform(rng, 11, 20) * pick(rng, (-1, 1)) if asleep else uniform(rng, -free, free)
    alone = truth["toys"] == str(int(truth["toy"] != "none"))
    least = 76 if truth["age"] == "child" else 62  # room for the belt on the pillar
    x = uniform(rng, least, 106 if alone else 86)  # and for the toys beside the child
    return {
        "x": x if truth["side"] == "left" else 256 - x,
        "dy": uniform(rng, -10, 12),
        "zoom": uniform(rng, 0.95, 1.06),
        "tilt": tilt,
        "gaze": uniform(rng, -4, 4),
        "hold": pick(rng, ("lap", "left", "right")),
        "lap_x": uniform(rng, -8, 8),
        "cover": cover,
        "spread": uniform(rng, -4, 4),
        "lean": uniform(rng, -18, 18),
    }


def _params(rng: Rng, split: Split, truth: dict[str, str]) -> dict[str, Any]:
    light = truth["light"]
    look = _look(rng, split, truth)
    veil = {"day": ("#fff2d0", 0.22, 0.0), "dusk": ("#ff9a50", 0.26, 0.04), "night": None}[light]
    if veil and chance(rng, 0.5):
        veil = (veil[0], veil[2], veil[1])
    look["camera"] = camera(
        rng,
        noise={"day": 3.0, "dusk": 5.0, "night": 6.5}[light],
        exposure={"day": 1.0, "dusk": 0.95, "night": 1.3 - 0.35 * luma(look["skin"])}[light],
        infrared=light == "night",
        veil=veil,
    )
    for _ in range(20):  # a box on a line of the grid has no one word
        look.update(_pose(rng, truth))
        found = childbody.boxes(truth, look)
        if all(grid.is_clear(found[name]) for name in THINGS if name in found):
            break
    return look


class Child:
    """Back-seat monitoring: a child's feelings, harness and toys, and what follows from them."""

    name = "child"
    title = "Child on the back seat"
    attributes = ATTRIBUTES
    kinds = KINDS
    statements = STATEMENTS
    alarms = {"buckled": ("not fastened",)}

    def sample(self, seed: int, split: Split) -> Scene:
        return draw_scene(self.name, seed, split, _attributes, _params)

    def svg(self, scene: Scene) -> str:
        return childbody.picture(scene.attributes, scene.params)

    def boxes(self, scene: Scene) -> dict[str, Box]:
        return childbody.boxes(scene.attributes, scene.params)

    def questions(self, scene: Scene) -> list[Question]:
        truth = scene.attributes
        rng = rng_for(self.name, scene.split, scene.seed, "questions")
        thing = pick(rng, ("face", "toy"))
        hidden = thing == "face" and truth["emotion"] == CANNOT_TELL
        fields = {key: truth[key] for key in ("emotion", "buckled", "advice")}
        plain = ("emotion", "buckled", "comfort", "side", "age", "advice")
        answers = {
            **{kind: truth[kind] for kind in plain},
            **{key: truth[key].replace("none", "nothing") for key in ("toy", "headwear")},
            "count": truth["toys"],
            "where": grid.whereabouts(self.boxes(scene), thing, hidden=hidden),
            "sentence": _sentence(truth),
            "json": json.dumps(fields),
        }
        return [ask(rng, kind, PROMPTS[kind], answers[kind], thing=THINGS[thing]) for kind in KINDS]

    def caption(self, scene: Scene) -> str:
        truth = scene.attributes
        wears = "" if truth["headwear"] == "none" else f" with a {truth['headwear']}"
        holds = "nothing" if truth["toy"] == "none" else f"a {truth['toy']}"
        toys_seen = f"{truth['toys']} toy{'' if truth['toys'] == '1' else 's'}"
        view = {"day": "By day", "dusk": "At dusk", "night": "At night, in near-infrared"}
        return (
            f"{view[truth['light']]}: a {truth['age']}{wears} on the {truth['side']} of the back "
            f"seat {FEELS[truth['emotion']]}, holds {holds} and {HARNESS[truth['buckled']]}, with "
            f"{toys_seen} in all. For the driver, {truth['advice']}; {NEEDS[truth['comfort']]}."
        )


def _sentence(truth: dict[str, str]) -> str:
    advice = "nothing to do" if truth["advice"] == "nothing" else truth["advice"]
    return (
        f"The {truth['age']} {FEELS[truth['emotion']]} and {HARNESS[truth['buckled']]}: {advice}."
    )
