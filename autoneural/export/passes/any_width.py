"""A decoder graph traced for T new tokens -> the same graph for any number of them

    inputs, outputs   sizes T and those that hold it       open
    Reshape           to [1, T, -1, d], [1, h, 2 T, d]      to [1, rows, -1, d], [1, h, 2 rows, d]
    Slice             from or to -T                         from or to -rows

`rows` is read off `inputs_embeds` once a run. T must be a size that nothing else has a multiple of:
`TRACED` is prime. So one session, with one copy of the weights as its kernels pack them, takes
whole chunks of a prompt, what is left of one, drafts and single tokens. For CPUs; what an NPU
compiles is static.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from autoneural.export.passes.initializers import add_initializer

TRACED = 1009
_ROWS_OF, _AXIS = "inputs_embeds", 1


class AnyWidth(ir.passes.InPlacePass):
    """Of a graph traced for `width` tokens, whose convolutions keep `kept` columns between steps.

    Raises ValueError where a constant of another operator holds the width.
    """

    def __init__(self, kept: int, width: int = TRACED) -> None:
        self.kept = kept
        self.width = width

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        embeds = next(value for value in graph.inputs if value.name == _ROWS_OF)
        axis = {"start": _AXIS, "end": _AXIS + 1}
        count = ir.node("Shape", [embeds], axis, name="rows")
        minus = ir.node("Neg", count.outputs, name="rows.minus")
        sizes = _Sizes(graph, self.width, count.outputs[0], minus.outputs[0])
        nodes = list(graph)
        for node in nodes:
            sizes.free(node)
        used = [node for node in (count, minus, *sizes.made) if node.outputs[0].uses()]
        graph.insert_before(nodes[0], used)
        names = {self.width: "rows", self.width + self.kept: "window"}
        for value in (*graph.inputs, *graph.outputs):
            assert value.shape is not None
            value.shape = ir.Shape(
                [names.get(n, n) if isinstance(n, int) else n for n in value.shape]
            )
        for node in nodes:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = None
        return ir.passes.PassResult(model, True)


class _Sizes:
    """The constants of a graph that hold the width, and what is computed in their place."""

    def __init__(self, graph: ir.Graph, width: int, rows: ir.Value, minus: ir.Value) -> None:
        self._graph, self._width, self._minus = graph, width, minus
        self._times: dict[int, ir.Value] = {1: rows}
        self._shapes: dict[tuple[int, ...], ir.Value] = {}
        self.made: list[ir.Node] = []

    def free(self, node: ir.Node) -> None:
        """Make the width of a node's constants that of the run."""
        for index, value in enumerate(node.inputs):
            numbers = _integers(value)
            if value is None or not any(n and n % self._width == 0 for n in numbers):
                continue
            if node.op_type == "Reshape" and index == 1:
                new = self._shape(numbers)
            elif node.op_type == "Slice" and numbers == (-self._width,):
                new = self._minus
            else:
                where = f"{node.op_type} {node.outputs[0].name}"
                raise ValueError(f"{where}: holds the width {self._width} in {numbers}")
            node.replace_input_with(index, new)
            if not value.uses():
                self._graph.initializers.pop(str(value.name))

    def _shape(self, sizes: tuple[int, ...]) -> ir.Value:
        """One for all that have the same."""
        if sizes not in self._shapes:
            parts = [self._size(n) for n in sizes]
            self._shapes[sizes] = self._make("Concat", parts, axis=0)
        return self._shapes[sizes]

    def _size(self, n: int) -> ir.Value:
        times, rest = divmod(n, self._width)
        if rest or not n:
            return self._number(n)
        if times not in self._times:
            self._times[times] = self._make("Mul", [self._times[1], self._number(times)])
        return self._times[times]

    def _make(self, op_type: str, inputs: list[ir.Value], **attributes: int) -> ir.Value:
        node = ir.node(op_type, inputs, attributes, name=f"rows.{op_type.lower()}{len(self.made)}")
        self.made.append(node)
        return node.outputs[0]

    def _number(self, n: int) -> ir.Value:
        name = f"rows.size{n}"
        known = self._graph.initializers.get(name)
        return known or add_initializer(self._graph, name, np.array([n], np.int64))


def _integers(value: ir.Value | None) -> tuple[int, ...]:
    """The numbers of a small constant, such as a shape or a bound."""
    if value is None or value.const_value is None or value.const_value.size > 8:
        return ()
    array = value.const_value.numpy()
    return tuple(array.ravel().tolist()) if array.dtype == np.int64 else ()
