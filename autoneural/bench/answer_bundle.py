"""A bundle's engine as an answerer of `quality`: greedy, one question at a time. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autoneural.bench.quality import Item
from autoneural.runtime.engine import Engine

MAX_TOKENS = 64


class EngineAnswerer:
    """Answers through the runtime that users run, so its mistakes count as the model's."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def answer(self, items: Sequence[Item]) -> Iterator[str]:
        """Greedy answers, each from a fresh state: none depends on the question before it."""
        for item in items:
            self._engine.reset()
            generation = self._engine.generate(item.messages, max_tokens=MAX_TOKENS)
            for _ in generation:
                pass
            yield generation.result.text
