"""A QDQ graph taken apart again: the float graph, and its encodings in AIMET's format 1.0.0.

    x -> QuantizeLinear -> DequantizeLinear -> reader      x -> reader,  activation encoding of x
    integers -> DequantizeLinear -> reader                 float weight, param encoding of it
    integer graph input and output                         float ones of the same names

This is what Qualcomm's converters read (`--quantization_overrides`) in every SDK, old ones too.
The format counts offsets for unsigned integers whatever the type: offset = -zero_point, and
-(zero_point + 2^(bits-1)) for signed ones, which are the symmetric ones (`is_sym`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from autoneural.errors import UserError

VERSION = "1.0.0"

Store = Callable[[str, NDArray[np.float32]], ir.TensorProtocol]
_BITS = {
    ir.DataType.UINT4: 4,
    ir.DataType.INT4: 4,
    ir.DataType.UINT8: 8,
    ir.DataType.INT8: 8,
    ir.DataType.UINT16: 16,
    ir.DataType.INT16: 16,
    ir.DataType.INT32: 32,
}
_SIGNED = (ir.DataType.INT4, ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32)


@dataclass(frozen=True)
class TensorEncoding:
    """How one float tensor of the graph is written as integers; one scale per channel, or one."""

    dtype: ir.DataType
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    per_channel: bool = False

    def to_aimet(self, name: str) -> dict[str, Any]:
        """One entry of an encodings file."""
        bits, signed = _BITS[self.dtype], self.dtype in _SIGNED
        shift = 1 << (bits - 1) if signed else 0
        return {
            "name": name,
            "dtype": "INT",
            "bw": bits,
            "enc_type": "PER_CHANNEL" if self.per_channel else "PER_TENSOR",
            "is_sym": signed,
            "scale": list(self.scale),
            "offset": [-(zero + shift) for zero in self.zero_point],
        }


@dataclass(frozen=True)
class Encodings:
    """Encodings of a float graph by tensor name."""

    activations: dict[str, TensorEncoding]
    parameters: dict[str, TensorEncoding]

    def to_aimet(self) -> dict[str, Any]:
        """The content of a `.encodings` file."""
        weights = [e for e in self.parameters.values() if _BITS[e.dtype] <= 8]
        return {
            "version": VERSION,
            "activation_encodings": [e.to_aimet(name) for name, e in self.activations.items()],
            "param_encodings": [e.to_aimet(name) for name, e in self.parameters.items()],
            "excluded_layers": [],
            "quantizer_args": {
                "activation_bitwidth": max(_BITS[e.dtype] for e in self.activations.values()),
                "dtype": "int",
                "is_symmetric": True,
                "param_bitwidth": max((_BITS[e.dtype] for e in weights), default=8),
                "per_channel_quantization": any(e.per_channel for e in weights),
                "quant_scheme": "post_training_tf",
            },
        }


def split_qdq(model: ir.Model, store: Store) -> Encodings:
    """Turn a QDQ graph into its float graph, in place, and return the encodings it had.

    `store` takes each float weight as it comes, so that they are never all in memory. Raises
    UserError where a float tensor has no encoding: the pair would not be the QDQ graph any more.
    """
    graph = model.graph
    encodings = Encodings({}, {})
    for node in list(graph):
        if node.op_type == "DequantizeLinear":
            source = _value(node, 0)
            if source.is_initializer():
                _float_parameter(graph, node, encodings, store)
            elif source.is_graph_input():
                _float_input(node, encodings)
        elif node.op_type == "QuantizeLinear":
            _drop_pair(graph, node, encodings)
    RemoveUnusedNodesPass()(model)
    _require_all(graph, encodings)
    return encodings


def _float_parameter(graph: ir.Graph, node: ir.Node, encodings: Encodings, store: Store) -> None:
    encoding = _encoding(node)
    integers, real = _constant(_value(node, 0)), node.outputs[0]
    name = str(real.name).removesuffix(".real")
    if name in graph.initializers:
        name = str(real.name)
    tensor = store(name, _dequantize(integers, encoding, _axis(node)))
    weight = ir.val(name, const_value=tensor)
    graph.register_initializer(weight)
    real.replace_all_uses_with(weight)
    encodings.parameters[name] = encoding


def _float_input(node: ir.Node, encodings: Encodings) -> None:
    source = _value(node, 0)
    node.outputs[0].replace_all_uses_with(source)
    source.type = ir.TensorType(ir.DataType.FLOAT)
    _record(encodings, str(source.name), _encoding(node))


def _drop_pair(graph: ir.Graph, quantize: ir.Node, encodings: Encodings) -> None:
    """Readers behind the pair read the float value; a graph output gives it its name."""
    value, integers, encoding = _value(quantize, 0), quantize.outputs[0], _encoding(quantize)
    if encodings.activations.get(str(value.name), encoding) != encoding:
        value = _requantized(graph, quantize, value)
    for reader, _ in list(integers.uses()):
        if reader.op_type != "DequantizeLinear" or _encoding(reader) != encoding:
            raise UserError(f"{graph.name}: {integers.name} is not dequantised as it was quantised")
        reader.outputs[0].replace_all_uses_with(value)
    if integers.is_graph_output():
        value.name, integers.name = integers.name, f"{integers.name}.int"
        for index, output in enumerate(graph.outputs):
            if output is integers:
                graph.outputs[index] = value
    value.type = ir.TensorType(ir.DataType.FLOAT)
    _record(encodings, str(value.name), encoding)


def _requantized(graph: ir.Graph, quantize: ir.Node, value: ir.Value) -> ir.Value:
    """A name for a value in a second encoding: the format has one encoding per name."""
    name = f"{str(quantize.outputs[0].name).removesuffix('.int')}.requantized"
    identity = ir.node("Identity", [value], name=name)
    made = identity.outputs[0]
    made.name, made.shape = name, value.shape
    graph.insert_before(quantize, identity)
    return made


def _record(encodings: Encodings, name: str, encoding: TensorEncoding) -> None:
    encodings.activations[name] = encoding


def _value(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _constant(value: ir.Value) -> NDArray[Any]:
    if value.const_value is None:
        raise UserError(f"{value.name}: a scale or zero point is computed, not constant")
    return value.const_value.numpy()


def _axis(node: ir.Node) -> int:
    return node.attributes["axis"].as_int() if "axis" in node.attributes else 1


def _encoding(node: ir.Node) -> TensorEncoding:
    scale = _constant(_value(node, 1))
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    dtype = zero.dtype if zero is not None else None
    if zero is None or dtype is None or dtype not in _BITS:
        raise UserError(f"{node.name}: {node.op_type} without a zero point of a known type")
    zeros = _constant(zero).astype(np.int64)
    return TensorEncoding(
        dtype=dtype,
        scale=tuple(float(s) for s in np.atleast_1d(scale)),
        zero_point=tuple(int(z) for z in np.atleast_1d(zeros)),
        per_channel=scale.ndim > 0,
    )


def _dequantize(integers: NDArray[Any], encoding: TensorEncoding, axis: int) -> NDArray[np.float32]:
    shape = [1] * integers.ndim
    if encoding.per_channel:
        shape[axis] = -1
    if any(encoding.zero_point):
        zero = np.array(encoding.zero_point, np.int32).reshape(shape)
        integers = integers.astype(np.int32) - zero
    real = integers.astype(np.float32)
    real *= np.array(encoding.scale, np.float32).reshape(shape)
    return real


def _require_all(graph: ir.Graph, encodings: Encodings) -> None:
    for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
        # No type at all counts as float: nobody can tell.
        if value.dtype in (None, ir.DataType.FLOAT) and value.name not in encodings.activations:
            raise UserError(f"{graph.name}: {value.name} is float and has no encoding")
    for name, value in graph.initializers.items():
        if value.dtype == ir.DataType.FLOAT and name not in encodings.parameters:
            raise UserError(f"{graph.name}: the constant {name} is float and has no encoding")
