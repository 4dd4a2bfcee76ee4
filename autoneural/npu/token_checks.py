"""Greedy answers of the emulator beside those of the QDQ reference, token for token.

Where two answers part, the reference's lead at that place (logit margin) says whether it was a
close call: from there on the two have read different texts, and nothing can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autoneural.bundle import Bundle
from autoneural.data.messages import Message
from autoneural.npu.certificate import TokenCheck, TokenDifference
from autoneural.runtime import Engine, Result
from autoneural.target.chips import Chip

MAX_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Question:
    """A conversation that ends in a question; `expected` is the right answer where it is known."""

    id: str
    messages: Sequence[Message]
    expected: str | None = None


def check_tokens(
    bundle: Bundle,
    chip: Chip,
    questions: Sequence[Question],
    *,
    correct: Callable[[str, str], bool] = str.__eq__,
    on_answer: Callable[[], None] = lambda: None,
) -> TokenCheck:
    """Ask every question of both; `correct(answer, expected)` scores them."""
    reference = Engine(bundle, "qdq")
    emulated = Engine(bundle, device="htp-emulator", chip=chip.name)
    pairs: list[tuple[Result, Result]] = []
    differences = []
    for question in questions:
        pair = _answer(reference, question), _answer(emulated, question)
        pairs.append(pair)
        if pair[0].token_ids != pair[1].token_ids:
            differences.append(_difference(reference, question, *pair))
        on_answer()
    known = [(pair, q.expected) for pair, q in zip(pairs, questions, strict=True) if q.expected]
    scores = [
        sum(correct(pair[side].text, expected) for pair, expected in known) / len(known)
        if known
        else None
        for side in (0, 1)
    ]
    return TokenCheck(
        compared=len(pairs),
        equal=sum(a.token_ids == b.token_ids for a, b in pairs),
        answers_equal=sum(a.text == b.text for a, b in pairs),
        accuracy_qdq=scores[0],
        accuracy_htp=scores[1],
        differences=tuple(differences),
    )


def _answer(engine: Engine, question: Question) -> Result:
    engine.reset()
    generation = engine.generate(question.messages, max_tokens=MAX_TOKENS)
    for _ in generation:
        pass
    return generation.result


def _difference(reference: Engine, question: Question, qdq: Result, htp: Result) -> TokenDifference:
    pairs = zip(qdq.token_ids, htp.token_ids, strict=False)
    shared = min(len(qdq.token_ids), len(htp.token_ids))
    position = next((i for i, (a, b) in enumerate(pairs) if a != b), shared)
    text = " ".join(
        part["text"]
        for message in question.messages[-1:]
        for part in _parts(message)
        if part["type"] == "text"
    )
    return TokenDifference(
        id=question.id,
        prompt=text,
        position=position,
        qdq_token=_at(qdq, position),
        htp_token=_at(htp, position),
        qdq_text=qdq.text,
        htp_text=htp.text,
        margin=_margin(reference, question, qdq, position),
    )


def _margin(engine: Engine, question: Question, answer: Result, position: int) -> float:
    """Lead of the best logit over the next, after `position` tokens of the answer."""
    engine.reset()
    logits = engine.logits(question.messages, answer.token_ids[:position])
    second, first = np.partition(logits, -2)[-2:]
    return float(first - second)


def _at(result: Result, position: int) -> int:
    return result.token_ids[position] if position < len(result.token_ids) else -1


def _parts(message: Message) -> list[dict]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
