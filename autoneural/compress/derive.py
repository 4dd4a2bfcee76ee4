"""A float checkpoint opened to be changed, and what became of it written to another folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from autoneural.checkpoint import (
    find_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    weights_hash,
)
from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.model.vlm import VLM, fix_image_size


@dataclass(frozen=True, kw_only=True)
class FloatCheckpoint:
    """Weights as stored; `model` makes as many copies as a method needs."""

    folder: Path
    config: ModelConfig
    state_dict: dict[str, Tensor]
    recipe: dict[str, Any]

    def model(self) -> VLM:
        """A new model with these weights: fp32, in eval mode, no gradients."""
        return build_model(self.config, self.state_dict, self.folder)


def open_float(name: str | Path, image_size: int | None = None) -> FloatCheckpoint:
    """The float checkpoint called `name`. UserError when it is quantised or not usable.

    What is made of it is for static graphs, so a ViT's positions are fixed here, at `image_size`
    pixels a side (None: its own).
    """
    checkpoint = load_checkpoint(name)
    if checkpoint.encodings is not None:
        raise UserError(f"{name}: is quantised already; start from the float checkpoint")
    config, state = checkpoint.config, checkpoint.state_dict
    try:
        config, state = fix_image_size(config, state, image_size or config.vision.image_size)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    return FloatCheckpoint(
        folder=find_checkpoint(name), config=config, state_dict=state, recipe=checkpoint.recipe
    )


def build_model(config: ModelConfig, state: Mapping[str, Tensor], where: str | Path) -> VLM:
    """A VLM with these weights in fp32, in eval mode, no gradients. UserError naming `where`."""
    model = VLM(config)
    load_weights(model, dict(state), where)
    return model.eval().requires_grad_(False)


def rebuild(like: VLM, config: ModelConfig, state: Mapping[str, Tensor], what: str) -> VLM:
    """A VLM of `config` with these weights, on the device of `like`. UserError naming `what`."""
    return build_model(config, state, what).to(next(like.parameters()).device)


def refuse_itself(out: str | Path, source: FloatCheckpoint) -> None:
    """UserError when `out` is the folder that the weights came from."""
    if Path(out).resolve() == source.folder.resolve():
        raise UserError(f"{out}: is the float checkpoint itself; write to another folder")


def save_derived(
    out: str | Path,
    tensors: Mapping[str, Tensor],
    config: ModelConfig,
    source: FloatCheckpoint,
    facts: Mapping[str, Any],
    encodings: dict[str, Any] | None = None,
    *,
    exact: bool = False,
) -> None:
    """Write a checkpoint made from `source`: its tokenizer and licences, `facts` of what was done.

    `facts` says at least the `stage`. `exact` keeps fp32, which bf16 would round (2^-9, 54 dB):
    for weights that were rewritten and not trained. Raises UserError as `save_checkpoint` and
    `refuse_itself` do.
    """
    refuse_itself(out, source)
    made = {
        **facts,
        "parent": weights_hash(source.folder),
        "parent_recipe": source.recipe,
        "licences": source.recipe.get("licences", {}),
    }
    save_checkpoint(out, tensors, config, source.folder, made, encodings, exact=exact)
