"""What the compiler is asked: operators, the forms they take, the number formats of each.

A form is an operator with a variant (`depthwise`, `tanh`, `scalar`, ...) and a rank. The same words
come out of `autoneural.npu.uses` for the nodes of a real graph; a test holds the two together.

    graph.py        writes one probe down
    arithmetic.py   operators that compute
    layout.py       operators that normalise, pool, move and look up
    blocks.py       several operators in a row, under a name of their own
"""

from __future__ import annotations

from dataclasses import replace

from autoneural.npu.probes.arithmetic import arithmetic
from autoneural.npu.probes.blocks import blocks
from autoneural.npu.probes.form import Form
from autoneural.npu.probes.layout import layout

__all__ = ["Form", "forms"]


def forms() -> list[Form]:
    """Every form, the main one of each operator before its others; blocks last.

    fp32 is asked of the first rank of a variant only.
    """
    found: list[Form] = []
    seen: set[tuple[str, str]] = set()
    for form in (*arithmetic(), *layout(), *blocks()):
        if (form.op, form.variant) in seen:
            asked = tuple(p for p in form.precisions if p != "fp32")
            form = replace(form, precisions=asked)
        seen.add((form.op, form.variant))
        found.append(form)
    return found
