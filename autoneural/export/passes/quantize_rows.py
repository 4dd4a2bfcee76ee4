"""A linear layer in 8-bit integers, every row ranged by itself (for CPUs)

    MatMul(x, w [K, N])    s[r] = max |x[r, :]| / 127,   q = round(x / s) + 128     a byte each
    Gemm(x, w [N, K], b)   y[r, n] = s[r] * scale[n] * sum_k (q[r, k] - 128) * w[k, n] + b[n]
    Conv 1x1(x, w, b)      the same, a row per pixel: [1, C, H, W] is turned to [1, H, W, C]
    Conv(x, w, b)          the same with one s, a row per window: [1, H', W', h * w * C]

A row is a token or a pixel: its range is its own, whatever stands beside it. Windows share pixels,
so their range is the picture's; they are written out, h * w times the picture in bytes, because
ONNX Runtime's ConvInteger is slower than its convolution in fp32. The kernel is made for
many rows; for one or a few MatMulNBits is quicker, and finer, since it ranges blocks of a row
(runs/integer_linears.py). The integers are the checkpoint's, one in a byte (`byte_rows.py`).

What only an RMSNormalization reads is left without its s[r], a pass over the whole picture: the
norm divides each pixel by its own size. Its epsilon then weighs less, which shows where a pixel's
values are below sqrt(epsilon), a thousandth.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from autoneural.compress.quantize import IntegerWeight
from autoneural.export.passes.byte_rows import PIXELS_AS_ROWS, ROWS_AS_PICTURE, ByteRows
from autoneural.export.passes.initializers import add_initializer
from autoneural.export.passes.integer_weights import find_weight, weight_name
from autoneural.export.passes.replacing import replace_node
from autoneural.target import rows

_DOMAIN = "com.microsoft"
_FEWEST_CHANNELS = 16  # the three of an image are not worth the windows


class QuantizeRows(ir.passes.InPlacePass):
    """Every MatMul, Gemm and dense Conv whose weight has frozen integers of 8 bits or fewer."""

    def __init__(self, weights: Mapping[str, IntegerWeight]) -> None:
        self.weights = weights

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph, made = model.graph, ByteRows(model.graph)
        found = [node for node in graph if _is_linear(node) and self._rewrite(graph, node, made)]
        if found:
            graph.opset_imports[_DOMAIN] = 1
        return ir.passes.PassResult(model, bool(found))

    def _rewrite(self, graph: ir.Graph, node: ir.Node, made: ByteRows) -> bool:
        (x, weight), name = node.inputs[:2], weight_name(node)
        assert x is not None
        assert weight is not None
        frozen = find_weight(self.weights, node, weight)
        if frozen is None or frozen.bits > 8:
            return False
        bits = 8 if frozen.bits > 4 else 4
        values, of_row, of_all = frozen.values, None, made.constant(rows.ONE, bits)
        if node.op_type == "Conv":
            values, x = values.transpose(0, 2, 3, 1), made.pixels(node, x)
        columns = np.ascontiguousarray(values.reshape(len(values), -1).T)
        if node.op_type != "Conv" or _is_of_one_pixel(node):
            q, of_row, middle = made.of_rows(node, x, len(columns), bits)
        else:
            q, of_all, middle = made.of_all(node, x, bits)
            q = _windows(graph, node, made, q, middle)
        scale = np.broadcast_to(frozen.scale.astype(np.float32).reshape(-1), columns.shape[1:])
        inputs = [
            q,
            add_initializer(graph, f"{name}.columns", columns),
            of_all,
            add_initializer(graph, f"{name}.scale", scale.copy()),
            middle,
        ]
        new = [ir.node("MatMulIntegerToFloat", inputs, domain=_DOMAIN, name=f"{name}.integer")]
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if of_row is not None and (bias is not None or not _is_normed(node.outputs[0])):
            new.append(ir.node("Mul", [new[-1].outputs[0], of_row], name=f"{name}.real"))
        if bias is not None:
            new.append(ir.node("Add", [new[-1].outputs[0], bias], name=f"{name}.biased"))
        if node.op_type == "Conv":
            turn = {"perm": ROWS_AS_PICTURE}
            new.append(ir.node("Transpose", [new[-1].outputs[0]], turn, name=f"{name}.picture"))
        replace_node(graph, node, new)
        if not weight.uses():
            graph.initializers.pop(str(weight.name))
        return True


def _is_linear(node: ir.Node) -> bool:
    if node.op_type not in ("MatMul", "Gemm", "Conv"):
        return False
    weight = node.inputs[1]
    if weight is None or not weight.is_initializer() or weight.shape is None:
        return False
    if node.op_type != "Conv":
        return True
    told = node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    whole = node.attributes.get_int("group", 1) == 1 and _ints(node, "dilations", 1, 1) == [1, 1]
    enough = int(weight.shape.numpy()[1]) >= _FEWEST_CHANNELS
    return told and whole and (_is_of_one_pixel(node) or enough)


def _is_of_one_pixel(conv: ir.Node) -> bool:
    weight = conv.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    in_place = _ints(conv, "strides", 1, 1) == [1, 1] and not any(_ints(conv, "pads", 0))
    return in_place and list(weight.shape[2:]) == [1, 1]


def _is_normed(pixels: ir.Value) -> bool:
    """Whether nothing but norms over the channels reads a picture [1, C, H, W]."""
    readers = [node for node, _ in pixels.uses()]
    turned = [node.outputs[0] for node in readers if _ints(node, "perm") == PIXELS_AS_ROWS]
    norms = [node.op_type == "RMSNormalization" for value in turned for node, _ in value.uses()]
    return len(turned) == len(readers) > 0 and all(norms) and not pixels.is_graph_output()


def _ints(node: ir.Node, name: str, *otherwise: int) -> list[int]:
    return list(node.attributes.get_ints(name, otherwise))


def _windows(
    graph: ir.Graph, conv: ir.Node, made: ByteRows, q: ir.Value, middle: ir.Value
) -> ir.Value:
    """[1, H, W, C] -> [1, H', W', h * w * C]: what each place of a convolution sees."""
    weight, out = conv.inputs[1], conv.outputs[0]
    assert weight is not None
    assert weight.shape is not None
    assert out.shape is not None

    def ints(what: str, *values: int) -> ir.Value:
        return add_initializer(graph, f"{out.name}.{what}", np.array(values, np.int64))

    top, left, bottom, right = _ints(conv, "pads", 0, 0, 0, 0)
    amounts = ints("pads", 0, top, left, 0, 0, bottom, right, 0)
    padded = made.insert(conv, "Pad", f"{out.name}.padded", [q, amounts, middle])
    down, right = _ints(conv, "strides", 1, 1)
    height, width = (int(n) for n in out.shape.numpy()[2:])
    axes, strides = ints("axes", 1, 2), ints("strides", down, right)
    parts = []
    for i, j in np.ndindex(*(int(n) for n in weight.shape.numpy()[2:])):
        name = f"window.{i}.{j}"
        first = ints(f"{name}.first", i, j)
        end = ints(f"{name}.end", i + (height - 1) * down + 1, j + (width - 1) * right + 1)
        inputs = [padded, first, end, axes, strides]
        parts.append(made.insert(conv, "Slice", f"{out.name}.{name}", inputs))
    return made.insert(conv, "Concat", f"{out.name}.windows", parts, axis=3)
