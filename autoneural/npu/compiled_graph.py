"""What the compiler made of a graph, read from the JSON it writes: is everything integer?

The provider may run a quantised node in floating point on the HTP and say nothing; the types of the
compiled graph's tensors are the only place where it shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoneural.npu.layer_names import LayerNames

# QNN data types by their second byte: int, uint, signed and unsigned fixed point, bool.
_INTEGER_KINDS = (0x00, 0x01, 0x03, 0x04, 0x05)
_INPUT, _OUTPUT = 0, 1
_CONVERTS = ("Quantize", "Dequantize", "Cast", "Convert")


@dataclass(frozen=True, kw_only=True)
class CompiledGraph:
    """One graph after compilation. `partitions`: pieces that run on the NPU, 1 when it is whole.

    `float_layers` are the layers, or ends of the graph, that the float tensors belong to.
    """

    partitions: int
    float_tensors: int
    float_layers: tuple[str, ...]


def read_dumps(folder: Path, names: LayerNames) -> CompiledGraph:
    """Read the graphs that the compiler wrote to `folder` while it compiled one of ours."""
    graphs = [_load(path) for path in sorted(folder.glob("*.json")) if _is_graph(path)]
    floats = [_float_tensors(graph) for graph in graphs]
    pairs = zip(graphs, floats, strict=True)
    layers = (layer for graph, tensors in pairs for layer in _layers(graph, tensors, names))
    return CompiledGraph(
        partitions=len(graphs),
        float_tensors=sum(map(len, floats)),
        float_layers=tuple(dict.fromkeys(layers)),
    )


def _is_graph(path: Path) -> bool:
    return not path.stem.endswith("_tensor_log")


def _load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))["graph"]


def _is_float(tensor: dict[str, Any]) -> bool:
    return tensor["data_type"] >> 8 not in _INTEGER_KINDS


def _float_tensors(graph: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Tensors and tensor parameters of nodes that are no integers, by name."""
    tensors = dict(graph["tensors"])
    for node in graph["nodes"].values():
        for values in node["tensor_params"].values():
            tensors |= values
    return {name: tensor for name, tensor in tensors.items() if _is_float(tensor)}


def _layers(
    graph: dict[str, Any], floats: dict[str, dict[str, Any]], names: LayerNames
) -> Iterator[str]:
    """The layer of each node that reads or makes a float, and each float end of the graph."""
    ends = {_INPUT: "graph input", _OUTPUT: "graph output"}
    for name, tensor in floats.items():
        if tensor["type"] in ends:
            yield f"{ends[tensor['type']]} {name}"
    nodes = {
        name: node["type"]
        for name, node in graph["nodes"].items()
        if floats.keys() & _touched(node)
    }
    arithmetic = [name for name, kind in nodes.items() if kind not in _CONVERTS]
    for name in arithmetic or nodes:
        yield names.describe(name)


def _touched(node: dict[str, Any]) -> set[str]:
    inside = {name for values in node["tensor_params"].values() for name in values}
    return {*node["input_names"], *node["output_names"], *inside}
