"""Steps of an answer: the pending token, with drafts behind it where there are any.

Kernels add in another order when a step is wider, or when a key stands in another column, so the
same tokens may give other last bits. Two ways to run them:

fast    a plain step runs the narrow graph, drafts run a wide one: logits agree but for rounding
exact   blocks: every step of an answer runs the same wide graph, with the same token in the same
        row, whatever was drafted. Positions p, p+1, ... after the prompt are cut into blocks of
        its width; a step goes back to the start of its block and runs all of it that is known:

            | past (committed blocks) | known known pending draft draft  -  -  - |

        A row sees itself and what is before it, so plain and speculative decoding compute the
        same bits; a wrong draft, or none, leaves no trace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from autoneural.runtime.chain import Arrays
from autoneural.runtime.decoder import Decoder
from autoneural.runtime.speculation import StepCosts

# How long the costs are measured: at least so many times, and so many seconds.
_REPEATS = 5
_SECONDS = 0.25


class AnswerSteps:
    """Runs tokens beyond the decoder's position, shows their logits, and keeps the right ones."""

    def __init__(self, decoder: Decoder, embedding: np.ndarray, *, exact: bool) -> None:
        self._decoder = decoder
        self._embedding = embedding
        self._exact = exact
        self._width = decoder.width_for(2)
        self._block = decoder.here
        self._known: list[int] = []
        self._tokens: list[int] = []
        self._outputs: Arrays = {}

    @property
    def room(self) -> int:
        """How many drafts fit behind the pending token."""
        return self._width - 1 - len(self._known)

    def run(self, tokens: Sequence[int]) -> None:
        """Run the pending token and its drafts, 1 to 1 + `room` in all; nothing is committed."""
        self._tokens = list(tokens)
        if self._exact:
            self._decoder.return_to(self._block)
        rows = self._embedding[[*self._known, *tokens]]
        self._outputs = self._decoder.run(rows, self._width if self._exact else 1)

    def logits(self, row: int) -> np.ndarray:
        """Logits [V] after the first 1 + `row` tokens of the last `run`."""
        at = len(self._known) + row
        return self._decoder.logits(self._outputs["hidden_states"][:, at : at + 1])

    def commit(self, count: int) -> None:
        """Keep the first `count` tokens of the last `run`."""
        tokens = [*self._known, *self._tokens[:count]]
        self._decoder.commit(self._outputs, tokens)
        if not self._exact:
            return
        self._known = tokens
        if len(tokens) == self._width:
            self._block, self._known = self._decoder.here, []

    def costs(self) -> StepCosts:
        """Measured here and now, by steps whose results are thrown away."""
        widths = [self._width] * 3 if self._exact else [1, min(2, self._width), self._width]
        plain, pair, wide = (np.asarray(self._embedding[[0] * width]) for width in widths)
        hidden = self._decoder.run(wide)["hidden_states"][:, :1]
        plain_ms, pair_ms, wide_ms, head_ms = _mean_ms(
            lambda: self._decoder.run(plain),
            lambda: self._decoder.run(pair),
            lambda: self._decoder.run(wide),
            lambda: self._decoder.logits(hidden),
        )
        if self._exact:  # the same step three times
            plain_ms = pair_ms = wide_ms = (plain_ms + pair_ms + wide_ms) / 3
        return StepCosts(
            width=self._width,
            plain_ms=plain_ms,
            pair_ms=pair_ms,
            wide_ms=wide_ms,
            head_ms=head_ms,
        )


def _mean_ms(*works: Callable[[], object]) -> list[float]:
    """Milliseconds of each, run in turns after one round that warms up.

    Not the least of them: a busy machine interrupts long steps more often than short ones, and will
    do so while it answers.
    """
    totals = [0.0] * len(works)
    end, rounds = time.perf_counter() + _SECONDS, 0
    while rounds <= _REPEATS or time.perf_counter() < end:
        for index, work in enumerate(works):
            start = time.perf_counter()
            work()
            totals[index] += (time.perf_counter() - start) * (rounds > 0)
        rounds += 1
    return [1e3 * total / (rounds - 1) for total in totals]
