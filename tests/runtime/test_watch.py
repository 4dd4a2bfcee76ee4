"""What a watch sees and stops, prompts given as ids, and reuse that keeps every bit."""

from __future__ import annotations

import numpy as np
import pytest

from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.runtime import Engine, Watch
from tests.runtime.helpers import answer, ask, picture, reply

LONG = [ask("is it on? " * 8, picture(2), picture(3))]


class Notes(Watch):
    """Counts steps, keeps tokens and logits; raises before step `last`."""

    def __init__(self, last: int | None = None) -> None:
        self.steps = 0
        self.last = last
        self.tokens: list[int] = []
        self.logits: list[np.ndarray] = []

    def step(self) -> None:
        if self.steps == self.last:
            raise TimeoutError
        self.steps += 1

    def token(self, token: int, logits: np.ndarray) -> None:
        self.tokens.append(token)
        self.logits.append(logits)


def test_a_watch_sees_every_token_with_its_logits(engine: Engine) -> None:
    watch = Notes()
    inputs = engine.processor(LONG)
    generation = engine.answer(inputs, max_tokens=6, watch=watch)
    list(generation)
    assert tuple(watch.tokens) == generation.result.token_ids
    assert [int(logits.argmax()) for logits in watch.logits] == watch.tokens
    np.testing.assert_array_equal(watch.logits[0], engine.logits(LONG))
    # Two pictures, the chunks of the prompt, and every token but the first.
    chunks = -(-len(inputs.input_ids) // 32)
    assert watch.steps == 2 + chunks + 5


@pytest.mark.parametrize("last", [0, 1, 2, 3, 6])
def test_a_watch_may_end_an_answer_anywhere(engine: Engine, last: int) -> None:
    wanted = answer(engine, LONG, max_tokens=6).token_ids
    engine.reset()
    generation = engine.answer(engine.processor(LONG), max_tokens=6, watch=Notes(last))
    with pytest.raises(TimeoutError):
        list(generation)
    assert generation.result.finish_reason == "cancelled"
    assert len(generation.result.token_ids) < 6
    # The engine is as good as before.
    assert answer(engine, LONG, max_tokens=6).token_ids == wanted


def test_an_answer_to_ids_is_that_to_their_messages(engine: Engine) -> None:
    wanted = answer(engine, LONG, max_tokens=6)
    generation = engine.answer(engine.processor(LONG), max_tokens=6)
    list(generation)
    assert generation.result.token_ids == wanted.token_ids
    with pytest.raises(UserError, match="max_tokens: 0"):
        engine.answer(engine.processor(LONG), max_tokens=0)


def test_exact_reuse_keeps_every_bit(tiny_bundle: Bundle) -> None:
    exact = Engine(tiny_bundle, "float", threads=1, exact_reuse=True)
    follow = [*LONG, reply("a red lamp"), ask("what?", picture(4))]
    other = [ask("is it on? " * 8, picture(2), picture(9)), *follow[1:]]
    fresh = exact.logits(follow)
    for before in (LONG, other, follow, [ask("what?")]):
        exact.reset()
        answer(exact, before, max_tokens=7)
        np.testing.assert_array_equal(exact.logits(follow), fresh)
    exact.reset()
    answer(exact, LONG, max_tokens=7)
    kept = answer(exact, follow, max_tokens=1).usage.cached_tokens
    assert kept > 0
    assert kept % 32 == 0  # whole chunks of the widest graph
