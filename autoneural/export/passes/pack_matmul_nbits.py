"""MatMul(x, w [K, N]) -> com.microsoft.MatMulNBits(x, w packed, scales), weights of 4 or 8 bits

    packed[n, b, :]   K of a row in blocks of `block`, unsigned with zero point 8 (4 bit: low
                      nibble first) or 128 (8 bit)
    scales[n, b]      the channel's one scale, repeated for each block

The kernel wants blocks and NPUs want channels; repeating the scale serves both with one set of
integers. `accuracy_level` 1 computes with fp32 activations, 4 rounds them to int8 first. 0 takes
what is fast: for 8 bits that is 4, since ONNX Runtime has no other kernel for them. In fp32 it
unpacks the whole weight in every run, which takes many times as long.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from autoneural.compress.quantize import IntegerWeight
from autoneural.export.passes.initializers import add_initializer
from autoneural.export.passes.integer_weights import find_weight, weight_name
from autoneural.export.passes.replacing import replace_node

_DOMAIN = "com.microsoft"
_BLOCKS = (256, 128, 64, 32, 16)
_FASTEST = {4: 0, 8: 4}  # accuracy level by bits, where none is asked for


class PackMatMulNBits(ir.passes.InPlacePass):
    """Every MatMul whose second input is an initialiser becomes a MatMulNBits.

    Raises KeyError naming the layer when it has no frozen weight.
    """

    def __init__(self, weights: Mapping[str, IntegerWeight], accuracy_level: int = 0) -> None:
        self.weights = weights
        self.accuracy_level = accuracy_level

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        nodes = [
            node
            for node in graph
            if node.op_type == "MatMul"
            and node.inputs[1] is not None
            and node.inputs[1].is_initializer()
        ]
        for node in nodes:
            self._pack(graph, node)
        if nodes:
            graph.opset_imports[_DOMAIN] = 1
        return ir.passes.PassResult(model, bool(nodes))

    def _pack(self, graph: ir.Graph, node: ir.Node) -> None:
        x, weight = node.inputs
        assert x is not None
        assert weight is not None
        frozen = find_weight(self.weights, node, weight)
        if frozen is None:
            raise KeyError(f"{weight_name(node)}: no frozen weight ({node.op_type} {node.name})")
        rows, columns = frozen.values.shape
        block = block_size(columns)
        packed = pack_blocks(frozen.values, frozen.bits, block)
        scales = np.repeat(frozen.scale.astype(np.float32), columns // block)
        inputs = [x]
        for suffix, array in (("packed", packed), ("scales", scales)):
            inputs.append(add_initializer(graph, f"{weight_name(node)}.{suffix}", array))
        attributes = {
            "K": columns,
            "N": rows,
            "bits": frozen.bits,
            "block_size": block,
            "accuracy_level": self.accuracy_level or _FASTEST.get(frozen.bits, 0),
        }
        new = ir.node("MatMulNBits", inputs, attributes, domain=_DOMAIN, name=node.name)
        replace_node(graph, node, [new])
        if not weight.uses():
            graph.initializers.pop(str(weight.name))


def block_size(columns: int) -> int:
    """Largest block (a power of two, 16 to 256) that divides the input width.

    Raises ValueError when there is none: the width is not a multiple of 16.
    """
    for block in _BLOCKS:
        if columns % block == 0:
            return block
    raise ValueError(f"MatMulNBits: an input width of {columns} is not a multiple of 16")


def pack_blocks(values: NDArray[np.signedinteger], bits: int, block: int) -> NDArray[np.uint8]:
    """Signed [N, K] -> bytes [N, K / block, block * bits / 8], offset to unsigned."""
    rows, columns = values.shape
    unsigned = (values.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    if bits == 4:
        unsigned = unsigned[:, 0::2] | (unsigned[:, 1::2] << 4)
    return unsigned.reshape(rows, columns // block, block * bits // 8)
