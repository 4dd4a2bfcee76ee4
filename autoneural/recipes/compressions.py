"""Named compression recipes, and those that users write into files of their own."""

from __future__ import annotations

import runpy
from pathlib import Path

from autoneural.errors import UserError
from autoneural.recipes.steps import (
    Compression,
    Distil,
    LowRank,
    Mixed,
    Prune,
    Qat,
    Quantize,
    Rewrite,
    Step,
)


def _recipe(name: str, *steps: Step) -> Compression:
    return Compression(name=name, steps=steps)


COMPRESSIONS = {
    found.name: found
    for found in (
        _recipe("ptq", Quantize()),
        _recipe("ptq-best", Rewrite(), Quantize(rounding="sequential")),
        _recipe("qat", Qat()),
        _recipe("mixed", Mixed(rounding="sequential")),
        _recipe("prune", Prune(), Distil(), Quantize()),
        _recipe("low-rank", LowRank(), Distil(), Quantize()),
        _recipe("distil", Distil(), Quantize()),
        # The decoder's MLPs give way, the encoder little: what it no longer sees is not won back.
        _recipe(
            "everything",
            Prune(ratio=0.68, parts=("mlp",)),
            Prune(ratio=0.2, parts=("vision",)),
            Distil(steps=300, lr=5e-4, modality="vision"),
            Distil(steps=900, lr=2e-4),
            Rewrite(),
            Quantize(precision="w4a16full", rounding="sequential"),
        ),
    )
}


def find_compression(name: str) -> Compression:
    """The recipe of that name, or the `recipe` of the Python file of that name.

    A file is run: it is code of whoever names it. Raises UserError for an unknown name, a file that
    does not run, and one without a `recipe`.
    """
    if not name.endswith(".py"):
        if name not in COMPRESSIONS:
            known = ", ".join(COMPRESSIONS)
            raise UserError(f"recipe {name!r}: expected one of {known}, or a file.py of your own")
        return COMPRESSIONS[name]
    if not Path(name).is_file():
        raise UserError(f"{name}: no such file")
    try:
        found = runpy.run_path(name).get("recipe")
    except Exception as error:  # whatever a user's file does wrong
        raise UserError(f"{name}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Compression):
        raise UserError(f"{name}: holds no `recipe`, a Compression of autoneural.recipes.steps")
    return found
