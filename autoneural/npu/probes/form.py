"""One form of an operator: what the oracle asks about, and the graph that asks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from autoneural.npu.probes.graph import ProbeGraph
from autoneural.target.precision import FLOATS, parse

Build = Callable[[ProbeGraph], ir.Value | Sequence[ir.Value]]

ONE = ("a8", "a16", *FLOATS)
REQUANTISED = ("a8", "a16", "a16>a8", "a8>a16", *FLOATS)

SHAPES = {
    2: (16, 32),
    3: (1, 16, 32),
    4: (1, 16, 8, 32),
    5: (1, 4, 8, 8, 32),
    6: (1, 4, 2, 8, 2, 32),
}
"""One small activation of each rank."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """An operator with a variant and a rank, and the precisions it is asked in."""

    op: str
    build: Build
    rank: int
    precisions: tuple[str, ...] = ONE
    variant: str = ""

    def model(self, precision: str) -> ir.Model:
        """The probe in that precision."""
        graph = ProbeGraph(parse(self.op, precision))
        made = self.build(graph)
        return graph.model(*([made] if isinstance(made, ir.Value) else made))
