"""What a decoder graph takes besides the state, kept from step to step and changed in place.

    inputs_embeds [1, S, H]   the rows, padded        cos, sin [1, 1, S, d]   at their places
    mask [1, 1, S, P+S]       open: the committed past and, among the new rows, the earlier ones
                              and itself; padded rows come last, so no real row sees them

P is the context, or as many blocks of a growing past as the position needs. The arrays stay the
same ones, so that a session binds them once; only a mask of another length is a new one.
"""

from __future__ import annotations

import numpy as np

from autoneural.config import TextConfig
from autoneural.manifest import GraphSpec
from autoneural.runtime.chain import Arrays
from autoneural.runtime.session import encode


class Positions:
    """cos and sin at every place of the context and, for padded rows, beyond: [C+S, d], encoded.

    For graphs of up to `width` rows, which encode them as `graph` does.
    """

    def __init__(self, graph: GraphSpec, text: TextConfig, width: int) -> None:
        inputs = {tensor.name: tensor for tensor in graph.inputs}
        # Padded rows may lie beyond the context; what they compute is thrown away.
        places = np.minimum(np.arange(graph.context + width), graph.context - 1)
        tables = zip(("cos", "sin"), rope_tables(text, graph.context), strict=True)
        self.tables = {name: encode(table, inputs[name])[places] for name, table in tables}


class StepInputs:
    """Of one graph, seen as a whole, for `width` rows.

    `mask_value` is what a mask adds where it is closed.
    """

    def __init__(
        self, graph: GraphSpec, positions: Positions, mask_value: float, width: int
    ) -> None:
        inputs = {tensor.name: tensor for tensor in graph.inputs}
        spec = inputs["inputs_embeds"]
        self._padding = spec.zero_point
        self._width = width
        self._tables = positions.tables
        open_and_closed = encode(np.array([0.0, mask_value], np.float32), inputs["mask"])
        self._open, self._closed = open_and_closed
        self._past_rows = graph.past_rows
        self._past: int | None = 0
        self._arrays: Arrays = {
            "inputs_embeds": np.full((1, width, spec.shape[2]), spec.zero_point, spec.dtype),
            **{name: table[None, None, :width].copy() for name, table in self._tables.items()},
            "mask": self._new_mask(self._past_rows(0)),
        }

    def fill(self, rows: np.ndarray, position: int) -> Arrays:
        """For `rows` [n, H], n <= S, behind `position` committed tokens; valid until the next."""
        arrays, n = self._arrays, len(rows)
        arrays["inputs_embeds"][0, :n] = rows
        arrays["inputs_embeds"][0, n:] = self._padding
        for name, table in self._tables.items():
            arrays[name][0, 0] = table[position : position + self._width]
        self._show(position)
        return arrays

    def _show(self, position: int) -> None:
        """Open the mask for so much of the past; what was open already is left alone."""
        length, past = self._past_rows(position), self._past
        self._past = None  # an interrupt below leaves it unknown
        if self._arrays["mask"].shape[3] != length + self._width:
            self._arrays["mask"], past = self._new_mask(length), 0
        mask = self._arrays["mask"]
        first, last = (0, length) if past is None else (past, past)
        mask[..., first:position] = self._open
        mask[..., position:last] = self._closed
        self._past = position

    def _new_mask(self, length: int) -> np.ndarray:
        """With all of the past closed."""
        mask = np.full((1, 1, self._width, length + self._width), self._closed)
        mask[0, 0, :, length:][np.tri(self._width, dtype=bool)] = self._open
        return mask


def rope_tables(text: TextConfig, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin, float32 [positions, head_dim], with rotate-half's sign folded into sin:

    rope(x) = x * cos + swap_halves(x) * sin
    """
    exponents = np.arange(0, text.head_dim, 2, dtype=np.float32) / np.float32(text.head_dim)
    wavelengths = np.power(np.float32(text.rope_theta), exponents)
    angles = np.arange(positions, dtype=np.float32)[:, None] / wavelengths
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([cos, cos], axis=1), np.concatenate([-sin, sin], axis=1)
