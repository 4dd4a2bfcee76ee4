"""Keys and values in bytes between steps, reals inside of one (for CPUs)

    past, bytes -> DequantizeLinear -> what read it
    new rows -> QuantizeLinear -> present, bytes
                               -> DequantizeLinear -> what read them

The encodings are those that compression froze for an NPU's cache of 8 bits. A step reads its own
new rows as the next will find them, so an answer does not depend on how many tokens a step takes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from autoneural.export.passes.initializers import add_initializer
from autoneural.target.numerics import Encoding


class ByteCache(ir.passes.InPlacePass):
    """`encodings`: those of graph inputs (past) and outputs (present) by name, of 8 bits."""

    def __init__(self, encodings: Mapping[str, Encoding]) -> None:
        self.encodings = encodings

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph, modified = model.graph, False
        for value in graph.inputs:
            if encoding := self.encodings.get(str(value.name)):
                _open(graph, value, encoding)
                modified = True
        for index, value in enumerate(graph.outputs):
            if encoding := self.encodings.get(str(value.name)):
                graph.outputs[index] = _close(graph, value, encoding)
                modified = True
        return ir.passes.PassResult(model, modified)


def _open(graph: ir.Graph, past: ir.Value, encoding: Encoding) -> None:
    readers = list(past.uses())
    node = ir.node("DequantizeLinear", [past, *_constants(graph, past, encoding)])
    node.outputs[0].name = f"{past.name}.real"
    for reader, index in readers:
        reader.replace_input_with(index, node.outputs[0])
    graph.insert_before(graph[0], node)
    past.dtype = ir.DataType.UINT8


def _close(graph: ir.Graph, new: ir.Value, encoding: Encoding) -> ir.Value:
    producer, readers, name = new.producer(), list(new.uses()), new.name
    assert producer is not None
    constants = _constants(graph, new, encoding)
    new.name = f"{name}.computed"
    rounded = ir.node("QuantizeLinear", [new, *constants])
    real = ir.node("DequantizeLinear", [rounded.outputs[0], *constants])
    graph.insert_after(producer, [rounded, real])
    real.outputs[0].name = f"{name}.real"
    real.outputs[0].shape = new.shape
    for reader, index in readers:
        reader.replace_input_with(index, real.outputs[0])
    present = rounded.outputs[0]
    present.name, present.shape = name, new.shape
    present.type = ir.TensorType(ir.DataType.UINT8)
    return present


def _constants(graph: ir.Graph, value: ir.Value, encoding: Encoding) -> list[ir.Value]:
    arrays = {
        "scale": np.array(encoding.scale, np.float32),
        "zero_point": np.array(encoding.zero_point, np.uint8),
    }
    return [add_initializer(graph, f"{value.name}.{what}", a) for what, a in arrays.items()]
