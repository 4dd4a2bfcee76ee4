"""The table of methods: what each one alone bought, and which of them do not pay.

Everything is against one row, plain `ptq`, on the same questions and texts. A gain or a loss is a
size that differs by 2 % or more, a speed by 5 % or more, an accuracy or a perplexity whose 95 %
interval of paired differences does not hold zero. A method with gains alone pays, one with gains
and losses is a trade, one without a gain does not pay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from autoneural.bench.cpu_speed import Speed
from autoneural.bench.measure import Measures
from autoneural.bench.perplexity import paired_increase
from autoneural.bench.quality import Record, paired_difference
from autoneural.bench.scoring import normalise

FLOAT, BASE = "float", "ptq"
_COMPARED_WITH = {FLOAT: "reference", BASE: "plain"}
_SIZE, _SPEED = 0.02, 0.05
_HEADS = ("weights, MiB", "binaries, MiB", "CPU bundle, MiB", "encode", "tokens/s", "accuracy, %")
_HEADS += ("against float, points", "same answers, %", "perplexity, %")


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """One method. Sizes in bytes, None where there is none; `not_compiled` says why.

    `difference`: [low, accuracy, high] in points and `perplexity` the same in per cent, against the
    float model. `agreement`: share of questions that it answers as the float model does. `speed`:
    ratios to plain ptq. `gains` and `losses` are words, against plain ptq. With `error` the method
    did not come to an end and has no figures.
    """

    name: str
    words: str
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    weight_bytes: int | None = None
    binary_bytes: int | None = None
    not_compiled: str = ""
    bundle_bytes: int | None = None
    accuracy: float | None = None
    difference: tuple[float, float, float] | None = None
    agreement: float | None = None
    perplexity: tuple[float, float, float] | None = None
    speed: Speed | None = None
    gains: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    error: str = ""

    @property
    def verdict(self) -> str:
        """One of: reference, plain, pays, trades, does not pay, failed."""
        if self.error:
            return "failed"
        if self.name in _COMPARED_WITH:
            return _COMPARED_WITH[self.name]
        if not self.gains:
            return "does not pay"
        return "trades" if self.losses else "pays"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "verdict": self.verdict}


def against_float(measures: Measures, original: Measures) -> dict[str, Any]:
    """The fields of a row that say how far a checkpoint is from the float one."""
    found: dict[str, Any] = {"accuracy": measures.mean_accuracy}
    if measures.records:
        better = paired_difference(original.records, measures.records)
        low, high = better["ci95"]
        found["difference"] = (100 * low, 100 * better["difference"], 100 * high)
        found["agreement"] = agreement(original.records, measures.records)
    if measures.losses:
        worse = paired_increase(original.losses, measures.losses)
        found["perplexity"] = (worse["ci95"][0], worse["increase"], worse["ci95"][1])
    return found


def agreement(a: Sequence[Record], b: Sequence[Record]) -> float:
    """Share of questions that both answer alike, right or wrong."""
    first = {(r["id"], r["prompt"]): normalise(r["answer"]) for r in a}
    same = sum(first.get((r["id"], r["prompt"])) == normalise(r["answer"]) for r in b)
    return same / len(b)


def gains_and_losses(
    row: MethodRow, measures: Measures, base: MethodRow, base_measures: Measures
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a method bought and what it cost against plain ptq, in words."""
    gains: list[str] = []
    losses: list[str] = []

    def note(better: bool, worse: bool, words: str) -> None:
        if better or worse:
            (gains if better else losses).append(words)

    stored = ("weights", "weight_bytes") if row.weight_bytes else ("CPU bundle", "bundle_bytes")
    for what, key in (stored, ("binaries", "binary_bytes")):
        own, plain = getattr(row, key), getattr(base, key)
        if own and plain:
            change = own / plain - 1
            note(change <= -_SIZE, change >= _SIZE, f"{what} {100 * change:+.0f} %")
    if row.speed is not None:
        tokens, encode = row.speed.tokens_ratio, row.speed.encode_ratio
        if tokens:
            note(tokens >= 1 + _SPEED, tokens <= 1 - _SPEED, f"tokens/s x {tokens:.2f}")
        if encode:
            note(encode <= 1 - _SPEED, encode >= 1 + _SPEED, f"encode time x {encode:.2f}")
    if measures.records:
        found = paired_difference(base_measures.records, measures.records)
        low, high = found["ci95"]
        note(low > 0, high < 0, f"accuracy {100 * found['difference']:+.1f} points")
    if measures.losses and base_measures.losses:
        found = paired_increase(base_measures.losses, measures.losses)
        low, high = found["ci95"]
        note(high < 0, low > 0, f"perplexity {found['increase']:+.1f} %")
    return tuple(gains), tuple(losses)


def print_methods(rows: Sequence[MethodRow], facts: Mapping[str, Any], console: Console) -> None:
    """One row per method, then each one's verdict in words."""
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("method")
    for head in _HEADS:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(row.name, *_cells(row))
    console.print(table)
    for row in rows:
        if row.name not in _COMPARED_WITH:
            console.print(_sentence(row), highlight=False, markup=False)
    console.print(_footnote(facts, rows), highlight=False, markup=False)


def _cells(row: MethodRow) -> list[str]:
    speed = row.speed
    return [
        *(_mib(size) for size in (row.weight_bytes, row.binary_bytes, row.bundle_bytes)),
        _ratio(speed and speed.encode_ratio),
        _ratio(speed and speed.tokens_ratio),
        "–" if row.accuracy is None else f"{100 * row.accuracy:.2f}",
        _interval(row.difference),
        "–" if row.agreement is None else f"{100 * row.agreement:.1f}",
        _interval(row.perplexity),
    ]


def _sentence(row: MethodRow) -> str:
    if row.error:
        return f"{row.name} failed: {row.error}"
    gains, losses = (", ".join(words) for words in (row.gains, row.losses))
    if not gains:
        return f"{row.name} does not pay: " + (
            f"nothing won; {losses}" if losses else "nothing won"
        )
    return f"{row.name} {row.verdict}: {gains}" + (f"; for {losses}" if losses else "")


def _footnote(facts: Mapping[str, Any], rows: Sequence[MethodRow]) -> str:
    lines = [
        f"against plain {BASE}: {facts['questions']:,} questions, {facts['texts']} texts; encode "
        f"and tokens/s are ratios to it, medians of {facts['repeats']} rounds on one thread",
        "no training after any method: what a smaller model recovers is `autoneural compress`'s",
    ]
    missing = {row.not_compiled for row in rows if row.not_compiled and not row.error}
    lines += [f"no binaries: {why}" for why in sorted(missing)]
    return "\n".join(lines)


def _mib(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**20:.2f}"


def _ratio(ratio: float | None) -> str:
    return "–" if ratio is None else f"x {ratio:.2f}"


def _interval(found: tuple[float, float, float] | None) -> str:
    return "–" if found is None else f"{found[1]:+.1f} [{found[0]:+.1f}, {found[2]:+.1f}]"
