"""An answer on its way: tokens, text, why it ended, and what it cost.

engine.generate(...) -> Generation -> Piece, Piece, ... -> Result(text, usage, timings)
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from autoneural.data.processor import ModelInputs
from autoneural.runtime.constraint import Constraint
from autoneural.runtime.drafting import Speculate
from autoneural.runtime.sampling import Sampler, Sampling
from autoneural.runtime.speculation import Speculation
from autoneural.runtime.steps import AnswerSteps
from autoneural.runtime.stream import TextStream
from autoneural.runtime.watch import NOBODY, Watch

if TYPE_CHECKING:
    from autoneural.runtime.engine import Engine

FinishReason = Literal["stop", "stop_sequence", "length", "cancelled"]


@dataclass(frozen=True)
class Piece:
    """Text that became ready to show; never half a character, never empty."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts under OpenAI's names; `cached_tokens` were not computed again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's `usage` object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(kw_only=True)
class Timings:
    """llama.cpp's `timings`, and ours: `ttft_ms`, `image_encode_ms`, `image_n`.

    `image_n` counts the pictures that were encoded now, not those whose features were kept.
    `prompt_*` is the prefill of the tokens that were not cached, image encoding apart. The first
    token comes out of the prefill, so the `predicted_*` rates are over the other predicted_n - 1;
    they are None where nothing was measured. Time the caller spends on a piece is not counted.
    """

    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    draft_n: int = 0
    draft_n_accepted: int = 0
    ttft_ms: float | None = None
    image_encode_ms: float = 0.0
    image_n: int = 0

    def to_dict(self) -> dict[str, Any]:
        """All fields with the rates, JSON-ready."""
        steps = self.predicted_n - 1
        return {
            **asdict(self),
            "prompt_per_token_ms": _ratio(self.prompt_ms, self.prompt_n),
            "prompt_per_second": _ratio(1e3 * self.prompt_n, self.prompt_ms),
            "predicted_per_token_ms": _ratio(self.predicted_ms, steps),
            "predicted_per_second": _ratio(1e3 * steps, self.predicted_ms),
        }


def _ratio(amount: float, per: float) -> float | None:
    return amount / per if amount > 0 and per > 0 else None


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished answer. `token_ids` include the end token where the model gave one.

    `speculation_off` says why guessing was given up, where it was asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    speculation_off: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready; `speculation_off` only where there is a reason."""
        found = {
            "text": self.text,
            "token_ids": list(self.token_ids),
            "finish_reason": self.finish_reason,
            "usage": self.usage.to_dict(),
            "timings": self.timings.to_dict(),
        }
        return found | ({"speculation_off": self.speculation_off} if self.speculation_off else {})


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A request that passed all checks."""

    inputs: ModelInputs
    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...]
    started: float
    speculate: Speculate = "off"
    beams: int = 1
    constraint: Constraint | None = None
    shown: frozenset[int] = frozenset()
    """Special tokens that the text keeps."""
    watch: Watch = NOBODY
    tenant: bytes = b""
    """Who may use again what is kept of this."""


class Generation:
    """An answer on its way: iterate for pieces, `close()` to stop; then `.result` is there."""

    def __init__(self, engine: Engine, prompt: Prompt) -> None:
        self._engine = engine
        self._prompt = prompt
        self._prompt_ids: list[int] = prompt.inputs.input_ids.tolist()
        self._text = TextStream(engine.tokenizer, prompt.stop, prompt.shown)
        self._sampler = Sampler(prompt.sampling, self._prompt_ids, prompt.constraint)
        self._token_ids: list[int] = []
        self._reason: FinishReason | None = None
        self._timings = Timings()
        self._speculation: Speculation | None = None
        self._pieces = self._run()

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """Stop here. The engine stays usable, the text so far is in `.result`."""
        self._pieces.close()
        self._reason = self._reason or "cancelled"

    @property
    def result(self) -> Result:
        """The answer, once the iteration has ended or was closed; before that it has none."""
        if self._reason is None:
            raise RuntimeError("the answer is not finished: iterate over it, or close() it, first")
        timings = self._timings
        return Result(
            text=self._text.text,
            token_ids=tuple(self._token_ids),
            finish_reason=self._reason,
            usage=Usage(
                prompt_tokens=len(self._prompt.inputs.input_ids),
                completion_tokens=len(self._token_ids),
                cached_tokens=timings.cache_n,
            ),
            timings=timings,
            speculation_off=self._speculation.off if self._speculation else None,
        )

    def _run(self) -> Generator[Piece, None, None]:
        reason: FinishReason = "cancelled"
        try:
            for text in self._answer():
                if text:
                    yield Piece(text)
            reason = self._finish_reason() or reason
            if rest := self._text.flush():
                yield Piece(rest)
        finally:
            # Also on close() and KeyboardInterrupt: what was said so far stays readable.
            self._text.flush()
            self._reason = reason

    def _answer(self) -> Iterator[str]:
        """Text per step, until a reason to stop; the time between steps goes to the timings."""
        engine, prompt, timings = self._engine, self._prompt, self._timings
        logits = engine._prefill(prompt, timings)
        text = self._take(logits)
        timings.ttft_ms = (time.perf_counter() - prompt.started) * 1e3
        steps = engine._steps()
        self._speculation = engine._speculation(prompt)
        while True:
            yield text
            if self._finish_reason():
                return
            prompt.watch.step()
            start = time.perf_counter()
            text = self._step(steps)
            timings.predicted_ms += (time.perf_counter() - start) * 1e3

    def _step(self, steps: AnswerSteps) -> str:
        """One step, one token or more: drafts count while they are what is sampled anyway."""
        drafts = self._drafts(steps)
        steps.run([self._token_ids[-1], *drafts])
        text, said = "", []
        for draft in (*drafts, None):
            text += self._take(steps.logits(len(said)))
            said.append(self._token_ids[-1])
            if said[-1] != draft or self._finish_reason():
                break
        if drafts:
            self._record(drafts, said, steps)
        steps.commit(len(said))
        return text

    def _drafts(self, steps: AnswerSteps) -> list[int]:
        """What to run behind the last token: no more than may still be said."""
        if self._speculation is None:
            return []
        left = self._prompt.max_tokens - len(self._token_ids)
        most = max(0, min(steps.room, left - 1))
        tokens = [*self._prompt_ids, *self._token_ids]
        return self._speculation.propose(tokens, most, self._sampler.forced(most))

    def _record(self, drafts: list[int], said: list[int], steps: AnswerSteps) -> None:
        """Count, and let the drafter learn from what was said and from the rows beyond it."""
        speculation, timings = self._speculation, self._timings
        assert speculation is not None
        accepted = sum(token == draft for token, draft in zip(said, drafts, strict=False))
        beyond = range(len(said), 1 + len(drafts) if speculation.reads_answers else 0)
        answers = [*said, *(int(steps.logits(row).argmax()) for row in beyond)]
        speculation.record(drafts, accepted, answers)
        timings.draft_n, timings.draft_n_accepted = speculation.drafted, speculation.accepted

    def _take(self, logits: np.ndarray) -> str:
        token = self._sampler.sample(logits)
        self._prompt.watch.token(token, logits)
        self._token_ids.append(token)
        self._timings.predicted_n += 1
        return self._text.push(token)

    def _finish_reason(self) -> FinishReason | None:
        """Why the answer is over, or None while it goes on."""
        if self._token_ids[-1] == self._engine.tokenizer.eos_id or self._sampler.finished:
            return "stop"
        if self._text.stopped:
            return "stop_sequence"
        return "length" if len(self._token_ids) >= self._prompt.max_tokens else None
