"""A norm is one node: RMSNormalization, LayerNormalization.

A check, nothing is rewritten. The chip computes a whole norm inside one operator, with one rounding
at its end; taken apart (Pow, ReduceMean, Add, Sqrt, Div, Mul) every step would be rounded to 16
bits, the mean of squares worst of all, and no module of ours has encodings for the steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from autoneural.errors import UserError

_MOVES = frozenset(("Transpose", "Reshape", "Identity"))


class WholeNorms(ir.passes.InPlacePass):
    """`norms`: module path -> the one operator that must come of it.

    Raises UserError naming the first module that became something else; modules that the graph does
    not use are fine.
    """

    def __init__(self, norms: Mapping[str, str]) -> None:
        self.norms = norms

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found: dict[str, list[str]] = {}
        for node in model.graph:
            module = node.metadata_props.get("module", "")
            if module in self.norms and node.op_type not in _MOVES:
                found.setdefault(module, []).append(node.op_type)
        for module, operators in found.items():
            if operators != [self.norms[module]]:
                raise UserError(
                    f"{model.graph.name}: {module}: became {', '.join(operators)}, not one "
                    f"{self.norms[module]}; an NPU would round every step of it"
                )
        return ir.passes.PassResult(model, False)
