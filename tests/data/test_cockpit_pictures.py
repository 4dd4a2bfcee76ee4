"""Pictures show what the attributes say, and boxes hold what they name."""

from __future__ import annotations

import importlib
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
    render,
)
from autoneural.data.cockpit.base import Box

NAMES = tuple(TASKS)


def _scenes(task: str, n: int, split: str = "train") -> list[Scene]:
    return [TASKS[task].sample(seed, split) for seed in range(n)]  # type: ignore[arg-type]


_LIGHTS = [a.removeprefix("light ") for a in TASKS["hmi"].attributes if a.startswith("light ")]


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
