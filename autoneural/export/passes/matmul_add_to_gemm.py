"""Add(MatMul(x[..., K], w[K, N]), b[N]) -> Reshape(Gemm(Reshape(x, [-1, K]), w', b, transB=1))

A linear layer with a bias has one output range, so one node must produce it: with the bias inside
the Gemm it is an int32 added to the accumulator, as NPUs compute it, and not an addition with a
rounding of its own. w' = transpose(w) is PyTorch's [N, K], output channels first.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


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
    assert x is not None and weight is not None and weight.const_value is not None
    if x.shape is None or add.outputs[0].shape is None:
        raise ValueError(f"{add.name}: shapes are unknown; run shape inference first")
    columns, rows = weight.const_value.shape[0], weight.const_value.shape[1]
    flat = _reshape(graph, x, [-1, int(columns)], f"{add.name}.rows", matmul)
    turned = _initializer(
        graph, f"{weight.name}.T", np.ascontiguousarray(weight.const_value.numpy().T)
    )
    gemm = ir.node(
        "Gemm", [flat.outputs[0], turned, bias], {"transB": 1}, name=f"{add.name}.gemm"
    )
    gemm.outputs[0].name = f"{add.outputs[0].name}.rows"
    gemm.outputs[0].dtype = x.dtype
    gemm.outputs[0].shape = ir.Shape([_rows(x.shape), int(rows)])
    shape = [int(size) for size in add.outputs[0].shape]
    back = _reshape(graph, gemm.outputs[0], shape, f"{add.name}.shape", matmul)
    for node in (flat, gemm, back):
        node.metadata_props.update(add.metadata_props)
    ir.convenience.replace_nodes_and_values(
        graph, add, [add, matmul], [flat, gemm, back], [add.outputs[0]], [back.outputs[0]]
    )


def _reshape(
    graph: ir.Graph, x: ir.Value, shape: list[int], name: str, like: ir.Node
) -> ir.Node:
    target = _initializer(graph, f"{name}.shape", np.array(shape, np.int64))
    node = ir.node("Reshape", [x, target], name=name)
    node.outputs[0].name = f"{name}.out"
    node.outputs[0].dtype = x.dtype
    assert x.shape is not None
    rows = _rows(x.shape)
    node.outputs[0].shape = ir.Shape([rows if size == -1 else size for size in shape])
    return node


def _rows(shape: ir.Shape) -> int:
    return int(np.prod([int(size) for size in shape][:-1]))


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value
