"""Which operators a chip accepts, in which precision: the oracle's answers, without the wheel.

    find_chip("SA8295P")                      W16A16 is refused on v68, accepted from v73 on
    legal(chip, "MatMul", "w16a16")           Verdict(accepted=False, reason="FullyConnected: ...")
    choices(chip, "MatMul", rank=3)           ("w4a8", "w4a16", "w8a8", ...)
    problems(chip, uses)                      what stands in the way of a whole graph

"Accepted" means that the compiler took the probe whole and computes it in integers, where the
precision is one of integers. What was never probed is nobody's problem here: the verdict says
neither yes nor no, and the compiler decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from autoneural.target.chips import Chip
from autoneural.target.legality_table import Probe, Table, load_table
from autoneural.target.precision import FLOATS, parse, usual_granularity

_HEADLINES = ("w4a16", "w8a16", "w8a8", "w4a8", "w16a16", "w4a16/block64", "w4a16/lpbq64", "fp16")
_BLOCKS = ("block", "lpbq")
_MAIN = (("MatMul", "", 3), ("Conv", "1x1", 4))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`accepted` None: not probed. `reason` is the compiler's own where it refuses."""

    accepted: bool | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class OpUse:
    """One operator of a graph, as the table knows it; `layer` is what a person calls it."""

    layer: str
    op: str
    precision: str
    rank: int | None = None
    variant: str = ""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A use that the chip refuses, and the precisions in which it would take the operator."""

    chip: str
    layer: str
    op: str
    precision: str
    reason: str
    choices: tuple[str, ...]

    def __str__(self) -> str:
        legal = ", ".join(self.choices) or "none: write it with other operators"
        return (
            f"{self.layer}: {self.op} in {self.precision} is refused on {self.chip} "
            f"({self.reason}); legal there: {legal}"
        )


def legal(
    chip: Chip, op: str, precision: str, *, variant: str | None = None, rank: int | None = None
) -> Verdict:
    """What the compiler says of `op` in `precision` (written as in `autoneural.target.precision`).

    Without a variant or a rank: of the operator's main form that was asked in this precision.
    """
    return verdict(load_table(chip.soc_model), op, precision, variant, rank)


def choices(
    chip: Chip, op: str, *, variant: str | None = None, rank: int | None = None
) -> tuple[str, ...]:
    """The precisions in which the chip accepts `op`; none where the table does not know it."""
    table = load_table(chip.soc_model)
    asked = dict.fromkeys(probe.precision for probe in _matching(table, op, variant, rank))
    return tuple(p for p in asked if verdict(table, op, p, variant, rank).accepted)


def problems(chip: Chip, uses: Iterable[OpUse]) -> list[Problem]:
    """The uses that the chip refuses, in order. A use of a form never probed is not among them."""
    found = []
    for use in uses:
        said = legal(chip, use.op, use.precision, variant=use.variant, rank=use.rank)
        if said.accepted is False:
            instead = choices(chip, use.op, variant=use.variant, rank=use.rank)
            found.append(
                Problem(
                    chip=chip.name,
                    layer=use.layer,
                    op=use.op,
                    precision=use.precision,
                    reason=said.reason,
                    choices=tuple(p for p in instead if _alike(use.op, use.precision, p)),
                )
            )
    return found


def verdict(
    table: Table, op: str, precision: str, variant: str | None = None, rank: int | None = None
) -> Verdict:
    """`legal` for a table at hand."""
    for probe in _matching(table, op, variant, rank):
        if probe.precision == precision:
            reason = table.answers[probe]
            return Verdict(accepted=not reason, reason=reason)
    return Verdict(accepted=None)


def headlines(chip: Chip) -> tuple[str, ...]:
    """The precisions of weights and activations that both a linear and a 1x1 Conv may have."""
    table = load_table(chip.soc_model)
    return tuple(
        precision
        for precision in _HEADLINES
        if all(verdict(table, op, precision, v, rank).accepted for op, v, rank in _MAIN)
    )


def _matching(table: Table, op: str, variant: str | None, rank: int | None) -> Iterator[Probe]:
    for probe in table.by_op.get(op, ()):
        if variant in (None, probe.variant) and rank in (None, probe.rank):
            yield probe


def _alike(op: str, wanted: str, offered: str) -> bool:
    """Whether `offered` could stand in for `wanted`: integers, on the same kind of operands.

    Of granularities, the operator's usual one, the wanted one, and blocks for other blocks.
    """
    if offered in FLOATS:
        return wanted in FLOATS
    if wanted in FLOATS:
        return True
    asked, other = parse(op, wanted), parse(op, offered)
    if (asked.constant is None) != (other.constant is None):
        return False
    blocks = asked.granularity.startswith(_BLOCKS) and other.granularity.startswith(_BLOCKS)
    return blocks or other.granularity in ("", usual_granularity(op), asked.granularity)
