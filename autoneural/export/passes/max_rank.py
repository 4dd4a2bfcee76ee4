"""No value of more than five dimensions: HTP has no operator for them, on any generation.

A check, nothing is rewritten. A graph of rank 6 (a window partition, say) is to be written with
fewer dimensions in the model; the compiler would only say that some node was refused.
"""

from __future__ import annotations

import onnx_ir as ir

from autoneural.errors import UserError

MAX_RANK = 5


class MaxRank(ir.passes.InPlacePass):
    """Raises UserError naming the first layer that makes a value of higher rank."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for value in model.graph.inputs:
            _check(model.graph, value, f"the input {value.name}")
        for node in model.graph:
            where = node.metadata_props.get("module") or "a node outside every named module"
            for value in node.outputs:
                _check(model.graph, value, f"{where}: {node.op_type} ({node.name})")
        return ir.passes.PassResult(model, False)


def _check(graph: ir.Graph, value: ir.Value, where: str) -> None:
    if value.shape is not None and len(value.shape) > MAX_RANK:
        raise UserError(
            f"{graph.name}: {where} has {len(value.shape)} dimensions, an NPU takes {MAX_RANK} at "
            "most; write it with fewer in the model"
        )
