"""MatMul(q, Concat(past, new)) -> products with `past` and with `new`: no copy of the cache

    scores   q [n, d], keys [C+T, d]      Concat(q past', q new')
    mix      w [n, C+T], values [C+T, d]  w[:, :-T] past + w[:, -T:] new

A Concat of the cache, which is as long as the context, writes it anew in every step, and the
product reads it once more: three times its bytes where one would do. What is joined instead are
the scores, a row per head. No part of it needs to know C. For CPUs; an NPU's compiler places a
concatenation without copying, and its parts would have ranges of their own.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from autoneural.export.passes.initializers import add_initializer
from autoneural.export.passes.replacing import replace_node

_ROWS = 2  # the axis of [1, heads, C+T, d] that is joined
_TURNED = [0, 1, 3, 2]
_END = np.iinfo(np.int64).max


class AttendInPlace(ir.passes.InPlacePass):
    """Every MatMul whose second input is a cache and new rows, as they are or turned."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        joins = [node for node in graph if _joins_a_cache(node)]
        for join in joins:
            for reader, _ in list(join.outputs[0].uses()):
                if reader.op_type == "MatMul":
                    _split_mix(graph, reader, join)
                elif reader.op_type == "Transpose":
                    for product, _ in list(reader.outputs[0].uses()):
                        _split_scores(graph, product, reader, join)
            _drop_unused(graph, join)
        return ir.passes.PassResult(model, bool(joins))


def _joins_a_cache(node: ir.Node) -> bool:
    """Concat(graph input, new rows), read by products as `_split_mix` or `_split_scores` know."""
    if node.op_type != "Concat" or node.attributes["axis"].as_int() != _ROWS:
        return False
    past = node.inputs[0]
    if len(node.inputs) != 2 or past is None or not past.is_graph_input() or _is_kept(node):
        return False
    return all(_is_product(reader, at) or _is_turn(reader) for reader, at in node.outputs[0].uses())


def _is_kept(node: ir.Node) -> bool:
    return node.outputs[0].is_graph_output() or not node.outputs[0].uses()


def _is_product(node: ir.Node, at: int) -> bool:
    return node.op_type == "MatMul" and at == 1


def _is_turn(node: ir.Node) -> bool:
    """Transpose(..., d, C+T), read by products only."""
    if node.op_type != "Transpose" or list(node.attributes["perm"].as_ints()) != _TURNED:
        return False
    return not _is_kept(node) and all(_is_product(*use) for use in node.outputs[0].uses())


def _split_scores(graph: ir.Graph, product: ir.Node, turn: ir.Node, join: ir.Node) -> None:
    q, new, name, turned_name = product.inputs[0], [], _name(product), _name(turn)
    for part, rows in zip(("past", "new"), join.inputs, strict=True):
        turned = ir.node("Transpose", [rows], {"perm": _TURNED}, name=f"{turned_name}.{part}")
        new += [turned, ir.node("MatMul", [q, turned.outputs[0]], name=f"{name}.{part}")]
    parts = [node.outputs[0] for node in new if node.op_type == "MatMul"]
    new.append(ir.node("Concat", parts, {"axis": -1}, name=f"{name}.joined"))
    replace_node(graph, product, new)
    _drop_unused(graph, turn)


def _split_mix(graph: ir.Graph, product: ir.Node, join: ir.Node) -> None:
    name = _name(product)
    border = -_rows(join.inputs[1])
    new: list[ir.Node] = []
    for part, rows, start, end in (
        ("past", join.inputs[0], 0, border),
        ("new", join.inputs[1], border, _END),
    ):
        range_ = [("start", start), ("end", end), ("axis", -1)]
        bounds = [
            add_initializer(graph, f"{name}.{part}.{what}", np.array([n], np.int64))
            for what, n in range_
        ]
        weights = ir.node("Slice", [product.inputs[0], *bounds], name=f"{name}.{part}.weights")
        new += [weights, ir.node("MatMul", [weights.outputs[0], rows], name=f"{name}.{part}")]
    parts = [node.outputs[0] for node in new if node.op_type == "MatMul"]
    new.append(ir.node("Add", parts, name=f"{name}.sum"))
    replace_node(graph, product, new)


def _name(node: ir.Node) -> str:
    """Of what it makes: nodes need no names, values have them."""
    return str(node.outputs[0].name)


def _rows(value: ir.Value | None) -> int:
    if value is None or value.shape is None:
        raise ValueError("new rows of unknown shape; run shape inference first")
    return int(value.shape.numpy()[_ROWS])


def _drop_unused(graph: ir.Graph, node: ir.Node) -> None:
    if not node.outputs[0].uses():
        graph.remove(node, safe=True)
