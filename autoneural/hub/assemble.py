"""`autoneural assemble`: a vision encoder and a language model, with a new connector between them.

The connector is random: the model answers nothing about pictures until it is trained (stage 1 of
the curriculum). Its hidden width is that of AutoNeural-1.5B unless told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoneural.config import ModelConfig, ProjectorConfig
from autoneural.data.tokenizer import default_chat_template
from autoneural.errors import UserError
from autoneural.files import expand
from autoneural.hub.importers import Model, open_model, save_model
from autoneural.hub.words import Words
from autoneural.model.projector import Projector
from autoneural.parts import Part, PartConfig

CONNECTOR_WIDTH = 2048
_EMBEDDING = "language_model.model.embed_tokens.weight"


def assemble(
    vision: str, language: str, output: Path, *, seed: int = 0, width: int = CONNECTOR_WIDTH
) -> dict[str, Any]:
    """Write a whole model to `output`; returns its recipe.

    `vision` and `language` are folders that `import` reads, pulled repositories, or parts that
    were imported. The tokenizer is the language model's, the chat template ours, which knows
    images. Raises UserError, one line.
    """
    if output.resolve() in (expand(vision).resolve(), expand(language).resolve()):
        raise UserError(f"{output}: is a folder that is read; name another one to be made")
    seeing, see = _part(vision, "vision_encoder")
    talking, talk = _part(language, "language_model")
    config = ModelConfig(
        name=output.resolve().name,
        vision=see,
        projector=ProjectorConfig(hidden_size=width),
        text=talk,
    )
    dtype = talking.tensors[_EMBEDDING].dtype
    assert talking.words is not None  # a language model's always
    model = Model(
        config=config,
        tensors=seeing.tensors | _connector(config, seed, dtype) | talking.tensors,
        words=Words(talking.words.tokenizer, default_chat_template()),
        source={},
    )
    recipe = _recipe(seeing.source, talking.source, seed)
    save_model(output, model, recipe)
    return recipe


def _part(name: str, part: Part) -> tuple[Model, Any]:
    """The model called `name` and the configuration of its half; UserError for the other half."""
    model = open_model(name)
    if not isinstance(model.config, PartConfig):
        raise UserError(f"{name}: is a whole model; --{_flag(part)} needs a {part} alone")
    if model.config.part != part:
        raise UserError(f"{name}: is a {model.config.part}; --{_flag(part)} needs a {part}")
    return model, model.config.config


def _flag(part: Part) -> str:
    return part.split("_")[0]


def _connector(config: ModelConfig, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """A new connector's tensors; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Projector(config.vision.out_channels, config.text.hidden_size, config.projector)
    return {f"projector.{name}": t.to(dtype) for name, t in made.state_dict().items()}


def _recipe(vision: dict[str, Any], language: dict[str, Any], seed: int) -> dict[str, Any]:
    terms = {"vision_encoder": vision["licence"], "language_model": language["licence"]}
    return {
        "made_by": "autoneural assemble",
        "seed": seed,
        "parts": {"vision_encoder": vision, "language_model": language},
        # Whoever passes the model on passes both on: what reads one licence reads this one.
        "licences": {"weights": " and ".join(dict.fromkeys(terms.values())), **terms},
    }
