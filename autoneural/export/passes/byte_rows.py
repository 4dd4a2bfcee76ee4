"""Activations of a graph as bytes, ranged while the graph runs: for the passes of CPU graphs

    s = max |x| / 127,   q = round(x / s) + 128

over each row (a token, a pixel) or over all of x. `target/rows.py` tells which constants stand for
127 and 128 behind a GELU and on processors without VNNI.
"""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from autoneural.export.passes.initializers import add_initializer
from autoneural.target import rows

PIXELS_AS_ROWS, ROWS_AS_PICTURE = [0, 2, 3, 1], [0, 3, 1, 2]


class Bytes(NamedTuple):
    """Of a value: its bytes, what one of them is worth, and the byte that stands for zero."""

    values: ir.Value
    worth: ir.Value
    middle: ir.Value


class ByteRows:
    """Makes each value's bytes once, however many layers read them, before the first that does."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._pixels: dict[ir.Value, ir.Value] = {}
        self._rows: dict[tuple[ir.Value, int], Bytes] = {}
        self._all: dict[tuple[ir.Value, int], Bytes] = {}

    def pixels(self, reader: ir.Node, x: ir.Value) -> ir.Value:
        """[1, C, H, W] as [1, H, W, C]."""
        if x not in self._pixels:
            name = f"{x.name}.pixels"
            turned = self.insert(reader, "Transpose", name, [x], perm=PIXELS_AS_ROWS)
            self._pixels[x] = turned
        return self._pixels[x]

    def of_rows(self, reader: ir.Node, x: ir.Value, length: int, bits: int) -> Bytes:
        """Of x [..., length], for weights of so many bits: a worth [..., 1] for each row."""
        if (x, bits) not in self._rows:
            name = f"{x.name}.rows{bits}"
            worth = self._worth(reader, name, x, self._most(reader, name, x), bits)
            middle = self.constant(rows.middle(bits, _comes_from_gelu(x)), bits)
            # 128 for each row, and not folded: whoever opens the graph may set it otherwise.
            ends = [self.constant(rows.HUGE, bits), middle]
            zeros = self.insert(reader, "QuantizeLinear", f"{name}.zeros", [worth, *ends])
            # A block is a row. With `axis` alone ONNX Runtime takes twice as long.
            block = {"axis": -1, "block_size": length}
            q = self.insert(reader, "QuantizeLinear", f"{name}.bytes", [x, worth, zeros], **block)
            self._rows[x, bits] = Bytes(q, worth, middle)
        return self._rows[x, bits]

    def of_all(self, reader: ir.Node, x: ir.Value, bits: int) -> Bytes:
        """Of x, for weights of so many bits: one worth for all of it."""
        if (x, bits) not in self._all:
            name = f"{x.name}.all{bits}"
            # Over rows first: that is done by all threads.
            of_rows = self.insert(reader, "Max", f"{name}.of_rows", self._most(reader, name, x))
            most = self.insert(reader, "ReduceMax", f"{name}.most", [of_rows], keepdims=0)
            worth = self._worth(reader, name, x, [most], bits)
            middle = self.constant(rows.middle(bits, _comes_from_gelu(x)), bits)
            q = self.insert(reader, "QuantizeLinear", f"{name}.bytes", [x, worth, middle])
            self._all[x, bits] = Bytes(q, worth, middle)
        return self._all[x, bits]

    def constant(self, name: str, bits: int) -> ir.Value:
        """A constant of `target/rows.py`, one for the whole graph."""
        value = self._graph.initializers.get(name)
        return value or add_initializer(self._graph, name, rows.constants(bits)[name])

    def insert(
        self,
        before: ir.Node,
        op_type: str,
        name: str,
        inputs: list[ir.Value],
        **attributes: int | list[int],
    ) -> ir.Value:
        """The output of a new node."""
        node = ir.node(op_type, inputs, attributes, name=name)
        self._graph.insert_before(before, node)
        return node.outputs[0]

    def _most(self, reader: ir.Node, name: str, x: ir.Value) -> list[ir.Value]:
        """max x and -min x of each row: in two passes without a copy, where |x| would be one."""
        last = self.constant(rows.LAST_AXIS, 8)
        most = self.insert(reader, "ReduceMax", f"{name}.max", [x, last], keepdims=1)
        if _comes_from_gelu(x):
            return [most, self.constant(rows.GELU, 8)]
        least = self.insert(reader, "ReduceMin", f"{name}.min", [x, last], keepdims=1)
        return [most, self.insert(reader, "Neg", f"{name}.neg", [least])]

    def _worth(
        self, reader: ir.Node, name: str, x: ir.Value, most: list[ir.Value], bits: int
    ) -> ir.Value:
        of_zeros = self.constant(rows.LEAST, bits)
        largest = self.insert(reader, "Max", f"{name}.largest", [*most, of_zeros])
        share = self.constant(rows.share(bits, _comes_from_gelu(x)), bits)
        return self.insert(reader, "Mul", f"{name}.worth", [largest, share])


def _comes_from_gelu(x: ir.Value) -> bool:
    """Whether x >= -0.17: one look less at its range, and few bytes below zero."""
    node = x.producer()
    while node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "Gelu"
