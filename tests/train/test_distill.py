"""White-box distillation: every term against its definition, and what cannot be compared."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from autoneural.config import ModelConfig
from autoneural.data.dataset import Mixture
from autoneural.data.importers import open_source
from autoneural.data.loader import Batch, BatchStream
from autoneural.data.processor import Processor
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.train.curriculum import HEADS, Stage
from autoneural.train.distill import (
    Distillation,
    DistillObjective,
    VisionDistillObjective,
    kl_divergence,
    layer_pairs,
    map_divergence,
    relative_error,
)
from autoneural.train.engine import accumulate
from autoneural.train.loss import token_weights
from autoneural.train.objectives import LanguageObjective, Objective
from autoneural.train.trainer import RunOptions, Trainer
from tests.conftest import TinyCheckpoint

NOTHING = {"logits": 0.0, "labels": 0.0}


def batch_of(processor: Processor, folder: Path, **more: object) -> Batch:
    mixture = Mixture.of([(open_source(folder / "train.jsonl"), 1.0)])
    return BatchStream(mixture=mixture, processor=processor, batch_size=4, **more).batch(0)


@pytest.fixture
def batch(processor: Processor, rows_folder: Path) -> Batch:
    return batch_of(processor, rows_folder)


@pytest.fixture
def teacher(tiny_checkpoint: TinyCheckpoint) -> VLM:
    return copy.deepcopy(tiny_checkpoint.model).requires_grad_(False)


@pytest.fixture
def student(tiny_config: ModelConfig, teacher: VLM) -> VLM:
    """The teacher, shaken."""
    torch.manual_seed(1)
    model = VLM(tiny_config)
    model.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05 * parameter.std().nan_to_num())
    return model


def smaller(config: ModelConfig) -> ModelConfig:
    """One layer, a narrower decoder, an encoder of fewer channels."""
    text = replace(config.text, layer_types=("conv", "full_attention"), hidden_size=16)
    return replace(config, text=text, vision=replace(config.vision, fusion_channels=16))


def loss_of(objective: Objective, model: VLM, batch: Batch) -> float:
    return accumulate(model, objective, [batch], "fp32")


def make(student: VLM, teacher: VLM, processor: Processor, **how: float) -> DistillObjective:
    settings = Distillation(**{**NOTHING, **how})
    return DistillObjective(student.config, teacher, settings, processor.tokenizer.image_id)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kl_divergence(temperature: float) -> None:
    own, theirs = torch.randn(5, 9), torch.randn(5, 9)
    p, q = (F.softmax(x / temperature, -1) for x in (theirs, own))
    expected = temperature**2 * (p * (p / q).log()).sum(-1)
    torch.testing.assert_close(kl_divergence(own, theirs, temperature), expected)
    assert kl_divergence(own, own, temperature).abs().max() < 1e-5


def test_relative_error_and_map_divergence() -> None:
    theirs = torch.randn(6, 8)
    torch.testing.assert_close(relative_error(theirs * 1.1, theirs).mean(), torch.tensor(0.01))
    uniform, peaked = torch.full((1, 2, 4), 0.25), torch.tensor([0.0, 1.0, 0, 0]).expand(1, 2, 4)
    assert float(map_divergence(uniform, peaked)) == pytest.approx(math.log(4), rel=1e-4)
    # Other numbers of heads: of their mean.
    assert float(map_divergence(uniform[:, :1], peaked)) == pytest.approx(math.log(4), rel=1e-4)


def test_a_student_that_is_the_teacher_has_nothing_to_learn(
    teacher: VLM, processor: Processor, batch: Batch
) -> None:
    model = copy.deepcopy(teacher).requires_grad_(True)
    objective = make(
        model, teacher, processor, logits=1, hidden=1, attention=1, vision=1, projector=1
    )
    assert loss_of(objective, model, batch) == pytest.approx(0.0, abs=1e-6)


def test_labels_alone_are_the_language_objective(
    student: VLM, teacher: VLM, processor: Processor, batch: Batch
) -> None:
    plain = loss_of(LanguageObjective(processor.tokenizer.image_id), student, batch)
    assert loss_of(make(student, teacher, processor, labels=1.0), student, batch) == plain


def test_logits_are_compared_where_answers_are_predicted(
    student: VLM, teacher: VLM, processor: Processor, batch: Batch
) -> None:
    image_id = processor.tokenizer.image_id
    with torch.no_grad():
        own, theirs = (m(batch.input_ids, batch.pixel_values, image_id) for m in (student, teacher))
    weights = token_weights(batch.labels)
    expected = (kl_divergence(own, theirs, 2.0)[:, :-1] * weights).sum() / weights.sum()
    loss = loss_of(make(student, teacher, processor, logits=0.5, temperature=2.0), student, batch)
    assert loss == pytest.approx(0.5 * float(expected), rel=1e-4)


@pytest.mark.parametrize("term", ["hidden", "attention", "vision", "projector"])
def test_terms_add_up_and_reach_what_they_compare(
    student: VLM, teacher: VLM, processor: Processor, batch: Batch, term: str
) -> None:
    objective = make(student, teacher, processor, **{term: 1.0})
    alone = loss_of(objective, student, batch)
    assert alone > 1e-5
    assert objective.figures() == {term: pytest.approx(alone, rel=1e-4)}
    moved = {n.split(".")[0] for n, p in student.named_parameters() if p.grad is not None}
    parts = {"vision": {"vision_encoder"}, "projector": {"vision_encoder", "projector"}}
    assert moved == parts.get(term, {"vision_encoder", "projector", "language_model"})
    both = make(student, teacher, processor, **{term: 2.0, "logits": 1.0})
    logits = loss_of(make(student, teacher, processor, logits=1.0), student, batch)
    assert loss_of(both, student, batch) == pytest.approx(2 * alone + logits, rel=1e-4)


def test_other_widths_learn_a_map(
    tiny_config: ModelConfig, teacher: VLM, processor: Processor, batch: Batch
) -> None:
    torch.manual_seed(0)
    small = VLM(smaller(tiny_config))
    objective = make(
        small, teacher, processor, logits=1, hidden=1, attention=1, vision=1, projector=1
    )
    names = {name for name, _ in objective.modules.named_parameters()}
    maps = ("hidden_0", "hidden_1", "vision", "projector")
    assert names == {f"{HEADS}.{name}.weight" for name in maps}
    assert objective.modules[HEADS]["vision"].weight.shape == (32, 16)
    loss_of(objective, small, batch)
    assert all(p.grad.abs().sum() > 0 for p in objective.modules.parameters())


def test_vision_alone_runs_no_decoder(
    student: VLM, teacher: VLM, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the decoder ran")

    monkeypatch.setattr(student.language_model, "forward", refuse)
    monkeypatch.setattr(teacher.language_model, "forward", refuse)
    how = Distillation(**NOTHING, vision=1.0, projector=0.5)
    objective = VisionDistillObjective(student.config, teacher, how)
    pixels = batch.pixel_values.float() / 255
    with torch.no_grad():
        own, theirs = (m.vision_encoder(pixels) for m in (student, teacher))
        expected = relative_error(own, theirs).mean()
        own, theirs = student.projector(own), teacher.projector(theirs)
        expected += 0.5 * relative_error(own, theirs).mean()
    assert loss_of(objective, student, batch) == pytest.approx(float(expected), rel=1e-3)
    blind = replace(batch, pixel_values=batch.pixel_values[:0])
    assert loss_of(objective, student, blind) == 0.0


def test_layers_answer_in_proportion_or_as_told(tiny_config: ModelConfig) -> None:
    small = smaller(tiny_config)
    assert layer_pairs(tiny_config, tiny_config) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert layer_pairs(small, tiny_config) == [(0, 1), (1, 3)]
    assert layer_pairs(small, tiny_config, (0, 3)) == [(0, 0), (1, 3)]
    for wrong in ((0,), (0, 4)):
        with pytest.raises(UserError, match="expected 2 numbers from 0 to 3, one for each"):
            layer_pairs(small, tiny_config, wrong)


def test_hot_spots_change_the_loss_as_stated(
    student: VLM, teacher: VLM, processor: Processor, rows_folder: Path
) -> None:
    """(3 * red + others) / (3 * weight of red + weight of others), for either objective."""
    plain = batch_of(processor, rows_folder)
    hot = batch_of(processor, rows_folder, hotspots={"demo.colour:red": 3.0})
    red = (hot.weights > 1).any(1)
    assert red.any()
    assert not red.all()
    halves = [_only(plain, rows) for rows in (red, ~red)]
    for objective in (
        LanguageObjective(processor.tokenizer.image_id),
        make(student, teacher, processor, logits=1.0),
    ):
        weights = [float(objective.normaliser(half)) for half in halves]
        losses = [loss_of(objective, student, half) for half in halves]
        expected = (3 * weights[0] * losses[0] + weights[1] * losses[1]) / (
            3 * weights[0] + weights[1]
        )
        assert loss_of(objective, student, hot) == pytest.approx(expected, rel=1e-4)
        assert loss_of(objective, student, plain) != pytest.approx(expected, rel=1e-4)


def _only(batch: Batch, rows: torch.Tensor) -> Batch:
    return replace(batch, labels=torch.where(rows[:, None], batch.labels, -100))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"logits": -1.0}, "expected numbers from 0 on"),
        (NOTHING, "and one above it"),
        ({"temperature": 0.0}, "temperature 0.0: expected more than 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(how: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Distillation(**how)


def test_what_does_not_compare_is_refused(
    tiny_config: ModelConfig, teacher: VLM, processor: Processor
) -> None:
    def refused(config: ModelConfig, message: str, **how: float) -> None:
        with pytest.raises(UserError, match=message):
            DistillObjective(config, teacher, Distillation(**how), 3)

    text, vision = tiny_config.text, tiny_config.vision
    words = replace(tiny_config, text=replace(text, vocab_size=300))
    refused(words, "the teacher's vocabulary has 320 entries, the student's 300")
    large = replace(tiny_config, vision=replace(vision, image_size=128, fusion_size=4))
    refused(large, "the teacher sees pictures of 64 px as 4 tokens")
    convs = replace(tiny_config, text=replace(text, layer_types=("conv", "conv")))
    refused(convs, "no layer of both is attention", attention=1.0)
    with pytest.raises(UserError, match="give weight to vision or projector"):
        VisionDistillObjective(tiny_config, teacher, Distillation())


def test_a_smaller_student_learns_and_resumes_to_the_bit(
    tiny_config: ModelConfig,
    teacher: VLM,
    processor: Processor,
    rows_folder: Path,
    tmp_path: Path,
) -> None:
    stage = Stage(
        name="distil",
        train=("vision_encoder", "projector", "language_model"),
        mixture={"demo": 1.0},
        steps=6,
        batch_size=4,
        lr={"vision_encoder": 3e-3, "projector": 3e-3, "language_model": 3e-3},
        warmup=1,
        ema=0.5,
        hotspots={"kind:on": 2.0},
    )
    how = Distillation(hidden=0.5, vision=0.5)
    config = smaller(tiny_config)

    def train(run: Path, minutes: float | None = None) -> tuple[bool, VLM]:
        torch.manual_seed(5)
        options = RunOptions(device="cpu", precision="fp32", log_every=1, minutes=minutes)
        trainer = Trainer(
            VLM(config),
            processor,
            {"demo": open_source(rows_folder / "train.jsonl", "demo")},
            (stage,),
            run,
            options=options,
            objective=lambda _: DistillObjective(
                config, teacher, how, processor.tokenizer.image_id
            ),
        )
        return trainer.run().finished, trainer.model

    _, whole = train(tmp_path / "whole")
    slices = 0
    finished, pieces = False, whole
    while not finished:
        finished, pieces = train(tmp_path / "pieces", minutes=1e-9)
        slices += 1
    assert slices == 6
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, pieces.state_dict()[name]), name
    logs = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "pieces")]
    records = [[_without_rate(line) for line in log.splitlines()] for log in logs]
    assert records[0] == records[1]


def _without_rate(line: str) -> dict:
    record = json.loads(line)
    record.pop("samples_per_s")
    return record
