"""Answers against an independent derivation from the attributes."""

from __future__ import annotations

import json
import re

import pytest

from autoneural.data.cockpit import (
    TASKS,
    Scene,
)
from autoneural.data.cockpit.base import Box
from autoneural.data.cockpit.grid import cell

NAMES = tuple(TASKS)


def _answers(scene: Scene) -> dict[str, str]:
    return {q.kind: q.answer for q in TASKS[scene.task].questions(scene)}


def _prompt(scene: Scene, kind: str) -> str:
    return next(q.prompt for q in TASKS[scene.task].questions(scene) if q.kind == kind)


def _scenes(task: str, n: int, split: str = "train") -> list[Scene]:
    return [TASKS[task].sample(seed, split) for seed in range(n)]  # type: ignore[arg-type]


def _expect_fatigue(scene: Scene) -> dict[str, str]:
    t = scene.attributes
    sleepy = t["eyes"] in ("closed", "half closed") or t["mouth"] == "yawning"
    busy = t["phone"] != "none" or t["gaze"] in ("left", "right", "down")
    state = "asleep" if t["eyes"] == "closed" else "drowsy" if sleepy else "alert"
    state = "distracted" if state == "alert" and busy else state
    rest = {True: "needs a break", False: "needs no break"}[sleepy]
    return {
        "eyes": t["eyes"],
        "mouth": t["mouth"],
        "phone": "no phone" if t["phone"] == "none" else t["phone"],
        "where": _cell(scene, *_sought(scene, _FATIGUE_THINGS)),
        "belt": t["belt"],
        "eyewear": "nothing" if t["eyewear"] == "none" else t["eyewear"],
        "state": state,
        "break": "yes" if sleepy else "no",
        "sentence": f"The driver is {state} and {rest}.",
        **({} if t["eyes"] == "closed" else {"gaze": t["gaze"]}),
    }


_FATIGUE_THINGS = {
    "cap": ("headwear", "headwear"),
    "mouth": ("mouth", "mouth"),
    "phone": ("phone", "phone"),
    "face": ("face", "state"),
}


def _sought(scene: Scene, things: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """Box and hiding attribute of the thing that the "where" asks for."""
    prompt = _prompt(scene, "where")
    return next(thing for words, thing in things.items() if words in prompt)


def _expect_hmi(scene: Scene) -> dict[str, str]:
    t = scene.attributes
    hidden = t["ones"] == "cannot tell"
    speed = sum(
        int(t[place]) * value
        for place, value in (("hundreds", 100), ("tens", 10), ("ones", 1))
        if t[place] not in ("none", "cannot tell")
    )
    limit = 0 if t["sign"] in ("none", "cannot tell") else int(t["sign"])
    over = "no sign" if t["sign"] == "none" else "cannot tell"
    over = ("yes" if speed > limit else "no") if limit and not hidden else over
    lit = [key.removeprefix("light ") for key, value in t.items() if value == "on"]
    asked = next(key for key in _LIGHTS if f" {key} " in _prompt(scene, "light_on"))
    return {
        **{key: t[key] for key in ("gear", "manoeuvre", "charge", "temperature", "menu")},
        "speed": "cannot tell" if hidden else str(speed),
        "limit": "no sign" if t["sign"] == "none" else t["sign"],
        "over": over,
        "distance": "no route" if t["distance"] == "none" else t["distance"],
        "count": str(len(lit)),
        "light_on": "yes" if asked in lit else "no",
        "where": _cell(scene, *_sought(scene, _HMI_THINGS)),
        **({"light": (lit or ["none"])[0]} if len(lit) < 2 else {"several": " and ".join(lit)}),
    }


_HMI_THINGS = {
    "sign": ("sign", "sign"),
    "gear": ("gear", "gear"),
    "arrow": ("manoeuvre", "manoeuvre"),
    "charge": ("charge", "charge"),
    "gauge": ("temperature", "temperature"),
    "menu": ("menu", "menu"),
}


_LIGHTS = [a.removeprefix("light ") for a in TASKS["hmi"].attributes if a.startswith("light ")]


def _expect_boarding(scene: Scene) -> dict[str, str]:
    t = scene.attributes
    here = t["side"] == t["door"]
    danger = here and (t["distance"] == "near" or t["object"] in ("car", "scooter"))
    danger |= t["object"] == "cannot tell"
    things = {"comes": ("object", "object"), "door": ("door", "door")}
    things |= dict.fromkeys(("puddle", "kerb"), ("ground", "ground"))
    return {
        "object": t["object"].replace("none", "nothing"),
        "distance": t["distance"].replace("none", "nothing there"),
        "side": t["side"].replace("none", "nothing there"),
        "door": t["door"],
        "ground": t["ground"],
        "light": t["light"],
        "weather": t["weather"],
        "action": "wait" if danger else "open",
        "where": _cell(scene, *_sought(scene, things)),
    }


def _cell(scene: Scene, name: str, cause: str) -> str:
    """The answer to a "where" from the box alone, unless attribute `cause` says it is hidden."""
    if scene.attributes[cause] == "cannot tell":
        return "cannot tell"
    box = TASKS[scene.task].boxes(scene).get(name)
    if box is None:
        return "nowhere"
    x, y = box.left + box.right, box.top + box.bottom
    row = "top" if y < 2 / 3 else "bottom" if y > 4 / 3 else ""
    column = "left" if x < 2 / 3 else "right" if x > 4 / 3 else ""
    return f"{row} {column}".strip() or "centre"


def _expect_child(scene: Scene) -> dict[str, str]:
    t = scene.attributes
    hidden = "cannot tell" in (t["emotion"], t["buckled"])
    face = "face" in _prompt(scene, "where")
    moods = {"crying": "pull over", "scared": "play music", "angry": "play music"}
    moods |= {"asleep": "keep quiet", "happy": "nothing", "calm": "nothing"}
    advice = "look back" if hidden else moods[t["emotion"]]
    comfort = {True: "yes", False: "no"}[t["emotion"] in ("crying", "scared", "angry")]
    return {
        **{key: t[key] for key in ("emotion", "buckled", "side", "age")},
        "comfort": "cannot tell" if t["emotion"] == "cannot tell" else comfort,
        "toy": t["toy"].replace("none", "nothing"),
        "headwear": t["headwear"].replace("none", "nothing"),
        "count": t["toys"],
        "advice": "stop and buckle up" if t["buckled"] == "not fastened" else advice,
        "where": _cell(scene, *(("face", "emotion") if face else ("toy", "toy"))),
    }


def _expect_greeter(scene: Scene) -> dict[str, str]:
    t = scene.attributes
    luggage = {"shopping bags": "tailgate", "box": "tailgate", "suitcase": "tailgate"}
    luggage |= {"child seat": "rear door", "cannot tell": "cannot tell"}
    opens = luggage.get(t["carrying"], "driver's door")
    opens = "cannot tell" if t["owner"] == "cannot tell" else opens
    carries = "carries" in _prompt(scene, "where")
    return {
        **{key: t[key] for key in ("who", "count", "ground", "light", "weather")},
        **{
            key: t[key].replace("none", "nobody there")
            for key in ("carrying", "distance", "side", "owner")
        },
        "open": "nothing" if t["owner"] in ("none", "no") else opens,
        "where": _cell(scene, *(("load", "carrying") if carries else ("person", "who"))),
    }


def _expect_plate(scene: Scene) -> dict[str, str]:
    t = scene.attributes
    slots = [t[f"char {k}"] for k in range(1, 8)]
    text = "".join(char for char in slots if len(char) == 1)
    hidden = "cannot tell" in slots
    digits = [int(char) for char in text if char.isdigit()]
    same = re.search(r"[0-9A-Z]{5,7}", _prompt(scene, "match"))
    asked = "badge" if "badge" in _prompt(scene, "where") else "plate"
    read = {"cannot tell"} if hidden else {text}
    answers = {
        "plate": text,
        "match": "yes" if same and same[0] == text else "no",
        "characters": str(len(text)),
        "digits": str(len(digits)),
        "first": text[:1],
        "last": text[-1:],
        "even day": "no" if hidden or digits[-1] % 2 else "yes",
    }
    assert set(slots) == read if hidden else not {"I", "O", "Q"} & set(text)
    return {
        **(dict.fromkeys(answers, "cannot tell") if hidden else answers),
        "where": _nine(TASKS["plate"].boxes(scene)[asked]),
        **{key: t[key] for key in _PLATE_NAMED},
    }


_PLATE_NAMED = (
    "plate colour", "plate lines", "brand", "colour", "body", "view", "light", "weather", "lamps",
)  # fmt: skip


def _nine(box: Box) -> str:
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    row = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    return f"{row} {column}".strip() or "centre"


def _expect_finder(scene: Scene) -> dict[str, str]:
    t = scene.attributes
    boxes = TASKS["finder"].boxes(scene)
    things = {"my car": "my car", "lift": "lift", "arrow": "you", "sign": "sign"}
    asked = next(box for words, box in things.items() if words in _prompt(scene, "where"))
    ticket = re.search(r"\d", _prompt(scene, "ticket"))
    assert ticket
    level = 0 if t["level"] == "cannot tell" else int(t["level"])
    change = int(ticket[0]) - level
    shared = ("view", "level", "row", "colour", "level colour")
    answers = {
        **{key: t[key] for key in shared},
        "ticket": "up" if change > 0 else "down" if change else "stay",
        "where": _nine(boxes[asked]),
        "way": t["turn"],
    }
    if not level:
        answers["ticket"] = "cannot tell"
    if t["view"] == "map":
        assert {t[key] for key in ("side", "distance", "light")} == {"none"}
        own = {"bay": t["row"] + t["bay"], "free": t["free"], "beside": t["beside"]}
        return answers | own
    assert {t[key] for key in ("bay", "free", "beside")} == {"none"}
    assert (t["row"] == "cannot tell") == (not level)
    own = {key: t[key] for key in ("side", "distance", "light")}
    return answers | own | {"way": t["side"] if t["distance"] == "near" else "straight on"}


def _expect_sentinel(scene: Scene) -> dict[str, str]:
    t = scene.attributes
    hidden = "cannot tell" in (t["touched"], t["tool"])
    close = t["actor"] in ("adult", "child") and t["event"] not in ("passing", "nobody")
    if close and hidden:
        event, advice = "cannot tell", "record"
    elif t["touched"] in ("door handle", "wheel", "mirror", "charging port") or (
        close and t["tool"] in ("crowbar", "screwdriver")
    ):
        event, advice = "tampering", "sound the alarm"
    elif t["touched"] in ("door", "bumper"):
        event, advice = "impact", "notify the owner"
    elif t["event"] == "lingering":
        event, advice = "lingering", "record"
    else:
        event, advice = "nobody" if t["actor"] == "none" else "passing", "nothing"
    person = t["actor"] in ("adult", "child", "cyclist")
    return {
        **{key: t[key] for key in ("count", "damage", "place", "light", "weather", "lamps")},
        "event": event,
        "advice": advice,
        "actor": t["actor"].replace("none", "nobody"),
        "touched": t["touched"].replace("none", "nothing"),
        "tool": t["tool"] if person else "nobody there",
        "face": t["face"] if person else "nobody there",
        **({"where": _expect_where(scene)} if "where" in _answers(scene) else {}),
    }


def _expect_where(scene: Scene) -> str:
    asked, box = _prompt(scene, "where"), TASKS["sentinel"].boxes(scene)
    words = {"damage": "damage", "tool": "tool", "acts": "actor"}
    thing = next(name for word, name in words.items() if word in asked)
    if thing == "tool" and scene.attributes["tool"] == "cannot tell":
        return "cannot tell"
    return cell(box[thing]) if thing in box else "nowhere"


EXPECT = {
    "fatigue": _expect_fatigue,
    "hmi": _expect_hmi,
    "boarding": _expect_boarding,
    "child": _expect_child,
    "greeter": _expect_greeter,
    "plate": _expect_plate,
    "finder": _expect_finder,
    "sentinel": _expect_sentinel,
}


@pytest.mark.parametrize("task", NAMES)
def test_answers_agree_with_an_independent_derivation(task: str) -> None:
    for scene in _scenes(task, 300) + _scenes(task, 100, "test"):
        answers, expected = _answers(scene), EXPECT[task](scene)
        assert {kind: answers[kind] for kind in expected} == expected
        assert set(answers) - set(expected) <= {"json", "sentence"}
        for key, value in json.loads(answers["json"]).items():
            truth = {**expected, **scene.attributes}[key]
            assert str(value) == truth
