"""The lens: fisheye, dirt, drops and glare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from autoneural.data.cockpit import TASKS, Scene, lens, render
from autoneural.data.cockpit.base import Box

EFFECTS: dict[str, list[Any]] = {
    "dirt": [[0.3, 0.4, 0.1, 0.08, 0.98, "#5c4a36"]],
    "drops": [[0.6, 0.5, 0.1]],
    "glare": [[0.5, 0.5, 0.15, 1.0]],
}


def _seen(task: str, size: int = 128, **effects: Any) -> np.ndarray:
    scene = TASKS[task].sample(3, "train")
    camera = {**scene.params["camera"], **effects}
    params = {**scene.params, "camera": camera}
    return render(Scene(task, 3, "train", scene.attributes, params), size)


@pytest.mark.parametrize("effects", [{"fisheye": 0.2}, *({k: v} for k, v in EFFECTS.items())])
def test_each_effect_shows_and_repeats(effects: dict[str, Any]) -> None:
    plain, changed = _seen("boarding"), _seen("boarding", **effects)
    assert changed.shape == plain.shape
    assert np.abs(changed.astype(int) - plain).max() > 40
    assert (changed == _seen("boarding", **effects)).all()
    assert _seen("boarding", 96, **effects).shape == (96, 96, 3)


@pytest.mark.parametrize("task", ["fatigue", "hmi", "boarding"])
def test_nothing_changes_when_the_lens_is_clean(task: str) -> None:
    assert (_seen(task) == _seen(task, fisheye=0, dirt=[], drops=[], glare=[])).all()


def test_dirt_covers_and_stays_in_its_place() -> None:
    pixels = np.full((100, 300), 200, dtype=np.float32)
    soiled = lens.soil(pixels, {"dirt": EFFECTS["dirt"]}).reshape(100, 100, 3)
    assert np.abs(soiled[40, 30] - [0x5C, 0x4A, 0x36]).max() < 5
    far = np.ones((100, 100), dtype=bool)
    far[28:54, 15:46] = False
    assert (soiled[far] == 200).all()
    assert (pixels == 200).all()


def test_a_drop_shows_its_surroundings_upside_down() -> None:
    pixels = np.zeros((100, 300), dtype=np.float32)
    pixels[50:] = 200
    seen = lens.soil(pixels, {"drops": [[0.5, 0.5, 0.2]]})
    assert seen[40, 150] > 100 > seen[60, 150]


def test_glare_saturates_at_its_core() -> None:
    bright = lens.soil(np.zeros((100, 300), dtype=np.float32), {"glare": EFFECTS["glare"]})
    assert bright[50, 150] == 255
    assert bright[2, 6] == 0


@pytest.mark.parametrize("effect", EFFECTS)
def test_effects_may_lie_beyond_the_edge(effect: str) -> None:
    for at in (-2.0, -0.02, 1.01, 3.0):
        entry = [at, at, *EFFECTS[effect][0][2:]]
        lens.soil(np.zeros((64, 192), dtype=np.float32), {effect: [entry]})


@pytest.mark.parametrize("spot", [(0.5, 0.5), (0.2, 0.3), (0.75, 0.9), (0.08, 0.1)])
def test_a_point_is_seen_where_the_fisheye_is_said_to_put_it(spot: tuple[float, float]) -> None:
    size = 200
    drawn = Image.new("RGB", (size, size))
    x, y = (round(value * size) for value in spot)
    drawn.paste((255, 255, 255), (x - 3, y - 3, x + 3, y + 3))
    seen = np.asarray(lens.fisheye(drawn, 0.2))[:, :, 0].astype(float)
    rows, columns = np.indices(seen.shape) + 0.5
    middle = (seen * columns).sum() / seen.sum() / size, (seen * rows).sum() / seen.sum() / size
    assert middle == pytest.approx(lens.bent(x / size, y / size, 0.2), abs=0.006)


def test_the_fisheye_keeps_corners_and_enlarges_the_centre() -> None:
    assert lens.bent(0, 0, 0.25) == pytest.approx((0, 0), abs=1e-6)
    x, _ = lens.bent(0.501, 0.5, 0.25)
    assert x - 0.5 == pytest.approx(0.0015, rel=0.01)
    assert lens.bent(0.3, 0.8, 0) == (0.3, 0.8)
    box = lens.bent_box(Box(0.4, 0.4, 0.6, 0.6), 0.25)
    assert box.left < 0.36
    assert box.bottom > 0.64
