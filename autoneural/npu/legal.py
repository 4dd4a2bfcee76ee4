"""What can be said against a bundle before the compiler is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.npu.layer_names import LayerNames
from autoneural.npu.partition import Part
from autoneural.npu.uses import read_uses
from autoneural.target.chips import Chip
from autoneural.target.legality import problems

_FLOAT = "float"


def require_integer_ends(parts: Iterable[Part]) -> None:
    """UserError naming the first graph input or output that is floating point."""
    for part in parts:
        for graph in part.graphs:
            for tensor in (*graph.spec.inputs, *graph.spec.outputs):
                if tensor.dtype.startswith(_FLOAT):
                    raise UserError(
                        f"{graph.spec.file}: {tensor.name} is {tensor.dtype}; an NPU graph takes "
                        "and gives integers (the host quantises), as `autoneural export` writes it"
                    )


def require_legal(
    bundle: Bundle, parts: Iterable[Part], chips: Iterable[Chip], allow_cpu: Sequence[str] = ()
) -> None:
    """UserError naming the first layer that the table says a chip refuses, and what it takes.

    Layers that fit a glob of `allow_cpu` may be refused. What the table does not know is left to
    the compiler.
    """
    files = dict.fromkeys(graph.spec.file for part in parts for graph in part.graphs)
    for file in files:
        model = ir.load(bundle.path(file))
        uses = read_uses(model)
        excused = _layers_like(model.graph, allow_cpu)
        for chip in chips:
            found = [p for p in problems(chip, uses) if p.layer not in excused]
            if found:
                rest = len({problem.layer for problem in found}) - 1
                more = f" (and {rest} layers more)" if rest else ""
                raise UserError(f"{file}: {found[0]}{more}")


def _layers_like(graph: ir.Graph, patterns: Sequence[str]) -> set[str]:
    """Layers that a pattern names, themselves or by one of their nodes."""
    names = LayerNames(graph)
    nodes = [node for node in graph if names.matches(str(node.name), patterns)]
    return {node.metadata_props.get("module") or str(node.name) for node in nodes}
