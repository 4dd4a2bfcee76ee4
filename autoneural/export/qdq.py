"""Float graph + encodings -> the integer graph an NPU compiles, and the weight-only CPU graph.

    quantize_graph    every value in 8 or 16 bit QuantizeLinear/DequantizeLinear, weights INT4/INT8,
                      biases int32, norms int16, integer inputs and outputs
    pack_graph        fp32 activations; decoder linears as MatMulNBits, convolutions int8; or
                      linears in int8 with activations ranged at run time; the cache is not copied

An encoding belongs to a module: the node that ends the module's arithmetic produces it. A node
that only moves data takes its input's encoding. Any other node without one is an error, because
an NPU would refuse it or guess.

What a concatenation joins must have the width of its result. Rows computed in another (16 bits, for
an 8-bit cache) are converted once, on their way in, and leave the graph converted; what is in the
cache already is never touched. Inputs of the same width and another scale are left to the NPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from autoneural.checkpoint import Checkpoint
from autoneural.compress.quantize import IntegerWeight, activation_encodings, integer_weights
from autoneural.errors import UserError
from autoneural.export.graphs import INPUT_MODULES
from autoneural.export.onnx import module_of
from autoneural.export.passes.attend_in_place import AttendInPlace
from autoneural.export.passes.few_rows import FewRows
from autoneural.export.passes.gelu_before_transpose import GeluBeforeTranspose
from autoneural.export.passes.insert_qdq import InsertQDQ
from autoneural.export.passes.integer_weights import IntegerWeights
from autoneural.export.passes.pack_matmul_nbits import PackMatMulNBits
from autoneural.export.passes.quantize_rows import QuantizeRows
from autoneural.target.numerics import Encoding

# These move values or drop some, so the encoding of their input holds for them.
_MOVES = frozenset(
    ("Reshape", "Transpose", "Slice", "Split", "Expand", "Pad", "Squeeze", "Unsqueeze", "Flatten")
    + ("Identity", "Gather", "MaxPool", "DepthToSpace", "SpaceToDepth")
)
# And these do where no module says otherwise: a mean stays inside the range of its terms.
_INHERITS = frozenset(("AveragePool", "GlobalAveragePool", "Resize", "Concat"))


Linears = Literal["float", "blocks", "rows"]
"""What the linears of a CPU graph multiply the integers of their weights by.

float      fp32 activations, or what `accuracy_level` says      MatMulNBits
blocks     bytes, ranged over blocks of a row                   MatMulNBits at level 4
rows       bytes, ranged over a row, or over the picture that a convolution takes windows of
"""
_BYTES = 4  # the accuracy level that rounds activations to bytes


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """What compression froze: encodings by module path, integers by parameter name."""

    activations: Mapping[str, Encoding]
    weights: Mapping[str, IntegerWeight]


def load_quantization(checkpoint: Checkpoint) -> Quantization:
    """What a quantised checkpoint froze. Raises UserError when it is not quantised."""
    weights = integer_weights(checkpoint)
    activations = activation_encodings(checkpoint)
    tied = weights.get("language_model.model.embed_tokens.weight")
    if tied is not None:
        weights.setdefault("language_model.lm_head.weight", tied)
    return Quantization(activations=activations, weights=weights)


def quantize_graph(model: ir.Model, quantization: Quantization) -> dict[str, Encoding]:
    """Rewrite `model` in place; returns the encodings of its inputs and outputs by name.

    Raises UserError naming the first layer that has no encoding or no frozen weight.
    """
    encodings, written = resolve_encodings(model.graph, quantization.activations)
    ends = [str(v.name) for v in (*model.graph.inputs, *model.graph.outputs)]
    try:
        IntegerWeights(quantization.weights, encodings)(model)
        InsertQDQ(encodings, written)(model)
    except (KeyError, ValueError) as error:
        raise UserError(f"{model.graph.name}: {error.args[0]}") from error
    return {name: encodings[name] for name in ends}


def pack_graph(
    model: ir.Model,
    weights: Mapping[str, IntegerWeight],
    linears: Linears = "float",
    accuracy_level: int = 0,
) -> None:
    """Rewrite `model` in place for a CPU: the checkpoint's integers as weights, fp32 otherwise.

    `accuracy_level` of MatMulNBits where linears are "float"; see `ExportOptions`.
    """
    AttendInPlace()(model)
    GeluBeforeTranspose()(model)
    try:
        if linears == "rows":
            QuantizeRows(weights)(model)
        PackMatMulNBits(weights, accuracy_level if linears == "float" else _BYTES)(model)
        IntegerWeights(weights, None)(model)
        FewRows()(model)
    except (KeyError, ValueError) as error:
        raise UserError(f"{model.graph.name}: {error.args[0]}") from error


def resolve_encodings(
    graph: ir.Graph, activations: Mapping[str, Encoding]
) -> tuple[dict[str, Encoding], dict[str, Encoding]]:
    """The encoding of every float graph input and node output by name, as its readers see it.

    The second mapping holds the encoding its producer writes, where that is another.
    """
    found: dict[str, Encoding] = {}
    written: dict[str, Encoding] = {}
    for value in graph.inputs:
        if value.dtype == ir.DataType.FLOAT:
            found[str(value.name)] = _input_encoding(graph, value, activations)
    for node in graph:
        floats = [v for v in node.outputs if v.dtype == ir.DataType.FLOAT]
        if floats:
            encoding = _node_encoding(graph, node, found, activations)
            found.update({str(value.name): encoding for value in floats})
            second = activations.get(f"{module_of(node)}.second")
            if node.op_type == "Concat":
                read, values = encoding, node.inputs
            elif node.op_type == "MatMul" and second is not None:
                read, values = second, node.inputs[1:]
            else:
                continue
            for value in _of_another_width(graph, node, values, read.bits, found):
                written[value], found[value] = found[value], read
    return found, written


def _of_another_width(
    graph: ir.Graph,
    reader: ir.Node,
    values: Sequence[ir.Value | None],
    bits: int,
    found: Mapping[str, Encoding],
) -> list[str]:
    """Those of the values that must be converted to be read in `bits` bits."""
    known = [v for v in values if v is not None and v.name in found]
    narrowed = [v for v in known if found[str(v.name)].bits != bits]
    for value in narrowed:
        others = [other for other, _ in value.uses() if other is not reader]
        if value.producer() is None or others:
            what = f"read by a {others[0].op_type} too" if others else "a graph input"
            raise UserError(
                f"{graph.name}: {module_of(reader)}: {value.name} has "
                f"{found[str(value.name)].bits} bits, not {bits}, and is {what}; tie the two"
            )
    return [str(value.name) for value in narrowed]


def _input_encoding(
    graph: ir.Graph, value: ir.Value, activations: Mapping[str, Encoding]
) -> Encoding:
    """Its own module's, or that of the concatenation which a state input enters."""
    module = INPUT_MODULES.get(str(value.name), "")
    if module in activations:
        return activations[module]
    for reader, _ in value.uses():
        if reader.op_type == "Concat" and module_of(reader) in activations:
            return activations[module_of(reader)]
    raise UserError(f"{graph.name}: no encoding for the input {value.name}")


def _node_encoding(
    graph: ir.Graph,
    node: ir.Node,
    found: Mapping[str, Encoding],
    activations: Mapping[str, Encoding],
) -> Encoding:
    module = module_of(node)
    if node.op_type not in _MOVES and module in activations and not _feeds_own_module(node):
        return activations[module]
    inputs = {found[str(v.name)] for v in node.inputs if v is not None and str(v.name) in found}
    if (node.op_type in _MOVES or node.op_type in _INHERITS) and len(inputs) == 1:
        return inputs.pop()
    where = module or "a node outside every named module"
    raise UserError(
        f"{graph.name}: {where}: {node.op_type} ({node.name}) has no encoding; "
        "calibrate it, or make it a named module of its own"
    )


def _feeds_own_module(node: ir.Node) -> bool:
    """Whether another range-making node of the same module reads this one's result."""
    module, pending = module_of(node), list(node.outputs)
    while pending:
        for reader, _ in pending.pop().uses():
            if module_of(reader) != module:
                continue
            if reader.op_type not in _MOVES:
                return True
            pending.extend(reader.outputs)
    return False
