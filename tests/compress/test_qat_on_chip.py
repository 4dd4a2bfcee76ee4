"""QAT in a chip's arithmetic: what is learnt is what the frozen model computes there."""

from __future__ import annotations

import copy

import pytest
import torch

from autoneural.compress.chip import compute_as
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.qat import RoundedObjective, rounded_weights
from autoneural.compress.qat_on_chip import ChipForward
from autoneural.compress.quantize import Sample
from autoneural.compress.snap import snap_encodings
from autoneural.compress.wiring import trace
from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.target.numerics import sqnr_db
from autoneural.train.distill import Distillation, DistillObjective
from tests.compress.conftest import IMAGE_TOKEN, MakeSample
from tests.compress.test_qat import Started, batch_of, divergence, texts, train, two_layers

KV8 = PRECISIONS["w4a16kv8"]


def seen_by_training(started: Started, follow: ChipForward, samples: list[Sample]) -> list:
    with torch.no_grad():
        follow.follow(started.model)
        with rounded_weights(started.model):
            return [sample(started.model) for sample in samples]


@pytest.mark.parametrize("htp", [68, 73])
def test_training_sees_what_the_frozen_model_computes_there(
    model: VLM, samples: list[Sample], htp: int
) -> None:
    started = Started(model, samples, KV8)
    train(started, [batch_of([samples[0], samples[1]])], 3, 1e-3, 1e-2)
    with torch.no_grad(), rounded_weights(started.model):
        plain = [sample(started.model) for sample in samples]
    seen = seen_by_training(started, ChipForward(htp, samples), samples)
    compute_as(started.model, None)
    snap_encodings(started.model, started.finish(), samples)
    compute_as(started.model, htp, trace(started.model, samples))
    with torch.no_grad():
        found = [sample(started.model) for sample in samples]
    pairs = zip(found, plain, seen, strict=True)
    gains = [sqnr_db(f.numpy(), s.numpy()) - sqnr_db(f.numpy(), p.numpy()) for f, p, s in pairs]
    # What is left: scales are snapped in the end, tables that no engine reads among them.
    assert min(gains) > 3


def test_following_leaves_what_is_learnt_alone(model: VLM, samples: list[Sample]) -> None:
    started = Started(model, samples, KV8)
    before = copy.deepcopy(started.model.state_dict())
    with torch.no_grad(), rounded_weights(started.model):
        plain = [sample(started.model) for sample in samples]
    on_chip = seen_by_training(started, ChipForward(68, samples), samples)
    assert not any(torch.equal(a, b) for a, b in zip(plain, on_chip, strict=True))
    after = started.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    compute_as(started.model, None)
    with torch.no_grad(), rounded_weights(started.model):
        again = [sample(started.model) for sample in samples]
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_it_comes_closer_to_the_teacher_on_the_chip(
    config: ModelConfig, make_sample: MakeSample
) -> None:
    model = two_layers(config)
    seen, held_out = [make_sample(0), *texts(1, 8)], texts(1000, 32)
    found = {}
    for name, steps in (("ptq", 0), ("qat", 30)):
        started = Started(model, seen, KV8)
        follow = ChipForward(68, seen).follow
        batches = [batch_of(texts(seed, 16)) for seed in range(2, 32)]
        train(started, batches, steps, 1e-3, 1e-3, follow)
        compute_as(started.model, None)
        snap_encodings(started.model, started.finish(), seen)
        compute_as(started.model, 68, trace(started.model, seen))
        found[name] = divergence(started.teacher, started.model, held_out)
    assert found["qat"] < 0.9 * found["ptq"]


def test_numbers_that_no_chip_takes_are_refused(model: VLM, samples: list[Sample]) -> None:
    started = Started(model, samples, PRECISIONS["w8a8"])
    objective = RoundedObjective(
        DistillObjective(started.teacher.config, started.teacher, Distillation(), IMAGE_TOKEN),
        ChipForward(68, samples).follow,
    )
    with pytest.raises(UserError, match="8-bit input; how chips compute is not known"):
        objective.loss(started.model, batch_of([samples[0]]))
