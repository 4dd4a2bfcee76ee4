"""Replayed inputs are those of a whole run, at the price of a part of it."""

import operator
from collections import Counter

import pytest
import torch
from torch import nn

from autoneural.compress.quantize import Sample
from autoneural.compress.replay import Replay, call_order
from autoneural.errors import UserError
from autoneural.model.vlm import VLM


def linears(model: nn.Module) -> list[str]:
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    ]


def whole_run_inputs(model: nn.Module, paths: list[str], run: Sample) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(path).register_forward_pre_hook(
            lambda _, args, p=path: operator.setitem(seen, p, args[0].clone())
        )
        for path in paths
    ]
    run(model)
    for handle in handles:
        handle.remove()
    return seen


def test_inputs_are_those_of_the_model_as_it_is(model: VLM, samples: list[Sample]) -> None:
    order = call_order(model, linears(model), samples)
    assert order[0] == "vision_encoder.conv_stem.conv"
    assert order[-1] == "language_model.lm_head"
    replay = Replay(model, samples, order)
    for path in order:
        inputs = dict(replay.inputs(path))
        # The third sample has no image.
        assert sorted(inputs) == (
            [0, 1, 3] if path.startswith(("vision", "proj")) else [0, 1, 2, 3]
        )
        # Everything before has changed meanwhile; what comes now must know.
        for index in (0, len(samples) - 1):
            torch.testing.assert_close(
                inputs[index], whole_run_inputs(model, [path], samples[index])[path]
            )
        model.get_submodule(path).weight.mul_(1.03)
        replay.finish(path)


def test_finished_layers_are_not_computed_again(model: VLM, samples: list[Sample]) -> None:
    calls: Counter[str] = Counter()
    for path in linears(model):
        inner = model.get_submodule(path)
        inner.register_forward_pre_hook(lambda _, __, p=path: calls.update([p]))
    order = call_order(model, linears(model), samples[:1])
    calls.clear()
    replay = Replay(model, samples[:1], order)
    for path in order:
        list(replay.inputs(path))
        replay.finish(path)
    # Stopped at by `inputs`, computed by `finish`, and by the next in the same block at most.
    assert max(calls.values()) <= 10
    assert set(replay._kept[0]) <= {"vision_encoder", "projector", "language_model"}
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_layer_without_data_is_named(model: VLM, samples: list[Sample]) -> None:
    with pytest.raises(UserError, match=r"^vision_encoder\S+: no calibration data reached it"):
        call_order(model, linears(model), samples[2:3])


def test_a_layer_that_runs_twice_is_refused() -> None:
    linear = nn.Linear(4, 4)
    model = nn.Sequential(linear, nn.Identity(), linear)
    with pytest.raises(UserError, match="0: runs more than once"):
        call_order(model, ["0"], [lambda m: m(torch.ones(1, 4))])
