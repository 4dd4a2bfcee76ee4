"""HMI understanding: an instrument cluster with speed, sign, gear, charge, temperature, lights,
route and menu.

Rules. Over the limit: the speed is greater than the number in the round sign; "no sign" without
one; one cannot tell while a reflection or a hand hides the sign, or the speed before a sign.
`light` is asked where at most one warning light is on, `several` where two or more are.
"""

from __future__ import annotations

import json
from typing import Any

from autoneural.data.cockpit import cluster, covers, face, grid
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
from autoneural.data.cockpit.cluster_layout import draw_layout
from autoneural.data.cockpit.fonts import COMMON, HELD_OUT
from autoneural.data.cockpit.framing import draw_framing
from autoneural.data.cockpit.icons import LIGHTS, MENU
from autoneural.data.cockpit.tint import tint

DIGITS = tuple("0123456789")
SIGNS = ("30", "50", "80", "100", "120")
DISTANCES = ("none", "50 m", "100 m", "200 m", "500 m", "1 km")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "hundreds": ("none", "1", "2", CANNOT_TELL),
    "tens": ("none", *DIGITS, CANNOT_TELL),
    "ones": (*DIGITS, CANNOT_TELL),
    "sign": ("none", *SIGNS, CANNOT_TELL),
    "over": ("yes", "no", "no sign", CANNOT_TELL),
    "gear": ("P", "R", "N", "D"),
    "charge": cluster.CHARGES,
    "temperature": tuple(cluster.NEEDLE),
    "manoeuvre": ("turn left", "turn right", "straight on", "u-turn", "none"),
    "distance": DISTANCES,
    **{f"light {name}": ("on", "off") for name in LIGHTS},
    "lights": ("0", "1", "2", "3"),
    "menu": tuple(MENU),
    "theme": tuple(cluster.THEMES),
}
KINDS = (
    "speed", "limit", "over", "gear", "manoeuvre", "distance", "charge", "temperature", "light",
    "several", "count", "light_on", "menu", "where", "sentence", "json",
)  # fmt: skip
PROMPTS = {
    "speed": (
        "How fast is the car going, in km/h?",
        "What speed is shown?",
        "Read the speed from the display.",
        "What is the current speed in km/h?",
    ),
    "limit": (
        "What speed limit does the sign show?",
        "Which number is in the round sign?",
        "What is the speed limit?",
    ),
    "over": (
        "Is the car over the speed limit shown?",
        "Compare the speed with the sign: is the car too fast?",
        "Does the speed exceed the limit in the sign?",
    ),
    "gear": ("Which gear is selected?", "What gear is the car in?", "Read the gear."),
    "manoeuvre": (
        "What does the navigation tell the driver to do?",
        "Which manoeuvre comes next?",
        "What is the next navigation instruction?",
    ),
    "distance": (
        "How far is it to the next manoeuvre?",
        "What distance does the navigation show?",
        "After how many metres or kilometres does the manoeuvre come?",
    ),
    "charge": (
        "How full is the battery?",
        "What is the charge level?",
        "Read the charge bar.",
    ),
    "temperature": (
        "What does the temperature gauge show?",
        "Is the temperature low, middle or high?",
        "Where does the needle of the gauge point: low, middle or high?",
    ),
    "light": (
        "Which warning light is on?",
        "Name the warning light that is lit.",
        "What warning does the cluster show?",
    ),
    "several": (
        "Which warning lights are on?",
        "Name all the warning lights that are lit.",
        "What warnings does the cluster show?",
    ),
    "count": (
        "How many warning lights are on?",
        "Count the warning lights.",
        "What is the number of lit warning lights?",
    ),
    "light_on": (
        "Is the {light} light on?",
        "Is the {light} warning lit?",
        "Can you see the {light} light?",
    ),
    "menu": (
        "Which menu item is selected?",
        "What is highlighted in the menu?",
        "Which tab is active?",
    ),
    "where": (
        "Where in the picture is {thing}?",
        "In which part of the picture is {thing}?",
        "Point to {thing} in words.",
    ),
    "sentence": (
        "Say in one sentence what the navigation shows and which menu item is selected.",
        "Summarise route and menu in one sentence.",
    ),
    "json": (
        'Answer as JSON with the keys "gear", "charge" and "lights".',
        'Report {{"gear": ..., "charge": ..., "lights": ...}} as JSON.',
    ),
}
THINGS = {
    "sign": "the speed limit sign",
    "gear": "the selected gear",
    "manoeuvre": "the navigation arrow",
    "charge": "the charge bar",
    "temperature": "the temperature gauge",
    "menu": "the selected menu tab",
}
STATEMENTS = {
    ("over", "yes"): "is the car clearly over the speed limit",
    ("ones", CANNOT_TELL): "is the speed hidden",
    ("sign", CANNOT_TELL): "is the place of the speed limit sign hidden",
    ("temperature", "high"): "is the temperature high",
    ("gear", "P"): "is the car in gear P",
    ("gear", "R"): "is the car in gear R",
    ("gear", "D"): "is the car in gear D",
    ("charge", "empty"): "is the battery empty",
    ("charge", "100 percent"): "is the battery full",
    ("lights", "0"): "is no warning light on",
    ("light oil", "on"): "is the oil light on",
    ("light seat belt", "on"): "is the seat belt light on",
    ("manoeuvre", "turn left"): "does the navigation say turn left",
    ("manoeuvre", "turn right"): "does the navigation say turn right",
    ("menu", "music"): "is the music tab selected",
    ("menu", "maps"): "is the maps tab selected",
}


def over_limit(speed: str, sign: str) -> str:
    """The module's rule."""
    if sign == "none":
        return "no sign"
    if CANNOT_TELL in (speed, sign):
        return CANNOT_TELL
    return "yes" if int(speed) > int(sign) else "no"


def speed_of(truth: dict[str, str]) -> str:
    """The number its digit attributes spell."""
    if truth["ones"] == CANNOT_TELL:
        return CANNOT_TELL
    return "".join(truth[key] for key in cluster.DIGITS if truth[key] != "none")


def _speed(rng: Rng, gear: str) -> int:
    if gear == "P":
        return 0
    if gear == "R":
        return int(rng.integers(1, 20))
    return int(rng.integers(5, 241))


def _sign(rng: Rng, speed: int) -> str:
    """A sign below or above the speed with equal chance, where there is one."""
    wanted = weighted(rng, {"none": 0.18, "yes": 0.36, "no": 0.36, CANNOT_TELL: 0.1})
    if wanted in ("none", CANNOT_TELL):
        return wanted
    fitting = [sign for sign in SIGNS if over_limit(str(speed), sign) == wanted]
    return pick(rng, fitting or SIGNS)


def _attributes(rng: Rng) -> dict[str, str]:
    gear = weighted(rng, {"P": 0.16, "R": 0.2, "N": 0.27, "D": 0.37})
    speed = _speed(rng, gear)
    sign = _sign(rng, speed)
    places = [digit.replace(" ", "none") for digit in str(speed).rjust(3)]
    if chance(rng, 0.1):
        places = [CANNOT_TELL] * 3
    digits: dict[str, str] = dict(zip(cluster.DIGITS, places, strict=True))
    manoeuvre = pick(rng, ATTRIBUTES["manoeuvre"])
    count = int(weighted(rng, {0: 0.2, 1: 0.36, 2: 0.25, 3: 0.19}))
    lit = set(rng.permutation(len(LIGHTS))[:count].tolist())
    return {
        **digits,
        "sign": sign,
        "over": over_limit(speed_of(digits), sign),
        "gear": gear,
        "charge": pick(rng, cluster.CHARGES),
        "temperature": pick(rng, ATTRIBUTES["temperature"]),
        "manoeuvre": manoeuvre,
        "distance": "none" if manoeuvre == "none" else pick(rng, DISTANCES[1:]),
        **{f"light {name}": "on" if i in lit else "off" for i, name in enumerate(LIGHTS)},
        "lights": str(count),
        "menu": pick(rng, tuple(MENU)),
        "theme": pick(rng, tuple(cluster.THEMES)),
    }


def lit_lights(truth: dict[str, str]) -> list[str]:
    return [name for name in LIGHTS if truth[f"light {name}"] == "on"]


def _params(rng: Rng, split: Split, truth: dict[str, str]) -> dict[str, Any]:
    return {
        "fonts": [pick(rng, pool(split, COMMON, HELD_OUT))],
        "layout": draw_layout(rng, split),
        "order": list(pick(rng, pool(split, cluster.ORDERS, cluster.ORDERS_HELD_OUT))),
        "shade": pick(rng, pool(split, cluster.SHADES, cluster.SHADES_HELD_OUT)),
        "accent": tint(rng, split, cluster.ACCENTS, cluster.ACCENTS_HELD_OUT, spread=40),
        "lights": [str(name) for name in rng.permutation(lit_lights(truth)).tolist()],
        "light_x": uniforms(rng, 4, 0, 1),
        "light_y": uniforms(rng, 3, -2, 3),
        "tabs": [str(name) for name in rng.permutation(list(MENU)).tolist()],
        "jitter": uniforms(rng, 8, -4, 4),
        "tilt": uniform(rng, -2.5, 2.5),
        "zoom": uniform(rng, 0.95, 1.03),
        "ring": pick(rng, ("thin", "thick", "ticks")),
        "lean": uniform(rng, -14, 14),
        "cover": pick(rng, ("glare", "hand")),
        "shine": pick(rng, pool(split, covers.SHINE, covers.SHINE_HELD_OUT)),
        "skin": pick(rng, pool(split, face.SKIN, face.SKIN_HELD_OUT)),
        "cloth": pick(rng, pool(split, face.CLOTH, face.CLOTH_HELD_OUT)),
        "glare": chance(rng, 0.3),
        "camera": camera(
            rng,
            noise=3.0,
            veil=("#ffffff", 0.16, 0.0) if chance(rng, 0.25) else None,
        ),
        "framing": draw_framing(rng, split, 0.74),
    }


class Hmi:
    """Instrument cluster: read-outs, warning lights, navigation and menu."""

    name = "hmi"
    title = "HMI understanding"
    attributes = ATTRIBUTES
    kinds = KINDS
    statements = STATEMENTS
    alarms = {"over": ("yes",)}

    def sample(self, seed: int, split: Split) -> Scene:
        return draw_scene(self.name, seed, split, _attributes, _params)

    def svg(self, scene: Scene) -> str:
        return cluster.cluster(scene.attributes, scene.params).text()

    def boxes(self, scene: Scene) -> dict[str, Box]:
        """One per digit of the speed; a lit warning light under its plain name."""
        return cluster.cluster(scene.attributes, scene.params).boxes

    def questions(self, scene: Scene) -> list[Question]:
        truth, lit = scene.attributes, lit_lights(scene.attributes)
        rng = rng_for(self.name, scene.split, scene.seed, "questions")
        asked_light = pick(rng, lit if lit and chance(rng, 0.6) else tuple(LIGHTS))
        found = self.boxes(scene)
        thing = pick(rng, grid.tellable(found, THINGS))
        hidden = thing == "sign" and truth["sign"] == CANNOT_TELL
        fields = {"gear": truth["gear"], "charge": truth["charge"], "lights": len(lit)}
        answers = {
            **{k: truth[k] for k in ("over", "gear", "manoeuvre", "charge", "temperature", "menu")},
            "speed": speed_of(truth),
            "limit": truth["sign"].replace("none", "no sign"),
            "distance": truth["distance"].replace("none", "no route"),
            "light": lit[0] if lit else "none",
            "several": " and ".join(lit),
            "count": truth["lights"],
            "light_on": "yes" if asked_light in lit else "no",
            "where": grid.whereabouts(found, thing, hidden=hidden),
            "sentence": _sentence(truth),
            "json": json.dumps(fields),
        }
        passed = "light" if len(lit) > 1 else "several"
        words = {"light": asked_light, "thing": THINGS[thing]}
        return [ask(rng, k, PROMPTS[k], answers[k], **words) for k in KINDS if k != passed]

    def caption(self, scene: Scene) -> str:
        truth, lit = scene.attributes, lit_lights(scene.attributes)
        lights = f"the warning lights {' and '.join(lit)} are on"
        if len(lit) < 2:
            lights = f"the {lit[0]} warning light is on" if lit else "no warning light is on"
        route = "no route" if truth["manoeuvre"] == "none" else (
            f"{truth['manoeuvre']} in {truth['distance']}"
        )  # fmt: skip
        speed = speed_of(truth)
        speed = "a hidden speed" if speed == CANNOT_TELL else f"{speed} km/h"
        return (
            f"A {truth['theme']} cluster shows {speed} in gear {truth['gear']} with "
            f"{_limit(truth)}. Charge {truth['charge']}, temperature {truth['temperature']}, "
            f"{route}, the {truth['menu']} tab is selected and {lights} ({len(lit)})."
        )


def _limit(truth: dict[str, str]) -> str:
    """The sign and what it says about the speed."""
    if truth["over"] == "no sign":
        return "no sign"
    sign = "a hidden sign" if truth["sign"] == CANNOT_TELL else f"a limit of {truth['sign']}"
    verdict = {
        "yes": "so the car is over the limit",
        "no": "so the car is not over the limit",
        CANNOT_TELL: "so whether the car is over the limit one cannot tell",
    }
    return f"{sign}, {verdict[truth['over']]}"


def _sentence(truth: dict[str, str]) -> str:
    route = "no manoeuvre" if truth["manoeuvre"] == "none" else truth["manoeuvre"]
    return f"The navigation shows {route} and {truth['menu']} is selected."
