"""AdamW groups and the learning-rate schedule of a stage.

    lr(step) = peak * warm-up(step) * (final + (1 - final) * (1 + cos(pi * progress)) / 2)

Only matrices (and convolution kernels) decay; gains, biases and embeddings do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autoneural.errors import UserError
from autoneural.train.curriculum import HEADS, Stage, longest_prefix


def lr_factor(stage: Stage, step: int) -> float:
    """The share of the peak learning rate used by optimiser step `step` (from 0)."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    progress = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.final_lr + (1 - stage.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(stage: Stage, parameters: Mapping[str, nn.Parameter]) -> torch.optim.AdamW:
    """AdamW over the named trainable `parameters`, one group per (learning rate, decay)."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = stage.weight_decay if parameter.ndim >= 2 and "embed" not in name else 0.0
        groups.setdefault((stage_lr(stage, name), decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "lr": lr, "peak_lr": lr, "weight_decay": decay}
            for (lr, decay), members in groups.items()
        ],
        betas=(0.9, stage.beta2),
        fused=True,
    )


def stage_lr(stage: Stage, name: str) -> float:
    """The peak learning rate of parameter `name`: that of the longest matching prefix.

    Heads without an entry of their own learn at the stage's highest rate.
    """
    prefix = longest_prefix(name, stage.lr)
    if prefix is None and longest_prefix(name, [HEADS]):
        return max(stage.lr.values())
    if prefix is None:
        raise UserError(f"stage {stage.name}: lr: no prefix covers {name}")
    return stage.lr[prefix]


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's peak learning rate by `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors, `<field>.<parameter name>`."""
    return {
        f"{field}.{name}": value
        for name, parameter in parameters.items()
        for field, value in optimizer.state[parameter].items()
    }


def init_moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
    """Give every parameter the state that AdamW makes at its first gradient, to be filled."""
    for parameter in parameters.values():
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            # Like the parameter: the fused kernel wants its memory layout.
            "exp_avg": torch.zeros_like(parameter, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
        }


class AverageWeights:
    """Exponential moving average of the trainable weights (decay warms up as (1+t)/(10+t))."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._parameters: list[Tensor] = list(parameters.values())
        self.tensors = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.tensors.values()), self._parameters, 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Write the averages into the model."""
        for parameter, average in zip(self._parameters, self.tensors.values(), strict=True):
            parameter.copy_(average)
