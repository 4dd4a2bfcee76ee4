"""x -> DequantizeLinear(QuantizeLinear(x)) for every float value, and integers at both ends.

    graph input  x (float)   ->  x (uint16) -> DQ -> readers
    inner value  v           ->  v -> Q -> DQ -> readers
    graph output y (float)   ->  y.float -> Q -> y (uint16), and Q -> DQ for readers inside
    written in another one   ->  v -> Q' -> DQ' -> Q -> DQ -> readers  (a Convert to QNN's provider)

With the outer pair cut away the host hands over and takes back integers: nothing is requantised
between two graphs or two steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from autoneural.export.passes.initializers import add_initializer
from autoneural.target.numerics import Encoding

_DTYPE = {8: np.uint8, 16: np.uint16}
_ONNX_DTYPE = {8: ir.DataType.UINT8, 16: ir.DataType.UINT16}


class InsertQDQ(ir.passes.InPlacePass):
    """`encodings` maps the name of every float graph input and node output to its encoding.

    `written` holds the encoding that the producer writes, for values that are read in another.
    """

    def __init__(
        self, encodings: Mapping[str, Encoding], written: Mapping[str, Encoding] | None = None
    ) -> None:
        self.encodings = encodings
        self.written = written or {}
        self._parameters: dict[Encoding, tuple[ir.Value, ir.Value]] = {}

    def requires(self, model: ir.Model) -> None:
        missing = [v.name for v in float_values(model.graph) if v.name not in self.encodings]
        if missing:
            raise ir.passes.PreconditionError(f"no encoding for {', '.join(map(str, missing))}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        self._parameters = {}
        for value in list(float_values(graph)):
            assert value.name is not None
            encoding = self.encodings[value.name]
            if value.producer() is None:
                self._integer_input(graph, value, encoding)
            else:
                self._inner(graph, value, encoding)
        return ir.passes.PassResult(model, True)

    def ensures(self, model: ir.Model) -> None:
        ends = (*model.graph.inputs, *model.graph.outputs)
        if any(value.dtype == ir.DataType.FLOAT for value in ends):
            raise ir.passes.PostconditionError("a graph input or output is still float")

    def _integer_input(self, graph: ir.Graph, value: ir.Value, encoding: Encoding) -> None:
        dequantize = self._node(graph, "DequantizeLinear", value, encoding, f"{value.name}.real")
        real = dequantize.outputs[0]
        value.replace_all_uses_with(real)
        dequantize.replace_input_with(0, value)
        value.type = ir.TensorType(_ONNX_DTYPE[encoding.bits])
        first = next(iter(graph), None)
        if first is None:
            graph.append(dequantize)
        else:
            graph.insert_before(first, dequantize)

    def _inner(self, graph: ir.Graph, value: ir.Value, encoding: Encoding) -> None:
        producer, name = value.producer(), value.name
        assert producer is not None
        assert name is not None
        readers = list(value.uses())
        outputs = [i for i, output in enumerate(graph.outputs) if output is value]
        if outputs:
            value.name = f"{name}.float"
        new = self._as_written(graph, value, name)
        source = new[-1].outputs[0] if new else value
        quantized = name if outputs else f"{name}.int"
        quantize = self._node(graph, "QuantizeLinear", source, encoding, quantized)
        new.append(quantize)
        if readers:
            dequantize = self._node(
                graph, "DequantizeLinear", quantize.outputs[0], encoding, f"{name}.real"
            )
            new.append(dequantize)
            for reader, index in readers:
                reader.replace_input_with(index, dequantize.outputs[0])
        graph.insert_after(producer, new)
        for index in outputs:
            graph.outputs[index] = quantize.outputs[0]

    def _as_written(self, graph: ir.Graph, value: ir.Value, name: str) -> list[ir.Node]:
        """The pair that rounds a value as its producer writes it, if that is another encoding."""
        if name not in self.written:
            return []
        encoding, stem = self.written[name], f"{name}.written"
        quantize = self._node(graph, "QuantizeLinear", value, encoding, f"{stem}.int")
        made = quantize.outputs[0]
        return [quantize, self._node(graph, "DequantizeLinear", made, encoding, f"{stem}.real")]

    def _node(
        self, graph: ir.Graph, op_type: str, value: ir.Value, encoding: Encoding, output: str
    ) -> ir.Node:
        scale, zero_point = self._parameter(graph, encoding)
        node = ir.node(op_type, [value, scale, zero_point], name=f"{output}.{op_type}")
        made = node.outputs[0]
        made.name, made.shape = output, value.shape
        quantizing = op_type == "QuantizeLinear"
        made.type = ir.TensorType(_ONNX_DTYPE[encoding.bits] if quantizing else ir.DataType.FLOAT)
        return node

    def _parameter(self, graph: ir.Graph, encoding: Encoding) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point, one pair of initialisers per distinct encoding."""
        if encoding not in self._parameters:
            stem = f"encoding.{len(self._parameters)}"
            zero_point = np.array(encoding.zero_point, _DTYPE[encoding.bits])
            self._parameters[encoding] = (
                add_initializer(graph, f"{stem}.scale", np.array(encoding.scale, np.float32)),
                add_initializer(graph, f"{stem}.zero_point", zero_point),
            )
        return self._parameters[encoding]


def float_values(graph: ir.Graph) -> list[ir.Value]:
    """Float graph inputs and node outputs, except dequantised weights, in graph order."""
    values = [value for value in graph.inputs if value.dtype == ir.DataType.FLOAT]
    for node in graph:
        if node.op_type != "DequantizeLinear":
            values += [v for v in node.outputs if v.dtype == ir.DataType.FLOAT]
    return values
