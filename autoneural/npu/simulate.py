"""A QDQ graph -> a graph that computes on any CPU what the HTP computes, integer for integer.

    x.int -> DQ -> MatMul, Gemm, Conv -> Q -> y.int
    x.int -> the two bytes of x, the same operator on each, floor, scale, round, clip -> y.int

Only operators of the matrix engine are rewritten (`target/htp.py` says what it does); all others
already compute what the chip computes, to a few steps of their grid. Products of bytes and weights
are summed in fp32, which is exact below 2**24. Needs no wheel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from autoneural.target.htp import (
    MatrixEngine,
    matrix_engine,
    narrow,
    requantization,
)
from autoneural.target.htp_product import INVERSE_BITS, STRETCH_BITS, narrowing_offset
from autoneural.target.numerics import Encoding

# floor(sum(x * w) / 256), what is added to it, what that is multiplied by, what is added then
_Plan = tuple[ir.Value, ir.Value, ir.Value, float]
_ENGINE_OPS = ("MatMul", "Gemm", "Conv")
_OUTPUT_TYPES = {8: ir.DataType.UINT8, 16: ir.DataType.UINT16}


@dataclass(frozen=True, kw_only=True)
class EngineNode:
    """An operator of the matrix engine between its DequantizeLinear and QuantizeLinear nodes.

    `weight` is the DequantizeLinear of a constant, or None for a product of two activations.
    """

    node: ir.Node
    quantize: ir.Node
    x: ir.Value
    second: ir.Value
    weight: ir.Node | None
    x_encoding: Encoding
    y_encoding: Encoding

    @property
    def layer(self) -> str:
        """Path of the module, or the node's name."""
        return self.node.metadata_props.get("module") or self.node.name or ""


def engine_nodes(graph: ir.Graph) -> list[EngineNode]:
    """Every operator of the graph that runs on the matrix engine, in graph order."""
    found = []
    for quantize in graph:
        node = _producer(quantize.inputs[0]) if quantize.op_type == "QuantizeLinear" else None
        if node is None or node.op_type not in _ENGINE_OPS or _is_strided_depthwise(node):
            continue
        dequantized = [_producer(value) for value in node.inputs[:2]]
        if any(p is None or p.op_type != "DequantizeLinear" for p in dequantized):
            continue
        first, second = (p for p in dequantized if p is not None)
        x, other = first.inputs[0], second.inputs[0]
        x_encoding = encoding_of(first)
        if x is None or other is None or x_encoding.bits != 16:
            continue
        found.append(
            EngineNode(
                node=node,
                quantize=quantize,
                x=x,
                second=other,
                weight=second if other.const_value is not None else None,
                x_encoding=x_encoding,
                y_encoding=encoding_of(quantize),
            )
        )
    return found


def simulate(model: ir.Model, htp: int) -> int:
    """Rewrite `model` in place for an HTP generation; returns how many operators changed."""
    engine = matrix_engine(htp)
    nodes = engine_nodes(model.graph)
    for item in nodes:
        _Rewrite(model.graph, item, engine).apply()
    RemoveUnusedNodesPass()(model)
    return len(nodes)


def encoding_of(node: ir.Node) -> Encoding:
    """The (per-tensor) encoding of a QuantizeLinear or DequantizeLinear node."""
    scale, zero = (_constant(value) for value in node.inputs[1:3])
    return Encoding(
        bits=8 * zero.dtype.itemsize, scale=float(scale), zero_point=int(zero.reshape(()))
    )


class _Rewrite:
    """Builds the replacement of one operator; names derive from its output's."""

    def __init__(self, graph: ir.Graph, item: EngineNode, engine: MatrixEngine) -> None:
        self.graph, self.item, self.engine = graph, item, engine
        self.name = f"{item.quantize.outputs[0].name}.htp"
        self.nodes: list[ir.Node] = []

    def apply(self) -> None:
        item = self.item
        if item.weight is not None:
            t, shift, gain, offset = self._constant_weight(item.weight)
        else:
            t, shift, gain, offset = self._two_activations()
        y = self._op("Mul", self._op("Add", t, shift), gain)
        y = self._op("Add", y, self._constant(offset)) if offset else y
        top = float(2**item.y_encoding.bits - 1)
        y = self._op("Clip", self._op("Round", y), self._constant(0.0), self._constant(top))
        self._finish(y)

    def _constant_weight(self, dequantize: ir.Node) -> _Plan:
        item, node = self.item, self.item.node
        integers = _constant(dequantize.inputs[0]).astype(np.int64)
        axis = _integer(dequantize, "axis", 1) if _constant(dequantize.inputs[1]).ndim else 0
        channels = -1 if node.op_type == "MatMul" else 0
        other = tuple(i for i in range(integers.ndim) if i != channels % integers.ndim)
        scale = _constant(dequantize.inputs[1]).astype(np.float64)
        plan = requantization(
            self.engine,
            x=item.x_encoding,
            weight_scale=np.broadcast_to(scale, (integers.shape[channels],)),
            weight_sum=integers.sum(other),
            y=item.y_encoding,
            bias=self._bias(),
        )
        weight = self._integers_as_real(dequantize, scale.shape, axis)
        x, attributes = self._raw_x()
        rank = integers.ndim if node.op_type == "Conv" else 0
        shape = (1, -1, *[1] * (rank - 2)) if rank else (-1,)
        t = self._two_bytes(x, lambda v: self._op(node.op_type, v, weight, attributes=attributes))
        shift, gain = (self._constant(np.reshape(a, shape)) for a in (plan.shift, plan.gain))
        return t, shift, gain, plan.offset

    def _two_activations(self) -> _Plan:
        """The second operand in 8 bits; its sums, and so the shift, depend on the data."""
        item = self.item
        wide = encoding_of(_required(item.node.inputs[1]))
        eight = narrow(wide)
        y = self._op("Sub", self._eight_bits(wide, eight), self._constant(float(eight.zero_point)))
        steps = self._column_steps(y)
        inverse = self._significand(self._op("Div", self._constant(1.0), steps), INVERSE_BITS)
        half_up = self._op("Add", self._op("Mul", y, inverse), self._constant(0.5))
        y = self._op(
            "Clip", self._op("Floor", half_up), self._constant(-128.0), self._constant(127.0)
        )
        x, _ = self._raw_x()
        t = self._two_bytes(x, lambda v: self._op("MatMul", v, y))
        total = self._op("ReduceSum", y, self._constant(np.array([-2]), np.int64))
        centre = self._op("Mul", total, self._constant(item.x_encoding.zero_point / 256))
        centre = self._op("Floor", self._op("Add", centre, self._constant(0.5)))
        shift = self._op("Neg", centre)
        zero = item.y_encoding.zero_point
        # Per column and known only now: the rest of `requantization`, in the graph.
        m = item.x_encoding.scale * eight.scale / item.y_encoding.scale
        m_column = self._op("Mul", steps, self._constant(m))
        offset = float(zero)
        if self.engine.multiplier_bits is not None:
            inside = self._op("Round", self._op("Div", self._constant(float(zero)), m_column))
            inside = self._op("Floor", self._op("Div", inside, self._constant(256.0)))
            shift = self._op("Add", shift, inside)
            m_column = self._significand(m_column, self.engine.multiplier_bits)
            offset = 0.0
        return t, shift, self._op("Mul", m_column, self._constant(256.0)), offset

    def _eight_bits(self, wide: Encoding, eight: Encoding) -> ir.Value:
        """The second operand in 8 bits, as real numbers; from 16 bits as the compiler's Convert."""
        q = self.item.second
        if wide.bits == 16:
            q = self._op("Cast", q, attributes={"to": ir.DataType.INT64})
            q = self._op("Mul", q, self._constant(255, np.int64))
            q = self._op("Add", q, self._constant(narrowing_offset(wide, eight), np.int64))
            q = self._op("Div", q, self._constant(1 << 16, np.int64))
        q = self._op("Cast", q, attributes={"to": ir.DataType.FLOAT})
        return self._op("Clip", q, self._constant(0.0), self._constant(255.0))

    def _column_steps(self, y: ir.Value) -> ir.Value:
        """Steps [..., 1, N] of the grids on which the columns fit into -128..127."""
        axis = self._constant(np.array([-2]), np.int64)
        high = self._op("Div", self._op("ReduceMax", y, axis), self._constant(127.0))
        low = self._op("Div", self._op("ReduceMin", y, axis), self._constant(-128.0))
        return self._significand(self._op("Max", high, low, self._constant(1.0)), STRETCH_BITS)

    def _significand(self, m: ir.Value, bits: int) -> ir.Value:
        """`target.htp.round_significand`."""
        logarithm = self._op("Div", self._op("Log", m), self._constant(np.log(2.0)))
        exponent = self._op("Sub", self._op("Floor", logarithm), self._constant(bits - 1.0))
        unit = self._op("Pow", self._constant(2.0), exponent)
        return self._op("Mul", self._op("Round", self._op("Div", m, unit)), unit)

    def _two_bytes(self, x: ir.Value, operator: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """floor(op(x) / 256) from the bytes of x, so that every sum stays exact in fp32."""
        byte = self._constant(256.0)
        high = self._op("Floor", self._op("Div", x, byte))
        low = self._op("Sub", x, self._op("Mul", high, byte))
        rest = self._op("Floor", self._op("Div", operator(low), byte))
        return self._op("Add", operator(high), rest)

    def _raw_x(self) -> tuple[ir.Value, dict[str, object]]:
        """x as real numbers, padded with its zero point, and what is left of the attributes."""
        node, zero = self.item.node, float(self.item.x_encoding.zero_point)
        x = self._op("Cast", self.item.x, attributes={"to": ir.DataType.FLOAT})
        kept = {key: node.attributes[key] for key in node.attributes if key != "pads"}
        pads = node.attributes["pads"].as_ints() if "pads" in node.attributes else []
        if any(pads):
            half = len(pads) // 2
            amounts = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]])
            x = self._op("Pad", x, self._constant(amounts, np.int64), self._constant(zero))
        return x, {**kept}

    def _integers_as_real(self, dequantize: ir.Node, shape: tuple[int, ...], axis: int) -> ir.Value:
        ones = self._constant(np.ones(shape))
        integers, zero = dequantize.inputs[0], dequantize.inputs[2]
        attributes = {"axis": axis} if shape else {}
        return self._op("DequantizeLinear", integers, ones, zero, attributes=attributes)

    def _bias(self) -> NDArray[np.float64]:
        inputs = self.item.node.inputs
        producer = _producer(inputs[2]) if len(inputs) > 2 else None
        if producer is None:
            return np.zeros(())
        return _constant(producer.inputs[0]).astype(np.float64)

    def _finish(self, y: ir.Value) -> None:
        old = self.item.quantize.outputs[0]
        bits = self.item.y_encoding.bits
        cast = self._op("Cast", y, attributes={"to": _OUTPUT_TYPES[bits]})
        self.graph.insert_before(self.item.quantize, self.nodes)
        name, cast.shape, cast.type = old.name, old.shape, ir.TensorType(_OUTPUT_TYPES[bits])
        old.replace_all_uses_with(cast, replace_graph_outputs=True)
        self.graph.remove(self.item.quantize, safe=True)
        old.name, cast.name = f"{name}.plain", name

    def _op(
        self, op_type: str, *inputs: ir.Value | None, attributes: dict | None = None
    ) -> ir.Value:
        name = f"{self.name}.{len(self.nodes)}"
        node = ir.node(op_type, list(inputs), attributes or {}, name=name)
        node.outputs[0].name = name
        node.metadata_props["module"] = self.item.layer
        self.nodes.append(node)
        return node.outputs[0]

    def _constant(self, array: object, dtype: type = np.float32) -> ir.Value:
        values = np.asarray(array, dtype)
        tensor = ir.tensor(values)
        name = f"{self.name}.{len(self.nodes)}.{len(self.graph.initializers)}"
        value = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype))
        value.const_value = tensor
        self.graph.register_initializer(value)
        return value


def _is_strided_depthwise(node: ir.Node) -> bool:
    """These run on the vector unit, in plain arithmetic."""
    if node.op_type != "Conv" or _integer(node, "group", 1) == 1:
        return False
    return "strides" in node.attributes and max(node.attributes["strides"].as_ints()) > 1


def _integer(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _required(value: ir.Value | None) -> ir.Node:
    node = _producer(value)
    assert node is not None
    return node


def _constant(value: ir.Value | None) -> NDArray:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError("a scale, a zero point or a weight is not a constant")
    return tensor.numpy()
