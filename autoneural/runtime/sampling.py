"""Logits -> next token. The filters and their order are those of transformers and vLLM:

constraint -> repetition penalty -> frequency and presence penalty -> (greedy: argmax)
           -> temperature -> top-k -> top-p -> min-p -> draw
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from autoneural.errors import UserError
from autoneural.runtime.constraint import Constraint

_LEAST = 1e-6
"""Temperatures and penalties below it mean the same, and logits over it are still numbers."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen. Temperature 0, the default, is greedy; seed None is random.

    `top_k` 0, `top_p` 1, `min_p` 0, `repetition_penalty` 1 and the other penalties 0 are off.

    `frequency_penalty` is taken off a token's logit for every time the answer said it already,
    `presence_penalty` once if it did; negative ones (down to -2) invite repetition. As OpenAI and
    vLLM have it, they count the answer alone, never the prompt: an answer may quote its question.
    llama.cpp counts its last 64 tokens, of the prompt as well. `repetition_penalty` counts both,
    as transformers and vLLM do.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _require(0 <= self.temperature < float("inf"), "temperature", self.temperature, "0 or more")
        _require(self.top_k >= 0, "top_k", self.top_k, "0 (off) or more")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]")
        _require(0 <= self.min_p <= 1, "min_p", self.min_p, "in [0, 1]")
        penalty = self.repetition_penalty
        _require(0 < penalty < float("inf"), "repetition_penalty", penalty, "above 0")
        for name in ("presence_penalty", "frequency_penalty"):
            _require(-2 <= getattr(self, name) <= 2, name, getattr(self, name), "in [-2, 2]")
        _require(self.seed is None or self.seed >= 0, "seed", self.seed, "0 or more")


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise UserError(f"{name}: {value} is not {wanted}")


class Sampler:
    """Chooses tokens for one answer; remembers prompt and answer for the penalties.

    A `constraint` is followed from its beginning; it may serve many samplers.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Iterable[int] = (),
        constraint: Constraint | None = None,
    ) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._seen = set(prompt)
        self._said: Counter[int] = Counter()
        self._constraint = constraint.copy() if constraint else None

    @property
    def finished(self) -> bool:
        """Whether the constraint lets nothing follow; without one, an answer never is."""
        return self._constraint is not None and self._constraint.finished

    def forced(self, most: int) -> list[int]:
        """Up to `most` tokens that the constraint, if any, leaves no choice about."""
        return self._constraint.forced(most) if self._constraint else []

    def sample(self, logits: np.ndarray) -> int:
        """The next token for logits [V]; it counts as said from now on."""
        if self._constraint:
            logits = self._constraint.mask(logits)
        how = self._sampling
        penalised = penalise(logits, self._seen, how.repetition_penalty)
        penalised = discourage(penalised, self._said, how.presence_penalty, how.frequency_penalty)
        if how.temperature == 0:
            token = int(penalised.argmax())
        else:
            chances = probabilities(penalised, how)
            token = int(self._random.choice(len(chances), p=chances))
        self._seen.add(token)
        self._said[token] += 1
        if self._constraint:
            self._constraint.accept(token)
        return token


def penalise(logits: np.ndarray, seen: Iterable[int], penalty: float) -> np.ndarray:
    """Logits of seen tokens divided by `penalty` where positive, multiplied where negative."""
    if penalty == 1.0:
        return logits
    penalty = max(penalty, _LEAST)
    ids = np.fromiter((i for i in seen if i < len(logits)), dtype=np.int64)
    out = logits.astype(np.float64)
    out[ids] = np.where(out[ids] > 0, out[ids] / penalty, out[ids] * penalty)
    return out


def discourage(
    logits: np.ndarray, said: Mapping[int, int], presence: float, frequency: float
) -> np.ndarray:
    """Logits [V] less `presence`, and `frequency` times its count, for each token in `said`."""
    if not said or presence == frequency == 0:
        return logits
    ids = np.fromiter(said, dtype=np.int64)
    counts = np.fromiter(said.values(), dtype=np.float64)
    out = logits.astype(np.float64)
    out[ids] -= presence + frequency * counts
    return out


def probabilities(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """The distribution that is drawn from, float64 [V]; filtered tokens have probability 0.

    Ties at a border go to the smaller token id, so every filter keeps an exact number of tokens.
    """
    order = np.argsort(-logits, kind="stable")
    scaled = logits[order].astype(np.float64) / max(sampling.temperature, _LEAST)
    if sampling.top_k:
        scaled = scaled[: sampling.top_k]
    chances = np.exp(scaled - scaled[0])
    chances /= chances.sum()
    before = np.cumsum(chances) - chances
    # The first token stays even where rounding says otherwise.
    kept = before < sampling.top_p
    kept[0] = True
    chances = chances[kept]
    chances = chances[chances >= sampling.min_p * chances[0]]
    out = np.zeros(len(logits))
    out[order[: len(chances)]] = chances / chances.sum()
    return out
