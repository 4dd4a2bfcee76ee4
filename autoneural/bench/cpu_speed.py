"""How fast bundles answer on this CPU, each against the first one, measured in one go.

Engines answer in turn, one question at a time: what else the machine does slows all of them alike.
Every round has another order, as who follows a large model finds nothing in the processor's caches;
and no figure is of the engine that is opened first, whose memory lies otherwise: it was 7 % slower.
A round is a question of its own, because an engine keeps the features of pictures it has seen; the
first round warms up and is not counted. Figures are medians of the rounds' ratios. One thread.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoneural.bench.answer_bundle import MAX_TOKENS
from autoneural.bench.quality import Item
from autoneural.errors import UserError
from autoneural.runtime.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Medians. `tokens_ratio` above 1 is faster than the first bundle, `encode_ratio` below 1.

    None where no round measured it: answers of a single token, questions without a picture.
    """

    tokens_per_second: float | None
    encode_ms: float | None
    tokens_ratio: float | None
    encode_ratio: float | None


Round = tuple[float | None, float | None]
"""(tokens per second, milliseconds per picture) of one answer."""


def compare_speed(
    bundles: Mapping[str, tuple[Path, str]],
    items: Sequence[Item],
    repeats: int,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Speed]:
    """Speed of each bundle, by name -> (folder, target), on `repeats` of the items.

    The items with the longest answers are asked. Raises UserError where there are too few.
    """
    asked = sorted(items, key=lambda item: len(item.expected), reverse=True)[: repeats + 1]
    if len(asked) <= repeats:
        raise UserError(f"speed: {repeats} repeats need {repeats + 1} questions, not {len(asked)}")
    spare = Engine(*next(iter(bundles.values())), threads=1)
    engines = {
        name: Engine(folder, target, threads=1) for name, (folder, target) in bundles.items()
    }
    rounds: dict[str, list[Round]] = {name: [] for name in engines}
    for done, item in enumerate(asked):
        for name in random.Random(done).sample(list(engines), len(engines)):
            rounds[name].append(_round(engines[name], item))
        progress("speed", done, repeats)
    del spare
    first = next(iter(rounds.values()))[1:]
    return {name: speed(own[1:], first) for name, own in rounds.items()}


def speed(own: Sequence[Round], first: Sequence[Round]) -> Speed:
    """The medians of rounds, and of their ratios to the same rounds of another."""
    ratios = [(_over(a[0], b[0]), _over(a[1], b[1])) for a, b in zip(own, first, strict=True)]
    return Speed(
        tokens_per_second=_median([tokens for tokens, _ in own]),
        encode_ms=_median([encode for _, encode in own]),
        tokens_ratio=_median([tokens for tokens, _ in ratios]),
        encode_ratio=_median([encode for _, encode in ratios]),
    )


def _round(engine: Engine, item: Item) -> Round:
    engine.reset()
    generation = engine.generate(item.messages, max_tokens=MAX_TOKENS)
    for _ in generation:
        pass
    timings = generation.result.timings
    encode = timings.image_encode_ms / timings.image_n if timings.image_n else None
    return timings.to_dict()["predicted_per_second"], encode


def _over(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def _median(found: Sequence[float | None]) -> float | None:
    known = [figure for figure in found if figure is not None]
    return statistics.median(known) if known else None
