"""w (float initialiser) -> DequantizeLinear(w_int, scale, 0), with the integers of the checkpoint.

    MatMul  w [K, N]   per column,  axis 1        Conv, Gemm  w [N, ...]  per row, axis 0
    bias    int32,     scale = input scale * weight scale, so it adds straight to the accumulator
    RMSNormalization     int16, one scale         other float constants: uint16, one scale
    LayerNormalization   uint8 around 128, and its bias as above: all that HTP v68 takes
    Mul by a frozen vector: the same integers as uint16 around 32768, because HTP takes both sides
    of an elementwise operator in one type and runs it in floating point otherwise, without a word

Nothing is rounded twice: the integers and scales are those the compression froze. The zero points
are written out although they are zero: without one, onnxruntime-qnn 2.7.0 compiles an INT4 weight
into other numbers and says nothing (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from autoneural.compress.quantize import IntegerWeight
from autoneural.export.passes.initializers import add_initializer
from autoneural.target.numerics import Encoding, affine_encoding, quantize_affine

_LINEAR = ("MatMul", "Gemm", "Conv")
_LAYER_NORM = "LayerNormalization"
_PARAMETERS = ("weight", "gamma")
_DTYPE = {4: ml_dtypes.int4, 8: np.int8, 16: np.int16}
_BIAS = 2
_ELEMENTWISE = ("Mul", "Add", "Sub", "Div")
_MIDDLE = 1 << 15


@dataclass(frozen=True, kw_only=True)
class _Constant:
    """What a DequantizeLinear needs; `scale` [channels] along `axis`, or a single number."""

    integers: NDArray[Any]
    scale: NDArray[np.float32]
    zero_point: int = 0
    axis: int = 0


class IntegerWeights(ir.passes.InPlacePass):
    """Replace float constants by integers.

    weights: `<module path>.weight` (or `.gamma`, or the parameter's own name) -> integers.
    encodings: value name -> encoding; None leaves biases, norms and other constants in float
    (weight-only quantisation).
    Raises KeyError naming the layer when a linear or convolution has no frozen weight.
    """

    def __init__(
        self, weights: Mapping[str, IntegerWeight], encodings: Mapping[str, Encoding] | None
    ) -> None:
        self.weights = weights
        self.encodings = encodings

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in list(model.graph):
            # A bias first: its scale comes from the weight, which is still there to be found.
            for index in reversed(range(len(node.inputs))):
                value = node.inputs[index]
                if value is None or not _is_float_constant(value):
                    continue
                constant = self._constant(node, index, value)
                if constant is not None:
                    _replace(model.graph, node, index, constant)
                    modified = True
        return ir.passes.PassResult(model, modified)

    def _constant(self, node: ir.Node, index: int, value: ir.Value) -> _Constant | None:
        linear = node.op_type in _LINEAR
        if self.encodings is None and (not linear or index == _BIAS):
            return None
        if index == _BIAS:
            added = linear or node.op_type == _LAYER_NORM
            return self._bias(node, value) if added else _as_uint16(value)
        frozen = find_weight(self.weights, node, value)
        if frozen is not None:
            return _oriented(node, frozen, value)
        if linear:
            raise KeyError(f"{weight_name(node)}: no frozen weight ({node.op_type} {node.name})")
        return _as_uint16(value)

    def _bias(self, node: ir.Node, value: ir.Value) -> _Constant:
        x, weight = node.inputs[0], find_weight(self.weights, node, node.inputs[1])
        if weight is None:
            raise KeyError(f"{weight_name(node)}: no frozen weight ({node.op_type} {node.name})")
        assert x is not None
        assert x.name is not None
        assert self.encodings is not None
        scale = np.float32(self.encodings[x.name].scale) * weight.scale
        steps = np.rint(_real(value).astype(np.float64) / scale)
        if np.abs(steps).max(initial=0) > np.iinfo(np.int32).max:
            raise ValueError(f"{weight_name(node)}: its bias does not fit 32 bits at scale x * w")
        return _Constant(integers=steps.astype(np.int32), scale=scale.astype(np.float32))


def weight_name(node: ir.Node) -> str:
    """State-dict name of the weight of the module that made this node."""
    return f"{node.metadata_props.get('module', '')}.weight"


def find_weight(
    weights: Mapping[str, IntegerWeight], node: ir.Node, value: ir.Value | None
) -> IntegerWeight | None:
    """By the module that reads it, else by the parameter's own name.

    The module comes first because the exporter merges constants that are equal, and the one that
    is left has the name of one of them.
    """
    for parameter in _PARAMETERS:
        frozen = weights.get(f"{node.metadata_props.get('module', '')}.{parameter}")
        if frozen is not None:
            return frozen
    return weights.get(str(value.name)) if value is not None else None


def _is_float_constant(value: ir.Value) -> bool:
    tensor = value.const_value
    return value.is_initializer() and tensor is not None and tensor.dtype == ir.DataType.FLOAT


def _real(value: ir.Value) -> NDArray[np.float32]:
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float32)


def _shape(value: ir.Value) -> tuple[int, ...]:
    assert value.const_value is not None
    return tuple(int(n) for n in value.const_value.shape.numpy())


def _oriented(node: ir.Node, frozen: IntegerWeight, value: ir.Value) -> _Constant:
    """Integers laid out as the node reads them."""
    integers, axis, shape = frozen.values, 0, _shape(value)
    if node.op_type == "MatMul":
        integers, axis = integers.T, 1
    if frozen.scale.ndim == 0 and integers.size == np.prod(shape):
        integers = integers.reshape(shape)  # a vector, broadcast over pixels
    if integers.shape != shape:
        raise ValueError(
            f"{weight_name(node)}: frozen {integers.shape}, but the graph reads {shape}"
        )
    scale = np.asarray(frozen.scale, np.float32)
    if node.op_type in _ELEMENTWISE and frozen.bits == 16:
        unsigned = (integers.astype(np.int32) + _MIDDLE).astype(np.uint16)
        return _Constant(integers=unsigned, scale=scale, zero_point=_MIDDLE)
    if node.op_type == _LAYER_NORM and frozen.bits == 8:
        unsigned = (integers.astype(np.int16) + 128).astype(np.uint8)
        return _Constant(integers=unsigned, scale=scale, zero_point=128)
    array = np.ascontiguousarray(integers).astype(_DTYPE[frozen.bits])
    return _Constant(integers=array, scale=scale, axis=axis)


def _as_uint16(value: ir.Value) -> _Constant:
    real = _real(value)
    encoding = affine_encoding(float(real.min()), float(real.max()))
    return _Constant(
        integers=quantize_affine(real, encoding),
        scale=np.array(encoding.scale, np.float32),
        zero_point=encoding.zero_point,
    )


def _replace(graph: ir.Graph, node: ir.Node, index: int, constant: _Constant) -> None:
    value, stem = node.inputs[index], f"{node.outputs[0].name}.{index}"
    assert value is not None
    zero = np.full(constant.scale.shape, constant.zero_point).astype(constant.integers.dtype)
    arrays = {"int": constant.integers, "scale": constant.scale, "zero_point": zero}
    inputs = [add_initializer(graph, f"{stem}.{name}", array) for name, array in arrays.items()]
    attributes = {"axis": constant.axis} if constant.scale.ndim else {}
    dequantize = ir.node("DequantizeLinear", inputs, attributes, name=f"{stem}.dequantize")
    real = dequantize.outputs[0]
    real.name, real.shape = f"{stem}.real", value.shape
    real.type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(node, dequantize)
    node.replace_input_with(index, real)
    if not value.uses() and not value.is_graph_output():
        graph.initializers.pop(str(value.name))
