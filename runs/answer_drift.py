"""How far one bundle's answers on the CPU are from another's, on held-out questions.

    python runs/answer_drift.py cockpit-tiny OTHER [--n 25] [--seed 7]

Both answer (greedy); then the other is shown the first one's tokens, and its logits are compared at
each of them: SQNR (means removed from the signal, not from the error) and the likeliest token.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field

import numpy as np

from autoneural.bench.answer_bundle import MAX_TOKENS
from autoneural.bench.held_out import held_out, trained_tasks
from autoneural.bench.quality import Item
from autoneural.runtime.engine import Engine
from autoneural.runtime.watch import Watch


@dataclass
class Notes(Watch):
    """Every token of an answer and the logits that it was taken from."""

    tokens: list[int] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)

    def token(self, token: int, logits: np.ndarray) -> None:
        """Note both."""
        self.tokens.append(token)
        self.logits.append(logits.copy())


@dataclass
class Totals:
    """Counts of questions and tokens, and sums of squares."""

    asked: int = 0
    same: int = 0
    right: tuple[int, int] = (0, 0)
    tokens: int = 0
    likeliest: int = 0
    signal: float = 0.0
    noise: float = 0.0

    def line(self) -> str:
        """All of it."""
        sqnr = 10 * math.log10(self.signal / self.noise) if self.noise else math.inf
        return (
            f"{self.same} of {self.asked} answers the same; right {self.right[0]} and "
            f"{self.right[1]}; likeliest token {self.likeliest} of {self.tokens}; {sqnr:.1f} dB"
        )


def ask(first: Engine, other: Engine, item: Item, totals: Totals) -> None:
    """One question to both, and the first one's answer to the other."""
    notes, texts, said = Notes(), [], []
    for engine, watch in ((first, notes), (other, Notes())):
        inputs = engine.processor(item.messages)
        generation = engine.answer(inputs, max_tokens=MAX_TOKENS, watch=watch)
        list(generation)
        texts.append(generation.result.text.strip())
        said.append(generation.result.token_ids)
    totals.asked += 1
    totals.same += said[0] == said[1]
    hits = [text == item.expected.strip() for text in texts]
    totals.right = (totals.right[0] + hits[0], totals.right[1] + hits[1])
    found = other.logits(item.messages)
    for place, (token, wanted) in enumerate(zip(notes.tokens, notes.logits, strict=True)):
        if place:
            found = other._decode(notes.tokens[place - 1])
        totals.tokens += 1
        totals.likeliest += int(found.argmax()) == token
        totals.signal += float(np.square(wanted - wanted.mean()).sum())
        totals.noise += float(np.square(found - wanted).sum())


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("first")
    parser.add_argument("other")
    parser.add_argument("--n", type=int, default=25, help="questions per task")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    first, other = (Engine(name, "cpu", threads=1) for name in (args.first, args.other))
    totals = Totals()
    tasks = trained_tasks(first.bundle.manifest["recipe"])
    for task, items in held_out(tasks, args.n, seed=args.seed).items():
        for item in items:
            ask(first, other, item, totals)
        print(f"up to {task}: {totals.line()}", flush=True)


if __name__ == "__main__":
    main()
