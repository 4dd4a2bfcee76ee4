"""Whether drafts pay: what a wide step costs on this machine, and how much of it comes true."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from autoneural.runtime.drafting import Drafter

# Less than this is within the error of the measurement, and a draft costs time of its own.
PAYS = 1.05
PATIENCE = 4  # steps with drafts before the first judgement
MEMORY = 8  # the steps that a judgement looks back on


@dataclass(frozen=True, kw_only=True)
class StepCosts:
    """Milliseconds: a step without drafts, one of `width` rows, and the logits of one row.

    `pair_ms` is a step of two rows; without it, fewer rows than `width` cost what all do.
    """

    width: int
    plain_ms: float
    wide_ms: float
    head_ms: float
    pair_ms: float | None = None

    @property
    def ratio(self) -> float:
        """c(width) / c(1), without the logits."""
        return self.wide_ms / self.plain_ms

    def rows_ms(self, rows: int) -> float:
        """A step of so many rows, from two on: a line from `pair_ms` to `wide_ms`."""
        if self.pair_ms is None or rows >= self.width:
            return self.wide_ms
        return self.pair_ms + (self.wide_ms - self.pair_ms) * (rows - 2) / (self.width - 2)

    def gain(self, rows: int, tokens: float, logits: float) -> float:
        """How many times as fast as plain decoding a step of so many rows is.

        `tokens` come out of it, and for that the logits of `logits` rows are read.
        """
        plain = tokens * (self.plain_ms + self.head_ms)
        return plain / (self.rows_ms(rows) + logits * self.head_ms)


class Speculation:
    """The drafts of one answer: what must come, else guesses until they do not pay.

    Then `off` says why. What a constraint forces is not given up: it comes true.
    """

    def __init__(self, drafter: Drafter, costs: StepCosts) -> None:
        self._drafter = drafter
        self._costs = costs
        self._recent: deque[int] = deque(maxlen=MEMORY)
        self._forced = False
        self.drafted = 0
        self.accepted = 0
        self.off: str | None = None
        if costs.width == 1:
            self.off = "the bundle has no graph for more than one token of an answer"
        elif not self._pays(costs.width, costs.width - 1):
            self.off = f"not even {costs.width} tokens per step would pay: {self._price()}"

    @property
    def reads_answers(self) -> bool:
        """Whether `record` wants the likeliest token after every row."""
        return self._drafter.reads_answers and not self._forced

    def propose(self, tokens: Sequence[int], most: int, forced: Sequence[int] = ()) -> list[int]:
        """Up to `most` drafts to run behind the last token; none if they could not pay.

        `forced` is what a constraint lets come next, at most so many.
        """
        self._forced = bool(forced)
        if forced and self._costs.width > 1 and self._pays(1 + len(forced), len(forced)):
            return list(forced)
        self._forced = False
        if self.off or most < 1:
            return []
        drafts = self._drafter.propose(tokens, most)
        return drafts if self._pays(1 + len(drafts), len(drafts)) else []

    def record(self, drafts: Sequence[int], accepted: int, answers: Sequence[int]) -> None:
        """What became of the drafts that were run; see `Drafter.learn`."""
        self.drafted += len(drafts)
        self.accepted += accepted
        if self._forced:
            return
        self._drafter.learn(drafts, accepted, answers)
        self._recent.append(1 + accepted)
        tokens = mean(self._recent)
        if len(self._recent) >= PATIENCE and not self._pays(tokens, len(drafts)):
            self.off = f"{tokens:.1f} tokens per step do not pay: {self._price()}"

    def _pays(self, tokens: float, drafts: int) -> bool:
        logits = 1 + drafts if self.reads_answers else tokens
        return self._costs.gain(1 + drafts, tokens, logits) >= PAYS

    def _price(self) -> str:
        costs = self._costs
        return f"a step of {costs.width} rows takes {costs.ratio:.1f} times a plain one"
