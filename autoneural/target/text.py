"""The chips and the legality table, for people and as JSON-ready facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from autoneural.errors import UserError
from autoneural.target.chips import CHIPS, Chip
from autoneural.target.legality import headlines
from autoneural.target.legality_table import SHIPPED, Probe, Table, load_table
from autoneural.target.precision import FLOATS, PRODUCTS, parse, usual_granularity

_FILE_WIDTH = 120  # where nobody watches
_CELL, _GAP = len("no 99"), 2
_WEIGHTS = "constant weights, one scale per output channel"
_TENSOR = "constant weights, one scale"
_BLOCKS = "constant weights in blocks (lpbq: scales are 16ths), and results of another width"
_CONSTANTS = "constants (w signed, u unsigned) beside activations"
_PAIRS = "products of two activations"
_ACTIVATIONS = "activations"
_SECTIONS = (_WEIGHTS, _TENSOR, _BLOCKS, _PAIRS, _ACTIVATIONS, _CONSTANTS)


def chip_facts(chip: Chip) -> dict[str, Any]:
    """`precisions` is what the compiler accepts; `fp16` and the rest are the published tables."""
    return {
        "name": chip.name,
        "htp": chip.generation,
        "soc_model": chip.soc_model,
        "vtcm_mb": chip.vtcm_mb,
        "precisions": list(headlines(chip)),
        "fp16": chip.fp16,
        "weight_sharing": chip.weight_sharing,
        "note": chip.note,
        "source": chip.source,
    }


def print_chips(console: Console, chips: Sequence[Chip] = CHIPS) -> None:
    """A row per chip, then where the figures are from."""
    grid = _grid()
    for name in ("chip", "HTP", "soc_model", "VTCM MB", "legal precisions", "fp16", "sharing"):
        grid.add_column(name, justify="right" if name in ("soc_model", "VTCM MB") else "left")
    for chip in chips:
        legal = " ".join(_as_spoken(precision) for precision in headlines(chip))
        figures = (str(chip.soc_model), _told(chip.vtcm_mb), legal)
        published = (_told(chip.fp16), _told(chip.weight_sharing))
        grid.add_row(chip.name, chip.generation, *figures, *published)
    _widen(console)
    console.print(grid)
    console.print()
    for chip in chips:
        if chip.note:
            _say(console, f"{chip.name}: {chip.note}")
    compilers = ", ".join(sorted({load_table(chip.soc_model).compiler for chip in chips}))
    _say(console, f"legal precisions: of MatMul and 1x1 Conv, as compiled by {compilers}")
    sources = "; ".join(dict.fromkeys(chip.source for chip in chips))
    _say(console, f"VTCM, fp16, (weight) sharing: published, not measured ({sources})")


def _as_spoken(precision: str) -> str:
    """W4A16, W4A16/block64, fp16."""
    head, _, rest = precision.partition("/")
    return (head if head in FLOATS else head.upper()) + (f"/{rest}" if rest else "")


def table_facts(chip: Chip, table: Table, probes: Iterable[Probe]) -> dict[str, Any]:
    """The table of a chip, or those probes of it."""
    return {
        "chip": chip.name,
        "soc_model": table.soc_model,
        "compiler": table.compiler,
        "date": table.date,
        "source": str(table.source),
        "probes": [
            {**vars(probe), "accepted": not table.answers[probe], "reason": table.answers[probe]}
            for probe in probes
        ],
    }


def find_probes(table: Table, op: str | None) -> list[Probe]:
    """The probes of operator `op`, in any case, or of all; else of those whose name holds it.

    Raises UserError where there is none.
    """
    if op is None:
        return list(table.answers)
    plain = op.lower()
    exact = [name for name in table.by_op if name.lower() == plain]
    found = exact or [name for name in table.by_op if plain in name.lower()]
    if not found:
        raise UserError(f"--op {op}: not in the table; one of {', '.join(sorted(table.by_op))}")
    return [probe for name in found for probe in table.by_op[name]]


def print_table(chip: Chip, table: Table, probes: Sequence[Probe], console: Console) -> None:
    """Operators by precisions: yes, or no with the number of the reason that stands below."""
    _widen(console)
    reasons: dict[str, int] = {}
    for section, rows in _sections(table, probes).items():
        _say(console, f"{section}:")
        for columns in _fitting(rows, console.width):
            console.print(_answers(rows, columns, reasons))
            console.print()
    for reason, number in reasons.items():
        _say(console, f"no {number}: {reason}")
    accepted = sum(not table.answers[probe] for probe in probes)
    origin = "shipped with autoneural" if table.source == SHIPPED else f"in {table.source}"
    _say(
        console,
        f"{chip.name} ({chip.generation}, soc_model {table.soc_model}): {accepted} of "
        f"{len(probes)} probes accepted by {table.compiler}, {table.date}, {origin}",
    )


@dataclass(frozen=True, kw_only=True)
class _Row:
    """The answers of an operator's variant, precision -> reason, for ranks that agree in them."""

    name: str
    ranks: list[int]
    reasons: dict[str, str]

    @property
    def label(self) -> str:
        return f"{self.name} r{','.join(map(str, sorted(self.ranks)))}"

    def agrees(self, name: str, reasons: Mapping[str, str]) -> bool:
        common = self.reasons.keys() & reasons.keys()
        return self.name == name and all(self.reasons[p] == reasons[p] for p in common)


def _sections(table: Table, probes: Iterable[Probe]) -> dict[str, list[_Row]]:
    """Section -> rows; floating point is in a form's first section."""
    forms: dict[tuple[str, int], dict[str, dict[str, str]]] = {}
    for probe in probes:
        form = forms.setdefault((f"{probe.op} {probe.variant}".strip(), probe.rank), {})
        floating = probe.precision in FLOATS
        section = next(iter(form), _ACTIVATIONS) if floating else _section(probe)
        form.setdefault(section, {})[probe.precision] = table.answers[probe]
    found: dict[str, list[_Row]] = {title: [] for title in _SECTIONS}
    for (name, rank), sections in forms.items():
        for section, reasons in sections.items():
            _merge(found[section], name, rank, reasons)
    return {section: rows for section, rows in found.items() if rows}


def _merge(rows: list[_Row], name: str, rank: int, reasons: dict[str, str]) -> None:
    same = next((row for row in rows if row.agrees(name, reasons)), None)
    if same is None:
        rows.append(_Row(name=name, ranks=[rank], reasons=reasons))
    else:
        same.ranks.append(rank)
        same.reasons.update(reasons)


def _section(probe: Probe) -> str:
    formats = parse(probe.op, probe.precision)
    if formats.constant is None:
        return _PAIRS if probe.op in PRODUCTS else _ACTIVATIONS
    if usual_granularity(probe.op) == "tensor":
        return _CONSTANTS
    if formats.granularity == "tensor":
        return _TENSOR
    return _WEIGHTS if formats.granularity == "channel" and not formats.output else _BLOCKS


def _fitting(rows: Sequence[_Row], width: int) -> list[list[str]]:
    """The precisions of some rows, in as many tables as their columns need."""
    precisions = dict.fromkeys(precision for row in rows for precision in row.reasons)
    tables: list[list[str]] = [[]]
    start = left = width - max(len(row.label) for row in rows) - _GAP
    for precision in sorted(precisions, key=_order):
        taken = max(len(precision), _CELL) + _GAP
        if taken > left and tables[-1]:
            tables.append([])
            left = start
        tables[-1].append(precision)
        left -= taken
    return tables


def _order(precision: str) -> tuple[bool, bool, bool]:
    """One kind of activation first, changes of width and floating point last."""
    return precision in FLOATS, ">" in precision, "x" in precision


def _answers(rows: Iterable[_Row], columns: list[str], numbers: dict[str, int]) -> Grid:
    grid = _grid()
    grid.add_column("operator", no_wrap=True)
    for precision in columns:
        grid.add_column(precision, no_wrap=True)
    for row in rows:
        if row.reasons.keys() & set(columns):
            cells = (_cell(row.reasons[p], numbers) if p in row.reasons else "" for p in columns)
            grid.add_row(row.label, *cells)
    return grid


def _cell(reason: str, numbers: dict[str, int]) -> str:
    if not reason:
        return "[green]yes[/]"
    return f"[red]no {numbers.setdefault(reason, len(numbers) + 1)}[/]"


def _grid() -> Grid:
    return Grid(box=None, pad_edge=False)


def _widen(console: Console) -> None:
    if not console.is_terminal:
        console.width = max(console.width, _FILE_WIDTH)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _told(value: bool | int | None) -> str:
    if value is None:
        return "?"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
