"""`autoneural import`: a folder of another library -> a checkpoint of ours.

An architecture is one entry of IMPORTERS; all that differs is its configuration and the names of
its tensors. Weights are memory-mapped and copied from file to file in the type that they have, so
memory does not grow with the model. Everything is checked before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoneural.checkpoint import load_config, load_recipe, load_tensors, save_checkpoint
from autoneural.config import ModelConfig, TextConfig
from autoneural.errors import UserError
from autoneural.files import sha256
from autoneural.hub.folder import CONFIG, NOT_STATED, ModelFolder
from autoneural.hub.lfm2 import read_lfm2
from autoneural.hub.lfm2_vl import read_lfm2_vl
from autoneural.hub.mobilenetv5 import ENCODERS, read_mobilenetv5
from autoneural.hub.reading import Fields, Reading
from autoneural.hub.words import Words, read_words, tokenizer_folder
from autoneural.model.language_model import LanguageModel
from autoneural.model.vision_encoder import build_vision_encoder
from autoneural.model.vlm import VLM
from autoneural.parts import PartConfig

Importer = Callable[[ModelFolder, Fields], Reading]

# By `model_type` (transformers) or `architecture` (timm) of config.json, with - written as _.
IMPORTERS: dict[str, Importer] = {
    "lfm2": read_lfm2,
    "lfm2_vl": read_lfm2_vl,
    **dict.fromkeys(ENCODERS, read_mobilenetv5),
}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_EMBEDDING, _HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model or a part of one, checked. `tensors` are mapped files, under the names of our VLM;
    `source` says where it is from, for recipe.json."""

    config: ModelConfig | PartConfig
    tensors: dict[str, Tensor]
    words: Words | None
    source: dict[str, Any]


def import_folder(name: str, output: Path) -> dict[str, Any]:
    """Write the model in the folder (or pulled repository) `name` to `output`; its source.

    Raises UserError, one line, for anything that is missing, wrong or not supported.
    """
    folder = _folder(name)
    model = open_foreign(folder)
    refuse_same(output, folder)
    recipe = {
        "made_by": "autoneural import",
        "source": model.source,
        "licences": {"weights": model.source["licence"]},
    }
    save_model(output, model, recipe)
    return recipe


def open_model(name: str) -> Model:
    """The foreign model or our own float checkpoint called `name`."""
    folder = _folder(name)
    if not {"part", "projector"} & folder.config().keys():
        return open_foreign(folder)
    config = load_config(folder.path)
    tensors = load_tensors(folder.weights().files[0])
    check_tensors(config, tensors, folder.path)
    text = _text_config(config)
    words = None if text is None else read_words(folder, text.vocab_size)
    source = load_recipe(folder.path).get("source")
    if not isinstance(source, dict) or not isinstance(source.get("licence"), str):
        source = {"name": folder.title, "licence": NOT_STATED}
    return Model(config=config, tensors=tensors, words=words, source=source)


def open_foreign(folder: ModelFolder) -> Model:
    """Read and check a folder of another library."""
    importer = _importer(folder)
    fields = Fields(folder.config(), folder.path / CONFIG)
    reading = importer(folder, fields)
    files = folder.weights()
    tensors = _load(files.files, files.index, folder.path)
    renamed = reading.convert({reading.rename(key): tensor for key, tensor in tensors.items()})
    _drop_tied_head(renamed, folder.path)
    check_tensors(reading.config, renamed, folder.path)
    words, text = None, _text_config(reading.config)
    if reading.has_tokenizer and text is not None:
        words = read_words(folder, text.vocab_size)
    source = {
        "name": folder.title,
        "repo": folder.repo,
        "revision": folder.revision,
        "licence": folder.licence(),
        "weights": {file.name: sha256(file) for file in files.files},
    }
    return Model(config=reading.config, tensors=renamed, words=words, source=source)


def save_model(output: Path, model: Model, recipe: Mapping[str, Any]) -> None:
    """Write a checkpoint in which every tensor is bit for bit what it was."""
    if model.words is None:
        save_checkpoint(output, model.tensors, model.config, None, recipe, exact=True)
        return
    with tokenizer_folder(model.words) as tokenizer:
        save_checkpoint(output, model.tensors, model.config, tokenizer, recipe, exact=True)


def check_tensors(
    config: ModelConfig | PartConfig, tensors: Mapping[str, Tensor], where: Path
) -> None:
    """UserError where `tensors` are not exactly those of a model of `config`, as floats."""
    expected = _expected(config)
    _refuse(where, "missing tensors", (n for n in expected if n not in tensors))
    _refuse(
        where, "tensors that its architecture has not", (n for n in tensors if n not in expected)
    )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, not {list(expected[name].shape)}"
            raise UserError(f"{where}: {name} has the shape {shapes}")
        if tensor.dtype not in _FLOATS:
            raise UserError(f"{where}: {name} is {_plain(tensor.dtype)}, not a float of 16 or 32")


def refuse_same(output: Path, *folders: ModelFolder) -> None:
    """UserError where `output` is one of the folders that are read."""
    for folder in folders:
        if output.resolve() == folder.path.resolve():
            raise UserError(f"{output}: is the folder that is read; name another one to be made")


def _folder(name: str) -> ModelFolder:
    from autoneural.hub.cache import find_model

    return ModelFolder(find_model(name))


def _importer(folder: ModelFolder) -> Importer:
    config = folder.config()
    kind = config.get("model_type") or config.get("architecture")
    if not isinstance(kind, str):
        raise UserError(f"{folder.path / CONFIG}: names no architecture (model_type)")
    importer = IMPORTERS.get(kind.replace("-", "_"))
    if importer is None:
        known = ", ".join(sorted(IMPORTERS))
        raise UserError(f"{folder.path}: unknown architecture {kind!r}; one of {known}")
    return importer


def _load(files: Iterable[Path], index: Mapping[str, str] | None, where: Path) -> dict[str, Tensor]:
    """All tensors, mapped from their files; with an index, exactly where it says."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        held = load_tensors(file)
        if index is not None:
            named = {tensor for tensor, name in index.items() if name == file.name}
            _refuse(where, f"its index names what {file.name} lacks", sorted(named - held.keys()))
            _refuse(where, f"{file.name} holds what its index lacks", sorted(held.keys() - named))
        tensors.update(held)
    return tensors


def _expected(config: ModelConfig | PartConfig) -> dict[str, Tensor]:
    """Names and shapes, from the model itself built without memory."""
    with torch.device("meta"):
        if isinstance(config, ModelConfig):
            return VLM(config).state_dict()
        half = config.config
        module: nn.Module
        module = LanguageModel(half) if isinstance(half, TextConfig) else build_vision_encoder(half)
    return {f"{config.part}.{name}": tensor for name, tensor in module.state_dict().items()}


def _text_config(config: ModelConfig | PartConfig) -> TextConfig | None:
    half = config.text if isinstance(config, ModelConfig) else config.config
    return half if isinstance(half, TextConfig) else None


def _drop_tied_head(tensors: dict[str, Tensor], where: Path) -> None:
    head, embedding = tensors.get(_HEAD), tensors.get(_EMBEDDING)
    if head is None or embedding is None:
        return
    if head.dtype != embedding.dtype or not torch.equal(head, embedding):
        raise UserError(f"{where}: lm_head.weight differs from the embedding it should be tied to")
    del tensors[_HEAD]


def _refuse(where: Path, what: str, names: Iterable[str]) -> None:
    listed = list(names)
    if listed:
        more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
        raise UserError(f"{where}: {what}: {', '.join(listed[:3])}{more}")


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
