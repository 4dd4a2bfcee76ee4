"""What an engine will take of memory, read off its bundle before anything is loaded."""

from __future__ import annotations

from math import prod

from autoneural.bundle import Bundle
from autoneural.bundle_graphs import state_names
from autoneural.manifest import DTYPE_BYTES, GraphSpec
from autoneural.onnx_external import external_locations


def footprint(bundle: Bundle, target: str, vision: str | None = None) -> int:
    """Bytes of the target's weights, its embedding table, and the state of one whole context.

    `vision` is the target of the encoder, where it is another. A past that grows counts as
    what it may come to.

    Weight files count once per graph file that refers to them: every session packs its own copy.
    Not counted is what depends on machine and use: activations, kept features of pictures, and ONNX
    Runtime itself. Raises UserError where the bundle has no such target.
    """
    spec = bundle.target(target)
    size = bundle.processor.image_size
    graphs = [g for g in spec.graphs if g.role != "vision"]
    seeing = bundle.target(vision or target).graphs
    graphs += [g for g in seeing if g.role == "vision" and g.image_size == size]
    weights = sum(_weights(bundle, file) for file in {g.file for g in graphs})
    table = prod(spec.embedding.shape) * DTYPE_BYTES[spec.embedding.dtype]
    return weights + table + _state(bundle, graphs)


def _weights(bundle: Bundle, graph: str) -> int:
    path = bundle.path(graph)
    files = {path, *(path.parent / name for name in external_locations(path))}
    return sum(file.stat().st_size for file in files)


def _state(bundle: Bundle, graphs: list[GraphSpec]) -> int:
    """Of the decoder with the longest context."""
    past = {name for layer in bundle.state for name, _ in state_names(layer)}
    sizes = [
        sum(prod(t.shape) * DTYPE_BYTES[t.dtype] for t in graph.inputs if t.name in past)
        for graph in graphs
    ]
    return max(sizes, default=0)
