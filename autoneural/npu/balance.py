"""Biases that take back most of what a chip's rounding adds to every channel of a layer.

    Conv, Gemm   x, w, b  ->  x, w, b'
    MatMul       x, w     ->  Reshape, Gemm with the bias b', Reshape

b' comes from the closed form (`target/htp_offset.py`). For one generation of chips, in place,
before it compiles: on that chip the graph comes closer to what the one that went in computes on a
CPU. There it does not: keep the one that went in as the reference. Needs no wheel. No command uses
it yet; `tests/npu/test_balance.py` holds it against the emulator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from autoneural.npu.simulate import EngineNode, engine_nodes
from autoneural.target.htp import MatrixEngine, matrix_engine, requantization
from autoneural.target.htp_offset import balancing_bias, mean_offset

_BIAS = 2


def balance(model: ir.Model, htp: int) -> int:
    """Change the biases of `model` for an HTP generation; returns of how many operators.

    Once: what a bias was before cannot be told afterwards.
    """
    changed = 0
    for item in engine_nodes(model.graph):
        if item.weight is None:
            continue
        bias = _balanced_bias(item, item.weight, matrix_engine(htp))
        if (bias != _bias(item)).any():
            _Rebuild(model.graph, item).with_bias(bias)
            changed += 1
    RemoveUnusedNodesPass()(model)
    return changed


def _balanced_bias(item: EngineNode, weight: ir.Node, engine: MatrixEngine) -> NDArray[np.int64]:
    integers = _array(weight.inputs[0]).astype(np.int64)
    channels = 1 if item.node.op_type == "MatMul" else 0
    total = integers.sum(tuple(i for i in range(integers.ndim) if i != channels))
    x, y, scale = item.x_encoding, item.y_encoding, _scale(item)
    plan = requantization(engine, x=x, weight_scale=scale, weight_sum=total, y=y)
    exact = _bias(item) * (scale.astype(np.float64) * x.scale / y.scale) + y.zero_point
    return balancing_bias(engine, plan, mean_offset(plan, x.zero_point * total, exact))


def _scale(item: EngineNode) -> NDArray[np.float32]:
    """Weight scales, one per output channel."""
    assert item.weight is not None
    integers, scale = (_array(value) for value in item.weight.inputs[:2])
    channels = integers.shape[1 if item.node.op_type == "MatMul" else 0]
    return np.broadcast_to(scale, (channels,)).astype(np.float32)


def _bias(item: EngineNode) -> NDArray[np.int64]:
    value = item.node.inputs[_BIAS] if len(item.node.inputs) > _BIAS else None
    if value is None:
        return np.zeros(len(_scale(item)), np.int64)
    dequantize = value.producer()
    assert dequantize is not None
    return _array(dequantize.inputs[0]).astype(np.int64)


class _Rebuild:
    """Gives one operator a bias; names of new values derive from its output's."""

    def __init__(self, graph: ir.Graph, item: EngineNode) -> None:
        self.graph, self.item = graph, item
        self.stem = f"{item.quantize.outputs[0].name}.balanced"
        self.nodes: list[ir.Node] = []

    def with_bias(self, integers: NDArray[np.int64]) -> None:
        node = self.item.node
        old, bias = node.outputs[0], self._dequantized(integers)
        inputs = [*node.inputs[:_BIAS], bias]
        if node.op_type == "MatMul":
            y = self._gemm(bias, _shape(old))
        else:
            y = self._op(node.op_type, inputs, _shape(old), attributes=node.attributes)
        self.graph.insert_before(node, self.nodes)
        old.replace_all_uses_with(y)
        self.graph.remove(node, safe=True)

    def _dequantized(self, integers: NDArray[np.int64]) -> ir.Value:
        scale = np.float32(self.item.x_encoding.scale) * _scale(self.item)
        arrays = (integers.astype(np.int32), scale, np.zeros(len(integers), np.int32))
        constants = [self._constant(array) for array in arrays]
        return self._op("DequantizeLinear", constants, integers.shape, attributes={"axis": 0})

    def _gemm(self, bias: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        """The engine takes a bias with matrices only, so the tokens become the rows of one."""
        x = self.item.node.inputs[0]
        assert x is not None
        rows, columns = int(np.prod(shape[:-1])), _shape(x)[-1]
        x_dequantize = x.producer()
        assert x_dequantize is not None
        x = self._rounded(self._reshaped(x, (rows, columns)), x_dequantize)
        inputs = [x, self._transposed_weight(), bias]
        y = self._op("Gemm", inputs, (rows, shape[-1]), attributes={"transB": 1})
        return self._reshaped(self._rounded(y, self.item.quantize), shape)

    def _transposed_weight(self) -> ir.Value:
        """[N, K], as linears with a bias come from the exporter."""
        assert self.item.weight is not None
        integers, scale, zero = (_array(value) for value in self.item.weight.inputs[:3])
        integers = np.ascontiguousarray(integers.T)
        constants = [self._constant(array) for array in (integers, scale, zero)]
        attributes = {"axis": 0} if scale.ndim else {}
        return self._op("DequantizeLinear", constants, integers.shape, attributes=attributes)

    def _rounded(self, x: ir.Value, like: ir.Node) -> ir.Value:
        """A pair with the encoding of `like`, which the compiler wants around every operator."""
        parameters = like.inputs[1:3]
        integers = self._op("QuantizeLinear", [x, *parameters], _shape(x))
        zero_point = parameters[1]
        assert zero_point is not None
        integers.type = zero_point.type
        return self._op("DequantizeLinear", [integers, *parameters], _shape(x))

    def _reshaped(self, x: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        return self._op("Reshape", [x, self._constant(np.array(shape, np.int64))], shape)

    def _op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: tuple[int, ...],
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        name = f"{self.stem}.{len(self.nodes)}"
        node = ir.node(op_type, inputs, {**(attributes or {})}, name=name)
        node.metadata_props.update(self.item.node.metadata_props)
        value = node.outputs[0]
        value.name, value.shape = name, ir.Shape(shape)
        value.type = ir.TensorType(ir.DataType.FLOAT)
        self.nodes.append(node)
        return value

    def _constant(self, array: NDArray[Any]) -> ir.Value:
        tensor = ir.tensor(array)
        value = ir.Value(
            name=f"{self.stem}.constant.{len(self.graph.initializers)}",
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value


def _shape(value: ir.Value) -> tuple[int, ...]:
    assert value.shape is not None
    return tuple(int(size) for size in value.shape.numpy())


def _array(value: ir.Value | None) -> NDArray[Any]:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError("a scale, a zero point or a weight is not a constant")
    return tensor.numpy()
