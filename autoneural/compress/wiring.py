"""Which modules a module reads: followed through one pass, because code does not say it.

    trace(model, runs) -> {"....out_proj": ("....mix",), "....scores": ("....q", "....keys")}

An output of a module that has a range carries the module's path; what only moves data (reshape,
transpose, slice, zero padding, ...) passes the path on; anything else loses it. Paths, unlike
encodings, hold for the float model, the calibrated one and the reloaded one alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from autoneural.compress.fake_quant import OutputQuantizer, output_quantizers
from autoneural.compress.report import Run
from autoneural.errors import UserError
from autoneural.model import layers
from autoneural.target.numerics import Encoding

Wiring = Mapping[str, tuple[str, ...]]

# Functions of torch that move values, drop some, or bring in zeros, which every encoding holds.
_MOVES = frozenset(
    ("__getitem__", "chunk", "contiguous", "detach", "dropout", "expand", "flatten", "flip")
    + ("movedim", "pad", "permute", "reshape", "select", "split", "squeeze", "swapaxes", "to")
    + ("transpose", "unflatten", "unsqueeze", "view", "cat", "clone", "masked_scatter")
)


def engine_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> module, for those that the matrix engine of an HTP computes and that are rounded."""
    rounded = dict(output_quantizers(model))
    modules = dict(model.named_modules(remove_duplicate=False))
    return {path: modules[path] for path in rounded if _uses_engine(modules[path])}


def _uses_engine(module: nn.Module) -> bool:
    """Strided depthwise convolutions run on the vector unit."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return module.groups == 1 or set(module.stride) == {1}
    return isinstance(module, nn.Linear | layers.MatMul)


@torch.inference_mode()
def trace(
    model: nn.Module, runs: Iterable[Run], modules: Mapping[str, nn.Module] | None = None
) -> Wiring:
    """What each of `modules` (by path; None: the engine's) reads, from as many `runs` as it takes.

    The model must be quantised. Modules that no run reaches are left out. Raises UserError naming
    the first one whose input comes out of arithmetic that has no range.
    """
    wanted = engine_modules(model) if modules is None else modules
    found: dict[str, tuple[str, ...]] = {}
    paths = WeakTensorKeyDictionary()
    with ExitStack() as stack:
        for path, _ in output_quantizers(model):
            handle = model.get_submodule(path).register_forward_hook(_mark(paths, path))
            stack.callback(handle.remove)
        for path, module in wanted.items():
            handle = module.register_forward_pre_hook(_look(paths, path, found))
            stack.callback(handle.remove)
        for run in runs:
            with _Follow(paths):
                run(model)
            if len(found) == len(wanted):
                break
    return found


def _mark(paths: WeakTensorKeyDictionary, path: str) -> Callable[..., Tensor]:
    def mark(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        output = output.view_as(output)  # an identity's output is the tensor that went in
        paths[output] = path
        return output

    return mark


def _look(
    paths: WeakTensorKeyDictionary, path: str, found: dict[str, tuple[str, ...]]
) -> Callable[..., None]:
    def look(_: nn.Module, inputs: Sequence[Tensor]) -> None:
        sources = tuple(paths[x] for x in inputs if x in paths)
        if len(sources) < len(inputs):
            raise UserError(
                f"{path}: its input comes from no module with a range; put a Range of "
                "autoneural.model.layers in front of it"
            )
        if found.setdefault(path, sources) != sources:
            raise UserError(f"{path}: reads {found[path]} once and {sources} another time")

    return look


class _Follow(TorchFunctionMode):
    """While open, results of moves carry the path of what was moved."""

    def __init__(self, paths: WeakTensorKeyDictionary) -> None:
        super().__init__()
        self._paths = paths

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _MOVES:
            sources = {self._paths.get(x) for x in _tensors(args) if x.is_floating_point()}
            if len(sources) == 1 and (path := sources.pop()) is not None:
                for x in _tensors([result]):
                    self._paths[x] = path
        return result


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def encodings_of(model: nn.Module, path: str, wiring: Wiring) -> list[Encoding]:
    """Of what the engine module at `path` reads, then of what it returns."""
    module = model.get_submodule(path)
    found = [encoding_at(model, source) for source in (*wiring[path], path)]
    if isinstance(module, layers.MatMul) and has_range(module.second):
        found[1] = encoding_at(model, f"{path}.second")
    return found


def has_range(module: nn.Module) -> bool:
    """Whether the module's output is rounded to a range of its own."""
    return any(isinstance(child, OutputQuantizer) for child in module.children())


def encoding_at(model: nn.Module, path: str) -> Encoding:
    """The encoding that the output of the module at `path` is rounded to.

    Raises UserError where it has none yet.
    """
    for child in model.get_submodule(path).children():
        if isinstance(child, OutputQuantizer) and child.encoding is not None:
            return child.encoding
    raise UserError(f"{path}: its output has no encoding yet; calibrate and freeze the model first")
