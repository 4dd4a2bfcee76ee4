"""Runs a training recipe: files to sources, sources to a trainer, its weights to a Checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

import autoneural
from autoneural.checkpoint import (
    TOKENIZER_FILES,
    load_checkpoint,
    load_recipe,
    load_weights,
    refuse_foreign,
    save_checkpoint,
    weights_hash,
)
from autoneural.config import ModelConfig, preset
from autoneural.data.cockpit import about_two, describe
from autoneural.data.dataset import Source
from autoneural.data.importers import data_files, open_source
from autoneural.data.processor import Processor
from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError
from autoneural.files import refuse_current, write_text
from autoneural.model.vlm import VLM
from autoneural.recipes.recipe import DataSource, Recipe
from autoneural.train.curriculum import PARTS, Stage
from autoneural.train.engine import Engine, open_engine
from autoneural.train.objectives import Objective
from autoneural.train.sources import Words, derive_source
from autoneural.train.state import load_position
from autoneural.train.trainer import Outcome, RunOptions, Trainer

LICENCE = "Apache-2.0"
WORDS = Words(describe, about_two)
_CONFIG_OF: dict[str, str] = dict(zip(PARTS, ("vision", "projector", "text"), strict=True))


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a run differs from plain training of the weights it starts from.

    `facts` decide the weights beside the recipe, and go into run.json and recipe.json. `prepare`
    changes the initial model in place, on every call of the run. `objective` is made anew for each
    stage, from the model that trains. `save` writes a checkpoint in place of `save_checkpoint`,
    from (folder, trained model, recipe.json). `alone` says that it needs one process.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[VLM], object] | None = None
    objective: Callable[[Stage], Objective] | None = None
    save: Callable[[Path, VLM, dict[str, Any]], object] | None = None
    alone: bool = True


def run_recipe(
    chosen: Recipe,
    *,
    data: str | Path,
    tokenizer: str | Path,
    run: str | Path,
    output: str | Path,
    start: str | Path | None = None,
    options: RunOptions | None = None,
    method: Method | None = None,
) -> Outcome:
    """Train `chosen` and write the checkpoint `output`; call again to resume what was stopped.

    `data` holds the files of the recipe's sources, `tokenizer` a tokenizer folder, `run` the state,
    metrics and a checkpoint `after-<stage>` per finished stage. `start` is a checkpoint to begin
    from instead of random weights. Raises UserError for anything that does not fit together.
    """
    options, chosen_method = options or RunOptions(), method or Method()
    with open_engine(options.device, options.parallel) as engine:
        if engine.size > 1 and method is not None and method.alone:
            raise UserError("quantising and distilling train in one process; not under torchrun")
        paths = _Paths(Path(data), Path(tokenizer), Path(run), Path(output), start)
        outcome = _train(chosen, paths, options, chosen_method, engine)
        engine.wait()
        return outcome


class _Paths(NamedTuple):
    data: Path
    tokenizer: Path
    run: Path
    output: Path
    start: str | Path | None


def _train(
    chosen: Recipe, paths: _Paths, options: RunOptions, method: Method, engine: Engine
) -> Outcome:
    data, tokenizer, run, output, start = paths
    refuse_current(output)
    refuse_foreign(output)
    words = Tokenizer.load(tokenizer)
    sources = open_sources(chosen, data)
    identity = _identity(chosen, sources, data, tokenizer, start)
    identity |= json.loads(json.dumps(method.facts))
    _check_identity(run, identity, write=engine.main)
    origin = _origin(start)
    model = _initial_model(chosen, start)
    _check_room(words, model, tokenizer)
    if method.prepare is not None:
        method.prepare(model)

    def save(folder: Path) -> object:
        made = {
            "made_by": f"autoneural {autoneural.__version__}, torch {torch.__version__}",
            **identity,
            "device": f"{trainer.device.type}, {trainer.precision}",
            **origin,
            "stages": trainer.position.results,
        }
        if method.save is not None:
            return method.save(folder, trainer.model, made)
        return save_checkpoint(folder, trainer.model, trainer.model.config, tokenizer, made)

    trainer = Trainer(
        model,
        Processor.of(words, model.config),
        sources,
        chosen.stages,
        run,
        seed=chosen.seed,
        options=options,
        objective=method.objective,
        on_stage_end=lambda stage: save(run / f"after-{stage}"),
        engine=engine,
    )
    outcome = trainer.run()
    if outcome.finished and engine.main:
        save(output)
    return outcome


def _check_room(words: Tokenizer, model: VLM, where: str | Path) -> None:
    room = model.config.text.vocab_size
    if words.vocab_size > room:
        raise UserError(f"{where}: {words.vocab_size} ids, the model has room for {room}")


def open_sources(chosen: Recipe, folder: str | Path) -> dict[str, Source]:
    """The recipe's sources, by name, from the files in `folder`."""
    opened = {file: open_source(Path(folder) / file) for file in {s.file for s in _used(chosen)}}
    return {
        name: derive_source(
            replace(opened[source.file], name=name), source.form, WORDS, source.tasks
        )
        for name, source in chosen.data.items()
        if source in _used(chosen)
    }


def _used(chosen: Recipe) -> list[DataSource]:
    names = dict.fromkeys(name for stage in chosen.stages for name in stage.mixture)
    return [chosen.data[name] for name in names if name in chosen.data]


def _initial_model(chosen: Recipe, start: str | Path | None) -> VLM:
    torch.manual_seed(chosen.seed)
    if start is None and not chosen.preset:
        raise UserError(
            f"recipe {chosen.name}: trains a model that there is; --start CHECKPOINT says which"
        )
    if start is None:
        return VLM(preset_config(chosen.preset))
    checkpoint = load_checkpoint(start)
    if checkpoint.encodings is not None:
        raise UserError(f"{start}: is quantised; training starts from a float checkpoint")
    model = VLM(_with_fresh(checkpoint.config, chosen))
    kept = {
        name: tensor
        for name, tensor in checkpoint.state_dict.items()
        if name.partition(".")[0] not in chosen.fresh
    }
    load_weights(model, model.state_dict() | kept if chosen.fresh else kept, start)
    return model


def _with_fresh(config: ModelConfig, chosen: Recipe) -> ModelConfig:
    """`config` with the parts that begin anew as the recipe's preset has them."""
    if not chosen.fresh:
        return config
    unknown = [part for part in chosen.fresh if part not in _CONFIG_OF]
    if unknown:
        raise UserError(f"recipe: fresh: no part {unknown[0]!r}; one of {', '.join(_CONFIG_OF)}")
    wanted = preset_config(chosen.preset)
    parts = {_CONFIG_OF[part]: getattr(wanted, _CONFIG_OF[part]) for part in chosen.fresh}
    return replace(config, name=wanted.name, **parts)


def _origin(start: str | Path | None) -> dict[str, Any]:
    """Licences of the weights: ours when they began at random, else those of what they began from;
    and how that was made."""
    if start is None:
        return {"licences": {"weights": LICENCE}, "parent_recipe": None}
    made = load_recipe(start)
    return {"licences": made.get("licences", {}), "parent_recipe": made}


def preset_config(name: str) -> ModelConfig:
    """The named preset, with a UserError for an unknown one."""
    try:
        return preset(name)
    except ValueError as error:
        raise UserError(f"recipe: {error}") from error


def _identity(
    chosen: Recipe,
    sources: Mapping[str, Source],
    data: Path,
    tokenizer: Path,
    start: str | Path | None,
) -> dict[str, Any]:
    """What decides the weights, device and kernels apart."""
    words = b"".join((tokenizer / name).read_bytes() for name in TOKENIZER_FILES)
    return {
        "recipe": chosen.to_dict(),
        "seed": chosen.seed,
        "parent": weights_hash(start) if start is not None else None,
        "tokenizer": hashlib.sha256(words).hexdigest(),
        "rows": {name: len(source) for name, source in sources.items()},
        "files": {name: _file_identity(data / chosen.data[name].file) for name in sources},
    }


def _file_identity(path: Path) -> str:
    """Size and start of a data file, or of its shards: to read all of it could take minutes."""
    files = data_files(path)
    start = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            start.update(stream.read(1 << 20))
    return f"{sum(file.stat().st_size for file in files)} bytes, {start.hexdigest()}"


def _check_identity(run: Path, identity: Mapping[str, Any], *, write: bool) -> None:
    """A run folder belongs to one recipe; only stages still to come may change."""
    path = run / "run.json"
    position = load_position(run) if path.is_file() else None
    if position is not None:
        begun = position.stage + (position.step > 0)
        before, now = (_flat(_begun(side, begun)) for side in (_read_identity(path), identity))
        changed = sorted(key for key in before | now if before.get(key) != now.get(key))
        if changed:
            key = changed[0]
            raise UserError(
                f"{run}: holds another run ({key} was {before.get(key)}, now {now.get(key)}); "
                "choose another run folder or delete this one"
            )
    if not write:
        return
    run.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(identity, indent=2) + "\n")


def _read_identity(path: Path) -> dict[str, Any]:
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))
        return {key: identity[key] for key in ("recipe", "rows", "files")} | identity
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: damaged, or of another version ({error!r}); start anew in another run folder"
        ) from error


def _begun(identity: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The part of a run's identity that its first `count` stages have used."""
    stages = {stage["name"]: stage for stage in identity["recipe"]["stages"][:count]}
    used = {name for stage in stages.values() for name in stage["mixture"]}
    data = {name: d for name, d in identity["recipe"]["data"].items() if name in used}
    return {
        **identity,
        "rows": {name: n for name, n in identity["rows"].items() if name in used},
        "files": {name: f for name, f in identity["files"].items() if name in used},
        "order": list(stages),
        "recipe": {**identity["recipe"], "stages": stages, "data": data},
    }


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return flat
