"""Quantisation-aware training: it starts as PTQ, learns, and freezes to what it computed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from autoneural.checkpoint import load_checkpoint
from autoneural.compress.derive import open_float, save_derived
from autoneural.compress.fake_quant import output_quantizers, weight_quantizers
from autoneural.compress.precision import PRECISIONS, Precision, Rule
from autoneural.compress.qat import (
    RANGES,
    LearnedOutput,
    RoundedObjective,
    finish_qat,
    rounded_weights,
    start_qat,
)
from autoneural.compress.quantize import (
    IntegerWeight,
    Sample,
    calibrate,
    frozen_tensors,
    load_quantized,
)
from autoneural.compress.snap import snap_encodings
from autoneural.config import ModelConfig
from autoneural.data.loader import Batch
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.target.numerics import Encoding
from autoneural.train.distill import Distillation, DistillObjective, kl_divergence
from autoneural.train.engine import accumulate
from tests.compress.conftest import IMAGE_TOKEN, MakeSample

W4A16 = PRECISIONS["w4a16"]
COARSE = replace(W4A16, name="w4", weights=(Rule("*.position_embedding", 16), Rule("*", 4)))


class Started:
    """A float model, what PTQ makes of it, and that about to learn."""

    def __init__(self, model: VLM, samples: list[Sample], precision: Precision) -> None:
        self.teacher, self.ptq = copy.deepcopy(model), copy.deepcopy(model)
        self.encodings = calibrate(self.ptq, samples, precision)
        weights = {
            f"{path}.{q.parameter}": IntegerWeight(
                values=q.integers.numpy(), scale=q.scale.numpy(), bits=q.bits
            )
            for path, _, q in weight_quantizers(self.ptq)
        }
        self.activations = {
            path: Encoding(**e) for path, e in self.encodings["activations"].items()
        }
        self.precision = precision
        self.model = start_qat(copy.deepcopy(model), precision, self.activations, weights)

    def finish(self) -> dict:
        return finish_qat(self.model, self.precision, self.encodings["mask_value"])


@pytest.fixture
def started(model: VLM, samples: list[Sample]) -> Started:
    return Started(model, samples, W4A16)


def batch_of(samples: list[Sample]) -> Batch:
    """All but the first four tokens are answers."""
    ids = torch.cat([sample.input_ids_BT for sample in samples])
    labels = ids.clone()
    labels[(ids == IMAGE_TOKEN) | (torch.arange(ids.shape[1]) < 4)] = -100
    pixels = [torch.zeros(0, 3, 64, 64, dtype=torch.uint8)]
    pixels = torch.cat(pixels + [s.pixels_BCHW for s in samples if s.pixels_BCHW is not None])
    return Batch(ids, labels, pixels, {}, torch.zeros(0), torch.ones(ids.shape))


def divergence(teacher: VLM, model: VLM, samples: list[Sample]) -> float:
    with torch.no_grad():
        pairs = [(sample(model)[0], sample(teacher)[0]) for sample in samples]
        return float(sum(kl_divergence(own, theirs, 1.0).mean() for own, theirs in pairs))


def train(
    started: Started,
    batches: list[Batch],
    steps: int,
    lr: float,
    ranges: float,
    follow: Callable[[nn.Module], None] | None = None,
) -> None:
    distilled = DistillObjective(
        started.teacher.config, started.teacher, Distillation(), IMAGE_TOKEN
    )
    objective = RoundedObjective(distilled, follow)
    model = started.model.requires_grad_(True)
    groups = {name.startswith(RANGES): [] for name in ("x", RANGES)}
    for name, parameter in model.named_parameters():
        groups[name.startswith(RANGES)].append(parameter)
    # A range with hardly any gradient moves too: on some processors its step was below a scale's
    # last bit.
    learned = {"params": groups[True], "lr": ranges, "eps": 1e-16}
    optimizer = torch.optim.Adam([{"params": groups[False], "lr": lr}, learned])
    for step in range(steps):
        for group, peak in zip(optimizer.param_groups, (lr, ranges), strict=True):
            group["lr"] = peak * (1 - step / steps)
        accumulate(model, objective, [batches[step % len(batches)]], "fp32")
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def test_it_starts_as_ptq_to_the_bit(started: Started, samples: list[Sample]) -> None:
    with rounded_weights(started.model):
        for sample in samples:
            assert torch.equal(sample(started.model), sample(started.ptq))
    # The weights are still the float ones, but for those that PTQ rounded the other way.
    moved = [
        float((a != b).float().mean())
        for a, b in zip(started.teacher.parameters(), started.model.parameters(), strict=False)
    ]
    assert not torch.equal(samples[0](started.model), samples[0](started.ptq))
    assert np.mean(moved) < 0.9


@pytest.mark.parametrize("precision", ["w4a16", "w4a16kv8", "w8a16"])
def test_frozen_is_what_was_trained_to_the_bit(
    model: VLM, samples: list[Sample], precision: str
) -> None:
    started = Started(model, samples, PRECISIONS[precision])
    train(started, [batch_of([samples[0], samples[1]])], 3, 1e-3, 1e-2)
    with torch.no_grad(), rounded_weights(started.model):
        trained = [sample(started.model) for sample in samples]
        before = [sample(started.ptq) for sample in samples]
    encodings = started.finish()
    for sample, expected, old in zip(samples, trained, before, strict=True):
        assert torch.equal(sample(started.model), expected)
        assert not torch.equal(expected, old)
    assert encodings.keys() == started.encodings.keys()
    assert encodings["weights"] == started.encodings["weights"]
    assert encodings["activations"].keys() == started.encodings["activations"].keys()
    assert RANGES not in dict(started.model.named_children())


def test_a_frozen_checkpoint_loads_like_any_other(
    started: Started, samples: list[Sample], float_checkpoint, tmp_path
) -> None:
    train(started, [batch_of([samples[0], samples[1]])], 2, 1e-3, 1e-2)
    encodings = started.finish()
    snap_encodings(started.model, encodings, samples)
    source = open_float(float_checkpoint)
    tensors = frozen_tensors(started.model)
    save_derived(tmp_path / "q", tensors, source.config, source, {"stage": "test"}, encodings)
    loaded = load_quantized(tmp_path / "q")
    for sample in samples:
        assert torch.equal(sample(loaded), sample(started.model))
    assert load_checkpoint(tmp_path / "q").encodings == encodings


def test_what_was_learned_stays_tied_and_what_is_known_stays(
    started: Started, samples: list[Sample]
) -> None:
    tied = [
        path
        for patterns in W4A16.ties
        for path in patterns
        if path in dict(output_quantizers(started.model))
    ]
    assert "projector.linear_2" in tied
    train(started, [batch_of([samples[0], samples[1]])], 3, 1e-3, 1e-2)
    now, before = started.finish()["activations"], started.encodings["activations"]
    same = {path for path in now if now[path] == before[path]}
    embeds = now["language_model.model.inputs_embeds"]
    assert now["projector.linear_2"] == now["language_model.model.embed_tokens"] == embeds
    for path in ("0.conv.gate_in", "0.conv.window"):
        assert (
            now[f"language_model.model.layers.{path}"]
            == now["language_model.model.layers.0.conv.gate_in"]
        )
    for path in now:
        known = path.endswith((".softmax", ".sigmoid", ".mask", ".scores", ".mask_add", ".pixels"))
        known |= path.endswith((".cos", ".sin"))
        if path.startswith("vision_encoder") and path.endswith("scores"):
            known = False  # no mask is added to these
        # In steps of what it reads, a product with a constant is on its grid already.
        assert path in same if known else path not in same or path.endswith(".scale"), path
    assert all(now[p]["zero_point"] == before[p]["zero_point"] for p in now)


def test_a_tied_range_is_one_parameter(started: Started) -> None:
    names = [name for name, _ in started.model.named_parameters() if name.startswith(RANGES)]
    learned = {q for _, q in output_quantizers(started.model) if isinstance(q, LearnedOutput)}
    learning = sum(q._log_gain[0] is not None for q in learned)
    weights = len(list(weight_quantizers(started.model)))
    assert len(names) == learning + weights
    state = started.model.state_dict()
    pointers = [tensor.data_ptr() for tensor in state.values()]
    assert len(set(pointers)) == len(pointers)


def test_weights_come_back_also_after_an_error(started: Started) -> None:
    before = dict(started.model.named_parameters())
    language = started.model.language_model
    with rounded_weights(started.model):
        assert language.lm_head.weight is language.model.embed_tokens.weight
        assert not isinstance(language.lm_head.weight, torch.nn.Parameter)
    with pytest.raises(ValueError, match="image token"), rounded_weights(started.model):
        started.model(torch.zeros(1, 4, dtype=torch.long), None, 0)
    assert all(before[name] is p for name, p in started.model.named_parameters())


def test_all_that_is_rounded_gets_gradients(started: Started, samples: list[Sample]) -> None:
    train(started, [batch_of([samples[0], samples[1]])], 0, 0.0, 0.0)
    started.model.requires_grad_(True)
    objective = RoundedObjective(
        DistillObjective(started.teacher.config, started.teacher, Distillation(), IMAGE_TOKEN)
    )
    accumulate(started.model, objective, [batch_of([samples[0], samples[1]])], "fp32")
    without = [n for n, p in started.model.named_parameters() if p.grad is None or not p.grad.any()]
    # Norms of ones and products with a constant are on their grid: no scale is better.
    on_grid = ("norm/weight.log_gain", "/bn", "layer_scale/gamma.log_gain", "/scale")
    assert [n for n in without if not (n.startswith(RANGES) and any(g in n for g in on_grid))] == []


def two_layers(config: ModelConfig) -> VLM:
    torch.manual_seed(0)
    layers = replace(config.text, layer_types=("conv", "full_attention"))
    model = VLM(replace(config, text=layers)).eval().requires_grad_(False)
    model.language_model.model.embed_tokens.weight.mul_(10)  # answers that are not all alike
    return model


def test_qat_comes_closer_to_the_teacher_than_ptq(
    config: ModelConfig, make_sample: MakeSample
) -> None:
    """Sequences of a dozen tokens: few enough to learn in seconds, more than training can see."""
    model = two_layers(config)
    seen = [make_sample(0), *texts(1, 8)]
    started = Started(model, seen, COARSE)
    train(started, [batch_of(texts(seed, 16)) for seed in range(2, 32)], 30, 1e-3, 1e-3)
    started.finish()
    held_out = texts(1000, 32)
    ptq = divergence(started.teacher, started.ptq, held_out)
    assert divergence(started.teacher, started.model, held_out) < 0.75 * ptq


def texts(seed: int, count: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 16, (count, 1, 12), generator=generator)
    return [Sample(input_ids_BT=i, pixels_BCHW=None, image_token_id=IMAGE_TOKEN) for i in ids]


def test_encodings_of_something_else_are_refused(model: VLM, samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="not in the PTQ encodings; they are of another model"):
        start_qat(copy.deepcopy(model), W4A16, {}, {})
    other = Started(model, samples, PRECISIONS["w8a16"])
    weights: dict[str, IntegerWeight] = {}
    for path, _, q in weight_quantizers(other.ptq):
        weights[f"{path}.{q.parameter}"] = IntegerWeight(
            values=q.integers.numpy(), scale=q.scale.numpy(), bits=q.bits
        )
    with pytest.raises(UserError, match="8 bits found, w4a16 has another number"):
        start_qat(copy.deepcopy(model), W4A16, other.activations, weights)
    with pytest.raises(UserError, match="was not prepared by start_qat"), rounded_weights(model):
        pass
