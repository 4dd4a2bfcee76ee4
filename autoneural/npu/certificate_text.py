"""A certificate in words: its figures as text, and the summary for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoneural.npu.certificate import Certificate, LayerCheck, TokenCheck, worst_first
from autoneural.page.plain import plain

WORST_ROWS = 10
UNKNOWN = "–"
EVIDENCE = {"emulated": "Emulated on x86-64 with Qualcomm's HTP emulator; not measured on a board."}


def short_name(name: str) -> str:
    """language_model.model.layers.3.conv -> layers.3.conv; without a number, the last part."""
    parts = [part for part in name.replace("/", ".").split(".") if part] or [name]
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[max(numbers[0] - 1, 0) :]) if numbers else parts[-1]


def decibels(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return "exact" if math.isinf(value) else f"{value:.1f}"


def with_unit(value: float | None) -> str:
    """`decibels` for a sentence: "41.2 dB", but "exact"."""
    text = decibels(value)
    return text if value is None or math.isinf(value) else f"{text} dB"


def percent(fraction: float | None, digits: int = 1) -> str:
    """Without the sign, which the column's head carries."""
    return UNKNOWN if fraction is None else f"{100 * fraction:.{digits}f}"


def steps(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def middle(values: Iterable[float | None]) -> float | None:
    """The median of those that were measured."""
    measured = [value for value in values if value is not None]
    return median(measured) if measured else None


def verdict(certificate: Certificate) -> str:
    if certificate.passed:
        return "Passed"
    count = len(certificate.failures)
    return f"Failed: {count} {'check' if count == 1 else 'checks'}"


def print_certificate(certificate: Mapping[str, Any], console: Console) -> None:
    """Verdict, worst layers, graphs, tokens and failures of a certificate's JSON."""
    record = Certificate.from_dict(certificate)
    style = "bold green" if record.passed else "bold red"
    where = f"  {plain(record.bundle)} on {plain(record.chip)} ({plain(record.generation)})"
    console.print(Text.assemble((verdict(record), style), where))
    console.print(Text(f"{EVIDENCE[record.evidence]} {plain(record.compiler)}", style="dim"))
    if record.layers:
        console.print(_layer_table(record))
    if record.graphs:
        console.print(_graph_table(record))
    console.print(Text(tokens_line(record.tokens)))
    for failure in record.failures:
        console.print(Text(f"  {plain(failure)}", style="red"))


def tokens_line(tokens: TokenCheck | None) -> str:
    if tokens is None or tokens.compared == 0:
        return "No answers were compared."
    line = (
        f"{tokens.equal} of {tokens.compared} answers are equal token for token, "
        f"{tokens.answers_equal} as text"
    )
    if tokens.accuracy_qdq is None or tokens.accuracy_htp is None:
        return f"{line}."
    reference, emulator = percent(tokens.accuracy_qdq), percent(tokens.accuracy_htp)
    return f"{line}; accuracy {reference} % by the QDQ reference, {emulator} % emulated."


def _layer_table(record: Certificate) -> Table:
    shown = worst_first(record.layers)[:WORST_ROWS]
    title = f"{len(shown)} worst of {len(record.layers)} layers, SQNR in dB"
    table = Table(title=title, box=SIMPLE, title_justify="left", pad_edge=False)
    table.add_column("graph")
    table.add_column("layer", overflow="fold")
    for head in ("QDQ/\nfloat", "HTP/\nQDQ", "HTP/\npredicted", "rms\nsteps"):
        table.add_column(head, justify="right")
    table.add_column("likely cause", overflow="fold")
    for layer in shown:
        table.add_row(*(Text(plain(cell)) for cell in _cells(layer)))
    return table


def _cells(layer: LayerCheck) -> list[str]:
    figures = (layer.sqnr_float_db, layer.sqnr_qdq_db, layer.predicted_db)
    names = [layer.graph, short_name(layer.name)]
    return [*names, *map(decibels, figures), steps(layer.rms_lsb), layer.cause or ""]


def _graph_table(record: Certificate) -> Table:
    """One row per graph; what several have to say in their notes stands below, once."""
    notes = list(dict.fromkeys(graph.note for graph in record.graphs if graph.note))
    table = Table(title="graphs and the binaries that ship", box=SIMPLE, pad_edge=False)
    table.title_justify = "left"
    for head in ("graph", "part", "binary", "reloaded", "identical", "note"):
        table.add_column(head, overflow="fold")
    for graph in record.graphs:
        cells = (graph.graph, str(graph.part), graph.binary)
        note = f"({notes.index(graph.note) + 1})" if graph.note else ""
        answers = (_yes(graph.reloaded), _yes(graph.identical), note)
        table.add_row(*(Text(plain(cell)) for cell in (*cells, *answers)))
    table.caption = Text("\n".join(f"({i + 1}) {plain(note)}" for i, note in enumerate(notes)))
    table.caption_justify = "left"
    return table


def _yes(value: bool) -> str:
    return "yes" if value else "no"
