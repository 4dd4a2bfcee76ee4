"""The log-probability of each token and of its rivals, and which text they belong to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from autoneural.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class Choice:
    """One token, and how likely the model found it before any sampling setting."""

    data: bytes
    logprob: float

    @property
    def text(self) -> str:
        """The token as text; a part of a character shows as U+FFFD."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True)
class TokenChoice:
    """What was said, where it begins in the answer (byte and letter), and the likeliest tokens."""

    said: Choice
    byte: int
    letter: int
    top: Sequence[Choice]


class ChoiceLog:
    """Collects the tokens of an answer; hands them out together with the text they became."""

    def __init__(self, tokenizer: Tokenizer, top: int, shown: Collection[int] = ()) -> None:
        """`shown` are special tokens that belong to the text."""
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids.difference(shown)
        self._top = top
        self._held: list[TokenChoice] = []
        self._bytes = 0
        self._letters = 0
        self._text = 0

    def add(self, token: int, logits: np.ndarray) -> None:
        """A token and the logits [V] that it came from. Special ones are no part of the text."""
        if token in self._skipped:
            return
        logprobs = _log_softmax(logits)
        said = self._choice(token, logprobs)
        top = [self._choice(int(i), logprobs) for i in _largest(logprobs, self._top)]
        self._held.append(TokenChoice(said, self._bytes, self._letters, top))
        self._bytes += len(said.data)
        self._letters += sum(byte & 0xC0 != 0x80 for byte in said.data)  # none inside a letter

    def take(self, text: str) -> list[TokenChoice]:
        """The tokens that begin within the text up to here; `text` is what is new of it.

        What a stop string cut off is never handed out.
        """
        self._text += len(text.encode("utf-8"))
        ready = [choice for choice in self._held if choice.byte < self._text]
        self._held = self._held[len(ready) :]
        return ready

    def _choice(self, token: int, logprobs: np.ndarray) -> Choice:
        return Choice(self._tokenizer.token_bytes(token), float(logprobs[token]))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max()
    # Where a logit is -inf, JSON has no number for its logarithm.
    return np.maximum(shifted - np.log(np.exp(shifted).sum()), -9999.0)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest values, the largest first; of equals, the first."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    border = np.partition(values, -count)[-count]
    candidates = np.flatnonzero(values >= border)
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]
