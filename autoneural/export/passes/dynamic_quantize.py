"""A linear layer in 8-bit integers, its activations ranged while it runs (for CPUs; no NPU can)

    MatMul(x, w [K, N])          q, s, z = DynamicQuantizeLinear(x)    one s and z for all of x
    Gemm(x, w [N, K], b)         y[., n] = s * scale[n] * MatMulInteger(q, w, z, 128)[., n] + b[n]

    s = (max(x, 0) - min(x, 0)) / 255,   z = round(-min(x, 0) / s),   q = round(x / s) + z

as ONNX defines the two operators. The integers are the checkpoint's, in bytes around 128 (those of
4 bits as well): signed bytes times unsigned ones saturate in 16 bits on x86 processors without
VNNI, unsigned times unsigned do not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from autoneural.compress.quantize import IntegerWeight
from autoneural.export.passes.initializers import add_initializer
from autoneural.export.passes.integer_weights import find_weight, weight_name

_MIDDLE = 128


class DynamicQuantize(ir.passes.InPlacePass):
    """Every MatMul and Gemm whose second input is an initialiser.

    Raises KeyError naming the layer when it has no frozen weight, ValueError when the integers of
    a weight do not fit a byte.
    """

    def __init__(self, weights: Mapping[str, IntegerWeight]) -> None:
        self.weights = weights

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        nodes = [
            node
            for node in model.graph
            if node.op_type in ("MatMul", "Gemm")
            and node.inputs[1] is not None
            and node.inputs[1].is_initializer()
        ]
        ranged: dict[ir.Value, ir.Node] = {}
        for node in nodes:
            self._rewrite(model.graph, node, ranged)
        return ir.passes.PassResult(model, bool(nodes))

    def _rewrite(self, graph: ir.Graph, node: ir.Node, ranged: dict[ir.Value, ir.Node]) -> None:
        (x, weight), name = node.inputs[:2], weight_name(node)
        assert x is not None
        assert weight is not None
        integers, scale = self._constants(graph, node, weight)
        if x not in ranged:  # once for all that read it
            ranged[x] = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{x.name}.range")
            graph.insert_before(node, ranged[x])
        q, s, z = ranged[x].outputs
        middle = add_initializer(graph, f"{name}.middle", np.array(_MIDDLE, np.uint8))
        product = ir.node("MatMulInteger", [q, integers, z, middle], name=f"{name}.integer")
        sums = ir.node("Cast", product.outputs, {"to": ir.DataType.FLOAT}, name=f"{name}.sums")
        step = ir.node("Mul", [s, scale], name=f"{name}.step")
        last = ir.node("Mul", [sums.outputs[0], step.outputs[0]], name=f"{name}.real")
        new = [product, sums, step, last]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            new.append(ir.node("Add", [last.outputs[0], node.inputs[2]], name=f"{name}.bias"))
        for made in new:
            made.metadata_props.update(node.metadata_props)
        ir.convenience.replace_nodes_and_values(
            graph, node, [node], new, [node.outputs[0]], [new[-1].outputs[0]]
        )
        if not weight.uses():
            graph.initializers.pop(str(weight.name))

    def _constants(
        self, graph: ir.Graph, node: ir.Node, weight: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """The integers [K, N] in unsigned bytes, and a scale per output."""
        name, frozen = weight_name(node), find_weight(self.weights, node, weight)
        if frozen is None:
            raise KeyError(f"{name}: no frozen weight ({node.op_type} {node.name})")
        if frozen.bits > 8:
            raise ValueError(f"{name}: its weights have {frozen.bits} bits, not 8 or fewer")
        raised = np.ascontiguousarray(frozen.values.astype(np.int16).T + _MIDDLE).astype(np.uint8)
        scale = np.broadcast_to(frozen.scale.astype(np.float32), raised.shape[1:]).copy()
        return (
            add_initializer(graph, f"{name}.bytes", raised),
            add_initializer(graph, f"{name}.scales", scale),
        )
