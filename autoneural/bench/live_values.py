"""How much memory the values of a graph take while it runs, counted on shapes alone.

    peak_bytes(build_graph(meta model, key), bits, uncounted)

The module runs on the meta device, where nothing is computed. A step is one operation that the
graph has: a module of the model without children, or a copy between two of them, which every
transposition is. A value is alive from the step that makes it to the last one that reads it,
inputs from the start, outputs to the end. Steps run one after another and nothing is computed in
place or in tiles: what a compiler does better, or needs beside, is not in the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoneural.export.graphs import TorchGraph
from autoneural.model.layers import MatMul, SamePad

Bits = Callable[[str], int]
"""Bits of each number that the module at a path returns; for '' of an input of the graph."""

_TRANSPOSITIONS = (torch.ops.aten.transpose.int, torch.ops.aten.permute.default)


@dataclass(frozen=True)
class _Step:
    reads: frozenset[int]
    makes: frozenset[int]


def peak_bytes(graph: TorchGraph, bits: Bits, uncounted: Collection[str] = ()) -> int:
    """The most bytes of values alive at one time in a graph on the meta device.

    `uncounted`: inputs that lie in memory of their own, as a decoder's state does.
    """
    values = _Values(bits)
    counted = [x for name, x in graph.inputs.items() if name not in uncounted]
    with torch.no_grad(), ExitStack() as stack:
        values.ignore([*graph.module.parameters(), *graph.module.buffers()])
        values.ignore(x for name, x in graph.inputs.items() if name in uncounted)
        given = values.new(counted, bits(""))
        for path, module in graph.module.named_modules():
            if isinstance(module, MatMul) or not any(module.children()):
                for handle in values.watch(path, module):
                    stack.callback(handle.remove)
        with values:
            outputs = graph.module(*graph.inputs.values())
    returned = [outputs] if isinstance(outputs, Tensor) else outputs
    return _peak(values.steps, values.sizes, given, values.known(returned))


def _peak(
    steps: Sequence[_Step], sizes: Sequence[int], given: Collection[int], kept: Collection[int]
) -> int:
    last = {value: index for index, step in enumerate(steps) for value in step.reads}
    last |= dict.fromkeys(kept, len(steps))
    alive, most = set(given), 0
    for index, step in enumerate(steps):
        alive |= step.makes
        most = max(most, sum(sizes[value] for value in alive))
        alive = {value for value in alive if last.get(value, -1) > index}
    return most


class _Values(TorchDispatchMode):
    """While open, the steps that run. A value is the memory that tensors share, whatever view."""

    def __init__(self, bits: Bits) -> None:
        super().__init__()
        self.steps: list[_Step] = []
        self.sizes: list[int] = []
        self._widths: list[int] = []
        self._bits = bits
        self._numbers: dict[int, int | None] = {}
        self._held: list[Any] = []  # an address is given to another tensor once this one is gone
        self._depth = 0

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Let the memory of `tensors` be no value."""
        for tensor in tensors:
            self._numbers[self._address(tensor)] = None

    def known(self, tensors: Iterable[Any]) -> frozenset[int]:
        """The values that `tensors` are."""
        numbers = (self._numbers.get(self._address(x)) for x in _tensors(tensors))
        return frozenset(number for number in numbers if number is not None)

    def new(self, tensors: Iterable[Any], bits: int) -> frozenset[int]:
        """Make values of those of `tensors` that are none yet, of numbers of so many bits."""
        made = set()
        for tensor in _tensors(tensors):
            address = self._address(tensor)
            if address not in self._numbers:
                number = self._numbers[address] = len(self.sizes)
                count = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.sizes.append(count * bits // 8)
                self._widths.append(bits)
                made.add(number)
        return frozenset(made)

    def watch(self, path: str, module: nn.Module) -> Iterator[Any]:
        """Make one step of all that happens inside `module`."""

        def enter(*_: Any) -> None:
            self._depth += 1

        def leave(_: nn.Module, inputs: Sequence[Any], output: Any) -> None:
            self._depth -= 1
            if self._depth:
                return
            if isinstance(module, SamePad):  # becomes an attribute of the convolution behind it
                self._numbers[self._address(output)] = self._numbers[self._address(inputs[0])]
                return
            self._add(inputs, [output], path)

        yield module.register_forward_pre_hook(enter)
        yield module.register_forward_hook(leave, always_call=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._depth:
            return result
        if func in _TRANSPOSITIONS:  # a view here, a copy in a graph
            result = result.clone(memory_format=torch.contiguous_format)
        self._add(args, [result], "")
        return result

    def _add(self, inputs: Iterable[Any], outputs: Iterable[Any], path: str) -> None:
        reads = self.known(inputs)
        copied = max((self._widths[value] for value in reads), default=self._bits(""))
        if makes := self.new(outputs, self._bits(path) if path else copied):
            self.steps.append(_Step(reads, makes))

    def _address(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        self._held.append(storage)
        return storage._cdata


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
