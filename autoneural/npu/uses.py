"""Which operators an integer graph holds, in the words of the legality table.

Every node that computes is read with what stands around it: DequantizeLinear before (widths of
activations; width, sign and granularity of constants) and QuantizeLinear after (width of the
result). A real number without them makes the node fp32 or fp16.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from autoneural.npu.variants import variant_of
from autoneural.target.legality import OpUse
from autoneural.target.precision import Formats, write

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_FLOATS = {ir.DataType.FLOAT: "fp32", ir.DataType.FLOAT16: "fp16"}
_WHOLE = 1e-3  # as far from a whole number as fp32 scales may take a ratio of two
_ACCUMULATOR_BITS = 32  # a bias: its format follows from the others
# Inputs that stay real numbers in an integer graph: bounds, a filling, folded statistics.
_PLAIN = {"Clip": (1, 2), "Pad": (2,), "Resize": (1, 2), "BatchNormalization": (3, 4)}


@dataclass(frozen=True, kw_only=True)
class _Operand:
    """What a node reads or returns: `bits` of its integers, 0 where it is a real number."""

    value: ir.Value
    bits: int = 0
    constant: bool = False
    signed: bool = False
    granularity: str = "tensor"


def read_uses(model: ir.Model | Path) -> list[OpUse]:
    """The uses of a graph, in its order; nodes that handle no real numbers are left out.

    `layer` is the module that made the node (metadata "module"), else the node's own name.
    """
    if isinstance(model, Path):
        model = ir.load(model)
    found = (_use(node) for node in model.graph)
    return [use for use in found if use is not None]


def _use(node: ir.Node) -> OpUse | None:
    if node.op_type == _DEQUANTIZE or (node.op_type == _QUANTIZE and not _converts(node)):
        return None
    op = "Convert" if node.op_type == _QUANTIZE else node.op_type
    places = 1 if op == "Convert" else len(node.inputs)
    read = [operand for i in range(places) if (operand := _input(node, i)) is not None]
    outputs = _outputs(node)
    active = [operand for operand in (*read, *outputs) if not operand.constant]
    if not active:
        return None
    ranks = [len(o.value.shape) for o in active if o.value.shape is not None]
    return OpUse(
        layer=node.metadata_props.get("module") or str(node.name),
        op=op,
        precision=write(op, _formats(read, outputs)),
        rank=max(ranks, default=None),
        variant=variant_of(node),
    )


def _converts(node: ir.Node) -> bool:
    """Whether it writes the integers of an activation in another encoding."""
    operand = _input(node, 0)
    return operand is not None and operand.bits > 0 and not operand.constant


def _input(node: ir.Node, place: int) -> _Operand | None:
    """None for what is no operand: indices, shapes, bounds, biases."""
    value = node.inputs[place]
    if value is None:
        return None
    source = value.producer()
    if source is not None and source.op_type == _DEQUANTIZE:
        return _dequantized(value, source)
    if value.dtype not in _FLOATS or place in _PLAIN.get(node.op_type, ()):
        return None
    return _Operand(value=value, constant=value.const_value is not None)


def _dequantized(value: ir.Value, source: ir.Node) -> _Operand | None:
    stored, scale = source.inputs[0], source.inputs[1]
    assert stored is not None
    assert scale is not None
    dtype, constant = stored.dtype or _zero_point_type(source), stored.const_value is not None
    if constant and dtype.bitwidth == _ACCUMULATOR_BITS:
        return None
    return _Operand(
        value=value,
        bits=int(dtype.bitwidth),
        constant=constant,
        signed=dtype.name.startswith("INT"),
        granularity=_granularity(source, scale),
    )


def _granularity(source: ir.Node, scale: ir.Value) -> str:
    block = source.attributes.get_int("block_size", 0)
    if not block:
        return "channel" if _count(scale) > 1 else "tensor"
    if scale.const_value is None:
        return f"block{block}"
    scales = scale.const_value.numpy().astype(np.float64)
    largest = scales.max(source.attributes.get_int("axis", 1), keepdims=True)
    sixteenths = scales / largest * 16
    whole = np.allclose(sixteenths, np.rint(sixteenths), rtol=0, atol=_WHOLE)
    return f"lpbq{block}" if whole else f"block{block}"


def _is_real(value: ir.Value) -> bool:
    return value.dtype in _FLOATS or (value.dtype is None and _quantizers(value) != [])


def _quantizers(value: ir.Value) -> list[ir.Node]:
    return [reader for reader, _ in value.uses() if reader.op_type == _QUANTIZE]


def _outputs(node: ir.Node) -> list[_Operand]:
    if node.op_type == _QUANTIZE:
        return [_Operand(value=node.outputs[0], bits=_kept_bits(node))]
    return [_Operand(value=v, bits=_result_bits(v)) for v in node.outputs if _is_real(v)]


def _result_bits(value: ir.Value) -> int:
    """Width in which a result is kept; 0 where a reader or the graph's end takes it as it is."""
    quantizers = _quantizers(value)
    if value.is_graph_output() or not quantizers or len(quantizers) != len(value.uses()):
        return 0
    return _kept_bits(quantizers[0])


def _kept_bits(quantize: ir.Node) -> int:
    return int((quantize.outputs[0].dtype or _zero_point_type(quantize)).bitwidth)


def _zero_point_type(node: ir.Node) -> ir.DataType:
    """The type of the integers beside a Q or DQ node that does not say it itself."""
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    known = None if zero_point is None else zero_point.dtype
    return ir.DataType.UINT8 if known is None else known


def _formats(read: list[_Operand], outputs: list[_Operand]) -> Formats:
    bare = [operand for operand in (*read, *outputs) if operand.bits == 0]
    if bare:
        return Formats(floating=_FLOATS.get(bare[0].value.dtype or ir.DataType.FLOAT, "fp32"))
    activations = tuple(operand.bits for operand in read if not operand.constant)
    constants = [operand for operand in read if operand.constant]
    result = outputs[0].bits if outputs else None
    if not activations:
        activations = (result or 0,)
    if not constants:
        return Formats(activations=activations, output=result)
    return Formats(
        activations=activations,
        constant=constants[0].bits,
        unsigned=not constants[0].signed,
        granularity=constants[0].granularity,
        output=result,
    )


def _count(value: ir.Value) -> int:
    shape = value.shape if value.const_value is None else value.const_value.shape
    sizes = [size for size in shape or () if isinstance(size, int)]
    count = 1
    for size in sizes:
        count *= size
    return count
