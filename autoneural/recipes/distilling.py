"""Distillation over checkpoints and data files: a float teacher's insides, or only its answers.

    distil(student, teacher, data, out, run)            white box: logits and what else is asked for
    relabel_data(data, out, teacher); distil(student, None, out, ...)      black box: its answers

The student may be smaller than the teacher (pruned, factorised): this is how it recovers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from autoneural.checkpoint import TOKENIZER_FILES, find_checkpoint, load_checkpoint, weights_hash
from autoneural.compress.derive import build_model
from autoneural.config import ModelConfig
from autoneural.data.dataset import Source
from autoneural.data.importers import open_source
from autoneural.data.messages import image_parts, normalise_messages
from autoneural.data.relabel import Relabelled, Teacher, relabel
from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError
from autoneural.files import replace_folder, write_text
from autoneural.model.vlm import VLM
from autoneural.recipes.recipe import DataSource, Recipe
from autoneural.recipes.training import Method, open_sources, run_recipe
from autoneural.train.curriculum import PARTS, Stage
from autoneural.train.device import pick_device
from autoneural.train.distill import (
    Distillation,
    DistillObjective,
    VisionDistillObjective,
    check_comparable,
)
from autoneural.train.objectives import Objective
from autoneural.train.trainer import Outcome, RunOptions

Modality = Literal["all", "vision", "language"]
_TRAINED: dict[Modality, tuple[str, ...]] = {
    "all": PARTS,
    "vision": ("vision_encoder",),
    "language": ("language_model",),
}
_LEARNING_RATE = 1e-4


def distil(
    student: str | Path,
    teacher: str | Path | None,
    data: str | Path,
    out: str | Path,
    run: str | Path,
    *,
    modality: Modality = "all",
    how: Distillation | None = None,
    stage: Stage | None = None,
    sources: Mapping[str, DataSource] | None = None,
    seed: int = 0,
    options: RunOptions | None = None,
) -> Outcome:
    """Train the float checkpoint `student` on what `teacher` computes; writes the checkpoint `out`.

    `vision` compares visual tokens and never runs the decoder; `language` reads rows without
    pictures. Without a `teacher` the rows' answers are all there is to learn (`relabel_data`).
    `data` is a folder of rows and `sources` what `stage` draws from it; `run` keeps the state: call
    again to resume. Raises UserError when the two models or the rows do not fit.
    """
    options = options or RunOptions()
    if modality not in _TRAINED:
        raise UserError(f"modality {modality!r}: expected one of {', '.join(get_args(Modality))}")
    how = how or default_distillation(modality)
    stage = stage or default_stage(modality, how)
    if sources is None:
        sources = {"chat": DataSource(form="text" if modality == "language" else "chat")}
    config = load_checkpoint(student).config
    chosen = Recipe(
        name="distil", preset=config.name, data=dict(sources), stages=(stage,), seed=seed
    )
    _check_rows(modality, stage, chosen, data)
    facts = {"method": "distil", "modality": modality, "teacher": None}
    objective = None
    if teacher is not None:
        facts |= {"teacher": weights_hash(teacher), "distillation": how.to_dict()}
        expert = open_teacher(teacher, student, config, how, options)
        words = Tokenizer.load(find_checkpoint(student))
        objective = objective_factory(config, expert, how, modality, words)
    return run_recipe(
        chosen,
        data=data,
        tokenizer=find_checkpoint(student),
        run=run,
        output=out,
        start=student,
        options=options,
        method=Method(facts=facts, objective=objective),
    )


def default_distillation(modality: Modality) -> Distillation:
    """Logits and a little of the labels; for vision alone the encoder's tokens."""
    if modality == "vision":
        return Distillation(logits=0.0, labels=0.0, vision=1.0)
    return Distillation()


def default_stage(modality: Modality, how: Distillation) -> Stage:
    """A thousand small steps of all that the modality reaches."""
    train = _TRAINED[modality]
    if modality == "vision" and how.projector:
        train = (*train, "projector")
    return Stage(
        name="distil",
        train=train,
        mixture={"chat": 1.0},
        steps=1000,
        batch_size=16,
        lr=dict.fromkeys(train, _LEARNING_RATE),
        ema=0.99,
    )


def open_teacher(
    teacher: str | Path,
    student: str | Path,
    config: ModelConfig,
    how: Distillation,
    options: RunOptions,
) -> VLM:
    """The float model of `teacher`, ready beside a student of `config`.

    Raises UserError when it is quantised, has other words, or cannot be compared as `how` asks.
    """
    if options.compile and how.looks_inside:
        raise UserError(
            "compile: what is inside compiled parts cannot be compared; leave compile out, or "
            "distil logits and labels only"
        )
    checkpoint = load_checkpoint(teacher)
    if checkpoint.encodings is not None:
        raise UserError(f"{teacher}: is quantised; a teacher is a float checkpoint")
    words = [
        (find_checkpoint(name) / TOKENIZER_FILES[0]).read_bytes() for name in (teacher, student)
    ]
    if words[0] != words[1]:
        raise UserError(f"{teacher}: has another tokenizer than {student}; logits do not compare")
    check_comparable(config, checkpoint.config, how)
    model = build_model(checkpoint.config, checkpoint.state_dict, teacher)
    model.vision_encoder.to(memory_format=torch.channels_last)  # pyright: ignore
    return model.to(pick_device(options.device))


def objective_factory(
    config: ModelConfig, teacher: VLM, how: Distillation, modality: Modality, words: Tokenizer
) -> Callable[[Stage], Objective]:
    """What makes the objective of a distillation stage."""
    if modality == "vision":
        return lambda stage: VisionDistillObjective(config, teacher, how)
    return lambda stage: DistillObjective(config, teacher, how, words.image_id)


def relabel_data(
    data: str | Path,
    out: str | Path,
    teacher: Teacher,
    *,
    workers: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Relabelled:
    """Write the folder `out` with the rows of a data file as `teacher` answers them.

    `data` is a file, or a folder with train.jsonl; `teacher` is `FileTeacher` or `EndpointTeacher`
    of `autoneural.data.relabel`. Pictures stay where they are.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out}: is there already; name a folder to be made")
    source = open_source(Path(data) / "train.jsonl" if Path(data).is_dir() else data)
    made = relabel(source, teacher, workers=workers, progress=progress)
    if not made.rows:
        raise UserError(f"{data}: the teacher has no answer to any of its {len(source)} rows")
    with replace_folder(out) as folder:
        lines = [
            json.dumps(_with_paths(row, out, folder), ensure_ascii=False) + "\n"
            for row in made.rows
        ]
        write_text(folder / "train.jsonl", "".join(lines))
    return made


def _check_rows(modality: Modality, stage: Stage, chosen: Recipe, data: str | Path) -> None:
    """UserError when what is drawn, or what trains, is not what the modality is about."""
    outside = [
        name for name in stage.train if modality == "vision" and name.startswith("language_model")
    ]
    if outside:
        raise UserError(f"stage {stage.name}: train: {outside[0]} learns nothing from vision alone")
    if modality == "all":
        return
    for source in open_sources(chosen, data).values():
        pictures = any(_has_picture(source, index) for index in range(len(source)))
        if modality == "vision" and not pictures:
            raise UserError(f"distillation of vision alone: source {source.name} has no pictures")
        if modality == "language" and pictures:
            raise UserError(
                f"distillation of language alone: source {source.name} has pictures; draw from it "
                "in the form text, or from rows without"
            )


def _has_picture(source: Source, index: int) -> bool:
    return any(True for _ in image_parts(normalise_messages(source.rows[index]["messages"])))


def _with_paths(row: Mapping[str, Any], out: Path, written: Path) -> dict[str, Any]:
    """The row with pictures that open from the folder `out`; `written` is where it is made."""
    for part in image_parts(row["messages"]):
        image = part["image"]
        if isinstance(image, bytes):
            name = f"images/{hashlib.sha256(image).hexdigest()[:20]}"
            (written / "images").mkdir(exist_ok=True)
            (written / name).write_bytes(image)
            part["image"] = name
        else:
            part["image"] = os.path.relpath(image, out)
    return dict(row)
