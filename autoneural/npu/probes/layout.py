"""Forms of the operators that normalise, pool, move, look up and reduce."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from autoneural.npu.probes.form import FLOATS, ONE, REQUANTISED, SHAPES, Build, Form
from autoneural.npu.probes.graph import ProbeGraph

NORM = ("u8a8", "w8a8", "u8a16", "w8a16", "u16a16", "w16a16", *FLOATS)
TABLE = ("u8a8", "u16a16", *FLOATS)
BOTH = ("a8", "a16", "a16xa8", "a16>a8", *FLOATS)
_EPSILON = 1e-6


def layout() -> Iterator[Form]:
    """The main form of each operator first."""
    yield from _norms()
    yield from _pools()
    yield from _moves()
    yield from _joins()
    yield from _lookups()
    yield from _reductions()


def _norms() -> Iterator[Form]:
    for rank in (3, 2, 4, 5):
        more = ("w16a16>a8",) if rank == 3 else ()
        build = _rms(SHAPES[rank])
        yield Form(op="RMSNormalization", rank=rank, precisions=(*NORM, *more), build=build)
        yield _norm("LayerNormalization", rank, _layer_norm(SHAPES[rank]))
        yield Form(op="LpNormalization", rank=rank, build=_one("LpNormalization", rank, axis=-1))
    for op in ("InstanceNormalization", "BatchNormalization"):
        for rank in (4, 3):
            yield _norm(op, rank, _channel_norm(op, rank))
    yield _norm("GroupNormalization", 4, _channel_norm("GroupNormalization", 4, num_groups=4))


def _norm(op: str, rank: int, build: Build) -> Form:
    return Form(op=op, rank=rank, precisions=NORM, build=build)


def _rms(shape: tuple[int, ...]) -> Build:
    def build(g: ProbeGraph) -> ir.Value:
        x, gamma = g.activation(*shape), g.constant(shape[-1])
        return g.node("RMSNormalization", x, gamma, axis=-1, epsilon=_EPSILON)

    return build


def _layer_norm(shape: tuple[int, ...]) -> Build:
    def build(g: ProbeGraph) -> ir.Value:
        x, gamma = g.activation(*shape), g.constant(shape[-1])
        return g.node("LayerNormalization", x, gamma, g.bias(shape[-1]), axis=-1, epsilon=_EPSILON)

    return build


def _channel_norm(op: str, rank: int, **attributes: Any) -> Build:
    def build(g: ProbeGraph) -> ir.Value:
        shape = SHAPES[rank]
        parameters = [g.constant(shape[1]), g.bias(shape[1])]
        if op == "BatchNormalization":
            parameters += [g.numbers(shape[1]), g.numbers(shape[1])]
        return g.node(op, g.activation(*shape), *parameters, epsilon=_EPSILON, **attributes)

    return build


def _pools() -> Iterator[Form]:
    for op in ("AveragePool", "MaxPool"):
        window = _one(op, 4, kernel_shape=[2, 2], strides=[2, 2])
        yield Form(op=op, rank=4, build=window)
    yield Form(op="AveragePool", rank=3, build=_one("AveragePool", 3, kernel_shape=[2]))
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        yield Form(op=op, rank=4, build=_one(op, 4))
    for mode in ("nearest", "linear", "cubic"):
        yield Form(op="Resize", variant=mode, rank=4, build=_resize(mode))


def _one(op: str, rank: int, **attributes: Any) -> Build:
    return lambda g: g.node(op, g.activation(*SHAPES[rank]), **attributes)


def _resize(mode: str) -> Build:
    rounding = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    attributes: dict[str, Any] = rounding if mode == "nearest" else {}

    def build(g: ProbeGraph) -> ir.Value:
        x, sizes = g.activation(1, 16, 8, 8), g.whole([1, 16, 16, 16])
        return g.node("Resize", x, None, None, sizes, mode=mode, **attributes)

    return build


def _moves() -> Iterator[Form]:
    for rank in (3, 2, 4, 5, 6):
        shape = SHAPES[rank]
        yield Form(op="Reshape", rank=rank, build=_arranged("Reshape", rank, (*shape[:-2], -1)))
        turned = [*range(rank - 2), rank - 1, rank - 2]
        yield Form(op="Transpose", rank=rank, build=_turned(turned))
    for rank in (3, 4, 5):
        shape = SHAPES[rank]
        yield Form(op="Slice", rank=rank, build=_slice(rank, 1))
        yield Form(op="Expand", rank=rank, build=_expand(shape))
        yield Form(op="Unsqueeze", rank=rank, build=_arranged("Unsqueeze", rank - 1, [0]))
        yield Form(op="Squeeze", rank=rank, build=_arranged("Squeeze", rank, [0]))
        yield Form(op="Flatten", rank=rank, build=_one("Flatten", rank, axis=1))
        yield Form(op="Split", rank=rank, build=_split(rank))
    yield Form(op="Slice", variant="strided", rank=4, build=_slice(4, 2))
    for rank in (3, 4):
        yield Form(op="Tile", rank=rank, build=_arranged("Tile", rank, [1] * (rank - 1) + [2]))
    for mode in ("constant", "reflect", "edge"):
        yield Form(op="Pad", variant=mode, rank=4, build=_pad(4, mode))
    yield Form(op="Pad", variant="constant", rank=3, build=_pad(3, "constant"))
    for op in ("DepthToSpace", "SpaceToDepth"):
        yield Form(op=op, rank=4, build=_one(op, 4, blocksize=2))
    for rank in (3, 2, 4, 5):
        asked = ("a16>a8", "a8>a16", "a8", "a16")
        yield Form(op="Convert", rank=rank, precisions=asked, build=_converted(rank))


def _arranged(op: str, rank: int, argument: Any) -> Build:
    return lambda g: g.node(op, g.activation(*SHAPES[rank]), g.whole(argument))


def _turned(perm: list[int]) -> Build:
    """Between two others: alone, ONNX Runtime takes it out of its Q and DQ, and it is refused."""
    if len(perm) > 5:
        return _one("Transpose", len(perm), perm=perm)  # the others are refused as well

    def build(g: ProbeGraph) -> ir.Value:
        turned = g.node("Transpose", g.node("Relu", g.activation(*SHAPES[len(perm)])), perm=perm)
        return g.node("Relu", turned)

    return build


def _slice(rank: int, step: int) -> Build:
    def build(g: ProbeGraph) -> ir.Value:
        ends = [g.whole([0]), g.whole([8]), g.whole([-1]), g.whole([step])]
        return g.node("Slice", g.activation(*SHAPES[rank]), *ends)

    return build


def _expand(shape: tuple[int, ...]) -> Build:
    return lambda g: g.node("Expand", g.activation(*shape[:-1], 1), g.whole(shape))


def _split(rank: int) -> Build:
    return lambda g: g.split("Split", g.activation(*SHAPES[rank]), count=2, axis=-1, num_outputs=2)


def _pad(rank: int, mode: str) -> Build:
    def build(g: ProbeGraph) -> ir.Value:
        sizes = g.whole([0] * (rank - 1) + [1] + [0] * (rank - 1) + [1])
        filling = [g.number(0.0)] if mode == "constant" else []
        return g.node("Pad", g.activation(*SHAPES[rank]), sizes, *filling, mode=mode)

    return build


def _converted(rank: int) -> Build:
    return lambda g: g.convert(g.activation(*SHAPES[rank]), g.formats.output_bits)


def _joins() -> Iterator[Form]:
    for rank in (3, 2, 4, 5):
        yield Form(op="Concat", rank=rank, precisions=BOTH, build=_concat(rank))
    for rank in (3, 4):
        yield Form(op="Where", rank=rank, precisions=BOTH, build=_where(rank))


def _concat(rank: int) -> Build:
    def build(g: ProbeGraph) -> ir.Value:
        parts = [g.activation(*SHAPES[rank]), g.activation(*SHAPES[rank])]
        return g.node("Concat", *parts, axis=-1)

    return build


def _where(rank: int) -> Build:
    def build(g: ProbeGraph) -> ir.Value:
        shape = SHAPES[rank]
        return g.node("Where", g.mask(*shape), g.activation(*shape), g.activation(*shape))

    return build


def _lookups() -> Iterator[Form]:
    yield Form(op="Gather", variant="table", rank=3, precisions=TABLE, build=_table)
    yield Form(op="Gather", rank=3, build=_gather)
    yield Form(op="GatherElements", rank=3, build=_indexed("GatherElements", [[[1] * 32] * 4]))
    yield Form(op="GatherND", rank=3, build=_indexed("GatherND", [[[0, 1], [0, 3]]]))
    yield Form(op="ScatterElements", rank=3, build=_scattered("ScatterElements", (1, 1, 32)))
    yield Form(op="ScatterND", rank=3, build=_scattered("ScatterND", (1, 1, 32)))


def _table(g: ProbeGraph) -> ir.Value:
    return g.node("Gather", g.table(64, 32), g.indices(1, 4), axis=0)


def _gather(g: ProbeGraph) -> ir.Value:
    return g.node("Gather", g.activation(*SHAPES[3]), g.whole([0, 1, 5]), axis=1)


def _indexed(op: str, indices: Any) -> Build:
    attributes: dict[str, Any] = {"axis": 1} if op == "GatherElements" else {}
    return lambda g: g.node(op, g.activation(*SHAPES[3]), g.whole(indices), **attributes)


def _scattered(op: str, update: tuple[int, ...]) -> Build:
    elements = op == "ScatterElements"
    indices = [[[3] * 32]] if elements else [[[0, 3]]]
    attributes: dict[str, Any] = {"axis": 1} if elements else {}

    def build(g: ProbeGraph) -> ir.Value:
        x, new = g.activation(*SHAPES[3]), g.activation(*update)
        return g.node(op, x, g.whole(indices), new, **attributes)

    return build


def _reductions() -> Iterator[Form]:
    for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"):
        for rank in (3, 4):
            asked = REQUANTISED if rank == 3 else ONE
            yield Form(op=op, rank=rank, precisions=asked, build=_reduced(op, rank, [-1]))
        inner = _reduced(op, 4, [1])
        yield Form(op=op, variant="inner axes", rank=4, build=inner)
    yield Form(op="ReduceMean", variant="spatial", rank=4, build=_reduced("ReduceMean", 4, [2, 3]))
    yield Form(op="CumSum", rank=3, build=lambda g: g.node("CumSum", _small(g), g.whole(1)))
    yield Form(op="TopK", rank=3, build=_top)
    for op in ("ArgMax", "ArgMin"):
        yield Form(op=op, rank=3, build=_arg(op))


def _reduced(op: str, rank: int, axes: list[int]) -> Build:
    return lambda g: g.node(op, g.activation(*SHAPES[rank]), g.whole(axes), keepdims=1)


def _small(g: ProbeGraph) -> ir.Value:
    return g.activation(*SHAPES[3])


def _top(g: ProbeGraph) -> list[ir.Value]:
    return g.pick("TopK", _small(g), g.whole([4]), values=True, axis=-1)


def _arg(op: str) -> Build:
    return lambda g: g.pick(op, _small(g), values=False, axis=-1, keepdims=0)
