"""The report of `bench speed` for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

_OPERATORS = 8  # of a graph; the rest is one row


def print_speed(report: dict[str, Any], console: Console, *, profile: bool = False) -> None:
    """What was measured, each figure with its share of the roof; `profile`: every graph as well."""
    machine = report["machine"]
    _say(
        console,
        f"{report['bundle']} ({report['target']}) on {report['threads']} threads"
        f"{', those of `tune`' if report['tuned'] else ''} of "
        f"{report['cpu']}; medians of {report['repeats']} (least to most)",
        f"roofs: read {machine['read_gb_s']:.1f} GB/s, fp32 {machine['fp32_gmac_s']:.0f} GMAC/s, "
        f"int8 {machine['int8_gmac_s']:.0f} GMAC/s",
    )
    console.print(_prompt(report["prompt"]))
    console.print(_decode(report["decode"]))
    console.print(_first_token(report["image"]))
    if report["peers"]:
        console.print(_peers(report["peers"]))
        console.print(_peers_seeing(report["peers"], report["image"]["pixels"]))
    _say(console, _memory(report["memory"]), "NPU: n/a on this device")
    if profile:
        console.print(_graphs(report))
        for graph in report["graphs"]:
            console.print(_operators(graph))


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _table(first: str, *heads: str) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column(first)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _prompt(prompt: Mapping[str, Any]) -> Table:
    table = _table("prompt", "tok/s", "GMAC/s", "of fp32", "of int8")
    table.add_row(
        f"pp{prompt['tokens']}",
        _spread(prompt["tokens_per_second"]),
        *_of_roofs(prompt),
    )
    return table


def _decode(rows: list[dict[str, Any]]) -> Table:
    table = _table("decode", "tok/s", "GB/s", "of read", "outside", "CPUs", "J/tok")
    for row in rows:
        joules = row["joules_per_token"]
        table.add_row(
            f"tg @ {row['depth']}",
            _spread(row["tokens_per_second"]),
            f"{row['gb_s']:.2f}",
            _share(row["share_of_read"]),
            _share(row["outside_onnxruntime"]),
            f"{row['cpus']:.2f}",
            "n/a" if joules is None else f"{joules:.3f}",
        )
    return table


def _first_token(image: Mapping[str, Any]) -> Table:
    first = f"{image['pixels']} px, {image['tokens']} tokens"
    table = _table(first, "ms", "GMAC/s", "of fp32", "of int8")
    table.add_row("decode the picture", _spread(image["decode_ms"]))
    table.add_row("encode", _spread(image["encode_ms"]), *_of_roofs(image["encode"]))
    table.add_row("prefill", _spread(image["prefill_ms"]))
    table.add_row("first token", _spread(image["ttft_ms"]), *_of_roofs(image["ttft"]))
    return table


def _of_roofs(row: Mapping[str, Any]) -> tuple[str, ...]:
    return f"{row['gmac_s']:.1f}", _share(row["share_of_fp32"]), _share(row["share_of_int8"])


def _peers(rows: list[dict[str, Any]]) -> Table:
    """Same shapes, random weights; "ours": how many times as fast this bundle is, run in turns."""
    table = _table("peer", "prompt tok/s", "ours", f"decode @ {rows[0]['depth']} tok/s", "ours")
    for row in rows:
        if not row["prompt"]:
            table.add_row(row["peer"], row["missing"])
            continue
        figures = []
        for test in ("prompt", "decode"):
            figures += [_spread(row[test]), f"{row[f'{test}_ratio']:.2f} x"]
        table.add_row(row["peer"], *figures)
    return table


def _peers_seeing(rows: list[dict[str, Any]], pixels: int) -> Table:
    """A picture and a question of 32 tokens; `_peers` says what of a peer has not run at all."""
    table = _table("peer", f"{pixels} px to 1st token, ms", "ours")
    for row in rows:
        if row["picture"]:
            seen = (_spread(row["picture"]), f"{row['picture_ratio']:.2f} x")
        else:
            seen = (row["missing"] if row["missing"] and row["prompt"] else "n/a",)
        table.add_row(row["peer"], *seen)
    return table


def _memory(memory: Mapping[str, Any]) -> str:
    held = f"the target's files {memory['bundle_bytes'] / 2**20:.1f} MiB"
    if memory["peak_rss_bytes"] is None:
        return f"memory: n/a; {held}"
    peak = memory["peak_rss_bytes"] / 2**20
    return f"memory: at most {peak:.0f} MiB, Python and all, {memory['ratio']:.1f} x {held}"


def _graphs(report: dict[str, Any]) -> Table:
    table = _table("graph", "rows", "GMAC", "MB", "MAC/byte", "ms", "roof ms", "bound by")
    machine = report["machine"]
    for graph in report["graphs"]:
        read = graph["bytes"] / machine["read_gb_s"] / 1e6
        multiply = graph["macs"] / machine["int8_gmac_s"] / 1e6
        table.add_row(
            graph["graph"],
            str(graph["width"] or "-"),
            f"{graph['macs'] / 1e9:.3f}",
            f"{graph['bytes'] / 1e6:.2f}",
            f"{graph['intensity']:.1f}",
            f"{graph['ms']:.2f}",
            f"{max(read, multiply):.2f}",
            "read" if read > multiply else "int8",
        )
    return table


def _operators(graph: Mapping[str, Any]) -> Table:
    table = _table(graph["graph"], "nodes", "ms", "share")
    total = sum(row["ms"] for row in graph["operators"]) or 1.0
    shown, rest = graph["operators"][:_OPERATORS], graph["operators"][_OPERATORS:]
    for row in shown:
        table.add_row(
            row["operator"], str(row["nodes"]), f"{row['ms']:.3f}", _share(row["ms"] / total)
        )
    if rest:
        spent = sum(row["ms"] for row in rest)
        nodes = sum(row["nodes"] for row in rest)
        table.add_row(f"{len(rest)} others", str(nodes), f"{spent:.3f}", _share(spent / total))
    return table


def _spread(values: Mapping[str, float]) -> str:
    digits = 0 if values["median"] >= 100 else 1
    median, least, most = (f"{values[key]:.{digits}f}" for key in ("median", "least", "most"))
    return median if least == most else f"{median} ({least} to {most})"


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"
