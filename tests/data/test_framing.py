"""Training sees clusters and maps from further away too; the test as they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoneural.data.cockpit import TASKS, Scene
from autoneural.data.cockpit.framing import WHOLE, draw_framing


@pytest.mark.parametrize("task", ["hmi", "finder"])
def test_only_the_test_is_always_seen_whole(task: str) -> None:
    def shares(split: str) -> list[float]:
        scenes = [TASKS[task].sample(seed, split) for seed in range(40)]  # type: ignore[arg-type]
        return [scene.params["framing"][0] for scene in scenes]

    assert set(shares("test")) == {1.0}
    assert 10 < sum(share < 1 for share in shares("train")) < 30


def test_what_is_far_away_is_still_in_view() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_framing(rng, "train", 0.74) for _ in range(200)]
    assert WHOLE in drawn
    for share, right, down in drawn:
        assert 0.74 <= share <= 1
        assert 128 * share + max(abs(right), abs(down)) <= 128 + 1e-9


@pytest.mark.parametrize(("task", "thing"), [("hmi", "menu"), ("finder", "pin")])
def test_boxes_follow_what_is_drawn(task: str, thing: str) -> None:
    def middle(scene: Scene) -> np.ndarray:
        box = TASKS[task].boxes(scene)[thing]
        return 256 * np.array([box.left + box.right, box.top + box.bottom]) / 2

    scenes = (TASKS[task].sample(seed, "train") for seed in range(200))
    scene = next(
        s for s in scenes if s.params["framing"][0] < 0.95 and thing in TASKS[task].boxes(s)
    )
    share, *shift = scene.params["framing"]
    whole = middle(replace(scene, params=scene.params | {"framing": WHOLE}))
    # A box around what is tilted does not shrink quite as its middle moves.
    np.testing.assert_allclose(middle(scene), (whole - 128) * share + 128 + shift, atol=4)
    assert np.abs(middle(scene) - whole).max() > 8
