"""Beam search: several beginnings of an answer grow side by side; what is said is the likeliest.

    score(answer) = sum over its tokens of log p(token | all before it) / number of tokens

A step runs every live beginning once, each with rows of its own, and keeps the best `beams` of all
their continuations. What ended competes by its score; the search is over when `beams` answers ended
and no live beginning has a better score than the worst of them. So are ends, ties (to the smaller
token) and lengths treated by transformers, with `early_stopping=False` and `length_penalty=1`.

Not speculation: it costs a step per beam and token, and the answer is another one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoneural.errors import UserError
from autoneural.runtime.constraint import Constraint
from autoneural.runtime.drafting import Speculate
from autoneural.runtime.generation import FinishReason, Generation
from autoneural.runtime.sampling import Sampling
from autoneural.runtime.state import Fork, Mark
from autoneural.runtime.stream import TextStream


@dataclass(frozen=True, kw_only=True)
class Beam:
    """The beginning of an answer, with the sum of its log-probabilities.

    `fork` has its tokens but the last, until `logits` [V] say what may follow: then all of them.
    """

    tokens: tuple[int, ...] = ()
    total: float = 0.0
    fork: Fork
    logits: np.ndarray | None = None
    constraint: Constraint | None = None

    @property
    def score(self) -> float:
        return self.total / len(self.tokens)


class BeamGeneration(Generation):
    """An answer found by beam search; its text comes in one piece, when the search is over.

    A `Watch` is asked before each step, and sees no tokens: most of them are never said.
    """

    _whole = False

    def _answer(self) -> Iterator[str]:
        engine, prompt, timings = self._engine, self._prompt, self._timings
        logits = engine._prefill(prompt, timings)
        start = time.perf_counter()
        root = engine._decoder.here
        found = self._search(
            Beam(
                fork=engine._decoder.fork(root),
                logits=logits,
                constraint=prompt.constraint.copy() if prompt.constraint else None,
            ),
            root,
        )
        engine._decoder.adopt(found.fork)
        timings.predicted_ms = (time.perf_counter() - start) * 1e3
        timings.ttft_ms = (time.perf_counter() - prompt.started) * 1e3
        timings.predicted_n = len(found.tokens)
        self._token_ids.extend(found.tokens)
        self._whole = found.constraint is not None and found.constraint.finished
        yield "".join([self._text.push(token) for token in found.tokens])

    def _finish_reason(self) -> FinishReason | None:
        return "stop" if self._whole else super()._finish_reason()

    def _search(self, first: Beam, root: Mark) -> Beam:
        width, ended, live = self._prompt.beams, list[Beam](), [first]
        for _ in range(self._prompt.max_tokens):
            going: list[Beam] = []
            for rank, beam in enumerate(continuations(live, 2 * width)):
                if not self._ends(beam):
                    going.append(beam)
                elif rank < width:
                    ended.append(beam)
            live = going[:width]
            ended = sorted(ended, key=lambda beam: -beam.score)[:width]
            if not live or (len(ended) == width and live[0].score <= ended[-1].score):
                break
            if len(live[0].tokens) < self._prompt.max_tokens:
                live = [self._advanced(beam, root) for beam in live]
        else:
            ended += live
        return max(ended, key=lambda beam: beam.score)

    def _advanced(self, beam: Beam, root: Mark) -> Beam:
        """Its last token is run as well."""
        self._prompt.watch.step()
        decoder = self._engine._decoder
        decoder.adopt(beam.fork)
        logits = self._engine._decode(beam.tokens[-1])
        return replace(beam, fork=decoder.fork(root), logits=logits)

    def _ends(self, beam: Beam) -> bool:
        if beam.tokens[-1] == self._engine.tokenizer.eos_id:
            return True
        if beam.constraint is not None and beam.constraint.finished:
            return True
        if not self._prompt.stop:
            return False
        text = TextStream(self._engine.tokenizer, self._prompt.stop, self._prompt.shown)
        for token in beam.tokens:
            text.push(token)
        return text.stopped


def check_beams(beams: int, sampling: Sampling, speculate: Speculate) -> None:
    """UserError for what a search for the likeliest answer cannot have."""
    if beams < 1:
        raise UserError(f"beams: {beams} is not at least 1")
    if beams > 1 and sampling != Sampling(seed=sampling.seed):
        raise UserError("beams: search for the likeliest answer; leave temperature, penalties out")
    if beams > 1 and speculate != "off":
        raise UserError("beams: each has steps of its own; leave speculate out")


def continuations(beams: Sequence[Beam], count: int) -> list[Beam]:
    """The likeliest `count` beams of one token more, the best first; fewer where fewer may be."""
    totals = np.concatenate([_totals(beam) for beam in beams])
    size = len(totals) // len(beams)
    order = np.argsort(-totals, kind="stable")[:count]
    return [
        _extended(beams[index // size], int(index % size), float(totals[index]))
        for index in order
        if np.isfinite(totals[index])
    ]


def _totals(beam: Beam) -> np.ndarray:
    """What the beam's sum becomes by each token [V]; -inf for what the constraint forbids."""
    assert beam.logits is not None
    shifted = beam.logits.astype(np.float64) - beam.logits.max()
    totals = beam.total + shifted - np.log(np.exp(shifted).sum())
    return totals if beam.constraint is None else beam.constraint.mask(totals)


def _extended(beam: Beam, token: int, total: float) -> Beam:
    constraint = beam.constraint and beam.constraint.copy()
    if constraint is not None:
        constraint.accept(token)
    return replace(
        beam, tokens=(*beam.tokens, token), total=total, logits=None, constraint=constraint
    )
