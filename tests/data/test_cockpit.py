"""Cockpit scenes: determinism, truth of the answers, closed vocabularies, balance, disjointness."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoneural.data.cockpit import (
    TASKS,
    Scene,
    about_two,
    conversation,
    describe,
    eval_pairs,
    eval_rows,
    image_name,
    render,
    rows,
)
from autoneural.data.cockpit.base import SPLITS, Box, which_picture
from autoneural.data.cockpit.grid import cell
from autoneural.data.cockpit.rows import PAIR_KINDS
from autoneural.errors import UserError

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


@pytest.mark.parametrize("task", NAMES)
def test_attributes_stay_in_their_closed_vocabulary(task: str) -> None:
    vocabulary, seen = TASKS[task].attributes, defaultdict(set)
    for scene in _scenes(task, 600):
        assert set(scene.attributes) == set(vocabulary)
        for key, value in scene.attributes.items():
            seen[key].add(value)
    assert {key: set(values) for key, values in vocabulary.items()} == dict(seen)


@pytest.mark.parametrize("task", NAMES)
def test_scene_is_a_function_of_its_seed(task: str) -> None:
    first, again = _scenes(task, 20), _scenes(task, 20)
    assert first == again
    assert [_answers(a) for a in first] == [_answers(b) for b in again]
    assert len({json.dumps(scene.params) for scene in first}) == 20
    assert first[0].params == json.loads(json.dumps(first[0].params))


@pytest.mark.parametrize("task", NAMES)
def test_guessing_the_commonest_answer_stays_poor(task: str) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row, _ in eval_rows(task, 250 * len(TASKS[task].kinds), split="train"):
        counts[row["kinds"][0]][row["messages"][1]["content"][0]["text"]] += 1
    majority = {kind: max(c.values()) / c.total() for kind, c in counts.items()}
    assert set(majority) == set(TASKS[task].kinds)
    assert max(majority.values()) < 0.6, majority  # 0.5, and 250 draws scatter by 0.03
    assert np.mean(list(majority.values())) < 0.42, majority


def _shades(task: str, split: str) -> set[str]:
    """Every colour of a thing, with what it colours; the veils of the light are no things."""
    return {
        f"{key} {value}"
        for scene in _scenes(task, 300, split)
        for key, value in scene.params.items()
        if key == "shade" or re.fullmatch("#[0-9a-f]{6}", str(value))
    }


@pytest.mark.parametrize("task", NAMES)
def test_the_test_split_has_its_own_shades_and_streams(task: str) -> None:
    test, known = _shades(task, "test"), _shades(task, "train") | _shades(task, "val")
    assert {key.split()[0] for key in test} == {key.split()[0] for key in known}
    assert not test & known
    looks = {split: {json.dumps(s.params) for s in _scenes(task, 50, split)} for split in SPLITS}
    assert not looks["train"] & looks["val"]
    assert not looks["train"] & looks["test"]


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("fatigue", "hair_style"),
        ("fatigue", "seat_style"),
        ("hmi", "layout"),
        ("hmi", "order"),
        ("boarding", "place"),
        ("child", "cabin"),
        ("child", "hair_style"),
        ("greeter", "place"),
        ("greeter", "style"),
        ("finder", "plan"),
        ("plate", "style"),
        ("plate", "grammar"),
        ("plate", "place"),
        ("sentinel", "skyline"),
        ("sentinel", "ground"),
    ],
)
def test_the_test_split_has_its_own_layouts(task: str, key: str) -> None:
    seen = {s: {str(x.params[key]) for x in _scenes(task, 100, s)} for s in SPLITS}
    assert len(seen["train"]) > 1
    assert not seen["test"] & (seen["train"] | seen["val"])


def test_fonts_are_disjoint() -> None:
    fonts = {s: {x.params["fonts"][0] for x in _scenes("hmi", 200, s)} for s in SPLITS}
    assert fonts["train"] == fonts["val"]
    assert len(fonts["test"]) > 1
    assert not fonts["test"] & fonts["train"]


def test_pixels_agree_between_processes(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from autoneural.data.cockpit import TASKS, render\n"
        "np.save(sys.argv[1], np.stack([render(t.sample(5, 'test')) for t in TASKS.values()]))"
    )
    path = tmp_path / "pixels.npy"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    here = np.stack([render(task.sample(5, "test")) for task in TASKS.values()])
    there = np.load(path)
    assert here.shape == (len(TASKS), 256, 256, 3)
    assert here.dtype == np.uint8
    assert np.abs(here.astype(int) - there.astype(int)).max() <= 2


@pytest.mark.parametrize("task", NAMES)
def test_pictures_differ_and_use_the_range(task: str) -> None:
    a, b = (render(scene) for scene in _scenes(task, 2))
    assert np.abs(a.astype(int) - b).mean() > 5
    assert a.std() > 15
    assert render(_scenes(task, 1)[0], size=64).shape == (64, 64, 3)


def test_infrared_is_grey_and_day_is_not() -> None:
    scenes = {scene.attributes["camera"]: scene for scene in _scenes("fatigue", 60)}
    spread = {key: np.ptp(render(s).astype(int), axis=2).mean() for key, s in scenes.items()}
    assert spread["infrared"] == 0
    assert spread["day"] > 3


def _flip(task: str, seed: int, **changes: str) -> float:
    """Largest pixel change when only an attribute changes."""
    scene = TASKS[task].sample(seed, "train")
    other = Scene(task, seed, "train", {**scene.attributes, **changes}, scene.params)
    return float(np.abs(render(scene).astype(int) - render(other)).max())


TELLING = {"sentinel": {"event": "tampering", "face": "covered", "count": "2", "touched": "mirror"}}
"""Scenes where each attribute that changes has something to change."""


@pytest.mark.parametrize(
    ("task", "key"),
    [
        *(("fatigue", k) for k in ("eyes", "mouth", "gaze", "phone", "belt", "headwear")),
        ("fatigue", "eyewear"),
        *(("hmi", k) for k in ("hundreds", "tens", "ones", "sign", "gear", "charge")),
        *(("hmi", k) for k in ("manoeuvre", "distance", "menu", "temperature")),
        *(("boarding", k) for k in ("object", "side", "door", "ground", "weather", "light")),
        *(("child", k) for k in ("emotion", "buckled", "toy", "age", "headwear")),
        *(("greeter", k) for k in ("who", "carrying", "owner", "ground", "weather")),
        ("greeter", "light"),
        *(("plate", f"char {k}") for k in range(1, 6)),
        *(("plate", k) for k in ("view", "brand", "colour", "body", "plate colour")),
        *(("plate", k) for k in ("plate lines", "light", "weather", "lamps")),
        *(("finder", k) for k in ("level", "row", "bay", "free", "beside", "side")),
        *(("finder", k) for k in ("distance", "light", "colour", "level colour")),
        *(("sentinel", k) for k in ("actor", "place", "touched", "tool", "face", "count")),
        *(("sentinel", k) for k in ("damage", "light", "weather", "lamps")),
    ],
)
def test_every_asked_attribute_shows_in_the_picture(task: str, key: str) -> None:
    scene = next(
        s
        for s in _scenes(task, 400 if task == "sentinel" else 99)
        if s.attributes.items() >= TELLING.get(task, {}).items()
        and "none" not in (s.attributes.get("object"), s.attributes.get("eyewear"))
        and s.attributes.get("manoeuvre") != "none"
        and (task != "finder" or s.attributes[key] != "none")
        and "cannot tell" not in s.attributes.values()
        and s.attributes.get("who") != "nobody"
    )
    for value in TASKS[task].attributes[key]:
        if value not in (scene.attributes[key], "none", "cannot tell"):
            assert _flip(task, scene.seed, **{key: value}) > 40, value


def _changed(scene: Scene, **changes: Any) -> np.ndarray:
    """Where the picture differs when attributes or colours change: rows and columns in [0, 1]."""
    attributes = {k: changes.get(k, v) for k, v in scene.attributes.items()}
    params = {k: changes.get(k, v) for k, v in scene.params.items()}
    other = replace(scene, attributes=attributes, params=params)
    gap = np.abs(render(scene).astype(int) - render(other)).max(axis=2)
    return np.argwhere(gap > 8) / 256


@pytest.mark.parametrize(
    ("task", "name", "changes"),
    [
        ("child", "face", {"emotion": "crying"}),
        ("child", "toy", {"paint": "#00ff00"}),
        ("child", "child", {"cloth": "#00ff00", "shell": "#00ff00", "skin": "#00ff00"}),
        ("greeter", "load", {"load": "#00ff00"}),
        ("greeter", "person", {"coat": "#00ff00", "trousers": "#00ff00", "skin": "#00ff00"}),
    ],
)
def test_a_box_holds_what_it_names(task: str, name: str, changes: dict[str, str]) -> None:
    wide = []
    for scene in _scenes(task, 30):
        wide += _fit(scene, (name,), _changed(scene, **changes))
    assert len(wide) > 12
    assert np.mean(wide) > 0.5


def _fit(scene: Scene, names: tuple[str, ...], at: np.ndarray) -> list[float]:
    """How much of the boxes' width the changed pixels take, all within; nothing without either."""
    boxes = TASKS[scene.task].boxes(scene)
    found = [boxes[name] for name in names if name in boxes]
    if not found or not len(at):
        return []
    (top, left), (bottom, right) = at.min(axis=0), at.max(axis=0)
    start, end = min(box.left for box in found), max(box.right for box in found)
    above, below = min(box.top for box in found), max(box.bottom for box in found)
    outside = (start - left, above - top, right - end, bottom - below)
    assert max(outside) < 0.02, (scene.seed, names, outside)
    return [(right - left) / (end - start)]


@pytest.mark.parametrize(
    ("task", "names", "drawing"),
    [
        ("fatigue", ("eyes",), "face._eye"),
        ("fatigue", ("mouth",), "face._mouth"),
        ("fatigue", ("eyewear",), "face._eyewear"),
        ("fatigue", ("headwear",), "face.hat"),
        ("fatigue", ("phone",), "face._handset"),
        ("fatigue", ("mask",), "covers.mask"),
        ("fatigue", ("belt",), "cabin._belt"),
        ("fatigue", ("belt",), "cabin._hanging_belt"),
        ("hmi", ("hundreds", "tens", "ones"), "cluster._number"),
        ("hmi", ("sign",), "cluster._sign"),
        ("hmi", ("gear",), "cluster._letter"),
        ("hmi", ("manoeuvre",), "icons.arrow"),
        ("hmi", ("distance",), "cluster._distance"),
        ("hmi", ("charge",), "cluster._charge"),
        ("hmi", ("temperature",), "cluster._gauge"),
        ("hmi", ("menu",), "cluster._open_tab"),
        ("boarding", ("object",), "street._approaching"),
        ("boarding", ("door",), "street._door"),
        ("boarding", ("ground",), "street._ground"),
    ],
)
def test_a_mark_holds_what_its_drawing_draws(
    task: str, names: tuple[str, ...], drawing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture without the drawing differs within the boxes only."""
    wide, path = [], f"autoneural.data.cockpit.{drawing}"
    module, _, function = path.rpartition(".")
    draw = getattr(importlib.import_module(module), function)
    for scene in (s for s in _scenes(task, 60) if set(names) & set(TASKS[task].boxes(s))):
        whole = render(scene).astype(int)
        with monkeypatch.context() as patch:
            patch.setattr(path, lambda *args: draw(*args) if _beside(function, args) else None)
            gap = np.abs(whole - render(scene)).max(axis=2)
        wide += _fit(scene, names, np.argwhere(gap > 8) / 256)
        if len(wide) == 10:
            break
    assert len(wide) > 2
    assert np.mean(wide) > 0.5


def _beside(function: str, args: tuple[Any, ...]) -> bool:
    """Whether this call draws what bears no mark: the right eye, the gears not chosen."""
    return function == "_eye" and args[1] > 0 or function == "_letter" and not args[-1]


def test_lit_lights_have_boxes() -> None:
    for scene in _scenes("hmi", 20):
        lights = tuple(scene.params["lights"])
        assert set(lights) == set(_LIGHTS) & set(TASKS["hmi"].boxes(scene))
        _fit(scene, lights, _changed(scene, lights=[]))


def test_hidden_things_leave_no_trace() -> None:
    """What a cover hides must not depend on what it would have been."""
    for scene in _scenes("child", 200):
        boxes = TASKS["child"].boxes(scene)
        assert ("face" in boxes) == (scene.attributes["emotion"] != "cannot tell")
        assert ("toy" in boxes) == (scene.attributes["toy"] != "none")
    for scene in _scenes("greeter", 200):
        found = "load" in TASKS["greeter"].boxes(scene)
        assert found == (scene.attributes["carrying"] not in ("none", "nothing", "cannot tell"))
    hideable = {"fatigue": ("eyes", "mouth", "belt"), "hmi": ("ones", "sign"),
                "boarding": ("object",)}  # fmt: skip
    for task, names in hideable.items():
        for scene in _scenes(task, 150):
            boxes = TASKS[task].boxes(scene)
            for name in names:
                gone = scene.attributes[name] in ("none", "cannot tell")
                assert gone != (name in boxes), (scene.seed, name)


@pytest.mark.parametrize(
    ("task", "thing", "key", "values", "share"),
    [
        ("plate", "plate", "plate colour", ("white", "black"), 0.65),
        ("plate", "badge", "brand", ("corvin", "cannot tell"), 0.7),
        *(("plate", f"char {k}", f"char {k}", ("B", "E"), 0.05) for k in (1, 3, 5)),
        ("plate", "car", "colour", ("white", "black"), 0.7),  # tyres have no paint
        ("finder", "my car", "colour", ("red", "blue"), 0.2),  # behind a nearer one, or a pin
        ("finder", "sign", "level", ("1", "cannot tell"), 0.03),
    ],
)
def test_a_box_holds_the_thing(
    task: str, thing: str, key: str, values: tuple[str, str], share: float
) -> None:
    for scene in (s for s in _scenes(task, 30) if "cannot tell" not in s.attributes.values()):
        looks = [replace(scene, attributes={**scene.attributes, key: v}) for v in values]
        a, b = (render(look).astype(int) for look in looks)
        y, x = np.nonzero(np.abs(a - b).max(axis=2) > 24)
        box = TASKS[task].boxes(scene)[thing]
        seen = np.array([x.min(), y.min(), -x.max() - 1, -y.max() - 1]) / 256
        told = np.array([box.left, box.top, -box.right, -box.bottom])
        assert np.all(seen > told - 6 / 256), (scene.seed, seen * 256, told * 256)
        assert np.prod(seen[:2] + seen[2:]) > share * np.prod(told[:2] + told[2:]), scene.seed


def test_the_arrow_on_a_map_points_so_that_the_way_is_right() -> None:
    turns = ("straight on", "right", "back", "left")
    for scene in (s for s in _scenes("finder", 80) if s.attributes["view"] == "map"):
        upright = replace(scene, params={**scene.params, "tilt": 0.0, "lean": 0.0})
        boxes = TASKS["finder"].boxes(upright)
        car, you = boxes["my car"], boxes["you"]
        dx, dy = (
            car.left + car.right - you.left - you.right,
            car.top + car.bottom - you.top - you.bottom,
        )
        quarter = (1 if dx > 0 else 3) if abs(dx) > abs(dy) else (2 if dy > 0 else 0)
        faced = re.search(r"rotate\((-?\d+)\)\"><path d=\"M0 -7.8", TASKS["finder"].svg(scene))
        assert faced
        assert scene.attributes["turn"] == turns[(quarter - int(faced[1]) // 90) % 4]


def _plain(scene: Scene) -> np.ndarray:
    """The picture of a scene by a clean and noiseless camera."""
    clean = {"noise": 0.0, "blur": 0.0, "veil": None, "dirt": [], "drops": [], "glare": []}
    camera = {**scene.params["camera"], **clean, "vignette": 0.0}
    return render(replace(scene, params={**scene.params, "camera": camera})).astype(int)


def _difference(a: Scene, b: Scene) -> Box:
    """Around what differs between two pictures."""
    rows, columns = np.nonzero(np.abs(_plain(a) - _plain(b)).max(axis=2) > 24)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return Box(*(float(edge) / 256 for edge in edges))


def _far(a: Box, b: Box) -> float:
    return max(abs(getattr(a, e) - getattr(b, e)) for e in ("left", "top", "right", "bottom"))


OTHER = dict.fromkeys(("cloth", "trousers", "skin", "hair", "hat", "cover", "shoe", "coat"))


def test_sentinel_boxes_agree_with_the_drawing() -> None:
    """Painting the actor, the tool or the damage otherwise changes their boxes, no more."""
    compared: Counter[str] = Counter()
    for scene in _scenes("sentinel", 60) + _scenes("sentinel", 30, "test"):
        found, people = TASKS["sentinel"].boxes(scene), scene.params["people"]
        others = {
            "damage": replace(scene, attributes={**scene.attributes, "damage": "none"}),
            "tool": _repainted(scene, {"tool": "#ff00ff"}),
            "actor": _repainted(scene, {k: "#ff00ff" for k in OTHER if people[0].get(k)}),
        }
        if scene.attributes["tool"] in ("none", "torch", "screwdriver"):  # not painted all over
            del others["tool"]
        if scene.attributes["actor"] not in ("adult", "child"):
            del others["actor"]
        for name, other in others.items():
            if name in found:
                assert _far(_difference(scene, other), found[name]) < 0.05, (scene.seed, name)
                compared[name] += 1
    assert compared["actor"] > 20
    assert compared["damage"] > 20
    assert compared["tool"] > 3


def _repainted(scene: Scene, colors: dict[str, str]) -> Scene:
    first, *rest = scene.params["people"]
    return replace(scene, params={**scene.params, "people": [{**first, **colors}, *rest]})


def test_sentinel_hides_what_it_says_it_hides() -> None:
    """Another colour of a hidden tool does not show, and no box tells where it is."""
    hidden = [s for s in _scenes("sentinel", 300) if s.attributes["tool"] == "cannot tell"]
    assert 18 < len(hidden) < 54
    for scene in [s for s in hidden if not s.params["camera"]["drops"]][:12]:
        assert "cannot tell" not in scene.params["hidden"].values()
        assert "tool" not in TASKS["sentinel"].boxes(scene)
        green, red = (_repainted(scene, {"tool": color}) for color in ("#00ff00", "#ff0000"))
        assert np.abs(render(green).astype(int) - render(red)).max() < 32, scene.seed


def test_what_the_drawing_is_told_is_the_truth() -> None:
    """Lights and distance reach the picture through `params`."""
    for scene in _scenes("hmi", 200):
        lit = {k.removeprefix("light ") for k, v in scene.attributes.items() if v == "on"}
        assert set(scene.params["lights"]) == lit
        assert str(len(lit)) == scene.attributes["lights"]
    places: dict[str, list[float]] = defaultdict(list)
    for scene in _scenes("boarding", 200):
        places[scene.attributes["distance"]].append(scene.params["y"])
    assert min(places["near"]) > max(places["far"]) + 50  # lower in the picture is nearer
    for scene in _scenes("child", 200):
        assert (scene.params["x"] < 128) == (scene.attributes["side"] == "left")
        free = [kind for kind in scene.params["extras"] if kind != scene.attributes["toy"]]
        assert len(free) >= int(scene.attributes["toys"]) - (scene.attributes["toy"] != "none")
    for scene in _scenes("greeter", 200):
        third = ("left", "middle", "right")[int(scene.params["x"] * 3 / 256)]
        assert scene.attributes["side"] in (third, "none")
        assert len(scene.params["others"]) == 2
        assert (scene.params["depth"] > 90) == (scene.attributes["distance"] != "far")


@pytest.mark.parametrize("task", NAMES)
def test_rows_are_pure_functions_of_their_index(task: str) -> None:
    whole = [row for row, _ in rows(task, "train", 0, 40)]
    assert [row for row, _ in rows(task, "train", 10, 20)] == whole[10:20]
    assert len({row["id"] for row in whole}) == 40
    assert whole != [row for row, _ in rows(task, "train", 0, 40, seed=1)]


@pytest.mark.parametrize("task", NAMES)
def test_rows_follow_the_messages_schema(task: str) -> None:
    pairs = 0
    for row, scenes in rows(task, "train", 0, 400):
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * len(row["kinds"])
        parts = [part for message in row["messages"] for part in message["content"]]
        assert sum(part["type"] == "image" for part in parts) == len(scenes)
        assert ("attributes" in row) == (len(scenes) == 1)
        pairs += len(scenes) == 2
    assert 12 <= pairs <= 48  # about 8 % of 400, less what nothing decides


@pytest.mark.parametrize("task", NAMES)
def test_rare_kinds_are_rare_in_conversations(task: str) -> None:
    kinds = Counter(kind for s in _scenes(task, 300) for kind in conversation(s)["kinds"])
    assert 0.15 < kinds["json"] / 300 < 0.35
    assert 0.15 < kinds["sentence"] / 300 < 0.35


@pytest.mark.parametrize("task", NAMES)
def test_compare_names_the_picture_where_the_statement_holds(task: str) -> None:
    scenes, found = _scenes(task, 80), set()
    for a, b in zip(scenes[::2], scenes[1::2], strict=True):
        questions = which_picture(TASKS[task], a.attributes, b.attributes)
        mirrored = which_picture(TASKS[task], b.attributes, a.attributes)
        assert which_picture(TASKS[task], a.attributes, a.attributes) == []
        assert [q.prompt for q in questions] == [q.prompt for q in mirrored]
        for question, other in zip(questions, mirrored, strict=True):
            found.add(question.answer)
            assert {question.answer, other.answer} == {"the first", "the second"}
        for (key, value), words in TASKS[task].statements.items():
            holds = [scene.attributes[key] == value for scene in (a, b)]
            asked = [q.answer for q in questions if words in q.prompt]
            assert asked == ([] if holds[0] == holds[1] else [PLACES[holds.index(True)]])
    assert found == set(PLACES)


PLACES = ("the first", "the second")


@pytest.mark.parametrize("task", NAMES)
def test_a_conversation_about_two_rows_answers_from_the_right_one(task: str) -> None:
    kinds: Counter[str] = Counter()
    scenes = _scenes(task, 40)
    for a, b in zip(scenes[::2], scenes[1::2], strict=True):
        row = about_two(conversation(a), conversation(b))
        content = row["messages"][0]["content"]
        assert [p["image"] for p in content[:2]] == [image_name(a), image_name(b)]
        kinds.update(row["kinds"])
        truths = {
            place: {(q.prompt, q.answer) for q in TASKS[task].questions(scene)}
            for place, scene in (("first", a), ("second", b))
        }
        compared = {
            (q.prompt, q.answer) for q in which_picture(TASKS[task], a.attributes, b.attributes)
        }
        for question, answer in zip(row["messages"][::2], row["messages"][1::2], strict=True):
            asked, said = question["content"][-1]["text"], answer["content"][0]["text"]
            placed = re.fullmatch("(?:In the (.+?)|(.+?)) picture: (.*)", asked)
            if placed is None:
                assert (asked, said) in compared
            else:
                assert (placed[3], said) in truths[(placed[1] or placed[2]).lower()]
    assert kinds["one of two"] == 80
    assert 40 < kinds["compare"] <= 60


@pytest.mark.parametrize("task", NAMES)
def test_every_attribute_changes_the_caption(task: str) -> None:
    quiet: dict[str, list[bool]] = defaultdict(list)
    for scene in _scenes(task, 5):
        caption = TASKS[task].caption(scene)
        assert re.fullmatch(r"[A-Z].*\.", caption)
        for key, values in TASKS[task].attributes.items():
            if key == "lights":  # their number, which the caption counts itself
                continue
            others = [{**scene.attributes, key: v} for v in values if v != scene.attributes[key]]
            changed = [TASKS[task].caption(replace(scene, attributes=other)) for other in others]
            quiet[key].append(caption in changed)
    assert [key for key, silent in quiet.items() if all(silent)] == []


def test_a_row_is_described_from_its_attributes() -> None:
    scene = _scenes("hmi", 1)[0]
    assert describe(conversation(scene)) == TASKS["hmi"].caption(scene)
    with pytest.raises(UserError, match="task 'parking': no words for it; one of fatigue"):
        describe({"task": "parking", "attributes": {}})


def test_phrasings_vary() -> None:
    for task in NAMES:
        prompts: dict[str, set[str]] = defaultdict(set)
        for scene in _scenes(task, 200):
            for question in TASKS[task].questions(scene):
                prompts[question.kind].add(question.prompt)
        assert min(len(options) for options in prompts.values()) >= 2


def test_eval_rows_ask_once_per_picture_round_robin() -> None:
    kinds, seeds = [], set()
    for row, (scene,) in eval_rows("hmi", 2 * len(TASKS["hmi"].kinds)):
        kinds += row["kinds"]
        seeds.add(scene.seed)
        assert scene.split == "test"
    assert kinds == list(TASKS["hmi"].kinds) * 2
    assert len(seeds) == len(kinds)
    trained = {s.seed for _, scenes in rows("hmi", "train", 0, 50) for s in scenes}
    assert not trained & seeds


def test_eval_pairs_ask_what_only_one_picture_answers() -> None:
    seen = Counter()
    for row, (a, b) in eval_pairs(20 * len(TASKS)):
        kind, task = row["kinds"][0], TASKS[a.task]
        seen[kind, a.task] += 1
        content, (answer,) = (message["content"] for message in row["messages"])
        assert [p["image"] for p in content[:-1]] == [image_name(a), image_name(b)]
        asked = content[-1]["text"]
        if kind == "one of two":
            first, second = (
                {q.answer for q in task.questions(s) if asked.endswith(q.prompt)} for s in (a, b)
            )
            assert answer["text"] in (first if "irst picture" in asked else second)
        else:
            compared = which_picture(task, a.attributes, b.attributes)
            assert (asked, answer["text"]) in {(q.prompt, q.answer) for q in compared}
    assert set(seen.values()) == {10}
    assert {kind for kind, _ in seen} == set(PAIR_KINDS)
