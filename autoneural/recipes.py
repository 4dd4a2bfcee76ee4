"""Named, typed recipes, and the one place that wires training together.

    recipe("tiny") --with_overrides--> Recipe --run_recipe(data, tokenizer, run)--> Checkpoint

A recipe says what is made and is stored, resolved, in the checkpoint it made; where the files lie
and which device computes are arguments of the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

import autoneural
from autoneural.checkpoint import load_checkpoint, load_weights, save_checkpoint, weights_hash
from autoneural.config import ModelConfig, preset
from autoneural.data.cockpit import TASKS, Scene
from autoneural.data.dataset import Source
from autoneural.data.importers import open_source
from autoneural.data.processor import Processor
from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.train.curriculum import PARTS, Stage
from autoneural.train.sources import Form, derive_source
from autoneural.train.state import load_position
from autoneural.train.trainer import Outcome, RunOptions, Trainer

LICENCE = "Apache-2.0"
_D = TypeVar("_D")


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Rows of `file` (under the data folder) in one form, of some tasks (none named: all)."""

    file: str = "train.jsonl"
    form: Form = "chat"
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training run makes: a preset's model, taken through stages over named sources."""

    name: str
    preset: str
    data: dict[str, DataSource]
    stages: tuple[Stage, ...]
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what recipe.json holds."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Inverse of `to_dict`. UserError naming an unknown or missing key."""
        sources = {
            name: _build(DataSource, f"data.{name}", {**entry, "tasks": tuple(entry["tasks"])})
            for name, entry in data["data"].items()
        }
        stages = tuple(
            _build(Stage, f"stages.{entry['name']}", {**entry, "train": tuple(entry["train"])})
            for entry in data["stages"]
        )
        return _build(cls, "recipe", {**data, "data": sources, "stages": stages})


def recipe(name: str, *, smoke: bool = False) -> Recipe:
    """The recipe called `name`; with `smoke`, the same stages in minutes (they learn little)."""
    recipes = {"tiny": _tiny}
    if name not in recipes:
        raise UserError(f"no recipe {name!r}; one of {', '.join(recipes)}")
    return _smoke(recipes[name]()) if smoke else recipes[name]()


def with_overrides(base: Recipe, overrides: Sequence[str]) -> Recipe:
    """`base` with `path=value` settings, in order.

    `stages.vision.steps=10`, `stages.domain.lr.projector=1e-4`, `data.chat.tasks=["hmi"]`,
    `seed=1`; `stages=vision,language` keeps only these stages. Raises UserError for a path that
    does not exist or a value of another type.
    """
    data = base.to_dict()
    for override in overrides:
        path, found, text = override.partition("=")
        if not found:
            raise UserError(f"--set {override}: expected path=value")
        if path == "stages":
            data["stages"] = [_named(data["stages"], n.strip(), override) for n in text.split(",")]
        else:
            _set(data, path.split("."), text, override)
    return Recipe.from_dict(data)


def run_recipe(
    chosen: Recipe,
    *,
    data: str | Path,
    tokenizer: str | Path,
    run: str | Path,
    output: str | Path,
    start: str | Path | None = None,
    options: RunOptions | None = None,
) -> Outcome:
    """Train `chosen` and write the checkpoint `output`; call again to resume what was stopped.

    `data` holds the files of the recipe's sources, `tokenizer` a tokenizer folder, `run` the state,
    metrics and a checkpoint `after-<stage>` per finished stage. `start` is a checkpoint to begin
    from instead of random weights. Raises UserError for anything that does not fit together.
    """
    run = Path(run)
    words = Tokenizer.load(tokenizer)
    sources = open_sources(chosen, data)
    identity = _identity(chosen, sources, tokenizer, start)
    _check_identity(run, identity)
    model = _initial_model(chosen, start)
    config = model.config
    if words.vocab_size > config.text.vocab_size:
        raise UserError(
            f"{tokenizer}: {words.vocab_size} ids, the model has room for {config.text.vocab_size}"
        )
    processor = Processor(words, config.vision.image_size, config.vision.num_tokens, config.resize)

    def save(folder: Path) -> None:
        made = {
            "made_by": f"autoneural {autoneural.__version__}, torch {torch.__version__}",
            **identity,
            "device": f"{trainer.device.type}, {trainer.precision}",
            "licences": _licences(start),
            "stages": trainer.position.results,
        }
        save_checkpoint(folder, trainer.model, config, tokenizer, made)

    trainer = Trainer(
        model,
        processor,
        sources,
        chosen.stages,
        run,
        seed=chosen.seed,
        options=options,
        on_stage_end=lambda stage: save(run / f"after-{stage}"),
    )
    outcome = trainer.run()
    if outcome.finished:
        save(Path(output))
    return outcome


def open_sources(chosen: Recipe, folder: str | Path) -> dict[str, Source]:
    """The recipe's sources, by name, from the files in `folder`."""
    opened = {file: open_source(Path(folder) / file) for file in {s.file for s in _used(chosen)}}
    return {
        name: derive_source(
            replace(opened[source.file], name=name), source.form, _describe, source.tasks
        )
        for name, source in chosen.data.items()
        if source in _used(chosen)
    }


def _used(chosen: Recipe) -> list[DataSource]:
    names = dict.fromkeys(name for stage in chosen.stages for name in stage.mixture)
    return [chosen.data[name] for name in names if name in chosen.data]


def _describe(task: str, attributes: dict[str, str]) -> str:
    if task not in TASKS:
        raise UserError(f"task {task!r}: no description known; one of {', '.join(TASKS)}")
    return TASKS[task].caption(Scene(task, 0, "train", attributes, {}))


def _initial_model(chosen: Recipe, start: str | Path | None) -> VLM:
    torch.manual_seed(chosen.seed)
    if start is None:
        return VLM(preset_config(chosen.preset))
    checkpoint = load_checkpoint(start)
    if checkpoint.encodings is not None:
        raise UserError(f"{start}: is quantised; training starts from a float checkpoint")
    model = VLM(checkpoint.config)
    load_weights(model, checkpoint.state_dict, start)
    return model


def _licences(start: str | Path | None) -> dict[str, str]:
    """Of the weights: ours when they began at random, else those of what they began from."""
    return (
        {"weights": LICENCE} if start is None else load_checkpoint(start).recipe.get("licences", {})
    )


def preset_config(name: str) -> ModelConfig:
    """The named preset, with a UserError for an unknown one."""
    try:
        return preset(name)
    except ValueError as error:
        raise UserError(f"recipe: {error}") from error


def _identity(
    chosen: Recipe, sources: Mapping[str, Source], tokenizer: str | Path, start: str | Path | None
) -> dict[str, Any]:
    words = (Path(tokenizer) / "tokenizer.json").read_bytes()
    return {
        "recipe": chosen.to_dict(),
        "seed": chosen.seed,
        "parent": weights_hash(start) if start is not None else None,
        "tokenizer": hashlib.sha256(words).hexdigest(),
        "rows": {name: len(source) for name, source in sources.items()},
    }


def _check_identity(run: Path, identity: Mapping[str, Any]) -> None:
    """A run folder belongs to one recipe; only stages still to come may change."""
    path = run / "run.json"
    position = load_position(run) if path.is_file() else None
    if position is not None:
        begun = position.stage + 1
        before, now = (
            _flat(_begun(side, begun))
            for side in (json.loads(path.read_text(encoding="utf-8")), identity)
        )
        changed = sorted(key for key in before | now if before.get(key) != now.get(key))
        if changed:
            key = changed[0]
            raise UserError(
                f"{run}: holds another run ({key} was {before.get(key)}, now {now.get(key)}); "
                "choose another run folder or delete this one"
            )
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")


def _begun(identity: Mapping[str, Any], count: int) -> dict[str, Any]:
    stages = {stage["name"]: stage for stage in identity["recipe"]["stages"][:count]}
    used = {name for stage in stages.values() for name in stage["mixture"]}
    data = {name: d for name, d in identity["recipe"]["data"].items() if name in used}
    return {
        **identity,
        "rows": {name: n for name, n in identity["rows"].items() if name in used},
        "recipe": {**identity["recipe"], "stages": stages, "data": data},
    }


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return flat


def _build(kind: type[_D], where: str, entries: Mapping[str, Any]) -> _D:
    known = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    for key in entries:
        if key not in known:
            raise UserError(f"{where}.{key}: no such setting; one of {', '.join(known)}")
    return kind(**entries)


def _named(entries: list[dict[str, Any]], name: str, override: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            return entry
    known = ", ".join(entry["name"] for entry in entries)
    raise UserError(f"--set {override}: no stage {name!r}; one of {known}")


def _set(data: dict[str, Any], path: list[str], text: str, override: str) -> None:
    target: Any = data
    for place, key in enumerate(path[:-1]):
        if isinstance(target, list):
            target = _named(target, key, override)
        elif key in target and isinstance(target[key], dict | list):
            # `lr` keys may hold dots themselves: what follows is one key.
            target = target[key]
            if path[place] in ("lr", "mixture"):
                path = [*path[: place + 1], ".".join(path[place + 1 :])]
                break
        else:
            raise UserError(f"--set {override}: no setting {key!r}")
    key = path[-1]
    opens = path[-2:-1] in (["lr"], ["mixture"])
    if isinstance(target, list) or (key not in target and not opens):
        raise UserError(f"--set {override}: no setting {key!r}")
    target[key] = _parse(text, target.get(key, 0.0), override)


def _parse(text: str, old: Any, override: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(old):
        raise UserError(f"--set {override}: expected {type(old).__name__}, like {old!r}")
    return value


def _smoke(full: Recipe) -> Recipe:
    steps = {"vision": 30, "language": 20, "align": 5, "general": 20, "instruct": 5, "domain": 5}
    return replace(
        full,
        name=f"{full.name}-smoke",
        stages=tuple(
            replace(stage, steps=steps[stage.name], batch_size=8, warmup=2, accumulate=1)
            for stage in full.stages
        ),
    )


def _tiny() -> Recipe:
    """cockpit-tiny from nothing, over the folder of `autoneural data cockpit`."""
    return Recipe(
        name="tiny",
        preset="cockpit-tiny",
        data={
            "captions": DataSource(form="caption"),
            "text": DataSource(form="text"),
            "chat": DataSource(),
            **{name: DataSource(tasks=(name,)) for name in ("fatigue", "hmi", "boarding")},
        },
        stages=(*_tiny_towers(), *_tiny_curriculum()),
    )


def _tiny_towers() -> tuple[Stage, ...]:
    """Each half alone, in place of pretrained weights; then the paper's first stage."""
    return (
        Stage(
            name="vision",
            objective="vision",
            train=("vision_encoder",),
            mixture={"captions": 1.0},
            steps=2600,
            batch_size=32,
            lr={"vision_encoder": 2e-3},
            warmup=100,
            jitter=0.15,
        ),
        Stage(
            name="language",
            train=("language_model",),
            mixture={"text": 1.0},
            steps=350,
            batch_size=32,
            lr={"language_model": 2e-3},
        ),
        Stage(
            name="align",
            train=("projector",),
            mixture={"captions": 1.0},
            steps=100,
            batch_size=32,
            lr={"projector": 1e-3},
            warmup=10,
        ),
    )


def _tiny_curriculum() -> tuple[Stage, ...]:
    """The paper's other three: everything trains, on what comes closer to the car."""
    return (
        Stage(
            name="general",
            train=PARTS,
            mixture={"chat": 0.85, "captions": 0.15},
            steps=2000,
            batch_size=24,
            lr={"vision_encoder": 5e-4, "projector": 1e-3, "language_model": 1e-3},
            warmup=100,
            final_lr=0.4,
            jitter=0.15,
        ),
        Stage(
            name="instruct",
            train=PARTS,
            mixture={"fatigue": 0.2, "hmi": 0.6, "boarding": 0.2},
            steps=400,
            batch_size=24,
            lr={"vision_encoder": 2e-4, "projector": 4e-4, "language_model": 4e-4},
            final_lr=0.4,
            jitter=0.15,
        ),
        Stage(
            name="domain",
            train=PARTS,
            mixture={"chat": 1.0},
            steps=500,
            batch_size=24,
            lr={"vision_encoder": 8e-5, "projector": 1.6e-4, "language_model": 1.6e-4},
            warmup=10,
            final_lr=0.01,
            ema=0.995,
            jitter=0.1,
        ),
    )
