"""Weights that cost no memory: a matrix of the right shape whose elements are one number.

    hollow_model(config, tensors)   what `tensors` lacks is such a placeholder
    store(module, load)             the weight is loaded when the module runs, then dropped again
    loaded(module)                  ... or while a block of code needs it

A graph is traced for its shapes and gets its integers elsewhere; a layer needs its weights only
while it runs. So a model larger than memory can be exported and calibrated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from autoneural.config import ModelConfig
from autoneural.model.vlm import VLM

_LOAD = "load_weight"


def is_placeholder(tensor: Tensor) -> bool:
    """Whether all elements of a matrix or filter are the same place in memory."""
    return tensor.ndim > 1 and not any(tensor.stride())


def placeholder(shape: torch.Size, value: float = 0.0) -> nn.Parameter:
    """A weight of that shape in four bytes, `value` throughout."""
    return nn.Parameter(torch.tensor(value).expand(shape), requires_grad=False)


def may_be_hollow(config: ModelConfig) -> set[str]:
    """Names of the weights that only their own module uses, and only when it runs."""
    with torch.device("meta"):
        model = VLM(config)
    tied = {"language_model.lm_head.weight"} if model.language_model.is_tied else set()
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d
    return {f"{p}.weight" for p, m in model.named_modules() if isinstance(m, kinds)} - tied


def hollow_model(config: ModelConfig, tensors: Mapping[str, Tensor]) -> VLM:
    """A VLM in eval mode, fp32, no gradients, of `tensors`; matrices not among them are hollow.

    Raises KeyError naming a tensor that is missing and may not be hollow (`may_be_hollow`).
    """
    with torch.device("meta"):
        model = VLM(config)
    is_tied, hollow, count = model.language_model.is_tied, may_be_hollow(config), 0
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            full = f"{path}.{name}"
            if full in hollow and full not in tensors:
                # Exporters merge equal constants, and then the layers that read the same input.
                count += 1
                setattr(module, name, placeholder(parameter.shape, float(count)))
            elif not (is_tied and full == "language_model.lm_head.weight"):
                setattr(module, name, nn.Parameter(tensors[full].float(), requires_grad=False))
    if is_tied:
        model.language_model.tie_weights()
    return model.eval()


def store(module: nn.Module, load: Callable[[], Tensor]) -> None:
    """Let `module`, whose weight is a placeholder, have `load()` for its weight while it runs."""
    setattr(module, _LOAD, load)
    module.register_forward_pre_hook(_fill)
    module.register_forward_hook(_drop, always_call=True)


@contextmanager
def loaded(module: nn.Module) -> Iterator[None]:
    """While open, a stored weight of `module` is in memory; other modules stay as they are."""
    stored = hasattr(module, _LOAD)
    if stored:
        _fill(module)
    try:
        yield
    finally:
        if stored:
            _drop(module)


def _fill(module: Any, *_: Any) -> None:
    module.weight = nn.Parameter(getattr(module, _LOAD)(), requires_grad=False)


def _drop(module: Any, *_: Any) -> None:
    module.weight = placeholder(module.weight.shape)
