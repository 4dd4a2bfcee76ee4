"""Held-out questions: as many as asked for, repeatable, with pictures that open."""

import pytest

from autoneural.bench.held_out import held_out, trained_tasks
from autoneural.bench.quality import shuffled
from autoneural.data.cockpit import TASKS
from autoneural.data.image import load_image
from autoneural.errors import UserError


def test_questions_of_every_task_with_their_pictures():
    drawn = []
    tasks = held_out(None, 4, on_picture=lambda: drawn.append(1))
    assert list(tasks) == list(TASKS)
    assert len(drawn) == 4 * len(TASKS)
    for name, items in tasks.items():
        assert [item.task for item in items] == [name] * 4
        assert len({item.kind for item in items}) > 1
        assert all(load_image(image).size == (256, 256) for i in items for image in i.images)
        blind = shuffled(items, 0)
        assert {i.images[0] for i in blind} == {i.images[0] for i in items}
        pictures = {item.id: item.images[0] for item in items}
        assert all(pictures[item.id] != item.images[0] for item in blind)


def test_a_recipe_names_the_tasks_that_a_model_was_trained_on():
    data = {"chat": {"tasks": []}, "b": {"tasks": ["hmi"]}, "a": {"tasks": ["fatigue"]}}
    training = {"recipe": {"data": data}, "parent_recipe": {"recipe": {"data": {}}}}
    assert trained_tasks({"stage": "export", "parent_recipe": training}) == ["fatigue", "hmi"]
    assert trained_tasks({"recipe": {"data": {"chat": {"tasks": []}}}}) is None
    assert trained_tasks({"recipe": {"data": {"mine": {"tasks": ["another"]}}}}) is None
    assert trained_tasks({}) is None


def test_the_seed_decides():
    name = next(iter(TASKS))
    assert held_out([name], 2, seed=1) == held_out([name], 2, seed=1)
    assert held_out([name], 2, seed=1) != held_out([name], 2, seed=2)
    assert held_out([name], 2, seed=1, split="val") != held_out([name], 2, seed=1)


def test_pairs_are_a_task_of_their_own():
    tasks = held_out(["pairs", "hmi"], 6)
    assert list(tasks) == ["hmi", "pairs"]
    assert {len(item.images) for item in tasks["pairs"]} == {2}
    assert list(held_out(["pairs"], 1)) == ["pairs"]


def test_an_unknown_task_is_named():
    with pytest.raises(UserError, match="'parking'; one of"):
        held_out(["parking"], 1)
