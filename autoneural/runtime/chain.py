"""A graph that was cut into parts, run as one.

Part k takes the residual stream `hidden.<layer>` that part k-1 returns, integers handed on as they
are. What no part makes comes from outside, and what no part takes goes there: seen from outside, a
chain is the whole graph. That its parts fit together is checked when a bundle is loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from autoneural.manifest import GraphSpec, TensorSpec

Arrays = dict[str, np.ndarray]


class Graph(Protocol):
    """A graph that is ready to run; `inputs` and `outputs` are its tensors by name."""

    spec: GraphSpec
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    @property
    def parts(self) -> tuple[Graph, ...]:
        """The sessions it consists of, in order."""
        ...

    @property
    def seconds(self) -> float:
        """How long it has run so far, inside of ONNX Runtime."""
        ...

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """All outputs by name."""
        ...

    def release(self) -> None:
        """Let go of the arrays of earlier runs."""
        ...

    def nodes_per_provider(self) -> dict[str, int]:
        """How many nodes each execution provider took."""
        ...


class GraphChain:
    """The parts of one graph in their order. `spec` is that of the whole."""

    def __init__(self, parts: Sequence[Graph]) -> None:
        self._parts = tuple(parts)
        taken = {name: tensor for part in parts for name, tensor in part.inputs.items()}
        made = {name: tensor for part in parts for name, tensor in part.outputs.items()}
        self.inputs = {name: tensor for name, tensor in taken.items() if name not in made}
        self.outputs = {name: tensor for name, tensor in made.items() if name not in taken}
        ends = {"inputs": tuple(self.inputs.values()), "outputs": tuple(self.outputs.values())}
        self.spec = replace(parts[0].spec, **ends)

    @property
    def parts(self) -> tuple[Graph, ...]:
        """The sessions it consists of, in order."""
        return self._parts

    @property
    def seconds(self) -> float:
        """How long its parts have run so far."""
        return sum(part.seconds for part in self._parts)

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """All outputs by name."""
        values = dict(feeds)
        for part in self._parts:
            values |= part.run({name: values[name] for name in part.inputs})
        return {name: values[name] for name in self.outputs}

    def release(self) -> None:
        """Let go of the arrays of earlier runs."""
        for part in self._parts:
            part.release()

    def nodes_per_provider(self) -> dict[str, int]:
        """How many nodes each execution provider took, over all parts."""
        counts: Counter[str] = Counter()
        for part in self._parts:
            counts.update(part.nodes_per_provider())
        return dict(counts)


class Tapped:
    """A graph whose runs are seen: `see(feeds, outputs)` after each.

    The feeds change in place before the next run: copy what is to be kept.
    """

    def __init__(self, inner: Graph, see: Callable[[Mapping[str, np.ndarray], Arrays], None]):
        self.spec, self.inputs, self.outputs = inner.spec, inner.inputs, inner.outputs
        self.inner, self._see = inner, see

    @property
    def parts(self) -> tuple[Graph, ...]:
        """Those of the graph."""
        return self.inner.parts

    @property
    def seconds(self) -> float:
        """How long the graph has run so far."""
        return self.inner.seconds

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """All outputs by name."""
        outputs = self.inner.run(feeds)
        self._see(feeds, outputs)
        return outputs

    def release(self) -> None:
        """Let go of the arrays of earlier runs."""
        self.inner.release()

    def nodes_per_provider(self) -> dict[str, int]:
        """How many nodes each execution provider took."""
        return self.inner.nodes_per_provider()
