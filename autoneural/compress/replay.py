"""Inputs of a model's layers, one layer after another, without running it from the start each time.

    replay = Replay(model, runs, call_order(model, paths, runs))
    for path in order:
        for index, x in replay.inputs(path): ...      (the weight may change now)
        replay.finish(path)

What is finished is never computed again: the outermost module whose layers are all finished hands
out what it returned the last time. A layer costs what lies between it and the finished ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from autoneural.compress.report import Run
from autoneural.errors import UserError


class _Reached(Exception):
    """Stops a run; carries what was asked for, None where the run has passed by."""

    def __init__(self, value: Any = None) -> None:
        super().__init__()
        self.value = value


@torch.no_grad()
def call_order(model: nn.Module, paths: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """`paths` as `runs` call them. UserError for a layer never called, or twice in one run."""
    order: dict[str, None] = {}
    for run in runs:
        called = _called(model, paths, run)
        twice = next((path for path in called if called.count(path) > 1), None)
        if twice is not None:
            raise UserError(
                f"{twice}: runs more than once in a forward pass; round it 'compensated'"
            )
        order.update(dict.fromkeys(called))
        if len(order) == len(paths):
            return list(order)
    missing = next((path for path in paths if path not in order), "the model")
    raise UserError(f"{missing}: no calibration data reached it; calibrate before rounding")


def _called(model: nn.Module, paths: Sequence[str], run: Run) -> list[str]:
    """`paths` in the order in which one run calls them, each as often as it is called."""
    called: list[str] = []
    with ExitStack() as stack:
        for path in paths:
            module = model.get_submodule(path)
            handle = module.register_forward_pre_hook(lambda *_, p=path: called.append(p))
            stack.callback(handle.remove)
        run(model)
    return called


class Replay:
    """Stops and resumes every run of `runs` at the layers in `order`, which are called so.

    Keeps the outputs of finished modules, for every run: of the layers of the block that is being
    worked on and of the blocks before it in the same container.
    """

    def __init__(self, model: nn.Module, runs: Sequence[Run], order: Sequence[str]) -> None:
        self._model = model
        self._runs = runs
        self._left = list(order)
        self._kept: list[dict[str, Any]] = [{} for _ in runs]

    @torch.no_grad()
    def inputs(self, path: str) -> Iterator[tuple[int, Tensor]]:
        """(index of the run, first input) of the next layer; runs that miss it are left out."""
        for index in range(len(self._runs)):
            with ExitStack() as stack:
                for left in self._left:
                    hook = _stop_with_input if left == path else _stop
                    handle = self._model.get_submodule(left).register_forward_pre_hook(hook)
                    stack.callback(handle.remove)
                x = self._run(index)
            if x is not None:
                yield index, x

    @torch.no_grad()
    def finish(self, path: str) -> None:
        """Keep what the layer returns from now on, or the outermost module that it completes."""
        self._left.remove(path)
        owner = self._outermost_complete(path)
        for index, kept in enumerate(self._kept):
            with ExitStack() as stack:
                for left in self._left:
                    handle = self._model.get_submodule(left).register_forward_pre_hook(_stop)
                    stack.callback(handle.remove)
                module = self._model.get_submodule(owner)
                stack.callback(module.register_forward_hook(_stop_with_output).remove)
                output = self._run(index)
            if output is not None:
                for inner in [name for name in kept if name.startswith(f"{owner}.")]:
                    del kept[inner]
                kept[owner] = output

    def _outermost_complete(self, path: str) -> str:
        names = path.split(".")
        for depth in range(1, len(names)):
            owner = ".".join(names[:depth])
            is_list = isinstance(self._model.get_submodule(owner), nn.ModuleList | nn.ModuleDict)
            if not is_list and not any(left.startswith(f"{owner}.") for left in self._left):
                return owner
        return path

    def _run(self, index: int) -> Any:
        with _replaced(self._model, self._kept[index]):
            try:
                self._runs[index](self._model)
            except _Reached as reached:
                return reached.value
        return None


def _stop(*_: Any) -> None:
    raise _Reached


def _stop_with_input(_: nn.Module, args: tuple[Any, ...]) -> None:
    raise _Reached(args[0])


def _stop_with_output(_: nn.Module, __: Any, output: Any) -> None:
    raise _Reached(output)


@contextmanager
def _replaced(model: nn.Module, outputs: dict[str, Any]) -> Iterator[None]:
    """While open, these modules return these outputs, whatever they are given."""
    modules = [model.get_submodule(path) for path in outputs]
    for module, output in zip(modules, outputs.values(), strict=True):
        module.forward = lambda *_, y=output, **__: y
    try:
        yield
    finally:
        for module in modules:
            del module.forward
