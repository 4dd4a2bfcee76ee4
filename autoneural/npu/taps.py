"""Look inside a QDQ graph: every integer as an output, every layer on its own, or all in floats.

tapped    the same graph, with every inner integer as a further output (the compiler computes
          the same integers with and without: `verify` checks it)
severed   every layer reads its integers from graph inputs instead of from the layers before
          it, so one run gives what each layer makes of given inputs
floating  the same weights, activations never rounded
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from autoneural.npu.simulate import encoding_of
from autoneural.target.numerics import Encoding

GIVEN = "given."
_MOVES = frozenset(
    ("Reshape", "Transpose", "Slice", "Split", "Expand", "Pad", "Squeeze", "Unsqueeze", "Flatten")
    + ("Identity", "Gather", "DepthToSpace", "SpaceToDepth", "QuantizeLinear", "DequantizeLinear")
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An operator that computes, and the integer tensor it ends in."""

    name: str
    op: str
    tensor: str
    encoding: Encoding
    weight_bits: int | None

    @property
    def precision(self) -> str:
        """`w4a16`; `a16` without weights."""
        weights = "" if self.weight_bits is None else f"w{self.weight_bits}"
        return f"{weights}a{self.encoding.bits}"


def layers_of(graph: ir.Graph) -> list[Layer]:
    """The layers of a QDQ graph in the order in which they run; moves of data are none."""
    layers = []
    for quantize in graph:
        source = quantize.inputs[0] if quantize.op_type == "QuantizeLinear" else None
        node = source.producer() if source is not None else None
        if node is None or node.op_type in _MOVES:
            continue
        layers.append(
            Layer(
                name=node.metadata_props.get("module") or node.name or "",
                op=node.op_type,
                tensor=str(quantize.outputs[0].name),
                encoding=encoding_of(quantize),
                weight_bits=_weight_bits(node),
            )
        )
    return layers


def tapped(path: Path) -> ir.Model:
    """The graph at `path` with every inner integer tensor as an output."""
    model = ir.load(path)
    known = {value.name for value in model.graph.outputs}
    for node in model.graph:
        if node.op_type == "QuantizeLinear" and node.outputs[0].name not in known:
            model.graph.outputs.append(node.outputs[0])
    return model


def severed(path: Path) -> ir.Model:
    """`tapped`, and every layer reads graph inputs called `given.<tensor>`."""
    model = tapped(path)
    graph = model.graph
    given: dict[str, ir.Value] = {}
    for node in list(graph):
        value = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if value is None or value.producer() is None:
            continue
        name = str(value.name)
        if name not in given:
            given[name] = ir.Value(name=GIVEN + name, shape=value.shape, type=value.type)
            graph.inputs.append(given[name])
        node.replace_input_with(0, given[name])
    return model


def floating(path: Path) -> ir.Model:
    """The graph with real numbers at its ends and no rounding between; outputs as in `tapped`.

    Every output keeps the name of the integer tensor it stands for; inputs keep theirs.
    """
    model = ir.load(path)
    graph = model.graph
    outputs = {str(value.name) for value in graph.outputs}
    reals: dict[str, ir.Value] = {}
    for node in list(graph):
        if node.op_type == "QuantizeLinear":
            name, real = str(node.outputs[0].name), node.inputs[0]
            assert real is not None
            reals[name] = real
            node.outputs[0].replace_all_uses_with(real, replace_graph_outputs=True)
        elif node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
            source = node.inputs[0]
            if source.const_value is None:
                node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
    for value in graph.inputs:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    RemoveUnusedNodesPass()(model)
    graph.outputs.clear()
    for name, real in reals.items():
        graph.outputs.append(_named(graph, real, name, name in outputs))
    return model


def _named(graph: ir.Graph, real: ir.Value, name: str, final: bool) -> ir.Value:
    """A value that can be an output: several integer tensors may stand for one real one."""
    node = ir.node("Identity", [real], name=f"{name}.real")
    node.outputs[0].name = name
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), real.shape
    graph.append(node)
    return node.outputs[0]


def _weight_bits(node: ir.Node) -> int | None:
    """Bits of the constant second operand of a linear or a convolution, else None."""
    if node.op_type not in ("MatMul", "Gemm", "Conv"):
        return None
    dequantize = node.inputs[1].producer() if node.inputs[1] is not None else None
    tensor = None if dequantize is None else dequantize.inputs[0]
    if tensor is None or tensor.const_value is None:
        return None
    return (
        4
        if tensor.const_value.dtype == ir.DataType.INT4
        else 8 * np.dtype(tensor.const_value.numpy().dtype).itemsize
    )
