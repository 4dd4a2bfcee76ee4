"""Steps the decoder graphs over a sequence: inputs, state, logits.

rows    [n, H] in the encoding of inputs_embeds, n >= 1
chunk   the first n of S rows are real; row r sees the committed past and rows 0..r. S is n where
        the graph takes any number, or its width
answer  logits [V] after the last row, real numbers
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np

from autoneural.bundle import Bundle
from autoneural.runtime.chain import Arrays, Graph
from autoneural.runtime.session import TargetSessions, decode
from autoneural.runtime.state import DecoderState, Fork, Mark
from autoneural.runtime.step_inputs import Positions, StepInputs

_KEPT_WIDTHS = 16


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
        self.context = min(session.spec.context for session in sessions.decoders)
        self._positions = Positions(sessions.decoders[0].spec, bundle.model.text, self._widest)
        self._inputs: OrderedDict[int, StepInputs] = OrderedDict()
        self.reset()

    @property
    def position(self) -> int:
        """Number of committed tokens."""
        return self._state.position

    def reset(self) -> None:
        """Forget everything."""
        self._state = DecoderState(self._layers, self._sessions.decoders[0])
        self._past_rows: int | None = None  # as no run has had them

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
        width = max(len(rows), width)
        session = self._sessions.decoder_for(width)
        return session.run(self._feeds(session, rows, width))

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

    def fork(self, since: Mark) -> Fork:
        """A copy of what was committed since `since`, for `adopt`."""
        return self._state.fork(since)

    def adopt(self, fork: Fork) -> None:
        """Go on behind a fork; what it parted from must not have been forgotten."""
        self._state.adopt(fork)

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Logits [V], float32, of a hidden state [1, 1, H]."""
        head = self._sessions.head
        return decode(head.run({"hidden_states": hidden})["logits"], head.outputs["logits"])[0, 0]

    def _feeds(self, graph: Graph, rows: np.ndarray, width: int) -> Arrays:
        past_rows = graph.spec.past_rows(self.position)
        if past_rows != self._past_rows:  # graphs of other widths would hold on to the old arrays
            for other in self._sessions.decoders:
                other.release()
            self._past_rows = past_rows
        inputs = self._inputs_for(graph, width if graph.spec.any_width else graph.spec.width)
        return {**inputs.fill(rows, self.position), **self._state.feeds()}

    def _inputs_for(self, graph: Graph, width: int) -> StepInputs:
        """Those of `width` rows; the few widths that were used last are kept."""
        if width not in self._inputs:
            mask_value = self._sessions.target.mask_value
            self._inputs[width] = StepInputs(graph.spec, self._positions, mask_value, width)
        self._inputs.move_to_end(width)
        if len(self._inputs) > _KEPT_WIDTHS:
            self._inputs.popitem(last=False)
        return self._inputs[width]
