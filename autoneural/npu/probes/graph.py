"""The smallest integer graph around one operator, to ask the compiler whether it takes it.

    input (uint8/16) -> DequantizeLinear -> operator -> QuantizeLinear -> output (uint8/16)
    constant (int4/8/16, uint8/16)  -> DequantizeLinear -^

With the formats of `autoneural.target.precision`. Nearly every value has one range, so operators
that only move data keep their encoding. Floating point: the same graph without the Q and DQ nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import DTypeLike, NDArray
from onnx_ir.passes.common import ShapeInferencePass

from autoneural.target.numerics import Encoding
from autoneural.target.precision import Formats

_OPSET = 23  # as our exporter writes
_NEWER = {"Swish": 24}
_IR_VERSION = 11
_RANGE = 16.0  # every activation lies in -8 .. 8
_ACTIVATION: Mapping[int, DTypeLike] = {8: np.uint8, 16: np.uint16}
_SIGNED: Mapping[int, DTypeLike] = {4: ml_dtypes.int4, 8: np.int8, 16: np.int16}
_FLOAT = {"fp16": ir.DataType.FLOAT16, "fp32": ir.DataType.FLOAT}
_NO_NUMBERS = (ir.DataType.BOOL, ir.DataType.INT32)  # masks and indices


def everyday_encoding(bits: int) -> Encoding:
    """-8 .. 8, which every value has whose operator has no range of its own."""
    return Encoding(bits=bits, scale=_RANGE / (2**bits - 1), zero_point=2 ** (bits - 1))


def _fraction(bits: int) -> Encoding:
    return Encoding(bits=bits, scale=2.0**-bits, zero_point=0)


def _signed_fraction(bits: int) -> Encoding:
    return Encoding(bits=bits, scale=2.0 ** (1 - bits), zero_point=2 ** (bits - 1))


_OWN_RANGE: Mapping[str, Callable[[int], Encoding]] = {
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Softmax"), _fraction),
    "Tanh": _signed_fraction,
}


class ProbeGraph:
    """Builds one probe. Values are real numbers; what is quantised, and how, `formats` says."""

    def __init__(self, formats: Formats) -> None:
        self.formats = formats
        self._inputs: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._initializers: list[ir.Value] = []
        self._scales: NDArray[np.float32] = np.ones((), np.float32)  # of the last constant
        # What a node returned -> its quantised self, and the encoding of that.
        self._integers: dict[ir.Value, tuple[ir.Value, Encoding]] = {}

    @property
    def real(self) -> ir.DataType:
        """Type of what is not quantised."""
        return _FLOAT.get(self.formats.floating, ir.DataType.FLOAT)

    def activation(self, *shape: int, bits: int | None = None) -> ir.Value:
        """A graph input, in the width of its place among the activations (the last repeats)."""
        place = sum(value.dtype not in _NO_NUMBERS for value in self._inputs)
        name = f"x{place}"
        if self.formats.floating:
            return self._input(name, self.real, shape)
        if bits is None:
            kinds = self.formats.activations
            bits = kinds[min(place, len(kinds) - 1)]
        integers = self._input(name, ir.DataType.from_numpy(np.dtype(_ACTIVATION[bits])), shape)
        return self._dequantize(integers, everyday_encoding(bits))

    def mask(self, *shape: int) -> ir.Value:
        """A graph input of truth values."""
        return self._input("mask", ir.DataType.BOOL, shape)

    def indices(self, *shape: int) -> ir.Value:
        """A graph input of places in another tensor."""
        return self._input("indices", ir.DataType.INT32, shape)

    def constant(self, *shape: int, axis: int = 0, block_axis: int = 1) -> ir.Value:
        """A constant as `formats` has it: channels along `axis`, blocks along `block_axis`."""
        f = self.formats
        scales = _scales(f.granularity or "tensor", shape, axis, block_axis)
        return self._constant(shape, f.constant or f.output_bits, f.unsigned, scales)

    def kernel(self, *shape: int) -> ir.Value:
        """A constant of signed 8 bits per channel, whatever the formats are."""
        return self._constant(shape, 8, False, _scales("channel", shape, 0, 0))

    def table(self, *shape: int) -> ir.Value:
        """Rows to be looked up, in the encoding of the activations."""
        bits, values = self.formats.output_bits, np.random.default_rng(0).uniform(-1, 1, shape)
        if self.formats.floating:
            return self._initializer("table", values.astype(self.real.numpy()))
        integers = np.rint(values * (2 ** (bits - 1) - 1) + 2 ** (bits - 1))
        rows = self._initializer("table", integers.astype(_ACTIVATION[bits]))
        return self._dequantize(rows, everyday_encoding(bits))

    def unsigned(self, *shape: int) -> ir.Value:
        """An unsigned constant as wide as the output, with one scale."""
        return self._constant(shape, self.formats.output_bits, True)

    def bias(self, channels: int) -> ir.Value:
        """An int32 constant on the grid of the last constant times the first activation."""
        if self.formats.floating:
            return self._initializer("bias", np.ones(channels, self.real.numpy()))
        step = _RANGE / (2 ** self.formats.activations[0] - 1)
        blocks = self._scales.ndim > 1  # no grid of their own then: any will do
        scales = (self._scales.mean() if blocks else self._scales) * np.float32(step)
        arrays = (np.arange(channels, dtype=np.int32), scales, np.zeros(scales.shape, np.int32))
        return self._dequantized(arrays, {"axis": 0} if scales.ndim else {})

    def number(self, value: float) -> ir.Value:
        """A float constant which the operator reads as it is (a bound, a filling)."""
        return self._initializer("number", np.array(value, self.real.numpy()))

    def numbers(self, count: int) -> ir.Value:
        """Float statistics which the operator folds into its own constants."""
        return self._initializer("numbers", np.ones(count, self.real.numpy()))

    def whole(self, values: Sequence[Any] | int) -> ir.Value:
        """An int64 constant (a shape, an index)."""
        return self._initializer("whole", np.array(values, np.int64))

    def node(
        self,
        op: str,
        *inputs: ir.Value | None,
        bits: int | None = None,
        everyday: bool = False,
        **attributes: Any,
    ) -> ir.Value:
        """One operator; what it returns is quantised to `bits`, else to the output's width.

        In the operator's own range where it has one, unless `everyday`.
        """
        made = self._node(op, inputs, 1, attributes)
        encoding = everyday_encoding if everyday else _OWN_RANGE.get(op, everyday_encoding)
        self._keep(made.outputs[0], bits, encoding)
        return made.outputs[0]

    def split(self, op: str, *inputs: ir.Value | None, count: int, **kw: Any) -> list[ir.Value]:
        """An operator with several outputs of the same kind."""
        made = self._node(op, inputs, count, kw)
        for value in made.outputs:
            self._keep(value)
        return list(made.outputs)

    def pick(self, op: str, *inputs: ir.Value | None, values: bool, **kw: Any) -> list[ir.Value]:
        """An operator that returns indices, after the values they point to where `values`."""
        made = self._node(op, inputs, 1 + values, kw)
        made.outputs[-1].type = ir.TensorType(ir.DataType.INT64)
        if values:
            self._keep(made.outputs[0])
        return list(made.outputs)

    def convert(self, value: ir.Value, bits: int) -> ir.Value:
        """The same numbers at another width: Q of a DQ."""
        encoding = everyday_encoding(bits)
        copy = self._quantize(self._read(value), encoding)
        self._integers[copy] = copy, encoding
        return copy

    def model(self, *outputs: ir.Value) -> ir.Model:
        """The finished graph, its outputs quantised."""
        made = [self._integers[v][0] if v in self._integers else v for v in outputs]
        opset = max(_NEWER.get(node.op_type, _OPSET) for node in self._nodes)
        graph = ir.Graph(
            self._inputs,
            made,
            nodes=self._nodes,
            initializers=self._initializers,
            opset_imports={"": opset},
            name="probe",
        )
        model = ir.Model(graph, ir_version=_IR_VERSION)
        ShapeInferencePass()(model)
        return model

    def _input(self, name: str, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
        value = ir.val(name, dtype, shape)
        self._inputs.append(value)
        return value

    def _initializer(self, stem: str, array: NDArray[Any]) -> ir.Value:
        name = f"{stem}.{len(self._initializers)}"
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self._initializers.append(value)
        return value

    def _node(
        self, op: str, inputs: Sequence[ir.Value | None], count: int, attributes: Mapping[str, Any]
    ) -> ir.Node:
        reads = [value if value is None else self._read(value) for value in inputs]
        made = ir.node(op, reads, attributes or None, num_outputs=count)
        self._append(made)
        return made

    def _keep(
        self,
        value: ir.Value,
        bits: int | None = None,
        encoding: Callable[[int], Encoding] = everyday_encoding,
    ) -> None:
        value.type = ir.TensorType(self.real)
        if not self.formats.floating:
            chosen = encoding(bits or self.formats.output_bits)
            self._integers[value] = self._quantize(value, chosen), chosen

    def _constant(
        self,
        shape: Sequence[int],
        bits: int,
        unsigned: bool,
        layout: tuple[NDArray[np.float64], Mapping[str, int]] = (np.ones(()), {}),
    ) -> ir.Value:
        values = np.random.default_rng(0).uniform(-1, 1, shape)
        if self.formats.floating:
            return self._initializer("constant", values.astype(self.real.numpy()))
        factors, attributes = layout
        dtype = np.dtype(_ACTIVATION[bits] if unsigned else _SIGNED[bits])
        middle = 2 ** (bits - 1) if unsigned else 0
        integers = np.rint(values * (2 ** (bits - 1) - 1)) + middle
        scales = (factors / 2 ** (bits - 1)).astype(np.float32)
        zero_points = np.full(scales.shape, middle).astype(dtype)
        self._scales = scales
        return self._dequantized((integers.astype(dtype), scales, zero_points), attributes)

    def _read(self, value: ir.Value) -> ir.Value:
        """What a reader of `value` gets: its quantised self as a real number."""
        kept = self._integers.get(value)
        return value if kept is None else self._dequantize(*kept)

    def _quantize(self, value: ir.Value, encoding: Encoding) -> ir.Value:
        made = self._qdq("QuantizeLinear", value, encoding)
        made.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(_ACTIVATION[encoding.bits])))
        return made

    def _dequantize(self, value: ir.Value, encoding: Encoding) -> ir.Value:
        made = self._qdq("DequantizeLinear", value, encoding)
        made.type = ir.TensorType(ir.DataType.FLOAT)
        return made

    def _qdq(self, op: str, value: ir.Value, encoding: Encoding) -> ir.Value:
        scale = self._initializer("scale", np.array(encoding.scale, np.float32))
        zero_point = np.array(encoding.zero_point, _ACTIVATION[encoding.bits])
        return self._append(ir.node(op, [value, scale, self._initializer("zero", zero_point)]))

    def _dequantized(
        self, arrays: tuple[NDArray[Any], ...], attributes: Mapping[str, int]
    ) -> ir.Value:
        inputs = [self._initializer("constant", array) for array in arrays]
        made = self._append(ir.node("DequantizeLinear", inputs, attributes))
        made.type = ir.TensorType(ir.DataType.FLOAT)
        return made

    def _append(self, node: ir.Node) -> ir.Value:
        node.name = f"{node.op_type}.{len(self._nodes)}"
        self._nodes.append(node)
        for i, value in enumerate(node.outputs):
            value.name = f"{node.name}.{i}"
        return node.outputs[0]


def _scales(
    granularity: str, shape: Sequence[int], axis: int, block_axis: int
) -> tuple[NDArray[np.float64], dict[str, int]]:
    """Factors in the shape of the scales, and the attributes that say how they are laid out."""
    if granularity == "tensor":
        return np.ones(()), {}
    if granularity == "channel":
        return _different(shape[axis]), {"axis": axis}
    size, blocked = int(granularity.lstrip(ascii_lowercase)), list(shape)
    blocked[block_axis] //= size
    factors = _different(*blocked)
    if granularity.startswith("lpbq"):
        sixteenths = np.rint(factors / factors.max(block_axis, keepdims=True) * 16)
        factors = sixteenths / 16
    return factors, {"axis": block_axis, "block_size": size}


def _different(*shape: int) -> NDArray[np.float64]:
    return np.linspace(0.5, 1, int(np.prod(shape))).reshape(shape)
