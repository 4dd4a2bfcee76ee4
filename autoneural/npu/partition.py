"""Which context binaries a model becomes, and the cutting of its graphs into them.

    vision    one part     every image size
    language  parts 0..n   prefill, verify and decode together: they share the part's weights
    head      one part

The language model is cut between decoder layers, at the integer residual stream, so that every
part stays under a size: a context lives in 32-bit addresses, and the compiler's own memory grows
with it. All widths are cut at the same layers. `hidden.3` is the stream that leaves layer 3: the
first output of the part that ends there, the first input of the next. Nothing is requantised at a
cut, so the chained parts compute the integers of the whole.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import onnx_ir as ir

from autoneural.bundle import Bundle
from autoneural.bundle_graphs import HIDDEN
from autoneural.errors import UserError
from autoneural.manifest import GraphSpec, TensorSpec
from autoneural.onnx_save import WeightFile, save_model

PartRole = Literal["vision", "language", "head"]

MAX_PART_MB = 512
ADDRESSABLE_MB = 3584
"""Of the 4 GB that a context may address; the rest is left for activations and the graph."""

_LANGUAGE = ("prefill", "verify", "decode")
_LAYER = re.compile(r"\.layers\.(\d+)\.")
# Measured for SA8295P (`bench compile`): four layers of the 1.2B shape at two widths, 125 MiB of
# weights, take 1.6 GB; MobileNetV5-300M takes 1.7 GB at 256 pixels and 2.7 GB at 768.
_MEMORY_PER_BYTE, _PROCESS_GB = 10, 0.3


@dataclass(frozen=True, kw_only=True)
class PartGraph:
    """One width of a part: what its graph takes and gives, and where it is cut out of `spec.file`.

    `start` and `end` are names of values in that file; '' means its own beginning or end.
    """

    spec: GraphSpec
    start: str = ""
    end: str = ""

    @property
    def name(self) -> str:
        """File stem, unique among the graphs of a target."""
        stem = PurePosixPath(self.spec.file).stem
        return f"{stem}-{self.spec.part}" if self.spec.part else stem

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing to cut."""
        return not (self.start or self.end)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What becomes one context binary. `layers`: the first and last decoder layer in it."""

    role: PartRole
    index: int
    graphs: tuple[PartGraph, ...]
    weight_bytes: int
    layers: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """For people: `vision`, `language 1`."""
        return f"{self.role} {self.index}" if self.role == "language" else self.role

    @property
    def memory_gb(self) -> float:
        """About what it takes to compile."""
        return _memory_gb(self.weight_bytes)


@dataclass(frozen=True, kw_only=True)
class _Decoder:
    """A decoder graph, the layer of each node, and the value that leaves each layer alone."""

    spec: GraphSpec
    graph: ir.Graph
    layers: Mapping[ir.Node, int]
    cuts: Mapping[int, ir.Value]


def plan_parts(
    bundle: Bundle, target: str = "qdq", max_bytes: int = MAX_PART_MB << 20
) -> list[Part]:
    """The parts of `target` in the order vision, language, head.

    Raises UserError where a piece that cannot be cut is larger than `max_bytes`.
    """
    graphs = bundle.target(target).graphs
    if done := next((graph for graph in graphs if graph.part), None):
        raise UserError(f"{bundle.path(done.file)}: is one part of a graph; cut the whole instead")
    decoders = sorted(
        (_decoder(bundle, graph) for graph in graphs if graph.role in _LANGUAGE),
        key=lambda d: (_LANGUAGE.index(d.spec.role), -d.spec.width),
    )
    return [
        *_uncut(bundle, "vision", [g for g in graphs if g.role == "vision"], max_bytes),
        *_cut(decoders, max_bytes),
        *_uncut(bundle, "head", [g for g in graphs if g.role == "head"], max_bytes),
    ]


def write_part(bundle: Bundle, part: Part, folder: Path) -> tuple[Path, list[str]]:
    """The graphs of a part on disk: (folder, one file name below it per graph).

    Graphs that are whole stay where they are, in the bundle; others are cut into `folder`. The same
    bundle gives the same bytes every time.
    """
    if all(graph.is_whole for graph in part.graphs):
        return bundle.folder, [graph.spec.file for graph in part.graphs]
    weights = WeightFile(folder / f"{part.role}-{part.index}.data")
    names = [f"{graph.name}.onnx" for graph in part.graphs]
    for graph, name in zip(part.graphs, names, strict=True):
        save_model(cut_graph(bundle, graph), folder / name, weights)
    return folder, names


def cut_graph(bundle: Bundle, graph: PartGraph) -> ir.Model:
    """The graph of one part; its weights still lie in the bundle."""
    model = ir.load(bundle.path(graph.spec.file))
    inputs = [t.name for t in graph.spec.inputs]
    outputs = [t.name for t in graph.spec.outputs]
    part = ir.convenience.extract(
        model.graph,
        [graph.start or inputs[0], *inputs[1:]],
        [graph.end or outputs[0], *outputs[1:]],
    )
    part.inputs[0].name, part.outputs[0].name, part.name = inputs[0], outputs[0], graph.name
    # The extraction leaves them in the order of a set, which is another one every time.
    initializers = sorted(part.initializers.items())
    part.initializers.clear()
    part.initializers.update(initializers)
    return ir.Model(part, ir_version=model.ir_version)


def _uncut(
    bundle: Bundle, role: PartRole, specs: Sequence[GraphSpec], max_bytes: int
) -> list[Part]:
    if not specs:
        return []
    graphs = [ir.load(bundle.path(spec.file)).graph for spec in specs]
    size = max(sum(map(_bytes, graph.initializers.values())) for graph in graphs)
    _require_fit(role, size, max_bytes)
    whole = tuple(PartGraph(spec=spec) for spec in specs)
    return [Part(role=role, index=0, graphs=whole, weight_bytes=size)]


def _cut(decoders: Sequence[_Decoder], max_bytes: int) -> list[Part]:
    if not decoders:
        return []
    possible = set.intersection(*(set(decoder.cuts) for decoder in decoders))
    sizes = _layer_bytes(decoders[0])
    return [
        Part(
            role="language",
            index=index,
            graphs=tuple(_part_graph(decoder, index, first, last) for decoder in decoders),
            weight_bytes=sum(sizes[k] for k in range(first, last + 1)),
            layers=(first, last),
        )
        for index, (first, last) in enumerate(_ranges(sizes, possible, max_bytes))
    ]


def _ranges(sizes: Mapping[int, int], cuts: set[int], max_bytes: int) -> list[tuple[int, int]]:
    """(first, last) layer of each part: as many as fit, never cutting where no cut is possible."""
    found: list[tuple[int, int]] = []
    first = start = used = 0  # `start`: first layer after the last possible cut
    top = max(sizes)
    for layer in range(top + 1):
        if layer != top and layer not in cuts:
            continue
        size = sum(sizes[k] for k in range(start, layer + 1))
        _require_fit(f"decoder layer {layer}", size, max_bytes)
        if used and used + size > max_bytes:
            found.append((first, start - 1))
            first, used = start, 0
        start, used = layer + 1, used + size
    return [*found, (first, top)]


def _require_fit(what: str, size: int, max_bytes: int) -> None:
    if size <= max_bytes:
        return
    raise UserError(
        f"{what} alone is about {size / 2**20:.0f} MB, more than --max-part-mb "
        f"{max_bytes >> 20}; raise it (compiling takes about {_memory_gb(size):.1f} GB of memory, "
        f"and a context addresses {ADDRESSABLE_MB} MB at most)"
    )


def _memory_gb(size: int) -> float:
    return _PROCESS_GB + _MEMORY_PER_BYTE * size / 2**30


def _decoder(bundle: Bundle, spec: GraphSpec) -> _Decoder:
    graph = ir.load(bundle.path(spec.file)).graph
    layers = _layers(graph)
    return _Decoder(spec=spec, graph=graph, layers=layers, cuts=_cuts(graph, layers))


def _layers(graph: ir.Graph) -> dict[ir.Node, int]:
    """Decoder layer of every node that depends on one; what follows the last belongs to the last.

    A node that hangs on graph inputs and constants alone has none: each part gets its own copy.
    """
    layers: dict[ir.Node, int] = {}
    for node in graph:
        producers = [value.producer() for value in node.inputs if value is not None]
        known = [layers[p] for p in producers if p in layers]
        if found := _LAYER.search(node.metadata_props.get("module", "")):
            known.append(int(found[1]))
        if known:
            layers[node] = max(known)
    return layers


def _cuts(graph: ir.Graph, layers: Mapping[ir.Node, int]) -> dict[int, ir.Value]:
    """Layer -> the quantised value that carries on from it, where it is a single one."""
    crossing: dict[int, set[ir.Value]] = defaultdict(set)
    for node, layer in layers.items():
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if value is None or producer is None or producer not in layers:
                continue
            for k in range(layers[producer], layer):
                crossing[k].add(_integers(value))
    single = {k: values.pop() for k, values in crossing.items() if len(values) == 1}
    return {k: value for k, value in single.items() if _may_be_cut(value)}


def _integers(value: ir.Value) -> ir.Value:
    """What a dequantised value was before."""
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return value
    return node.inputs[0]


def _may_be_cut(value: ir.Value) -> bool:
    node = value.producer()
    quantised = node is not None and node.op_type == "QuantizeLinear"
    return quantised and not value.is_graph_output()


def _layer_bytes(decoder: _Decoder) -> Counter[int]:
    sizes = Counter(dict.fromkeys(decoder.layers.values(), 0))
    for value in decoder.graph.initializers.values():
        sizes[_first_reader(value, decoder.layers)] += _bytes(value)
    return sizes


def _first_reader(value: ir.Value, layers: Mapping[ir.Node, int]) -> int:
    """Lowest layer that reads `value`, at first or at second hand (a weight is dequantised)."""
    found: list[int] = []
    for reader, _ in value.uses():
        found += (
            [layers[reader]]
            if reader in layers
            else [_first_reader(output, layers) for output in reader.outputs]
        )
    return min(found, default=0)


def _bytes(value: ir.Value) -> int:
    return value.const_value.nbytes if value.const_value is not None else 0


def _part_graph(decoder: _Decoder, index: int, first: int, last: int) -> PartGraph:
    start, end = decoder.cuts.get(first - 1), decoder.cuts.get(last)
    ends = [
        value
        for value in decoder.graph.outputs
        if first <= decoder.layers.get(_producer(value), 0) <= last
    ]
    given = {value.name for value in ends}
    taken = _inputs_of(decoder.graph, [*ends, *([end] if end else [])], start)
    inputs = [tensor for tensor in decoder.spec.inputs if tensor.name in taken]
    outputs = [tensor for tensor in decoder.spec.outputs if tensor.name in given]
    if start is not None:
        inputs.insert(0, _stream(start, first - 1))
    if end is not None:
        outputs.insert(0, _stream(end, last))
    spec = replace(decoder.spec, part=index, inputs=tuple(inputs), outputs=tuple(outputs))
    names = [str(value.name) if value is not None else "" for value in (start, end)]
    return PartGraph(spec=spec, start=names[0], end=names[1])


def _inputs_of(
    graph: ir.Graph, outputs: Sequence[ir.Value], start: ir.Value | None
) -> set[str | None]:
    """Names of the graph inputs that `outputs` depend on when `start` is given."""
    seen, pending = {start}, list(outputs)
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        node = value.producer()
        pending += [v for v in node.inputs if v is not None] if node is not None else []
    return {value.name for value in graph.inputs if value in seen}


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None, f"{value.name} is an output that nothing computes"
    return node


def _stream(value: ir.Value, layer: int) -> TensorSpec:
    """The manifest entry of `hidden.<layer>`."""
    scale, zero_point = (_number(v) for v in _producer(value).inputs[1:3])
    assert value.dtype is not None
    assert value.shape is not None
    return TensorSpec(
        name=f"{HIDDEN}{layer}",
        dtype=value.dtype.name.lower(),
        shape=tuple(int(n) for n in value.shape.numpy()),
        scale=float(scale),
        zero_point=int(zero_point),
    )


def _number(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy().reshape(())
