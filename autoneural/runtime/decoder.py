"""Steps the decoder graphs over a sequence: masks, rotary tables, padding, state.

rows    [n, H] in the encoding of inputs_embeds, n >= 1
chunk   the first n of S rows are real; row r sees the committed past and rows 0..r
answer  logits [V] after the last row, real numbers
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from autoneural.bundle import Bundle
from autoneural.config import TextConfig
from autoneural.runtime.chain import Arrays, Graph
from autoneural.runtime.session import TargetSessions, decode, encode
from autoneural.runtime.state import DecoderState, Mark


class Decoder:
    """The language model of one target with the state of one sequence.

    A row's last bits depend on the width of the graph that computed it. With `exact_reuse` only
    whole chunks of the widest graph are kept, which every prompt that begins so computes alike:
    what comes after them has the same bits as without anything kept.
    """

    def __init__(self, bundle: Bundle, sessions: TargetSessions, exact_reuse: bool = False) -> None:
        self._sessions = sessions
        self._exact_reuse = exact_reuse
        self._widest = max(session.spec.width for session in sessions.decoders)
        self._layers = bundle.state
        graph = sessions.decoders[0]
        self.context = min(session.spec.context for session in sessions.decoders)
        cos, sin = rope_tables(bundle.model.text, self.context)
        self._cos = encode(cos, graph.inputs["cos"])
        self._sin = encode(sin, graph.inputs["sin"])
        open_and_closed = np.array([0.0, sessions.target.mask_value], np.float32)
        self._open, self._closed = encode(open_and_closed, graph.inputs["mask"])
        self.reset()

    @property
    def position(self) -> int:
        """Number of committed tokens."""
        return self._state.position

    def reset(self) -> None:
        """Forget everything."""
        self._state = DecoderState(self._layers, self._sessions.decoders[0])

    def rewind(self, keys: Sequence[Hashable]) -> int:
        """Keep what is shared with `keys`; returns how many of them are already committed."""
        return self._state.rewind(keys, marks_only=self._exact_reuse)

    def mark(self) -> None:
        """Make the present position one that `rewind` can return to."""
        if not self._exact_reuse or self.position % self._widest == 0:
            self._state.mark()

    def chunk_size(self, tokens: int) -> int:
        """How many of `tokens` pending rows the next `step` takes at most."""
        return min(tokens, self.width_for(tokens))

    def step(self, rows: np.ndarray, keys: Sequence[Hashable]) -> np.ndarray:
        """Commit `rows`, at most `chunk_size(len(rows))`; returns the last hidden state [1, 1, H].

        `keys` say what the rows are, for `rewind`.
        """
        outputs = self.run(rows)
        last = len(rows) - 1
        self.commit(outputs, keys)
        return outputs["hidden_states"][:, last : last + 1]

    def width_for(self, tokens: int) -> int:
        """Rows of the narrowest graph that takes `tokens` at once, else of the widest."""
        return self._sessions.decoder_for(tokens).spec.width

    def run(self, rows: np.ndarray, width: int = 1) -> Arrays:
        """What a graph of at least this width says to `rows`; nothing is committed."""
        session = self._sessions.decoder_for(max(len(rows), width))
        return session.run(self._feeds(session, rows))

    def commit(self, outputs: Arrays, keys: Sequence[Hashable]) -> None:
        """Keep the first len(keys) rows of a `run`."""
        self._state.commit(outputs, keys)

    @property
    def here(self) -> Mark:
        """The present position, for `return_to`."""
        return self._state.here

    def return_to(self, mark: Mark) -> None:
        """Forget what was committed since; nothing before `mark` may have changed."""
        self._state.return_to(mark)

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Logits [V], float32, of a hidden state [1, 1, H]."""
        head = self._sessions.head
        return decode(head.run({"hidden_states": hidden})["logits"], head.outputs["logits"])[0, 0]

    def _feeds(self, session: Graph, rows: np.ndarray) -> Arrays:
        width, n, start = session.spec.width, len(rows), self.position
        spec = session.inputs["inputs_embeds"]
        embeds = np.full(spec.shape, spec.zero_point, spec.dtype)
        embeds[0, :n] = rows
        # Padded rows may lie beyond the table; what they compute is thrown away.
        places = np.minimum(np.arange(start, start + width), self.context - 1)
        return {
            "inputs_embeds": embeds,
            "cos": self._cos[places][None, None],
            "sin": self._sin[places][None, None],
            "mask": self._mask(width, session.spec.context),
            **self._state.feeds(),
        }

    def _mask(self, width: int, context: int) -> np.ndarray:
        """[1, 1, S, C+S]: the committed past and, among the new rows, the earlier ones and itself.

        Padded rows come last, so no real row sees them.
        """
        mask = np.full((1, 1, width, context + width), self._closed)
        mask[..., : self.position] = self._open
        mask[0, 0, :, context:][np.tri(width, dtype=bool)] = self._open
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
