from dataclasses import replace

import pytest
import torch
from torch import nn

from autoneural.errors import UserError
from autoneural.train.curriculum import Stage
from autoneural.train.optim import (
    AverageWeights,
    build_optimizer,
    init_moments,
    lr_factor,
    optimizer_tensors,
    set_lr,
    stage_lr,
)

STAGE = Stage(
    name="s",
    train=("a",),
    mixture={"x": 1.0},
    steps=110,
    batch_size=1,
    lr={"a": 1e-2, "a.norm": 1e-3},
    warmup=10,
    final_lr=0.1,
)


@pytest.fixture
def parameters() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    shapes = {"a.weight": (3, 4), "a.norm": (4,), "a.embed_tokens": (5, 4)}
    return {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def take_steps(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], count: int
) -> None:
    for _ in range(count):
        for parameter in parameters.values():
            parameter.grad = parameter.detach().sin()
        optimizer.step()


def test_schedule_warms_up_then_falls_along_a_cosine() -> None:
    factors = [lr_factor(STAGE, step) for step in range(110)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == pytest.approx(1.0)
    assert factors[60] == pytest.approx(0.55)
    assert factors[109] == pytest.approx(0.1, abs=1e-3)
    assert all(a >= b for a, b in zip(factors[10:], factors[11:], strict=False))


def test_groups_have_their_rate_and_only_matrices_decay(
    parameters: dict[str, nn.Parameter],
) -> None:
    optimizer = build_optimizer(STAGE, parameters)
    found = {
        name: (group["peak_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for name, parameter in parameters.items()
        if any(parameter is member for member in group["params"])
    }
    assert found == {"a.weight": (1e-2, 0.05), "a.norm": (1e-3, 0), "a.embed_tokens": (1e-2, 0)}
    set_lr(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {5e-3, 5e-4}


def test_heads_take_the_highest_rate_and_others_must_be_covered() -> None:
    assert stage_lr(STAGE, "heads.query") == 1e-2
    assert stage_lr(replace(STAGE, lr={"heads": 3.0}), "heads.query") == 3.0
    with pytest.raises(UserError, match=r"stage s: lr: no prefix covers b\.weight"):
        stage_lr(STAGE, "b.weight")


def test_optimiser_goes_on_exactly_from_its_tensors(parameters: dict[str, nn.Parameter]) -> None:
    optimizer = build_optimizer(STAGE, parameters)
    take_steps(optimizer, parameters, 3)
    copies = {name: nn.Parameter(p.detach().clone()) for name, p in parameters.items()}
    resumed = build_optimizer(STAGE, copies)
    saved = {k: v.clone() for k, v in optimizer_tensors(optimizer, parameters).items()}
    init_moments(resumed, copies)
    for name, tensor in optimizer_tensors(resumed, copies).items():
        tensor.copy_(saved[name])
    take_steps(optimizer, parameters, 2)
    take_steps(resumed, copies, 2)
    assert all(torch.equal(parameters[name], copies[name]) for name in parameters)


def test_average_follows_and_can_be_applied(parameters: dict[str, nn.Parameter]) -> None:
    average = AverageWeights(parameters, 0.5)
    old = parameters["a.norm"].detach().clone()
    with torch.no_grad():
        parameters["a.norm"].add_(1.0)
    average.update(10**6)  # long past the warm-up: the decay itself
    average.apply()
    torch.testing.assert_close(parameters["a.norm"].detach(), old + 0.5)
