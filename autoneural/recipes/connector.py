"""Stage 1 for a model that was assembled: its connector learns, both towers stay as they are."""

from __future__ import annotations

from autoneural.recipes.recipe import DataSource, Recipe
from autoneural.train.curriculum import Stage


def connector() -> Recipe:
    """The projector alone, on the rows as they are stored: pictures with descriptions serve best.

    Rate and batch are what LLaVA (arXiv 2304.08485) and its successors align connectors with; it
    needs a checkpoint to start from.
    """
    return Recipe(
        name="connector",
        preset="",
        data={"chat": DataSource()},
        stages=(
            Stage(
                name="align",
                train=("projector",),
                mixture={"chat": 1.0},
                steps=2000,
                batch_size=32,
                accumulate=8,
                lr={"projector": 1e-3},
                warmup=60,
                weight_decay=0.0,
            ),
        ),
    )
