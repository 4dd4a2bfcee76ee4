"""Add(MatMul(x[..., K], w[K, N]), b[N]) -> Reshape(Gemm(Reshape(x, [-1, K]), w', b, transB=1))

A linear layer with a bias has one output range, so one node must produce it: with the bias inside
the Gemm it is an int32 added to the accumulator, as NPUs compute it, and not an addition with a
rounding of its own. w' = transpose(w) is PyTorch's [N, K], output channels first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from autoneural.export.passes.initializers import add_initializer


class MatMulAddToGemm(ir.passes.InPlacePass):
    """Both the weight and the bias must be initialisers, of rank 2 and 1."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        matches = [(add, *found) for add in model.graph if (found := _match(add)) is not None]
        for add, matmul, bias in matches:
            _rewrite(model.graph, add, matmul, bias)
        return ir.passes.PassResult(model, bool(matches))


def _match(add: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """(MatMul, bias) of an Add that only adds a bias to a linear layer."""
    if add.op_type != "Add":
        return None
    for product, bias in (add.inputs, add.inputs[::-1]):
        matmul = product.producer() if product is not None else None
        if matmul is None or matmul.op_type != "MatMul" or bias is None or product is None:
            continue
        if len(product.uses()) != 1 or product.is_graph_output() or not bias.is_initializer():
            continue
        weight = matmul.inputs[1]
        if weight is None or not weight.is_initializer() or weight.const_value is None:
            continue
        if len(weight.const_value.shape) == 2 and bias.shape is not None and len(bias.shape) == 1:
            return matmul, bias
    return None


def _rewrite(graph: ir.Graph, add: ir.Node, matmul: ir.Node, bias: ir.Value) -> None:
    x, weight = matmul.inputs
    assert x is not None
    assert weight is not None
    if x.shape is None or add.outputs[0].shape is None:
        raise ValueError(f"{add.name}: shapes are unknown; run shape inference first")
    turned = _array(weight).T
    out, shape = add.outputs[0].name, add.outputs[0].shape.numpy()
    rows = int(np.prod(shape[:-1]))
    flat = _reshape(graph, x, (rows, turned.shape[1]), f"{out}.rows")
    gemm = ir.node(
        "Gemm",
        [flat.outputs[0], add_initializer(graph, f"{weight.name}.T", turned), bias],
        {"transB": 1},
        name=f"{out}.gemm",
    )
    _describe(gemm, f"{out}.gemm", (rows, turned.shape[0]))
    back = _reshape(graph, gemm.outputs[0], shape, f"{out}.shape")
    for node in (flat, gemm, back):
        node.metadata_props.update(add.metadata_props)
    ir.convenience.replace_nodes_and_values(
        graph, add, [add, matmul], [flat, gemm, back], [add.outputs[0]], [back.outputs[0]]
    )


def _reshape(graph: ir.Graph, x: ir.Value, shape: tuple[int, ...], name: str) -> ir.Node:
    target = add_initializer(graph, f"{name}.dims", np.array(shape, np.int64))
    node = ir.node("Reshape", [x, target], name=name)
    _describe(node, name, shape)
    return node


def _describe(node: ir.Node, name: str, shape: tuple[int, ...]) -> None:
    output = node.outputs[0]
    output.name, output.shape = f"{name}.out", ir.Shape(shape)
    output.type = ir.TensorType(ir.DataType.FLOAT)


def _array(value: ir.Value) -> NDArray[Any]:
    assert value.const_value is not None
    return value.const_value.numpy()
