"""AI sentinel: the parked car watches what is around it through a wide-angle camera of its own.

The side cameras sit by the front wings and look back: the own car fills the left edge of the
picture of the left camera and the right edge of that of the right camera. The front camera looks
over windscreen and bonnet, the rear camera over rear window, boot and red lamps.

What a still picture shows of each event:
  nobody     nobody and nothing near the car; people may walk by farther off only in other events
  passing    away from the car, side or back to it: a walking stride, a bicycle or car on its way,
             a dog trotting, a trolley rolling by
  lingering  standing still at the car: facing it with folded or pocketed hands or a phone, peering
             through a window or leaning on bonnet or boot with bare hands or a torch; a dog
             sniffing at it
  tampering  a hand at door handle, wheel, mirror or charging port, or a crowbar or screwdriver set
             anywhere at the car
  impact     a car, trolley or bicycle against the car, with a starred scrape and splinters
Damage tells no event: it may be old. A face seen from behind or under dirt cannot be told. "count"
is of all people in the picture.

Rule: nobody or passing -> nothing; lingering -> record; tampering -> sound the alarm; impact ->
notify the owner. Where dirt, a drop or glare hides the hands of somebody at the car, what is
touched, the tool and so the event cannot be told, and the car records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autoneural.data.cockpit import sentinel_lens, sentinel_view, street
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
from autoneural.data.cockpit.cast import ON_FOOT, PEOPLE
from autoneural.data.cockpit.grid import cell, is_clear
from autoneural.data.cockpit.hair import HAIR, HAIR_HELD_OUT, HAT, HAT_HELD_OUT
from autoneural.data.cockpit.heads import HEADGEAR
from autoneural.data.cockpit.parking import GROUNDS, GROUNDS_HELD_OUT
from autoneural.data.cockpit.sentinel_words import KINDS, PROMPTS, STATEMENTS, caption, sentence
from autoneural.data.cockpit.tint import tint

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "event": ("nobody", "passing", "lingering", "tampering", "impact", CANNOT_TELL),
    "actor": ("none", "adult", "child", "cyclist", "dog", "car", "shopping trolley"),
    "place": ("front", "rear", "left", "right"),
    "touched": ("none", "door handle", "wheel", "mirror", "charging port", "window", "bonnet",
                "boot", "door", "bumper", CANNOT_TELL),
    "tool": ("none", "crowbar", "screwdriver", "torch", CANNOT_TELL),
    "face": ("nobody", "covered", "not covered", CANNOT_TELL),
    "count": ("0", "1", "2", "3"),
    "damage": ("none", "scratch", "dent", "broken window"),
    "light": ("day", "dusk", "night"),
    "weather": ("dry", "rain", "snow"),
    "lamps": ("off", "flashing"),
    "advice": ("nothing", "record", "sound the alarm", "notify the owner"),
}  # fmt: skip
EVENTS = {"nobody": 0.13, "passing": 0.2, "lingering": 0.23, "tampering": 0.25, "impact": 0.19}
ACTORS: dict[str, dict[str, float]] = {
    "nobody": {"none": 1},
    "passing": {"adult": 20, "child": 19, "cyclist": 18, "dog": 13, "car": 15,
                "shopping trolley": 15},
    "lingering": {"adult": 54, "child": 31, "dog": 15},
    "tampering": {"adult": 72, "child": 28},
    "impact": {"car": 36, "shopping trolley": 34, "cyclist": 30},
}  # fmt: skip
DAMAGE = {"none": 0.28, "scratch": 0.24, "dent": 0.24, "broken window": 0.24}
FLANKS = ("left", "right")
MEDDLED = ("door handle", "wheel", "mirror", "charging port")
FORCE = ("crowbar", "screwdriver")
ADVICE = {"nobody": "nothing", "passing": "nothing", "lingering": "record",
          "tampering": "sound the alarm", "impact": "notify the owner",
          CANNOT_TELL: "record"}  # fmt: skip
EXPOSURE = {"day": 1.02, "dusk": 1.08, "night": 1.2}
BENDS = (0.16, 0.2, 0.24)
"""Few distinct distortions, because each one's mesh is cached."""
COVERS, COVERS_HELD_OUT = ("#23252a", "#8fb8d8", "#7a2630"), ("#2f3f34", "#d8d4c8")
COATS, COATS_HELD_OUT = ("#8a5a30", "#2c2622", "#d8c8a8"), ("#a87848", "#5c5450")


def event_of(touched: str, tool: str) -> str:
    """What somebody on foot at the car does, by the module's rule."""
    if touched in MEDDLED or (tool in FORCE and touched != "none"):
        return "tampering"
    return "lingering"


def _touch(rng: Rng, event: str, place: str) -> tuple[str, str]:
    """What is touched, and the tool."""
    flank = place in FLANKS
    lid = {"front": "bonnet", "rear": "boot"}.get(place, "window")
    if event == "impact":
        return ("door" if flank else "bumper"), "none"
    if event == "lingering":
        tool = weighted(rng, {"none": 0.6, "torch": 0.4})
        return (lid if chance(rng, 0.55) else "none"), tool
    if event == "tampering":
        parts = MEDDLED if flank else ("charging port",)
        touched = lid if chance(rng, 0.15 if flank else 0.5) else pick(rng, parts)
        if touched == lid:
            return touched, pick(rng, FORCE)
        return touched, weighted(
            rng, {"none": 0.25, "crowbar": 0.26, "screwdriver": 0.26, "torch": 0.23}
        )
    return "none", ("torch" if chance(rng, 0.3) else "none")


def _attributes(rng: Rng) -> dict[str, str]:
    """What happens, before the lens hides any of it."""
    event = weighted(rng, EVENTS)
    actor = weighted(rng, ACTORS[event])
    flank = 0.31 if event == "tampering" else 0.25  # there is more to tamper with on a flank
    place = weighted(
        rng, {"left": flank, "right": flank, "front": 0.5 - flank, "rear": 0.5 - flank}
    )
    if event == "lingering" and actor == "dog":  # nose and tail would hide it
        place = pick(rng, FLANKS)
    touched, tool = _touch(rng, event, place)
    if actor not in ON_FOOT:
        tool = "none"
    if actor == "dog":
        touched = "none"
    main = int(actor in PEOPLE)
    others = 0 if event == "nobody" else weighted(rng, {0: 0.4, 1: 0.34, 2: 0.26})
    return {
        "event": event, "actor": actor, "place": place, "touched": touched, "tool": tool,
        "face": pick(rng, ("covered", "not covered")) if main else "nobody",
        "count": str(main + others),
        "damage": weighted(rng, DAMAGE),
        "light": weighted(rng, {"day": 0.4, "dusk": 0.28, "night": 0.32}),
        "weather": weighted(rng, {"dry": 0.42, "rain": 0.3, "snow": 0.28}),
        "lamps": pick(rng, ATTRIBUTES["lamps"]), "advice": ADVICE[event],
    }  # fmt: skip


def _person(rng: Rng, split: Split) -> dict[str, Any]:
    return {
        "cloth": tint(rng, split, street.CLOTH, street.CLOTH_HELD_OUT),
        "trousers": tint(rng, split, street.TROUSERS, street.TROUSERS_HELD_OUT),
        "skin": pick(rng, pool(split, street.SKIN, street.SKIN_HELD_OUT)),
        "hair": pick(rng, pool(split, HAIR, HAIR_HELD_OUT)),
        "hat": tint(rng, split, HAT, HAT_HELD_OUT),
        "cover": tint(rng, split, COVERS, COVERS_HELD_OUT, spread=120),
        "shoe": pick(rng, ("#1a1a1e", "#e4e0d8", "#5a3a24")),
        "head": pick(rng, HEADGEAR),
        "covering": pick(rng, ("mask", "balaclava")),
        "paint": tint(rng, split, street.PAINT, street.PAINT_HELD_OUT),
        "coat": tint(rng, split, COATS, COATS_HELD_OUT),
        "collar": tint(rng, split, street.CLOTH, street.CLOTH_HELD_OUT),
        "tool": pick(rng, ("#c8281e", "#1f5fc0", "#e8a818")),
    }


def _params(rng: Rng, split: Split, truth: dict[str, str]) -> dict[str, Any]:
    veil = {"day": ("#fff4dc", 0.08, 0.0), "dusk": ("#ff8a48", 0.1, 0.04),
            "night": ("#0a1026", 0.08, 0.0)}[truth["light"]]  # fmt: skip
    noise = {"day": 3.0, "dusk": 4.0, "night": 4.5}[truth["light"]]
    lens = {"fisheye": pick(rng, BENDS), "dirt": [], "drops": [], "glare": []}
    return {
        "skyline": pick(rng, pool(split, street.PLACES, street.PLACES_HELD_OUT)),
        "ground": pick(rng, pool(split, GROUNDS, GROUNDS_HELD_OUT)),
        "own": tint(rng, split, street.PAINT, street.PAINT_HELD_OUT),
        "people": [_person(rng, split) for _ in range(4)],
        "focal": uniform(rng, 98, 108),
        "horizon": uniform(rng, 86, 96),
        "lamp": uniform(rng, 1.5, 4.5),
        "side": pick(rng, (-1, 1)),
        "facing": pick(rng, (-1, 1)),
        "turned": chance(rng, 0.4) and truth["place"] in FLANKS and truth["tool"] == "none",
        "along": uniform(rng, 0, 1),
        "across": uniform(rng, 0, 1),
        "step": uniform(rng, 0, 1),
        "hands": int(rng.integers(3)),
        "slots": rng.permutation(5).tolist(),
        "spot": uniforms(rng, 2, 0, 1),
        "blocks": uniforms(rng, 24, 0, 1),
        "drops": uniforms(rng, 80, 0, 256),
        "hidden": {key: truth[key] for key in ("event", "touched", "tool", "face")},
        "camera": {
            **camera(rng, noise=noise, exposure=EXPOSURE[truth["light"]], veil=veil),
            **lens,
        },
    }


class Sentinel:
    """What goes on around the parked car, and what the car should do about it."""

    name = "sentinel"
    title = "AI sentinel"
    attributes = ATTRIBUTES
    kinds = KINDS
    statements = STATEMENTS
    alarms = {"event": ("tampering", "impact")}

    def sample(self, seed: int, split: Split) -> Scene:
        truth = _attributes(rng_for(self.name, split, seed, "attributes"))
        look = _params(rng_for(self.name, split, seed, "params"), split, truth)
        truth = sentinel_lens.in_sight(truth, look)
        hidden = sentinel_lens.soil(rng_for(self.name, split, seed, "lens"), truth, look)
        told = truth | dict.fromkeys(hidden, CANNOT_TELL)
        told["advice"] = ADVICE[told["event"]]
        return Scene(self.name, seed, split, told, look)

    def svg(self, scene: Scene) -> str:
        return sentinel_view.svg(scene.attributes, scene.params)

    def boxes(self, scene: Scene) -> dict[str, Box]:
        """`actor`, `tool`, `damage` and each `bystander`; no box for a tool that is hidden."""
        found = sentinel_view.boxes(scene.attributes, scene.params)
        if scene.attributes["tool"] == CANNOT_TELL:
            found.pop("tool", None)
        return found

    def questions(self, scene: Scene) -> list[Question]:
        truth = scene.attributes
        rng = rng_for(self.name, scene.split, scene.seed, "questions")
        thing = weighted(rng, {"actor": 0.5, "damage": 0.36, "tool": 0.14})
        fields = {key: truth[key] for key in ("event", "actor", "advice")}
        person = truth["actor"] in PEOPLE
        answers = {
            **{kind: truth[kind] for kind in KINDS if kind in ATTRIBUTES},
            "actor": truth["actor"].replace("none", "nobody"),
            "touched": truth["touched"].replace("none", "nothing"),
            "tool": truth["tool"] if person else "nobody there",
            "face": truth["face"].replace("nobody", "nobody there"),
            **_where(self.boxes(scene), truth, thing),
            "sentence": sentence(truth),
            "json": json.dumps(fields),
        }
        words = {"actor": "who or what acts near the car", "damage": "the damage to the car",
                 "tool": "the tool"}  # fmt: skip
        asked = [kind for kind in KINDS if kind in answers]
        return [ask(rng, kind, PROMPTS[kind], answers[kind], thing=words[thing]) for kind in asked]

    def caption(self, scene: Scene) -> str:
        return caption(scene.attributes)


def _where(found: Mapping[str, Box], truth: Mapping[str, str], thing: str) -> dict[str, str]:
    """The answer to "where", unless the thing lies on the border of two parts of the picture."""
    if truth.get(thing) == CANNOT_TELL:
        return {"where": CANNOT_TELL}
    if thing not in found:
        return {"where": "nowhere"}
    return {"where": cell(found[thing])} if is_clear(found[thing]) else {}
