"""A static decoder graph -> the same graph for a past of any length

    mask [1, 1, T, C+T]         -> [1, 1, T, past_and_new]
    past key, value [1, h, C, d] -> [1, h, past, d]

What is between them must not know C: after `AttendInPlace` that are the shapes to which scores and
weights are brought, whose last size is left open, and notes about shapes, which are dropped. For
CPUs; what an NPU compiles is static.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from autoneural.export.passes.initializers import add_initializer


class AnyPast(ir.passes.InPlacePass):
    """`axes`: inputs that grow with the past, and along which axis: see `growing_axes`."""

    def __init__(self, axes: Mapping[str, int]) -> None:
        self.axes = axes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        sizes = {size for value in graph.inputs if (size := self._open(value))}
        for node in list(graph):
            _leave_open(graph, node, sizes)
        return ir.passes.PassResult(model, bool(sizes))

    def _open(self, value: ir.Value) -> int | None:
        """Make one axis of an input symbolic; returns its size."""
        axis = self.axes.get(str(value.name))
        if axis is None or value.shape is None:
            return None
        dims: list[int | str] = list(value.shape.numpy())
        dims[axis] = "past_and_new" if value.name == "mask" else "past"
        size, value.shape = value.shape.numpy()[axis], ir.Shape(dims)
        return size


def _leave_open(graph: ir.Graph, node: ir.Node, sizes: set[int]) -> None:
    """Forget shapes that hold one of the sizes; a Reshape to such a last size infers it instead.

    A width that happens to be equal is treated alike, which changes nothing; what a graph returns
    never grows and must say its shape.
    """
    for value in node.outputs:
        if value.shape is None or value.is_graph_output() or not sizes & set(value.shape.numpy()):
            continue
        shape, value.shape = value.shape.numpy(), None
        if node.op_type == "Reshape" and shape[-1] in sizes:
            old, wanted = node.inputs[1], np.array([*shape[:-1], -1], np.int64)
            node.replace_input_with(1, add_initializer(graph, f"{value.name}.shape", wanted))
            if old is not None and not old.uses():
                graph.initializers.pop(str(old.name))
