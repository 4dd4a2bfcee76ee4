"""`autoneural show`: the facts of a bundle or a checkpoint, without loading its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from autoneural.bundle import EMBEDDED, Bundle
from autoneural.config import ModelConfig, TextConfig
from autoneural.errors import UserError
from autoneural.files import SHIPPED, expand
from autoneural.manifest import MANIFEST
from autoneural.parts import PartConfig


def facts(name: str) -> dict[str, Any]:
    """JSON-ready facts of the bundle or checkpoint called `name` (a folder or a known name).

    A name that is both, as `cockpit-tiny` in a clone, is the bundle; a path is never ambiguous.
    """
    return _checkpoint(name) if is_checkpoint(name) else _bundle(Bundle.load(name))


def is_checkpoint(name: str) -> bool:
    """Whether `name` means a checkpoint; False also where it means nothing."""
    folder = expand(name)
    if folder.is_dir():
        return (folder / "config.json").is_file() and not (folder / MANIFEST).is_file()
    shipped = (SHIPPED / name / "config.json").is_file()
    return shipped and not (EMBEDDED / name / MANIFEST).is_file()


def _bundle(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    sizes = {name: entry["bytes"] for name, entry in manifest["files"].items()}
    targets = {
        name: {
            "graphs": [f"{g.role} x{g.width}" for g in target.graphs],
            "precision": dict(target.precision),
            "megabytes": _mega(sum(b for f, b in sizes.items() if f.startswith(f"{name}/"))),
        }
        for name, target in bundle.targets.items()
    }
    return {
        "kind": "bundle",
        "folder": str(bundle.folder),
        "name": bundle.name,
        "created_by": manifest.get("created_by"),
        "context": bundle.context,
        "image": f"{_several(bundle.image_sizes)} px, {bundle.processor.tokens_per_image} tokens",
        "targets": targets,
        "chips": manifest.get("chips", []),
        "licences": manifest.get("licences", {}),
        "metrics": manifest.get("metrics", {}),
        "megabytes": _mega(sum(sizes.values())),
    }


def _checkpoint(name: str) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    from autoneural.checkpoint import (
        ENCODINGS,
        WEIGHTS,
        find_checkpoint,
        load_config,
        load_recipe,
    )

    folder = find_checkpoint(name)
    config, recipe = load_config(folder), load_recipe(folder)
    try:
        with safe_open(folder / WEIGHTS, framework="np") as file:
            tensors = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            values = {key: math.prod(t.get_shape()) for key, t in tensors.items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder}: not a readable checkpoint ({error})") from error
    return {
        "kind": "checkpoint" if isinstance(config, ModelConfig) else f"part: {config.part}",
        "folder": str(folder),
        "name": config.name,
        "parts": {part: _under(values, part) for part in sorted({k.split(".")[0] for k in values})},
        "stored values": sum(values.values()),
        "quantised": (folder / ENCODINGS).is_file(),
        **_described(config),
        "licences": recipe.get("licences", {}),
        "recipe": recipe,
        "megabytes": _mega((folder / WEIGHTS).stat().st_size),
    }


def _described(config: ModelConfig | PartConfig) -> dict[str, Any]:
    whole = isinstance(config, ModelConfig)
    found: dict[str, Any] = {}
    for half in (config.vision, config.text) if whole else (config.config,):
        if isinstance(half, TextConfig):
            found |= {"layers": list(half.layer_types), "vocabulary": half.vocab_size}
        else:
            found["image"] = f"{half.image_size} px, {half.num_tokens} tokens"
    return found


def _several(sizes: Iterable[int]) -> str:
    return " or ".join(map(str, sizes))


def _under(values: dict[str, int], part: str) -> int:
    return sum(count for key, count in values.items() if key.startswith(f"{part}."))


def _mega(size: int) -> float:
    return round(size / 1e6, 2)
