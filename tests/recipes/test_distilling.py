"""Distillation of checkpoints, white box and black box, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autoneural.checkpoint import load_checkpoint, save_checkpoint, weights_hash
from autoneural.config import ModelConfig
from autoneural.data.importers import open_source
from autoneural.data.relabel import FileTeacher
from autoneural.data.tokenizer import train_tokenizer
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.recipes import DataSource, distil, relabel_data
from autoneural.recipes.distilling import default_distillation, default_stage
from autoneural.train.distill import Distillation
from autoneural.train.trainer import RunOptions
from tests.conftest import TinyCheckpoint

OPTIONS = RunOptions(device="cpu", precision="fp32", log_every=1)


@pytest.fixture
def student(tiny_checkpoint: TinyCheckpoint, tiny_config: ModelConfig, tmp_path: Path) -> Path:
    """Half as deep as its teacher, same words."""
    text = replace(tiny_config.text, layer_types=("conv", "full_attention"))
    config = replace(tiny_config, name="small", text=text)
    torch.manual_seed(1)
    made = {"licences": {"weights": "CC0-1.0"}}
    return save_checkpoint(tmp_path / "student", VLM(config), config, tiny_checkpoint.folder, made)


def run(student: Path, teacher: Path | None, data: Path, folder: Path, **more: Any) -> bool:
    modality = more.get("modality", "all")
    how = more.pop("how", default_distillation(modality))
    stage = replace(default_stage(modality, how), steps=2, batch_size=2, warmup=1)
    arguments = {"stage": stage, "how": how, "options": OPTIONS, **more}
    return distil(student, teacher, data, folder / "out", folder / "run", **arguments).finished


def test_a_smaller_student_recovers_as_a_stage(
    student: Path, tiny_checkpoint: TinyCheckpoint, coloured: Path, tmp_path: Path
) -> None:
    teacher, how = tiny_checkpoint.folder, Distillation(hidden=0.1, vision=0.1)
    sliced = replace(OPTIONS, minutes=1e-9)
    assert not run(student, teacher, coloured, tmp_path, how=how, options=sliced)
    with pytest.raises(UserError, match=r"holds another run \(distillation\.hidden was 0\.1"):
        run(student, teacher, coloured, tmp_path, how=Distillation())
    assert run(student, teacher, coloured, tmp_path, how=how)
    config, _, made, _ = load_checkpoint(tmp_path / "out")
    assert config.name == "small"
    assert made["teacher"] == weights_hash(teacher)
    assert made["parent"] == weights_hash(student)
    assert made["licences"] == {"weights": "CC0-1.0"}
    assert made["distillation"]["logits"] == 0.99
    assert made["stages"]["distil"].keys() >= {"loss", "logits", "labels", "hidden", "vision"}


def test_vision_alone_changes_only_the_encoder(
    student: Path, tiny_checkpoint: TinyCheckpoint, coloured: Path, tmp_path: Path
) -> None:
    assert run(student, tiny_checkpoint.folder, coloured, tmp_path, modality="vision")
    before, after = (load_checkpoint(folder).state_dict for folder in (student, tmp_path / "out"))
    moved = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"vision_encoder"}


def test_answers_of_a_black_box_are_rows_to_learn_from(
    student: Path, coloured: Path, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    lines = [{"id": f"demo-{n}", "answers": ["a lamp", "no"]} for n in range(8)]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = relabel_data(coloured, tmp_path / "new", FileTeacher(answers))
    assert (len(made.rows), made.unanswered) == (8, 4)
    row = open_source(tmp_path / "new" / "train.jsonl").row(3)
    assert row["messages"][1]["content"][0]["text"] == "a lamp"
    assert row["attributes"] == {"demo.colour": "red"}
    assert Path(row["messages"][0]["content"][0]["image"]).samefile(coloured / "3.png")
    assert run(student, None, tmp_path / "new", tmp_path)
    assert load_checkpoint(tmp_path / "out").recipe["teacher"] is None
    with pytest.raises(UserError, match="new: is there already"):
        relabel_data(coloured, tmp_path / "new", FileTeacher(answers))
    answers.write_text("")
    with pytest.raises(UserError, match="no answer to any of its 12 rows"):
        relabel_data(coloured, tmp_path / "none", FileTeacher(answers))
    assert not (tmp_path / "none").exists()


def test_what_does_not_fit_is_refused_before_anything_is_written(
    student: Path, tiny_checkpoint: TinyCheckpoint, coloured: Path, tmp_path: Path
) -> None:
    teacher = tiny_checkpoint.folder

    def refused(message: str, name: Path = teacher, data: Path = coloured, **more: Any) -> None:
        with pytest.raises(UserError, match=message) as caught:
            run(student, name, data, tmp_path, **more)
        assert "\n" not in str(caught.value)

    refused("no such checkpoint folder", tmp_path / "nobody")
    refused("train.jsonl: no such file", data=tmp_path)
    refused("language alone: source chat has pictures", modality="language",
            sources={"chat": DataSource()})  # fmt: skip
    refused("compile: what is inside", how=Distillation(hidden=1.0),
            options=replace(OPTIONS, compile=True))  # fmt: skip
    texts = tmp_path / "texts"
    texts.mkdir()
    turns = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "red"}]
    (texts / "train.jsonl").write_text(json.dumps({"id": "1", "messages": turns}) + "\n")
    refused("source chat has no pictures", data=texts, modality="vision")
    how = Distillation()
    with pytest.raises(UserError, match="modality 'sound': expected one of all, vision, language"):
        distil(student, teacher, coloured, tmp_path / "o", tmp_path / "r", modality="sound")
    with pytest.raises(UserError, match="language_model learns nothing from vision alone"):
        distil(student, teacher, coloured, tmp_path / "o", tmp_path / "r", modality="vision",
               stage=default_stage("all", how))  # fmt: skip
    config, model = tiny_checkpoint.model.config, tiny_checkpoint.model
    train_tokenizer(["other words here"] * 4, config.text.vocab_size).save(tmp_path / "words")
    other = save_checkpoint(tmp_path / "other", model, config, tmp_path / "words", {})
    refused("has another tokenizer than", other)
    encodings = {"version": 1, "activations": {}, "weights": {}, "mask_value": -1.0}
    state = model.state_dict()
    whole = save_checkpoint(tmp_path / "int", state, config, teacher, {}, encodings)
    refused("is quantised; a teacher is a float checkpoint", whole)
    with pytest.raises(UserError, match="is quantised; training starts from a float checkpoint"):
        run(whole, teacher, coloured, tmp_path)
    assert not (tmp_path / "out").exists()


def test_language_alone_reads_texts(
    student: Path, tiny_checkpoint: TinyCheckpoint, tmp_path: Path
) -> None:
    turns = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "a red lamp"}]
    (tmp_path / "train.jsonl").write_text(json.dumps({"id": "1", "messages": turns}) + "\n")
    more = {"modality": "language", "sources": {"chat": DataSource()}}
    assert run(student, tiny_checkpoint.folder, tmp_path, tmp_path, **more)
