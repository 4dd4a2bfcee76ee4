"""A decoder of one token: what is quick for few rows, where kernels are made for many (for CPUs)

    convolution   of one window [1, C, K] by [C, 1, K]    sum over K of window * weights
    scores        q [n, d] by the turned past [d, C]      (past by the turned q [d, n]), turned

ONNX Runtime convolves C channels one after another, however short they are. And its products copy
their second input into panels, which for few rows of the first takes longer than the product: the
other way round the past is read where it is. Run after `AttendInPlace`.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from autoneural.export.passes.initializers import add_initializer
from autoneural.export.passes.replacing import replace_node

_TURNED = [0, 1, 3, 2]
_FEW = 16  # numbers of a register: a product with fewer columns leaves the rest of it idle


class FewRows(ir.passes.InPlacePass):
    """Every depthwise convolution of one window; every product of few rows and a turned past."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        found = [_sum(graph, node) or _past_first(graph, node) for node in list(graph)]
        return ir.passes.PassResult(model, any(found))


def _sum(graph: ir.Graph, node: ir.Node) -> bool:
    if node.op_type != "Conv" or len(node.inputs) != 2:
        return False
    window, weights = node.inputs
    if window is None or weights is None or _shape(window)[1:] != _shape(weights)[::2]:
        return False  # more windows than one
    if _shape(weights)[1] != 1:
        return False
    name = str(node.outputs[0].name)
    axes = [add_initializer(graph, f"{name}.axis{n}", np.array([n], np.int64)) for n in (1, 2)]
    plain = ir.node("Squeeze", [weights, axes[0]], name=f"{name}.weights")
    terms = ir.node("Mul", [window, plain.outputs[0]], name=f"{name}.terms")
    total = ir.node("ReduceSum", [terms.outputs[0], axes[1]], name=name)
    replace_node(graph, node, [plain, terms, total])
    return True


def _past_first(graph: ir.Graph, node: ir.Node) -> bool:
    q, turned = node.inputs if node.op_type == "MatMul" else (None, None)
    turn = turned.producer() if turned is not None else None
    if q is None or turn is None or turn.op_type != "Transpose":
        return False
    past = turn.inputs[0]
    if past is None or not past.is_graph_input() or len(turn.outputs[0].uses()) != 1:
        return False
    if list(turn.attributes["perm"].as_ints()) != _TURNED or _shape(q)[-2] > _FEW:
        return False
    name = str(node.outputs[0].name)
    column = ir.node("Transpose", [q], {"perm": _TURNED}, name=f"{name}.q")
    scores = ir.node("MatMul", [past, column.outputs[0]], name=f"{name}.column")
    row = ir.node("Transpose", [scores.outputs[0]], {"perm": _TURNED}, name=name)
    replace_node(graph, node, [column, scores, row])
    graph.remove(turn, safe=True)
    return True


def _shape(value: ir.Value) -> tuple[int, ...]:
    if value.shape is None:
        raise ValueError(f"{value.name} of unknown shape; run shape inference first")
    return tuple(value.shape.numpy())
