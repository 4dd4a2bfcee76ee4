"""The page of a certificate: one HTML file that needs nothing but a browser, and prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from autoneural.files import write_text
from autoneural.npu.certificate import Certificate, LayerCheck, OutputCheck, worst_first
from autoneural.npu.certificate_plots import db_range, depth_plot, fill_known, fill_plot, steps_plot
from autoneural.npu.certificate_text import (
    EVIDENCE,
    UNKNOWN,
    decibels,
    middle,
    percent,
    steps,
    tokens_line,
    verdict,
)
from autoneural.page import template

_FOLDER = Path(__file__).parent
_TEXT_HEADS = ("Graph", "Layer", "Operator", "Precision")
_NUMBER_HEADS = ("QDQ / float", "emulator / QDQ", "emulator / prediction", "to float", "to QDQ")
_NUMBER_HEADS += ("rms", "max", "Fill, %")


@dataclass(frozen=True, kw_only=True)
class _Tile:
    """One figure on top of the page; `out` where it misses its threshold."""

    name: str
    value: str
    unit: str = ""
    more: str
    out: bool = False


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A layer in the table; `low` and `unpredicted` where a figure is below its threshold."""

    layer: LayerCheck
    low: bool
    unpredicted: bool


@dataclass(frozen=True, kw_only=True)
class _Panel:
    graph: str
    count: str
    plot: Markup


@dataclass(frozen=True, kw_only=True)
class _Head:
    words: str
    number: bool


def write_page(certificate: Mapping[str, Any], path: Path) -> None:
    """Write the page of a certificate's JSON. Raises UserError where that is not a certificate."""
    write_text(path, render_page(Certificate.from_dict(certificate)))


def render_page(certificate: Certificate) -> str:
    """The whole page as text."""
    return template.render_page(
        _FOLDER / "certificate.html.jinja",
        _values(certificate),
        {"db": decibels, "percent": percent, "steps": steps},
        _FOLDER / "certificate.js.jinja",
    )


def _values(certificate: Certificate) -> dict[str, Any]:
    """Everything the template names."""
    layers, outputs = worst_first(certificate.layers), _outputs(certificate)
    values: dict[str, Any] = {
        "c": certificate,
        "verdict": verdict(certificate),
        "evidence": EVIDENCE[certificate.evidence],
        "unknown": UNKNOWN,
        "tiles": _tiles(certificate),
        "layers": [_row(layer, certificate) for layer in layers],
        "heads": _heads(),
        "outputs": outputs,
        "tokens_line": tokens_line(certificate.tokens),
    }
    if layers:
        limits = db_range(layers, certificate.thresholds)
        values["panels"] = _panels(certificate, limits)
        values["steps_plot"] = steps_plot(layers)
        values["fill_plot"] = fill_plot(layers, limits)
        values["unfilled"] = sum(not fill_known(layer) for layer in layers)
    return values


def _heads() -> list[_Head]:
    texts = [_Head(words=words, number=False) for words in _TEXT_HEADS]
    numbers = [_Head(words=words, number=True) for words in _NUMBER_HEADS]
    cause = _Head(words="Likely cause", number=False)
    return [_Head(words="#", number=True), *texts, *numbers, cause]


def _row(layer: LayerCheck, certificate: Certificate) -> _Row:
    limits = certificate.thresholds
    return _Row(
        layer=layer,
        low=_below(layer.sqnr_qdq_db, limits.layer_db),
        unpredicted=_below(layer.predicted_db, limits.predicted_db),
    )


def _below(value: float | None, limit: float) -> bool:
    return value is not None and value < limit


def _panels(certificate: Certificate, limits: tuple[float, float]) -> list[_Panel]:
    """One plot per graph, in the order in which the certificate names them."""
    graphs: dict[str, list[LayerCheck]] = {graph.graph: [] for graph in certificate.graphs}
    for layer in sorted(certificate.layers, key=lambda layer: layer.depth):
        graphs.setdefault(layer.graph, []).append(layer)
    return [
        _Panel(
            graph=g,
            count=_count(len(ls), "layer"),
            plot=depth_plot(ls, limits, certificate.thresholds),
        )
        for g, ls in graphs.items()
        if ls
    ]


def _outputs(certificate: Certificate) -> list[tuple[Any, OutputCheck]]:
    return [(graph, output) for graph in certificate.graphs for output in graph.outputs]


def _tiles(certificate: Certificate) -> list[_Tile]:
    limits, layers = certificate.thresholds, certificate.layers
    qdq = [layer.sqnr_qdq_db for layer in layers]
    predicted = [layer.predicted_db for layer in layers]
    return [
        _db_tile("Worst layer, emulator / QDQ", qdq, limits.layer_db, _graphs_of(layers)),
        _db_tile("Worst layer, emulator / prediction", predicted, limits.predicted_db, ""),
        _token_tile(certificate),
        _binary_tile(certificate),
    ]


def _graphs_of(layers: Sequence[LayerCheck]) -> str:
    graphs = len({layer.graph for layer in layers})
    return f"; {_count(len(layers), 'layer')} of {_count(graphs, 'graph')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _db_tile(name: str, values: Sequence[float | None], limit: float, more: str) -> _Tile:
    worst = min((value for value in values if value is not None), default=None)
    text, centre = decibels(worst), decibels(middle(values))
    return _Tile(
        name=name,
        value=text,
        unit="dB" if text not in (UNKNOWN, "exact") else "",
        more=f"required {limit:g}; median {centre}{more}",
        out=_below(worst, limit),
    )


def _token_tile(certificate: Certificate) -> _Tile:
    tokens, limit = certificate.tokens, certificate.thresholds.tokens
    name, required = "Answers equal, token for token", f"required {percent(limit, 0)} %"
    if tokens is None or tokens.compared == 0:
        return _Tile(name=name, value=UNKNOWN, more="none compared")
    return _Tile(
        name=name,
        value=str(tokens.equal),
        unit=f"of {tokens.compared}",
        more=f"{required}; {tokens.answers_equal} equal as text",
        out=tokens.equal < limit * tokens.compared,
    )


def _binary_tile(certificate: Certificate) -> _Tile:
    name, graphs = "Graphs identical to their twins", certificate.graphs
    if not graphs:
        return _Tile(name=name, value=UNKNOWN, more="none compared")
    identical = sum(graph.identical for graph in graphs)
    reloaded = sum(graph.reloaded for graph in graphs)
    return _Tile(
        name=name,
        value=str(identical),
        unit=f"of {len(graphs)}",
        more=f"{reloaded} reloaded from the shipped file",
        out=identical < len(graphs),
    )
