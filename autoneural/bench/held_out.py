"""The held-out cockpit questions, drawn in memory: nothing to download, nothing on disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from autoneural.bench.quality import Item, items_of
from autoneural.data.cockpit import (
    TASKS,
    Row,
    Scene,
    Split,
    check_tasks,
    eval_clips,
    eval_pairs,
    eval_rows,
    render,
    rows,
)
from autoneural.data.cockpit.export import JPEG_QUALITY

SEVERAL = {"pairs": eval_pairs, "clips": eval_clips}
"""Questions about several pictures at a time."""


def trained_tasks(recipe: Mapping[str, Any]) -> list[str] | None:
    """The cockpit tasks that a model's training names, from the recipe of a bundle or checkpoint.

    None where it names none: a model of others, or one trained on everything there is.
    """
    sources = recipe.get("recipe", {}).get("data", {}).values()
    named = {task for source in sources for task in source.get("tasks", ())}
    if not named and recipe.get("parent_recipe"):
        return trained_tasks(recipe["parent_recipe"])
    return [task for task in TASKS if task in named] or None


def held_out(
    tasks: Sequence[str] | None,
    n: int,
    seed: int = 0,
    split: Split = "test",
    on_picture: Callable[[], None] = lambda: None,
) -> dict[str, list[Item]]:
    """`n` questions of a split per task (None: all cockpit tasks), with their pictures as JPEG.

    `pairs` asks about two pictures of any cockpit task at a time, `clips` about four of a driver.

    `test` has looks that training never saw, `val` only scenes. The same arguments give the same
    questions everywhere. `on_picture` is called after
    each row. Raises UserError as `check_tasks` does.
    """
    names = [name for name in tasks or TASKS if name not in SEVERAL]
    drawn = {
        name: eval_rows(name, n, seed, split) for name in (check_tasks(names) if names else ())
    }
    drawn |= {name: SEVERAL[name](n, seed, split) for name in tasks or () if name in SEVERAL}
    return {
        name: [
            item
            for row, scenes in rows
            for item in items_of([_with_pictures(row, scenes, on_picture)])
        ]
        for name, rows in drawn.items()
    }


def held_out_rows(
    tasks: Sequence[str] | None,
    n: int,
    seed: int = 0,
    split: Split = "test",
    on_picture: Callable[[], None] = lambda: None,
) -> list[Row]:
    """`n` whole conversations of a split, the tasks in turn (None: all), pictures as JPEG.

    What `data cockpit --split test` writes, so longer than the questions of `held_out`.
    `on_picture` is called after each row. Raises UserError as `check_tasks` does.
    """
    names = check_tasks(tasks)
    drawn = {name: rows(name, split, 0, n, seed) for name in names}
    turns = [next(drawn[names[index % len(names)]]) for index in range(n)]
    return [_with_pictures(row, scenes, on_picture) for row, scenes in turns]


def _with_pictures(row: Row, scenes: Sequence[Scene], on_picture: Callable[[], None]) -> Row:
    pictures = iter([_jpeg(scene) for scene in scenes])
    for message in row["messages"]:
        for part in message["content"]:
            if part["type"] == "image":
                part["image"] = next(pictures)
    on_picture()
    return row


def _jpeg(scene: Scene) -> bytes:
    """As a data folder holds it; also a tenth of the memory of raw pixels."""
    file = io.BytesIO()
    Image.fromarray(render(scene)).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
