"""Gelu(Transpose(x)) -> Transpose(Gelu(x)), where nothing else reads what is turned (for CPUs)

A norm over channels leaves its picture turned. With the GELU on the other side of the turn, the
turn meets the next convolution, which ONNX Runtime reads in any order.
"""

from __future__ import annotations

import onnx_ir as ir


class GeluBeforeTranspose(ir.passes.InPlacePass):
    """Every Gelu of a Transpose."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = [node for node in model.graph if node.op_type == "Gelu" and _swap(node)]
        return ir.passes.PassResult(model, bool(found))


def _swap(gelu: ir.Node) -> bool:
    x = gelu.inputs[0]
    turn = x.producer() if x is not None else None
    if x is None or turn is None or turn.op_type != "Transpose":
        return False
    if len(x.uses()) > 1 or x.is_graph_output() or turn.inputs[0] is None:
        return False
    graph, out = gelu.graph, gelu.outputs[0]
    assert isinstance(graph, ir.Graph)
    first = ir.node("Gelu", [turn.inputs[0]], dict(gelu.attributes), name=gelu.name)
    second = ir.node("Transpose", [first.outputs[0]], dict(turn.attributes), name=turn.name)
    first.metadata_props.update(gelu.metadata_props)
    second.metadata_props.update(turn.metadata_props)
    ir.convenience.replace_nodes_and_values(
        graph, gelu, [turn, gelu], [first, second], [x, out], [second.outputs[0], second.outputs[0]]
    )
    return True
