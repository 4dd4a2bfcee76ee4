from dataclasses import replace

import pytest
from torch import nn

from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.train.curriculum import (
    Stage,
    check_mixture,
    describe_trainable,
    longest_prefix,
    select_trainable,
)

STAGE = Stage(
    name="align",
    train=("projector",),
    mixture={"captions": 1.0},
    steps=3,
    batch_size=2,
    lr={"projector": 1e-3},
)


def test_prefixes_end_at_dots_and_the_longest_wins() -> None:
    prefixes = ["language_model", "language_model.model.layers.1"]
    assert longest_prefix("language_model.model.layers.1.w", prefixes) == prefixes[1]
    assert longest_prefix("language_model.model.layers.10.w", prefixes) == prefixes[0]
    assert longest_prefix("vision_encoder.w", prefixes) is None


def test_only_selected_parameters_train(model: VLM) -> None:
    selected = select_trainable(model, STAGE)
    assert {name.split(".")[0] for name in selected} == {"projector"}
    assert not any(p.requires_grad for p in model.language_model.parameters())
    total = sum(p.numel() for p in model.projector.parameters())
    assert f"projector {total:,} of {total:,}" in describe_trainable(model)
    assert "vision_encoder 0 of" in describe_trainable(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": ("projektor",)}, "stage align: train: no parameter is under 'projektor'"),
        ({"train": ("proj",)}, "no parameter is under 'proj'"),
        ({"lr": {"projector": 1.0, "heads": 1.0}}, "lr: no parameter is under 'heads'"),
    ],
)
def test_prefix_without_parameters_is_an_error(
    model: VLM, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        select_trainable(model, replace(STAGE, **change))


def test_heads_may_have_a_rate_in_the_vision_stage() -> None:
    module = nn.ModuleDict({"projector": nn.Linear(2, 2)})
    stage = replace(STAGE, objective="vision", lr={"projector": 1.0, "heads": 2.0})
    assert len(select_trainable(module, stage)) == 2


@pytest.mark.parametrize("field", ["steps", "batch_size", "accumulate"])
def test_counts_must_be_positive(field: str) -> None:
    with pytest.raises(UserError, match=f"stage align: {field}"):
        replace(STAGE, **{field: 0})


@pytest.mark.parametrize("mixture", [{}, {"a": 0.0}, {"a": 1.0, "b": -1.0}])
def test_mixture_needs_weight(mixture: dict[str, float]) -> None:
    with pytest.raises(UserError, match="stage align: mixture"):
        replace(STAGE, mixture=mixture)


def test_unknown_source_is_named() -> None:
    check_mixture(STAGE, {"captions": 1})
    with pytest.raises(UserError, match="no source 'captions'; there are chat"):
        check_mixture(STAGE, {"chat": 1})
