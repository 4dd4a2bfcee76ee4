"""One node of a graph, replaced by several."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir


def replace_node(graph: ir.Graph, node: ir.Node, new: Sequence[ir.Node]) -> None:
    """`new` in the place of `node`, of its module; the last one makes what it made."""
    for made in new:
        made.metadata_props.update(node.metadata_props)
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], new, [node.outputs[0]], [new[-1].outputs[0]]
    )
