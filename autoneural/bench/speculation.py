"""What speculation buys on this CPU, and whether it changes tokens: each way, the same questions.

With `schema` JSON answers must have the keys and types of the right one, in its order.

Questions are answered in every way in turn, so what else the machine does slows all of them alike;
speeds are medians over the answers of their ratio to plain decoding (fast, off). The first question
warms up and is not counted. One thread; answers start from a fresh state.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from autoneural.bench.answer_bundle import MAX_TOKENS
from autoneural.bench.quality import Item
from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.runtime import Engine, Result
from autoneural.runtime.constraint import Constraint
from autoneural.runtime.drafting import Speculate

WAYS: tuple[Speculate, ...] = ("off", "forced", "lookup", "lookahead")
PROFILES = ("fast", "exact")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of decoding, over all answers. Shares are None where nothing was drafted."""

    profile: str
    speculate: str
    speed: float | None
    tokens: int
    drafted: int
    accepted: int
    given_up: int
    same_as_plain: int
    same_as_fast: int


def measure_speculation(
    bundle: Bundle,
    target: str | None,
    items: Sequence[Item],
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    *,
    schema: bool = False,
) -> dict[str, Any]:
    """Ways of decoding side by side; JSON-ready.

    `same_as_plain` counts answers with the tokens of the same profile without speculation,
    `same_as_fast` with those of plain decoding. Raises UserError for less than two questions.
    """
    if len(items) < 2:
        raise UserError(f"speculation: {len(items)} questions, but the first only warms up")
    engines = {
        profile: Engine(bundle, target, threads=1, exact=profile == "exact") for profile in PROFILES
    }
    kinds: list[Speculate] = [way for way in WAYS if schema or way != "forced"]
    ways = list(product(PROFILES, kinds))
    results: dict[tuple[str, Speculate], list[Result]] = {way: [] for way in ways}
    for done, item in enumerate(items, 1):
        constraint = _constraint(item, engines["fast"]) if schema else None
        for profile, speculate in ways:
            found = _answer(engines[profile], item, speculate, constraint)
            results[profile, speculate].append(found)
        progress("answers", done, len(items))
    counted = {way: found[1:] for way, found in results.items()}
    costs = engines["fast"].step_costs()
    return {
        "bundle": bundle.name,
        "target": engines["fast"].target,
        "answers": len(items) - 1,
        "schema": schema,
        "width": costs.width,
        "cost_ratio": costs.ratio,
        "ways": [asdict(_way(*way, counted)) for way in ways],
    }


def schema_of(value: object) -> dict[str, Any]:
    """The narrowest of our schemas that a JSON value fits: keys, their order, types."""
    if isinstance(value, dict):
        return {
            "type": "object",
            "properties": {key: schema_of(inner) for key, inner in value.items()},
            "required": list(value),
            "additionalProperties": False,
        }
    if isinstance(value, list):
        return {"type": "array", **({"items": schema_of(value[0])} if value else {})}
    names = {bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return {"type": names.get(type(value), "string")}


def _constraint(item: Item, engine: Engine) -> Constraint | None:
    """Of the form of the right answer; None where that is not a JSON object."""
    try:
        value = json.loads(item.expected)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    return Constraint.json_schema(schema_of(value), engine.tokenizer)


def _answer(
    engine: Engine, item: Item, speculate: Speculate, constraint: Constraint | None
) -> Result:
    engine.reset()
    generation = engine.generate(
        item.messages, max_tokens=MAX_TOKENS, speculate=speculate, constraint=constraint
    )
    for _ in generation:
        pass
    return generation.result


def _way(
    profile: str, speculate: Speculate, results: dict[tuple[str, Speculate], list[Result]]
) -> Way:
    own, plain, fast = results[profile, speculate], results[profile, "off"], results["fast", "off"]
    pairs = [(_ms_per_token(a), _ms_per_token(b)) for a, b in zip(fast, own, strict=True)]
    ratios = [a / b for a, b in pairs if a and b]
    return Way(
        profile=profile,
        speculate=speculate,
        speed=statistics.median(ratios) if ratios else None,
        tokens=sum(max(r.timings.predicted_n - 1, 0) for r in own),
        drafted=sum(r.timings.draft_n for r in own),
        accepted=sum(r.timings.draft_n_accepted for r in own),
        given_up=sum(r.speculation_off is not None for r in own),
        same_as_plain=_same(own, plain),
        same_as_fast=_same(own, fast),
    )


def _ms_per_token(result: Result) -> float | None:
    return result.timings.to_dict()["predicted_per_token_ms"]


def _same(a: Sequence[Result], b: Sequence[Result]) -> int:
    return sum(x.token_ids == y.token_ids for x, y in zip(a, b, strict=True))


def print_speculation(report: dict[str, Any], console: Console) -> None:
    """A row per way, and what a wide step costs.

    drafted   share of the tokens that came out of drafts; right: share of the drafts
    same      answers with the tokens of the same profile's plain decoding; as plain: of fast, off
    """
    table = Table(box=SIMPLE, pad_edge=False)
    for head in ("profile", "speculate"):
        table.add_column(head)
    heads = ("speed", "drafted", "right", "given up", "same", "as plain")
    for head in heads:
        table.add_column(head, justify="right")
    for way in report["ways"]:
        table.add_row(
            way["profile"],
            way["speculate"],
            f"{way['speed']:.2f}" if way["speed"] else "-",
            _share(way["accepted"], way["tokens"]),
            _share(way["accepted"], way["drafted"]),
            str(way["given_up"]),
            str(way["same_as_plain"]),
            str(way["same_as_fast"]),
        )
    console.print(table)
    console.print(
        f"{report['answers']} answers by {report['bundle']} ({report['target']})"
        f"{', JSON by a schema' if report['schema'] else ''}; a step of "
        f"{report['width']} rows takes {report['cost_ratio']:.2f} times one of 1",
        highlight=False,
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"
