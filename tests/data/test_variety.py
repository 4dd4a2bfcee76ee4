"""What training draws at random where the test split has its own: wide, and never the test's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoneural.data.cockpit import TASKS, Scene
from autoneural.data.cockpit import street as town
from autoneural.data.cockpit.cluster import cluster
from autoneural.data.cockpit.cluster_layout import LAYOUTS_BY_NAME, LAYOUTS_HELD_OUT, any_layout
from autoneural.data.cockpit.finder_aisle import BOARDS
from autoneural.data.cockpit.finder_map import BAYS, PLANS, PLANS_BY_NAME, PLANS_HELD_OUT
from autoneural.data.cockpit.plate_drawing import GRAMMARS_HELD_OUT
from autoneural.data.cockpit.svg import rgb
from autoneural.data.cockpit.tint import NEAR, tint


def _scenes(task: str, n: int, split: str = "train") -> list[Scene]:
    return [TASKS[task].sample(seed, split) for seed in range(n)]  # type: ignore[arg-type]


def _patterns(split: str) -> set[str]:
    return {scene.params["grammar"].replace(" ", "") for scene in _scenes("plate", 600, split)}


def test_training_sees_most_grammars_and_never_a_held_out_one() -> None:
    held_out = {grammar.replace(" ", "") for grammar in GRAMMARS_HELD_OUT}
    assert _patterns("test") == held_out
    assert len(_patterns("train")) > 60
    assert not (_patterns("train") | _patterns("val")) & held_out


def test_every_grammar_has_a_digit_and_fills_its_slots() -> None:
    for scene in _scenes("plate", 300):
        grammar = scene.params["grammar"]
        assert "D" in grammar
        assert 5 <= len(grammar.replace(" ", "")) <= 7
        assert 2 <= len(grammar.split()) <= 3


def test_layouts_of_training_are_many_and_none_stacks_as_a_held_out_one_does() -> None:
    rng = np.random.default_rng(0)
    layouts = [any_layout(rng) for _ in range(300)]
    assert len({layout.speed for layout in layouts}) > 250
    for layout in layouts:
        sides = {name: getattr(layout, name)[0] < 126 for name in ("speed", "gear", "charge")}
        others = {name: getattr(layout, name)[0] < 126 for name in ("arrow", "sign", "gauge")}
        apart = len(set(sides.values())) == 1 == len(set(others.values()))
        assert not (apart and sides["speed"] != others["sign"])
    for name in LAYOUTS_HELD_OUT:  # the rule above is theirs
        held = LAYOUTS_BY_NAME[name]
        assert len({held.speed[0] < 126, held.gear[0] < 126, held.charge[0] < 126}) == 1


def test_instruments_stay_apart_and_in_the_picture() -> None:
    named = ("sign", "manoeuvre", "distance", "gear", "temperature", "charge", "ones")
    overlaps = []
    for scene in _scenes("hmi", 300):
        boxes = cluster(scene.attributes, scene.params).boxes
        found = [boxes[name] for name in named if name in boxes]
        for k, a in enumerate(found):
            assert -0.03 <= a.left < a.right <= 1.03
            assert -0.03 <= a.top < a.bottom <= 1.03
            overlaps += [
                max(0.0, min(a.right, b.right) - max(a.left, b.left))
                * max(0.0, min(a.bottom, b.bottom) - max(a.top, b.top))
                for b in found[k + 1 :]
            ]
    assert max(overlaps) < 0.004  # of the picture; a sign takes 0.05


def test_plans_of_training_have_no_gap_in_the_middle() -> None:
    for name in PLANS:
        plan = PLANS_BY_NAME[name]
        assert not plan.split or plan.after != 3
    assert all(PLANS_BY_NAME[name].after == 3 for name in PLANS_HELD_OUT)


@pytest.mark.parametrize("name", sorted(set(PLANS)))
def test_neighbours_are_those_with_no_gap_between(name: str) -> None:
    plan = PLANS_BY_NAME[name]
    pitch = plan.bay[0]
    for bay in BAYS:
        u, _ = plan.middle("A", bay)
        near = [o for o in BAYS if 0 < abs(plan.middle("A", o)[0] - u) < pitch + 1]
        assert plan.beside(bay) == near


def test_a_drifting_colour_keeps_away_from_the_held_out_ones() -> None:
    rng = np.random.default_rng(0)
    drawn = {tint(rng, "train", town.CLOTH, town.CLOTH_HELD_OUT) for _ in range(400)}
    assert len(drawn) > 200
    assert drawn & set(town.CLOTH)
    for color in drawn:
        for other in town.CLOTH_HELD_OUT:
            assert math.dist(rgb(color), rgb(other)) >= NEAR
    held = {tint(rng, "test", town.CLOTH, town.CLOTH_HELD_OUT) for _ in range(100)}
    assert held == set(town.CLOTH_HELD_OUT)


def test_a_board_anywhere_looks_about_as_large_as_the_others() -> None:
    looks = [scene.params for scene in _scenes("finder", 400)]
    sizes = [look["board"][3] / look["board"][0] for look in looks if look["sign"] == "anywhere"]
    known = [cap / z for z, _, _, cap in BOARDS.values()]
    assert len(set(sizes)) > 50
    assert min(known) * 0.9 < min(sizes)
    assert max(sizes) < max(known) * 1.1
