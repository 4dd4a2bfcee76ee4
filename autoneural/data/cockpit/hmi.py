"""HMI understanding: an instrument cluster with speed, sign, gear, charge, lights, route, menu.

Rules. Over the limit: the speed is greater than the number in the round sign; "no sign" without
one. `light` is asked only where at most one warning light is on, so that it has one answer.
"""

from __future__ import annotations

import json
from typing import Any

from autoneural.data.cockpit import cluster
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
    pool,
    rng_for,
    uniform,
    uniforms,
    weighted,
)
from autoneural.data.cockpit.fonts import COMMON, HELD_OUT
from autoneural.data.cockpit.icons import LIGHTS, MENU

DIGITS = tuple("0123456789")
SIGNS = ("none", "30", "50", "80", "100", "120")
DISTANCES = ("none", "50 m", "100 m", "200 m", "500 m", "1 km")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "hundreds": ("none", "1", "2"),
    "tens": ("none", *DIGITS),
    "ones": DIGITS,
    "sign": SIGNS,
    "over": ("yes", "no", "no sign"),
    "gear": ("P", "R", "N", "D"),
    "charge": cluster.CHARGES,
    "manoeuvre": ("turn left", "turn right", "straight on", "u-turn", "none"),
    "distance": DISTANCES,
    **{f"light {name}": ("on", "off") for name in LIGHTS},
    "lights": ("0", "1", "2", "3"),
    "menu": tuple(MENU),
    "theme": tuple(cluster.THEMES),
}
KINDS = (
    "speed", "limit", "over", "gear", "manoeuvre", "charge", "light", "count", "light_on", "menu",
    "sentence", "json",
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
    "charge": (
        "How full is the battery?",
        "What is the charge level?",
        "Read the charge bar.",
    ),
    "light": (
        "Which warning light is on?",
        "Name the warning light that is lit.",
        "What warning does the cluster show?",
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
    "sentence": (
        "Say in one sentence what the navigation shows and which menu item is selected.",
        "Summarise route and menu in one sentence.",
    ),
    "json": (
        'Answer as JSON with the keys "gear", "charge" and "lights".',
        'Report {{"gear": ..., "charge": ..., "lights": ...}} as JSON.',
    ),
}
STATEMENTS = {
    ("over", "yes"): "is the car over the speed limit",
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


def over_limit(speed: int, sign: str) -> str:
    if sign == "none":
        return "no sign"
    return "yes" if speed > int(sign) else "no"


def speed_of(truth: dict[str, str]) -> int:
    """The number its digit attributes spell."""
    return int("".join(truth[key] for key in ("hundreds", "tens", "ones") if truth[key] != "none"))


def _speed(rng: Rng, gear: str) -> int:
    if gear == "P":
        return 0
    if gear == "R":
        return int(rng.integers(1, 20))
    return int(rng.integers(5, 241))


def _sign(rng: Rng, speed: int) -> str:
    """A sign below or above the speed with equal chance, where there is one."""
    wanted = weighted(rng, {"no sign": 0.2, "yes": 0.4, "no": 0.4})
    fitting = [sign for sign in SIGNS if over_limit(speed, sign) == wanted]
    return pick(rng, fitting or SIGNS[1:])


def _attributes(rng: Rng) -> dict[str, str]:
    gear = weighted(rng, {"P": 0.16, "R": 0.2, "N": 0.27, "D": 0.37})
    speed = _speed(rng, gear)
    sign = _sign(rng, speed)
    digits = str(speed).rjust(3)
    manoeuvre = pick(rng, ATTRIBUTES["manoeuvre"])
    count = int(weighted(rng, {0: 0.2, 1: 0.42, 2: 0.22, 3: 0.16}))
    lit = set(rng.permutation(len(LIGHTS))[:count].tolist())
    return {
        "hundreds": digits[0].replace(" ", "none"),
        "tens": digits[1].replace(" ", "none"),
        "ones": digits[2],
        "sign": sign,
        "over": over_limit(speed, sign),
        "gear": gear,
        "charge": pick(rng, cluster.CHARGES),
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
        "layout": pick(rng, pool(split, cluster.LAYOUTS, cluster.LAYOUTS_HELD_OUT)),
        "order": list(pick(rng, pool(split, cluster.ORDERS, cluster.ORDERS_HELD_OUT))),
        "shade": pick(rng, pool(split, cluster.SHADES, cluster.SHADES_HELD_OUT)),
        "accent": pick(rng, pool(split, cluster.ACCENTS, cluster.ACCENTS_HELD_OUT)),
        "lights": [str(name) for name in rng.permutation(lit_lights(truth)).tolist()],
        "light_x": uniforms(rng, 4, 0, 1),
        "light_y": uniforms(rng, 3, -2, 3),
        "tabs": [str(name) for name in rng.permutation(list(MENU)).tolist()],
        "jitter": uniforms(rng, 8, -4, 4),
        "tilt": uniform(rng, -2.5, 2.5),
        "zoom": uniform(rng, 0.95, 1.03),
        "ring": pick(rng, ("thin", "thick", "ticks")),
        "glare": chance(rng, 0.3),
        "camera": camera(
            rng,
            noise=3.0,
            veil=("#ffffff", 0.16, 0.0) if chance(rng, 0.25) else None,
        ),
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
        return cluster.cluster(scene.attributes, scene.params)

    def boxes(self, scene: Scene) -> dict[str, Box]:
        return {}

    def questions(self, scene: Scene) -> list[Question]:
        truth, lit = scene.attributes, lit_lights(scene.attributes)
        rng = rng_for(self.name, scene.split, scene.seed, "questions")
        asked_light = pick(rng, lit if lit and chance(rng, 0.6) else tuple(LIGHTS))
        fields = {"gear": truth["gear"], "charge": truth["charge"], "lights": len(lit)}
        answers = {
            "speed": str(speed_of(truth)),
            "limit": "no sign" if truth["sign"] == "none" else truth["sign"],
            "over": truth["over"],
            "gear": truth["gear"],
            "manoeuvre": truth["manoeuvre"],
            "charge": truth["charge"],
            "light": lit[0] if lit else "none",
            "count": truth["lights"],
            "light_on": "yes" if asked_light in lit else "no",
            "menu": truth["menu"],
            "sentence": _sentence(truth),
            "json": json.dumps(fields),
        }
        asked = [kind for kind in KINDS if kind != "light" or len(lit) <= 1]
        return [ask(rng, k, PROMPTS[k], answers[k], light=asked_light) for k in asked]

    def caption(self, scene: Scene) -> str:
        truth, lit = scene.attributes, lit_lights(scene.attributes)
        sign = "no sign" if truth["sign"] == "none" else f"a limit of {truth['sign']}"
        over = "over" if truth["over"] == "yes" else "not over"
        lights = f"the warning lights {', '.join(lit)} are on" if lit else "no warning light is on"
        lights = f"the {lit[0]} warning light is on" if len(lit) == 1 else lights
        route = "no route" if truth["manoeuvre"] == "none" else (
            f"{truth['manoeuvre']} in {truth['distance']}"
        )  # fmt: skip
        return (
            f"A {truth['theme']} cluster shows {speed_of(truth)} km/h in gear {truth['gear']} with "
            f"{sign}, so the car is {over} the limit. Charge {truth['charge']}, {route}, the "
            f"{truth['menu']} tab is selected and {lights} ({len(lit)})."
        )


def _sentence(truth: dict[str, str]) -> str:
    route = "no manoeuvre" if truth["manoeuvre"] == "none" else truth["manoeuvre"]
    return f"The navigation shows {route} and {truth['menu']} is selected."
