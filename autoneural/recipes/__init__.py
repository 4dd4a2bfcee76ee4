"""Named, typed recipes, and the one place that wires the stages together.

    recipe("tiny") --with_overrides--> Recipe --run_recipe(data, tokenizer, run)--> Checkpoint
    compress(compression, out, workbench=...) --> Checkpoint, report
    qat(checkpoint, data, out, run) --> quantised Checkpoint
    distil(student, teacher, data, out, run) --> Checkpoint

A recipe says what is made and is stored, resolved, in the checkpoint it made; where the files lie
and which device computes are arguments of the run.
"""

from autoneural.errors import UserError
from autoneural.recipes.adapting import frozen_parts
from autoneural.recipes.connector import connector
from autoneural.recipes.distilling import distil, relabel_data
from autoneural.recipes.quantized_training import qat
from autoneural.recipes.quantizing import calibration_samples
from autoneural.recipes.recipe import DataSource, Recipe, with_overrides
from autoneural.recipes.tiny import shortened, tiny, tiny_vit
from autoneural.recipes.training import run_recipe

__all__ = [
    "DataSource",
    "Recipe",
    "calibration_samples",
    "distil",
    "frozen_parts",
    "qat",
    "recipe",
    "relabel_data",
    "run_recipe",
    "with_overrides",
]


def recipe(name: str, *, smoke: bool = False) -> Recipe:
    """The recipe called `name`; with `smoke`, the same stages in minutes (they learn little)."""
    recipes = {"tiny": tiny, "tiny-vit": tiny_vit, "connector": connector}
    if name not in recipes:
        raise UserError(f"no recipe {name!r}; one of {', '.join(recipes)}")
    return shortened(recipes[name]()) if smoke else recipes[name]()
