"""The variant of an operator: what, besides its name, rank and precision, decides on a chip.

The words are those of the probes (`autoneural.npu.probes`); "" is the plain form.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from autoneural.target.precision import WIDE

_ONE_STEP = 1.5  # a range divided into as many steps as levels, or one fewer


def variant_of(node: ir.Node) -> str:
    """Such as `depthwise bias`, `tanh`, `scalar`."""
    finder = _FINDERS.get(node.op_type)
    return "" if finder is None else finder(node)


def _conv(node: ir.Node) -> str:
    weight, group = _shape(node.inputs[1]), node.attributes.get_int("group", 1)
    kernel, inputs = weight[2:], weight[1]
    pads = list(node.attributes.get_ints("pads", ()))
    half = len(pads) // 2
    words = {
        "1x1": group == 1 and math.prod(kernel) == 1,
        "depthwise": group > 1 and inputs == 1,
        "grouped": group > 1 and inputs > 1,
        "asymmetric": pads[:half] != pads[half:],
        "dilated": max(node.attributes.get_ints("dilations", (1,))) > 1,
        "bias": len(node.inputs) > 2 and node.inputs[2] is not None,
    }
    return " ".join(word for word, holds in words.items() if holds)


def _product(node: ir.Node) -> str:
    first, second = _shape(node.inputs[0]), _shape(node.inputs[1])
    if _is_constant(node.inputs[1]):
        return "wide" if max(second, default=0) >= WIDE else ""
    return "broadcast" if first[:-2] != second[:-2] else ""


def _elementwise(node: ir.Node) -> str:
    constants = [i for i, value in enumerate(node.inputs) if _is_constant(value)]
    if constants == [0] and node.op_type in ("Sub", "Div"):
        return "constant first"
    if constants:
        return "scalar" if math.prod(_shape(node.inputs[constants[0]])) == 1 else "vector"
    shapes = {_shape(value) for value in node.inputs}
    return "broadcast" if len(shapes) > 1 else ""


def _last_axis(node: ir.Node) -> str:
    axis, rank = node.attributes.get_int("axis", -1), len(_shape(node.inputs[0]))
    return "" if axis in (-1, rank - 1) else "inner axis"


def _reduction(node: ir.Node) -> str:
    rank = len(_shape(node.inputs[0]))
    axes = sorted(axis % rank for axis in _numbers(node, 1)) if rank else []
    if axes == [rank - 1]:
        return ""
    return "spatial" if axes == [2, 3] else "inner axes"


def _slice(node: ir.Node) -> str:
    return "strided" if any(step != 1 for step in _numbers(node, 4)) else ""


def _gather(node: ir.Node) -> str:
    return "table" if _is_constant(node.inputs[0]) else ""


def _gelu(node: ir.Node) -> str:
    return node.attributes.get_string("approximate", "none").replace("none", "")


def _own_range(node: ir.Node) -> str:
    """Sigmoid 0 .. 1, Tanh -1 .. 1: in 16 bits a chip knows no other range of them."""
    quantize = next((r for r, _ in node.outputs[0].uses() if r.op_type == "QuantizeLinear"), None)
    if quantize is None or len(quantize.inputs) < 3:
        return ""
    scale, zero_point = (
        None if value is None or value.const_value is None else value.const_value.numpy()
        for value in quantize.inputs[1:3]
    )
    if scale is None or zero_point is None or scale.size != 1:
        return ""
    levels = float(np.iinfo(zero_point.dtype).max) + 1
    span, middle = (2, levels / 2) if node.op_type == "Tanh" else (1, 0)
    filled = abs(float(scale.item()) * levels / span - 1) <= _ONE_STEP / levels
    return "" if filled and int(zero_point.item()) == middle else "other range"


def _resize(node: ir.Node) -> str:
    return node.attributes.get_string("mode", "nearest")


def _pad(node: ir.Node) -> str:
    return node.attributes.get_string("mode", "constant")


_FINDERS: dict[str, Callable[[ir.Node], str]] = {
    "Conv": _conv,
    "MatMul": _product,
    "Gemm": _product,
    **dict.fromkeys(("Add", "Mul", "Sub", "Div", "Min", "Max", "Pow", "PRelu"), _elementwise),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _last_axis),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "LpNormalization"), _last_axis),
    **dict.fromkeys((f"Reduce{kind}" for kind in ("Mean", "Sum", "Max", "Min", "L2")), _reduction),
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Tanh"), _own_range),
    "Slice": _slice,
    "Gather": _gather,
    "Gelu": _gelu,
    "Resize": _resize,
    "Pad": _pad,
}


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    """Its static shape; a constant behind a DequantizeLinear has that of its integers."""
    if value is None:
        return ()
    stored = _stored(value)
    shape = stored.const_value.shape if stored.const_value is not None else value.shape
    return tuple(size if isinstance(size, int) else 0 for size in shape or ())


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and _stored(value).const_value is not None


def _stored(value: ir.Value) -> ir.Value:
    source = value.producer()
    if source is not None and source.op_type == "DequantizeLinear" and source.inputs[0] is not None:
        return source.inputs[0]
    return value


def _numbers(node: ir.Node, place: int) -> list[int]:
    value = node.inputs[place] if len(node.inputs) > place else None
    if value is None or value.const_value is None:
        return []
    return [int(number) for number in value.const_value.numpy().reshape(-1)]
