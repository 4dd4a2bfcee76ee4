"""Several operators in a row as our models and their neighbours write them, under one name.

In the precision, `w` is the width of the projections; depthwise kernels have 8 bits, and the
other constants the width of the activations.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from autoneural.npu.probes.form import FLOATS, SHAPES, Form
from autoneural.npu.probes.graph import ProbeGraph

_D, _HEADS, _HEAD, _PAST = 128, 4, 32, 64
_WEIGHT = ("w4a8", "w8a8", "w4a16", "w8a16", *FLOATS)


def blocks() -> Iterator[Form]:
    """Every block; its name begins with a small letter, as no operator of ONNX does."""
    yield Form(op="block: SiLU (Sigmoid, Mul)", rank=3, build=_silu)
    yield Form(op="block: Gelu (Erf written out)", rank=3, build=_erf_gelu)
    yield Form(op="block: RMSNorm (written out)", rank=3, build=_written_rms)
    yield Form(op="block: rotary embedding", rank=4, build=_rotary)
    yield Form(
        op="block: masked attention with past",
        rank=4,
        precisions=("a8", "a16", "a16xa8", *FLOATS),
        build=_attention,
    )
    yield Form(op="block: multi-query attention", rank=4, build=_multi_query)
    yield Form(op="block: short convolution with state", rank=3, precisions=_WEIGHT, build=_short)
    yield Form(op="block: inverted residual", rank=4, precisions=_WEIGHT, build=_inverted)
    yield Form(op="block: gated MLP", rank=3, precisions=_WEIGHT, build=_gated)
    yield Form(op="block: window partition (rank 6)", rank=6, build=_windows)


def _silu(g: ProbeGraph) -> ir.Value:
    x = g.activation(*SHAPES[3])
    return g.node("Mul", x, g.node("Sigmoid", x))


def _erf_gelu(g: ProbeGraph) -> ir.Value:
    x = g.activation(*SHAPES[3])
    erf = g.node("Erf", g.node("Mul", x, g.unsigned()))
    half = g.node("Mul", x, g.unsigned())
    return g.node("Mul", half, g.node("Add", erf, g.unsigned()))


def _written_rms(g: ProbeGraph) -> ir.Value:
    x = g.activation(*SHAPES[3])
    mean = g.node("ReduceMean", g.node("Mul", x, x), g.whole([-1]), keepdims=1)
    root = g.node("Sqrt", g.node("Add", mean, g.unsigned()))
    return g.node("Mul", g.node("Div", x, root), g.unsigned())


def _rotary(g: ProbeGraph) -> ir.Value:
    x = g.activation(1, _HEADS, 16, _HEAD)
    cos, sin = (g.activation(1, 1, 16, _HEAD) for _ in range(2))
    half = _HEAD // 2
    parts = [
        g.node("Slice", x, g.whole([a]), g.whole([a + half]), g.whole([-1])) for a in (half, 0)
    ]
    swapped = g.node("Concat", *parts, axis=-1)
    return g.node("Add", g.node("Mul", x, cos), g.node("Mul", swapped, sin))


def _attention(g: ProbeGraph) -> list[ir.Value]:
    """New keys and values join the past in its width; the new rows are returned."""
    width = g.formats.activations[-1] if g.formats.activations else 16
    wide = g.formats.output_bits if g.formats.activations else 16
    new = [g.activation(1, _HEADS, 1, _HEAD, bits=wide) for _ in range(3)]
    past = [g.activation(1, _HEADS, _PAST, _HEAD, bits=width) for _ in range(2)]
    mask = g.activation(1, 1, 1, _PAST + 1, bits=wide)
    query, rows = new[0], new[1:]
    if width != wide:
        rows = [g.convert(row, width) for row in rows]
    key, value = (
        g.node("Concat", a, b, axis=2, bits=width) for a, b in zip(past, rows, strict=True)
    )
    turned = g.node("Transpose", key, perm=[0, 1, 3, 2], bits=width)
    scores = g.node("Add", g.node("MatMul", query, turned), mask)
    mixed = g.node("MatMul", g.node("Softmax", scores, axis=-1), value)
    return [mixed, *(rows if width != wide else [])]


def _multi_query(g: ProbeGraph) -> ir.Value:
    """Many query heads, one head of keys and values, as in MobileNetV5."""
    query = g.activation(1, _HEADS, 64, _HEAD)
    key, value = g.activation(1, 1, _HEAD, 16), g.activation(1, 1, 16, _HEAD)
    scores = g.node("MatMul", query, key)
    return g.node("MatMul", g.node("Softmax", scores, axis=-1), value)


def _short(g: ProbeGraph) -> list[ir.Value]:
    """LFM2: B, C, x = in_proj(h); y = out_proj(C * conv(past | B * x))."""
    x, past = g.activation(1, 16, _D), g.activation(1, _D, 2)
    wide = g.node("MatMul", x, g.constant(_D, 3 * _D, axis=1, block_axis=0))
    turned = g.node("Transpose", wide, perm=[0, 2, 1])
    gate, out, inner = g.split("Split", turned, count=3, axis=1, num_outputs=3)
    window = g.node("Concat", past, g.node("Mul", gate, inner), axis=2)
    mixed = g.node("Conv", window, g.kernel(_D, 1, 3), group=_D)
    back = g.node("Transpose", g.node("Mul", out, mixed), perm=[0, 2, 1])
    return [g.node("MatMul", back, g.constant(_D, _D, axis=1, block_axis=0)), window]


def _inverted(g: ProbeGraph) -> ir.Value:
    """MobileNetV5: depthwise, norm, expand, Gelu, depthwise, project, scale, add."""
    x = g.activation(1, 32, 16, 16)
    mixed = _depthwise(g, x, 32)
    wide = g.node("Conv", _norm2d(g, mixed, 32), g.constant(_D, 32, 1, 1))
    active = g.node("Gelu", wide, approximate="tanh")
    narrow = g.node("Conv", _depthwise(g, active, _D), g.constant(32, _D, 1, 1))
    scaled = g.node("Mul", narrow, g.unsigned(1, 32, 1, 1))
    return g.node("Add", x, scaled)


def _depthwise(g: ProbeGraph, x: ir.Value, channels: int) -> ir.Value:
    weight = g.kernel(channels, 1, 3, 3)
    return g.node("Conv", x, weight, group=channels, pads=[1, 1, 1, 1])


def _norm2d(g: ProbeGraph, x: ir.Value, channels: int) -> ir.Value:
    last = g.node("Transpose", x, perm=[0, 2, 3, 1])
    normed = g.node("RMSNormalization", last, g.unsigned(channels), axis=-1, epsilon=1e-6)
    return g.node("Transpose", normed, perm=[0, 3, 1, 2])


def _gated(g: ProbeGraph) -> ir.Value:
    """w2(silu(w1 x) * w3 x)."""
    x = g.activation(1, 16, _D)
    one, three = (g.node("MatMul", x, g.constant(_D, 256, axis=1, block_axis=0)) for _ in "13")
    active = g.node("Mul", one, g.node("Sigmoid", one))
    inner = g.node("Mul", active, three)
    return g.node("MatMul", inner, g.constant(256, _D, axis=1, block_axis=0))


def _windows(g: ProbeGraph) -> ir.Value:
    x = g.activation(1, 16, 16, 32)
    cut = g.node("Reshape", x, g.whole([1, 4, 4, 4, 4, 32]))
    turned = g.node("Transpose", cut, perm=[0, 1, 3, 2, 4, 5])
    return g.node("Reshape", turned, g.whole([16, 4, 4, 32]))
