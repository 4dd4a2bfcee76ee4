"""Forms of the operators that compute: convolutions, products, elementwise, functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from autoneural.npu.probes.form import FLOATS, ONE, REQUANTISED, SHAPES, Build, Form
from autoneural.npu.probes.graph import ProbeGraph

TWO = ("a8", "a16", "a16xa8", "a8xa16", *FLOATS)
PRODUCT = ("a8xa8", "a16xa8", "a8xa16", "a16xa16")
CONSTANT = ("u8a8", "w8a8", "u8a16", "w8a16", "u16a8", "u16a16", "w16a16")
CHANNEL = ("w4a8", "w4a16", "w8a8", "w8a16", "w16a8", "w16a16")
TENSOR = ("w4a8/tensor", "w4a16/tensor", "w8a8/tensor", "w8a16/tensor", "w16a16/tensor")
UNSIGNED = ("u8a8/tensor", "u8a16/tensor", "u16a16/tensor")
WEIGHT = (*CHANNEL, *FLOATS)
EVERY_WEIGHT = (*WEIGHT, *TENSOR, *UNSIGNED)
BLOCK = ("w4a8/block64", "w4a16/block64", "w8a8/block64", "w8a16/block64", "w4a16/lpbq64")
SIZES = ("w4a16/block32", "w4a16/block128", "w4a16/lpbq16", "w4a16/lpbq32", "w4a16/lpbq128")
BLOCKS = (*BLOCK, "w4a8/lpbq64", "w8a16/lpbq64", *SIZES)
NARROWED = ("w4a16>a8", "w8a16>a8", "w4a8>a16", "w8a8>a16")
PAIR_NARROWED = ("a16xa8>a8", "a16xa16>a8")


def arithmetic() -> Iterator[Form]:
    """The main form of each operator first."""
    yield from _convolutions()
    yield from _products()
    yield from _elementwise()
    yield from _functions()
    yield from _transformer()


def _convolutions() -> Iterator[Form]:
    """Each without and with a bias: some weights are refused only beside one."""
    same, end = [1, 1, 1, 1], [0, 0, 1, 1]
    table: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
        ("1x1", (1, 128, 8, 8), (32, 128, 1, 1), {}),
        ("", (1, 16, 8, 8), (32, 16, 3, 3), {"pads": same}),
        ("asymmetric", (1, 16, 8, 8), (32, 16, 3, 3), {"pads": end, "strides": [2, 2]}),
        ("dilated", (1, 16, 8, 8), (32, 16, 3, 3), {"pads": [2] * 4, "dilations": [2, 2]}),
        ("grouped", (1, 32, 8, 8), (32, 8, 3, 3), {"pads": same, "group": 4}),
        ("depthwise", (1, 32, 8, 8), (32, 1, 3, 3), {"pads": same, "group": 32}),
        (
            *("depthwise asymmetric", (1, 32, 8, 8), (32, 1, 3, 3)),
            {"pads": end, "strides": [2, 2], "group": 32},
        ),
        ("1x1", (1, 128, 16), (32, 128, 1), {}),
        ("", (1, 32, 16), (32, 32, 3), {"pads": [1, 1]}),
        ("depthwise", (1, 32, 18), (32, 1, 3), {"group": 32}),
        ("depthwise asymmetric", (1, 32, 16), (32, 1, 3), {"pads": [2, 0], "group": 32}),
        ("", (1, 3, 2, 16, 16), (32, 3, 2, 8, 8), {"strides": [2, 8, 8]}),
    ]
    for variant, x, w, attributes in table:
        usual = len(x) == 4 and variant in ("", "1x1", "depthwise")
        for name, bias in ((variant, False), (f"{variant} bias".strip(), True)):
            build = _convolution(x, w, attributes, bias)
            asked = EVERY_WEIGHT if usual else WEIGHT
            if variant == "1x1":
                asked += BLOCK if bias else (*BLOCK, *NARROWED)
            yield Form(op="Conv", variant=name, rank=len(x), precisions=asked, build=build)
    yield Form(op="ConvTranspose", rank=4, precisions=WEIGHT, build=_upsampling)


def _convolution(
    x: tuple[int, ...], w: tuple[int, ...], attributes: dict[str, Any], bias: bool
) -> Build:
    def build(g: ProbeGraph) -> ir.Value:
        parameters = [g.activation(*x), g.constant(*w)]
        if bias:
            parameters.append(g.bias(w[0]))
        return g.node("Conv", *parameters, **attributes)

    return build


def _upsampling(g: ProbeGraph) -> ir.Value:
    weight = g.constant(16, 32, 2, 2, axis=1)
    return g.node("ConvTranspose", g.activation(1, 16, 8, 8), weight, strides=[2, 2])


def _products() -> Iterator[Form]:
    for rank in (3, 2, 4):
        shape = (*SHAPES[rank][:-1], 256)
        asked = (*EVERY_WEIGHT, *BLOCKS, *NARROWED) if rank == 3 else (*WEIGHT, *BLOCK)
        yield Form(op="MatMul", rank=rank, precisions=asked, build=_linear(shape, (256, 32)))
    wide = _linear((1, 16, 2048), (2048, 2048))
    yield Form(op="MatMul", variant="wide", rank=3, precisions=(*EVERY_WEIGHT, *BLOCK), build=wide)
    yield Form(op="Gemm", rank=2, precisions=(*EVERY_WEIGHT, *BLOCK), build=_gemm)
    for rank, variant, first, second in (
        (3, "", (4, 16, 32), (4, 32, 24)),
        (4, "", (1, 4, 16, 32), (1, 4, 32, 24)),
        (4, "broadcast", (1, 4, 16, 32), (1, 1, 32, 24)),
        (5, "", (1, 2, 4, 16, 32), (1, 2, 4, 32, 24)),
    ):
        build = _pair("MatMul", first, second)
        asked = (*PRODUCT, *(PAIR_NARROWED if rank == 3 else ()))
        yield Form(op="MatMul", variant=variant, rank=rank, precisions=asked, build=build)
    einsum = _pair("Einsum", (1, 4, 16, 32), (1, 4, 24, 32), equation="bhid,bhjd->bhij")
    yield Form(op="Einsum", rank=4, precisions=(*PRODUCT, *FLOATS), build=einsum)


def _linear(x: tuple[int, ...], w: tuple[int, int]) -> Build:
    return lambda g: g.node("MatMul", g.activation(*x), g.constant(*w, axis=1, block_axis=0))


def _gemm(g: ProbeGraph) -> ir.Value:
    x, weight = g.activation(16, 128), g.constant(32, 128)
    return g.node("Gemm", x, weight, g.bias(32), transB=1)


def _pair(op: str, first: tuple[int, ...], second: tuple[int, ...], **attributes: Any) -> Build:
    return lambda g: g.node(op, g.activation(*first), g.activation(*second), **attributes)


def _elementwise() -> Iterator[Form]:
    for op in ("Add", "Mul", "Sub", "Div"):
        for rank in (3, 2, 4, 5):
            build = _pair(op, SHAPES[rank], SHAPES[rank])
            asked = (*TWO, "a16>a8") if rank == 3 else TWO
            yield Form(op=op, rank=rank, precisions=asked, build=build)
        mask = _pair(op, SHAPES[4], (1, 1, 8, 32))
        yield Form(op=op, variant="broadcast", rank=4, precisions=TWO, build=mask)
        for rank in (3, 4):
            yield _with_constant(op, rank, "vector", (32,) if rank == 3 else (1, 16, 1, 1))
            yield _with_constant(op, rank, "scalar", ())
    for op in ("Sub", "Div"):
        yield _with_constant(op, 3, "constant first", ())
    for op in ("Min", "Max", "Pow"):
        yield Form(op=op, rank=3, precisions=TWO, build=_pair(op, SHAPES[3], SHAPES[3]))
    yield _with_constant("Pow", 3, "scalar", ())
    yield _with_constant("PRelu", 4, "vector", (16, 1, 1))


def _with_constant(op: str, rank: int, variant: str, constant: tuple[int, ...]) -> Form:
    def build(g: ProbeGraph) -> ir.Value:
        sides = [g.activation(*SHAPES[rank]), g.constant(*constant)]
        return g.node(op, *(reversed(sides) if variant == "constant first" else sides))

    return Form(op=op, variant=variant, rank=rank, precisions=CONSTANT, build=build)


def _functions() -> Iterator[Form]:
    for rank in (3, 2, 4, 5):
        for op in ("Relu", "Sigmoid", "Tanh", "HardSwish"):
            yield _function(op, rank)
        yield _function("Gelu", rank, "tanh", approximate="tanh")
        yield _function("Gelu", rank)
        yield _function("Softmax", rank, axis=-1)
    for rank in (3, 4):
        yield _function("Softmax", rank, "inner axis", axis=1)
        yield _function("LogSoftmax", rank, axis=-1)
        yield Form(op="Clip", rank=rank, precisions=_asked(rank), build=_clip(rank))
    for op in ("Elu", "HardSigmoid", "LeakyRelu", "Mish", "Softplus", "Swish", "Erf"):
        yield _function(op, 3)
    for op in ("Exp", "Log", "Sqrt", "Reciprocal", "Neg", "Abs", "Sign", "Floor", "Ceil", "Round"):
        yield _function(op, 3)
    for op in ("Sin", "Cos", "Atan"):
        yield _function(op, 3)
    for op in ("Sigmoid", "Tanh", "HardSigmoid"):
        build = _function(op, 3, everyday=True).build
        yield Form(op=op, variant="other range", rank=3, precisions=("a8", "a16"), build=build)


def _asked(rank: int) -> tuple[str, ...]:
    return REQUANTISED if rank == 3 else ONE


def _function(op: str, rank: int, variant: str = "", **attributes: Any) -> Form:
    def build(g: ProbeGraph) -> ir.Value:
        return g.node(op, g.activation(*SHAPES[rank]), **attributes)

    return Form(op=op, variant=variant, rank=rank, precisions=_asked(rank), build=build)


def _clip(rank: int) -> Build:
    return lambda g: g.node("Clip", g.activation(*SHAPES[rank]), g.number(-1.0), g.number(1.0))


def _transformer() -> Iterator[Form]:
    """Whole operators that exporters write from opset 23 on."""
    yield Form(
        op="Attention", rank=4, precisions=("a8", "a16", "a16xa8xa8", *FLOATS), build=_attention
    )
    yield Form(op="RotaryEmbedding", rank=4, build=_rotary)


def _attention(g: ProbeGraph) -> ir.Value:
    return g.node("Attention", *(g.activation(1, 4, 16, 32) for _ in range(3)))


def _rotary(g: ProbeGraph) -> ir.Value:
    angles = [g.activation(1, 16, 16) for _ in range(2)]
    return g.node("RotaryEmbedding", g.activation(1, 4, 16, 32), *angles)
