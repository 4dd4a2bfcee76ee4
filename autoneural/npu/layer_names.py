"""What a person calls the nodes of a graph: the layer of the model that made them.

The compiler speaks of nodes and tensors, some of them renamed on the way (`node_Conv_46_token_3`,
`linear_2.int.QuantizeLinear`). Quantise and dequantise nodes belong to no layer by name: they count
to the one they serve.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import onnx_ir as ir

PLUMBING = ("QuantizeLinear", "DequantizeLinear")


class LayerNames:
    """Layer and operator of every node and tensor of one graph, by name."""

    def __init__(self, graph: ir.Graph) -> None:
        self._nodes = {str(node.name): node for node in graph}
        self._made: dict[str, ir.Node] = {}
        for node in graph:
            self._made |= {str(value.name): node for value in node.outputs}

    def find(self, name: str) -> ir.Node | None:
        """The node called `name`, or that makes the tensor of this name; renamed ones as well."""
        for end in range(len(name), 0, -1):
            node = self._nodes.get(name[:end]) or self._made.get(name[:end])
            if node is not None:
                return node
        return None

    def layer(self, name: str) -> str:
        """The module path of the layer; the name itself where there is none."""
        node = self.find(name)
        owner = None if node is None else _owner(node)
        return name if owner is None else owner.metadata_props.get("module") or str(owner.name)

    def describe(self, name: str) -> str:
        """`language_model.model.layers.2.feed_forward.sigmoid (Sigmoid)`."""
        node = self.find(name)
        owner = None if node is None else _owner(node)
        return self.layer(name) if owner is None else f"{self.layer(name)} ({owner.op_type})"

    def matches(self, name: str, patterns: Iterable[str]) -> bool:
        """Whether the node's own name or its layer fits one of the globs."""
        texts = (name, self.layer(name))
        return any(fnmatchcase(text, pattern) for pattern in patterns for text in texts)

    def is_plumbing(self, name: str) -> bool:
        """Whether it only quantises or dequantises."""
        node = self.find(name)
        return name.startswith(PLUMBING) if node is None else node.op_type in PLUMBING

    def neighbours(self, name: str) -> set[str]:
        """Names of the nodes whose results it reads, and of those that read its results."""
        node = self.find(name)
        if node is None:
            return set()
        producers = [value.producer() for value in node.inputs if value is not None]
        readers = [reader for value in node.outputs for reader, _ in value.uses()]
        return {str(other.name) for other in (*producers, *readers) if other is not None}


def _owner(node: ir.Node) -> ir.Node:
    """The nearest node that does arithmetic: backwards where there is one, else forwards."""
    seen: set[ir.Node] = set()
    while node not in seen and not node.metadata_props.get("module"):
        seen.add(node)
        source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        readers = (reader for value in node.outputs for reader, _ in value.uses())
        following = source if source is not None else next(readers, None)
        if following is None:
            break
        node = following
    return node
