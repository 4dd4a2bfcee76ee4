"""A linear layer in 8-bit integers, every row ranged by itself (for CPUs)

    MatMul(x, w [K, N])    s[r] = max |x[r, :]| / 127,   q = round(x / s) + 128     a byte each
    Gemm(x, w [N, K], b)   y[r, n] = s[r] * scale[n] * sum_k (q[r, k] - 128) * w[k, n] + b[n]
    Conv 1x1(x, w, b)      the same, a row per pixel: [1, C, H, W] is turned to [1, H, W, C]

A row is a token or a pixel: its range is its own, whatever stands beside it. The kernel is made for
many rows; for one or a few MatMulNBits is quicker, and finer, since it ranges blocks of a row
(runs/integer_linears.py). The integers are the checkpoint's, one in a byte; `target/rows.py` tells
what becomes of the constants 127 and 128 on processors without VNNI.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from autoneural.compress.quantize import IntegerWeight
from autoneural.export.passes.initializers import add_initializer
from autoneural.export.passes.integer_weights import find_weight, weight_name
from autoneural.target import rows

_DOMAIN = "com.microsoft"
_PIXELS_AS_ROWS, _ROWS_AS_PICTURE = [0, 2, 3, 1], [0, 3, 1, 2]


@dataclass
class _Made:
    """What the layers of a graph share: pictures turned, and rows in bytes by weights' bits."""

    turned: dict[ir.Value, ir.Value] = field(default_factory=dict)
    ranged: dict[tuple[ir.Value, int], tuple[ir.Value, ir.Value]] = field(default_factory=dict)


class QuantizeRows(ir.passes.InPlacePass):
    """Every MatMul, Gemm and 1x1 Conv whose second input has frozen integers of 8 bits or fewer."""

    def __init__(self, weights: Mapping[str, IntegerWeight]) -> None:
        self.weights = weights

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph, made = model.graph, _Made()
        found = [node for node in graph if _is_linear(node) and self._rewrite(graph, node, made)]
        if found:
            graph.opset_imports[_DOMAIN] = 1
        return ir.passes.PassResult(model, bool(found))

    def _rewrite(self, graph: ir.Graph, node: ir.Node, made: _Made) -> bool:
        (x, weight), name = node.inputs[:2], weight_name(node)
        assert x is not None
        assert weight is not None
        frozen = find_weight(self.weights, node, weight)
        if frozen is None or frozen.bits > 8:
            return False
        bits = 8 if frozen.bits > 4 else 4
        q, s = _rows(graph, node, x, bits, made)
        columns = np.ascontiguousarray(frozen.values.reshape(len(frozen.values), -1).T)
        scale = np.broadcast_to(frozen.scale.astype(np.float32).reshape(-1), columns.shape[1:])
        inputs = [
            q,
            add_initializer(graph, f"{name}.columns", columns),
            _constant(graph, rows.ONE, bits),
            add_initializer(graph, f"{name}.scale", scale.copy()),
            _constant(graph, rows.middle(bits), bits),
        ]
        new = [ir.node("MatMulIntegerToFloat", inputs, domain=_DOMAIN, name=f"{name}.integer")]
        new.append(ir.node("Mul", [new[-1].outputs[0], s], name=f"{name}.real"))
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            new.append(ir.node("Add", [new[-1].outputs[0], node.inputs[2]], name=f"{name}.biased"))
        if node.op_type == "Conv":
            turn = {"perm": _ROWS_AS_PICTURE}
            new.append(ir.node("Transpose", [new[-1].outputs[0]], turn, name=f"{name}.picture"))
        for one in new:
            one.metadata_props.update(node.metadata_props)
        ir.convenience.replace_nodes_and_values(
            graph, node, [node], new, [node.outputs[0]], [new[-1].outputs[0]]
        )
        if not weight.uses():
            graph.initializers.pop(str(weight.name))
        return True


def _is_linear(node: ir.Node) -> bool:
    if node.op_type not in ("MatMul", "Gemm", "Conv"):
        return False
    weight = node.inputs[1]
    if weight is None or not weight.is_initializer():
        return False
    if node.op_type != "Conv":
        return True
    shape = weight.shape
    plain = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1]}
    ones = all(list(_ints(node, name) or wanted) == wanted for name, wanted in plain.items())
    group = node.attributes.get("group")
    whole = group is None or group.as_int() == 1
    return ones and whole and shape is not None and list(shape[2:]) == [1, 1]


def _ints(node: ir.Node, name: str) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return () if attribute is None else tuple(attribute.as_ints())


def _rows(
    graph: ir.Graph, node: ir.Node, x: ir.Value, bits: int, made: _Made
) -> tuple[ir.Value, ir.Value]:
    """What `node` reads, in bytes, and what one is worth: once for all that read it."""
    if node.op_type == "Conv":
        if x not in made.turned:
            made.turned[x] = _insert(
                graph, node, "Transpose", f"{x.name}.pixels", [x], perm=_PIXELS_AS_ROWS
            )
        x = made.turned[x]
    if (x, bits) not in made.ranged:
        made.ranged[x, bits] = _bytes(graph, node, x, bits)
    return made.ranged[x, bits]


def _bytes(graph: ir.Graph, before: ir.Node, x: ir.Value, bits: int) -> tuple[ir.Value, ir.Value]:
    def step(op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        name = f"{x.name}.rows{bits}.{op_type.lower()}"
        return _insert(graph, before, op_type, name, list(inputs), **attributes)

    def constant(name: str) -> ir.Value:
        return _constant(graph, name, bits)

    most = step("ReduceMax", step("Abs", x), constant(rows.LAST_AXIS), keepdims=1)
    worth = step("Max", step("Mul", most, constant(rows.share(bits))), constant(rows.LEAST))
    counted = step("Div", x, worth)
    q = step("QuantizeLinear", counted, constant(rows.ONE), constant(rows.middle(bits)))
    return q, worth


def _insert(
    graph: ir.Graph,
    before: ir.Node,
    op_type: str,
    name: str,
    inputs: list[ir.Value],
    **attributes: int | list[int],
) -> ir.Value:
    node = ir.node(op_type, inputs, attributes, name=name)
    graph.insert_before(before, node)
    return node.outputs[0]


def _constant(graph: ir.Graph, name: str, bits: int) -> ir.Value:
    """One for the whole graph."""
    value = graph.initializers.get(name)
    return value or add_initializer(graph, name, rows.constants(bits)[name])
