"""Drafts: cheap guesses of the next tokens, which one wide step of the model checks at once.

forced     none: only what the form of the answer (`constraint.py`) leaves no choice about, which
           comes before the guesses of the others as well
lookup     prompt lookup: what followed the same n-gram earlier in prompt or answer
           (github.com/apoorvumang/prompt-lookup-decoding)
lookahead  Jacobi iteration with an n-gram pool (Fu et al., arXiv 2402.02057), on one chain

A draft changes the speed, never the tokens: what the model does not say itself is thrown away.
Places of pictures share one placeholder id, so no n-gram and no draft may hold it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

Speculate = Literal["off", "forced", "lookup", "lookahead"]


class Drafter(Protocol):
    """Guesses for one answer. `reads_answers`: `learn` wants an answer to every draft."""

    reads_answers: bool

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that may follow `tokens`, the ids of the prompt and the answer.

        `tokens` are those of the last call and what was said since.
        """
        ...

    def learn(self, drafts: Sequence[int], accepted: int, answers: Sequence[int]) -> None:
        """The first `accepted` of the drafts were right.

        `answers[i]` follows the first i drafts: what was said, and beyond that, if `reads_answers`,
        what the model holds likeliest after drafts that were wrong.
        """
        ...


class NoGuesses:
    """For drafts that a constraint forces, and no others."""

    reads_answers = False

    def __init__(self, image_id: int) -> None:
        pass

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """See `Drafter`: nothing."""
        return []

    def learn(self, drafts: Sequence[int], accepted: int, answers: Sequence[int]) -> None:
        """Nothing: there are no drafts."""


class PromptLookup:
    """Copies what followed the last occurrence of the longest n-gram that ends the text."""

    reads_answers = False

    def __init__(self, image_id: int, longest: int = 3) -> None:
        self._image_id = image_id
        self._longest = longest
        self._follows: dict[tuple[int, ...], int] = {}
        self._indexed = 1

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """See `Drafter`; nothing where not even the last token occurred before."""
        self._index(tokens)
        for size in range(self._longest, 0, -1):
            start = self._follows.get(tuple(tokens[-size:]))
            if start is not None:
                return self._copy(tokens, start, most)
        return []

    def learn(self, drafts: Sequence[int], accepted: int, answers: Sequence[int]) -> None:
        """Nothing: the text says it all."""

    def _index(self, tokens: Sequence[int]) -> None:
        """Where each n-gram was followed by something, last."""
        for at in range(self._indexed, len(tokens)):
            for size in range(1, min(self._longest, at) + 1):
                ngram = tuple(tokens[at - size : at])
                if self._image_id not in ngram:
                    self._follows[ngram] = at
        self._indexed = len(tokens)

    def _copy(self, tokens: Sequence[int], start: int, most: int) -> list[int]:
        """From `start` over the end of the text into the copy itself, as LZ77 repeats a pattern."""
        text = list(tokens[start:])
        while text and len(text) < most:
            text += text[: most - len(text)]
        drafts = text[:most]
        return drafts[: drafts.index(self._image_id)] if self._image_id in drafts else drafts


class Lookahead:
    """Lookahead decoding for graphs that check one chain of tokens.

    The paper runs W x (N-1) Jacobi rows and up to G guesses side by side, kept apart by a mask. A
    short convolution knows no mask, it reads its neighbours in order, so branches do not fit into
    one chain. Here guess and Jacobi rows share it: the pending token, the N-1 tokens of the best
    guess from the pool, and the window's tokens up to `window` rows. N-grams for the pool are read
    off the chain (N-1 inputs and the answer to them) and off the text; `guesses` are kept per first
    token, newest first, and one whose first token was wrong goes to the back.
    """

    reads_answers = True

    def __init__(self, image_id: int, window: int = 7, ngram: int = 6, guesses: int = 4) -> None:
        self._image_id = image_id
        self._rows = window
        self._ngram = ngram
        self._guesses = guesses
        self._pool: defaultdict[int, list[tuple[int, ...]]] = defaultdict(list)
        self._read = ngram - 1
        self._pending = -1
        self._length = 0
        self._window: list[int] = []

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """See `Drafter`; always something, since a Jacobi row may start with any token."""
        for end in range(self._read + 1, len(tokens) + 1):
            self._add(tokens[end - self._ngram : end])
        self._read = max(self._read, len(tokens))
        # Steps without drafts may lie between: the window is for fixed places of the text.
        self._window = self._window[len(tokens) - self._length :]
        self._length, self._pending = len(tokens), tokens[-1]
        pool = self._pool.get(self._pending)
        chain = list(pool[0]) if pool else []
        chain += self._window[len(chain) : self._rows]
        start = chain[-1] if chain else self._pending
        if start != self._image_id:
            chain += [start] * (self._rows - len(chain))
        return chain[:most]

    def learn(self, drafts: Sequence[int], accepted: int, answers: Sequence[int]) -> None:
        """New n-grams for the pool, and the next window: one Jacobi iteration."""
        pool = self._pool.get(self._pending, [])
        if pool and not accepted and pool[0][0] == drafts[0]:
            pool.append(pool.pop(0))
        rows = [self._pending, *drafts]
        for end in range(self._ngram - 1, len(answers) + 1):
            self._add([*rows[end - self._ngram + 1 : end], answers[end - 1]])
        window = list(answers[accepted + 1 :])
        ends = window.index(self._image_id) if self._image_id in window else len(window)
        self._window = window[:ends]
        self._length += accepted + 1

    def _add(self, ngram: Sequence[int]) -> None:
        if self._image_id in ngram:
            return
        first, *rest = ngram
        pool = self._pool[first]
        if tuple(rest) in pool:
            pool.remove(tuple(rest))
        pool.insert(0, tuple(rest))
        del pool[self._guesses :]


DRAFTERS: dict[str, Callable[[int], Drafter]] = {
    "forced": NoGuesses,
    "lookup": PromptLookup,
    "lookahead": Lookahead,
}
