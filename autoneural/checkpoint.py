"""The Checkpoint folder: what passes from one stage of the chain to the next.

    config.json  model.safetensors  tokenizer.json  chat_template.jinja  recipe.json
    encodings.json (quantised ones)

A part of a model (`autoneural.parts`) is such a folder too; a vision encoder has no tokenizer.
A folder appears whole or not at all. `parent` in recipe.json is the sha256 of the parent's
model.safetensors. Loading never unpickles.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.files import SHIPPED, expand, replace_folder, sha256, write_text
from autoneural.parts import PartConfig

CONFIG, WEIGHTS, RECIPE, ENCODINGS = (
    "config.json",
    "model.safetensors",
    "recipe.json",
    "encodings.json",
)
TOKENIZER_FILES = ("tokenizer.json", "chat_template.jinja")
_KNOWN = {CONFIG, WEIGHTS, RECIPE, ENCODINGS, *TOKENIZER_FILES, "README.md", ".gitattributes"}
_KNOWN |= {"report.html", "report.json"}
_TIED = "language_model.lm_head.weight"


class Checkpoint(NamedTuple):
    """A loaded checkpoint. `state_dict` is on the CPU, in the types of the file (floats: bf16)."""

    config: ModelConfig
    state_dict: dict[str, Tensor]
    recipe: dict[str, Any]
    encodings: dict[str, Any] | None


def find_checkpoint(name: str | Path) -> Path:
    """The folder called `name`: a path, or `models/<name>` of the clone this runs in."""
    path = expand(name)
    if path.is_dir():
        return path
    shipped = SHIPPED / path
    if path.name == str(name) and shipped.is_dir():
        return shipped
    raise UserError(f"{name}: no such checkpoint folder (nor models/{path.name} in this clone)")


def load_checkpoint(name: str | Path) -> Checkpoint:
    """Read the checkpoint called `name`.

    Raises UserError, one line, when the folder is missing, damaged or not a checkpoint.
    """
    folder = find_checkpoint(name)
    config = load_config(folder)
    if isinstance(config, PartConfig):
        raise UserError(f"{folder}: holds the {config.part} alone; see `autoneural assemble`")
    for required in (WEIGHTS, *TOKENIZER_FILES):
        if not (folder / required).is_file():
            raise UserError(f"{folder}: not a checkpoint, {required} is missing")
    return Checkpoint(
        config=config,
        state_dict=load_tensors(folder / WEIGHTS),
        recipe=load_recipe(folder),
        encodings=_read_json(folder / ENCODINGS) if (folder / ENCODINGS).is_file() else None,
    )


def load_config(folder: Path) -> ModelConfig | PartConfig:
    """What the checkpoint in `folder` is. UserError where its config.json is missing or wrong."""
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: not a checkpoint, {CONFIG} is missing")
    data = _read_json(path)
    try:
        return PartConfig.from_dict(data) if "part" in data else ModelConfig.from_dict(data)
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: {error}") from error


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor], where: str | Path) -> None:
    """Copy `state_dict` into `model`, in the model's own float type.

    Raises UserError naming the first tensors that are missing, unknown or of another shape.
    """
    expected = model.state_dict()  # without a tied head, which a file may hold all the same
    given = check_weights(expected, state_dict, where)
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(given[name])


def check_weights(
    expected: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], where: str | Path
) -> dict[str, Tensor]:
    """Of `state_dict` what a model with the state `expected` holds; UserError as `load_weights`."""
    given = {k: v for k, v in state_dict.items() if k != _TIED or k in expected}
    shapes = [
        f"{name} is {list(given[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    problems = (
        ("missing tensors", [name for name in expected if name not in given]),
        ("unknown tensors", [name for name in given if name not in expected]),
        ("wrong shapes", shapes),
    )
    for what, names in problems:
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(f"{where}: {what}: {', '.join(names[:3])}{more}")
    return given


def save_checkpoint(
    folder: str | Path,
    weights: nn.Module | Mapping[str, Tensor],
    config: ModelConfig | PartConfig,
    tokenizer: str | Path | None,
    recipe: Mapping[str, Any],
    encodings: Mapping[str, Any] | None = None,
    *,
    exact: bool = False,
) -> Path:
    """Write a checkpoint to `folder`, atomically; an earlier checkpoint there is replaced.

    `tokenizer` is a folder with tokenizer.json and chat_template.jinja (None: a part without).
    Float tensors are stored as bf16; with `encodings` or `exact`, every tensor keeps its type, and
    memory-mapped ones are copied from file to file. Returns `folder`.
    """
    folder = Path(folder)
    refuse_foreign(folder)
    tensors = weights.state_dict() if isinstance(weights, nn.Module) else weights
    tied = isinstance(config, PartConfig) or config.text.tie_word_embeddings
    with replace_folder(folder) as temporary:
        _write_json(temporary / CONFIG, config.to_dict())
        _write_json(temporary / RECIPE, recipe)
        if encodings is not None:
            _write_json(temporary / ENCODINGS, encodings)
        if tokenizer is not None:
            _copy_tokenizer(Path(tokenizer), temporary)
        half = encodings is None and not exact
        save_tensors(
            temporary / WEIGHTS,
            {k: _stored(v, half=half) for k, v in tensors.items() if not (tied and k == _TIED)},
        )
    return folder


def _copy_tokenizer(source: Path, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        if not (source / name).is_file():
            raise UserError(f"{source}: {name} is missing, not a tokenizer folder")
        shutil.copyfile(source / name, folder / name)


def load_recipe(name: str | Path) -> dict[str, Any]:
    """What made the checkpoint called `name`: its recipe.json, empty where there is none."""
    path = find_checkpoint(name) / RECIPE
    return _read_json(path) if path.is_file() else {}


def weights_hash(name: str | Path) -> str:
    """sha256 of the model.safetensors of the checkpoint `name`: how a child names its parent."""
    path = find_checkpoint(name) / WEIGHTS
    if not path.is_file():
        raise UserError(f"{path.parent}: not a checkpoint, {WEIGHTS} is missing")
    return sha256(path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file as a dict on the CPU. Raises UserError when it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged or not safetensors ({error})") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` to a safetensors file and flush it to the disk. UserError if it is full."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be written ({error})") from error
    path.chmod(0o644)  # safetensors makes it readable to the owner only
    _flush(path)


def _stored(tensor: Tensor, *, half: bool) -> Tensor:
    return tensor.to(torch.bfloat16) if half and tensor.is_floating_point() else tensor


def refuse_foreign(folder: Path) -> None:
    """UserError where `folder` holds something that `save_checkpoint` must not replace."""
    if folder.is_file():
        raise UserError(f"{folder}: is a file, a checkpoint needs a folder")
    if folder.is_dir():
        foreign = sorted(p.name for p in folder.iterdir() if p.name not in _KNOWN)
        if foreign:
            raise UserError(f"{folder}: holds {foreign[0]}, so it is no checkpoint; choose another")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error})") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: damaged (not a JSON object)")
    return data


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
