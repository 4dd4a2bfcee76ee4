"""What the decoder remembers between steps, laid out as the manifest says.

A decoder graph of width S sees the state at position p and returns, whatever the rows mean,

    conv layers       conv_window [1, H, L-1+S] = concat(past_conv, new columns)
    attention layers  the S new key/value rows  [1, kv, S, d]

and the host keeps the first n of the S rows (n < S: a padded chunk, or rejected drafts):

    past_conv                       <- conv_window[:, :, n : n+L-1]
    past_key_values[:, :, p : p+n]  <- rows[:, :, :n]

Key/value rows stay where they are; convolution columns are small and copied. So a mark (position +
convolution columns) is all it takes to go back there later and reuse a common prefix.

Graphs with a `past_block` take no more rows than the position needs, in whole blocks: the arrays
are copied where a block begins, forth and back. How many there are depends on the position alone,
because over another number of columns kernels add in another order.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoneural.bundle_graphs import state_names
from autoneural.manifest import LayerState, TensorSpec
from autoneural.runtime.chain import Arrays, Graph


@dataclass(frozen=True)
class Mark:
    """A place to return to: `position` committed tokens, and the conv columns there."""

    position: int
    conv: Arrays


@dataclass(frozen=True)
class Fork:
    """A continuation that is kept aside: its end, and the rows and keys since it parted."""

    end: Mark
    rows: Arrays
    keys: tuple[Hashable, ...]


class DecoderState:
    """State of one sequence. `keys` says what each committed position holds (token or picture)."""

    def __init__(self, layers: Sequence[LayerState], graph: Graph) -> None:
        names = {
            kind: [pair for layer in layers if layer.kind == kind for pair in state_names(layer)]
            for kind in ("conv", "attention")
        }
        self._conv_names, self._kv_names = names["conv"], names["attention"]
        self._graph = graph
        length = graph.spec.past_rows(0)
        self._rows = {past: self._empty_rows(past, length) for past, _ in self._kv_names}
        self._marks = [Mark(0, {past: _empty(graph.inputs[past]) for past, _ in self._conv_names})]
        self._now = self._marks[0]
        self._keys: list[Hashable] = []

    @property
    def position(self) -> int:
        """Number of committed tokens."""
        return self._now.position

    @property
    def here(self) -> Mark:
        """The present position, for `return_to`."""
        return self._now

    def return_to(self, mark: Mark) -> None:
        """Go back to a place since which only what lies behind it has changed."""
        self._now = mark

    def feeds(self) -> Arrays:
        """The state inputs of a decoder graph. Rows at and beyond `position` are to be masked."""
        self._fit(self.position)
        return {**self._now.conv, **self._rows}

    def commit(self, outputs: Arrays, keys: Sequence[Hashable]) -> None:
        """Keep the first len(keys) rows of a graph's outputs."""
        start, n = self.position, len(keys)
        conv = {}
        for past, present in self._conv_names:
            width = self._now.conv[past].shape[2]
            conv[past] = np.ascontiguousarray(outputs[present][:, :, n : n + width])
        self._fit(start + n)
        for past, present in self._kv_names:
            self._rows[past][:, :, start : start + n] = outputs[present][:, :, :n]
        self._keys[start:] = keys
        # One assignment: an interrupt before it leaves the old state, since rows beyond its
        # position and keys beyond it are never read.
        self._now = Mark(start + n, conv)

    def fork(self, since: Mark) -> Fork:
        """A copy of what was committed since a mark."""
        parted = slice(since.position, self.position)
        rows = {past: self._rows[past][:, :, parted].copy() for past, _ in self._kv_names}
        return Fork(self._now, rows, tuple(self._keys[parted]))

    def adopt(self, fork: Fork) -> None:
        """Go to the end of a fork; what was committed before it parted must still be there."""
        start = fork.end.position - len(fork.keys)
        self._fit(fork.end.position)
        for past, rows in fork.rows.items():
            self._rows[past][:, :, start : fork.end.position] = rows
        self._keys[start:] = fork.keys
        self._now = fork.end

    def mark(self) -> None:
        """Remember this position, so that `rewind` can return to it."""
        if self._marks[-1].position < self.position:
            self._marks.append(self._now)

    def rewind(self, keys: Sequence[Hashable], marks_only: bool = False) -> int:
        """Go to the last known position whose tokens all agree with `keys`; returns it.

        At least one key stays beyond it: logits need a row to come from. Known are the marks and,
        unless `marks_only`, where the sequence ends now.
        """
        common = 0
        limit = min(self.position, len(keys) - 1)
        while common < limit and self._keys[common] == keys[common]:
            common += 1
        known = self._marks if marks_only else [*self._marks, self._now]
        self._now = max((m for m in known if m.position <= common), key=lambda m: m.position)
        self._marks = [m for m in self._marks if m.position <= common]
        return self._now.position

    def _fit(self, position: int) -> None:
        """Keys and values of the length that belongs to a position, with what is committed."""
        length = self._graph.spec.past_rows(position)
        kept = min(length, self.position)
        for past, rows in self._rows.items():
            if rows.shape[2] != length:
                fitted = self._empty_rows(past, length)
                fitted[:, :, :kept] = rows[:, :, :kept]
                self._rows[past] = fitted

    def _empty_rows(self, past: str, length: int) -> np.ndarray:
        spec = self._graph.inputs[past]
        batch, heads, _, width = spec.shape
        return _empty(replace(spec, shape=(batch, heads, length, width)))


def _empty(spec: TensorSpec) -> np.ndarray:
    return np.full(spec.shape, spec.zero_point, spec.dtype)
