"""What `compile` tells a person: the part it is at, then a table of the parts of each chip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from autoneural.npu.compile import ChipReport, PartProgress

_LEFT = ("part", "layers", "widths")
_RIGHT = ("nodes on NPU", "floats", "precision", "MB", "s", "peak GB")


@contextmanager
def show_progress() -> Iterator[PartProgress]:
    """A line per part on stderr, and a bar with the time that has passed where somebody watches."""
    console = Console(stderr=True)
    columns = (TextColumn("parts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task("parts", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)
            console.print(f"part {done + 1} of {total}: {what}", highlight=False, soft_wrap=True)

        yield tell


def print_report(report: ChipReport, console: Console) -> None:
    """A row per part; then, where there are any, the nodes that were left to the CPU."""
    title = f"compiled for {report.chip.name} (HTP {report.chip.generation})"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in _LEFT:
        table.add_column(name)
    for name in _RIGHT:
        table.add_column(name, justify="right")
    for row in report.parts:
        table.add_row(*_cells(row))
    console.print(table)
    console.print()
    for row in report.parts:
        for graph in row["graphs"]:
            if graph["cpu_nodes"]:
                console.print(_partitions(graph), highlight=False, markup=False)


def _cells(row: Any) -> list[str]:
    layers = row["layers"]
    return [
        row["role"] if layers is None else f"{row['role']} {row['part']}",
        "-" if layers is None else f"{layers[0]}-{layers[1]}",
        " ".join(map(str, row["widths"])) or "-",
        f"{row['nodes_npu']}/{row['nodes_total']}",
        str(row["float_tensors"]),
        row["precision"],
        f"{row['binary_bytes'] / 2**20:.2f}",
        f"{row['seconds']:.1f}",
        f"{row['peak_rss_gb']:.2f}",
    ]


def _partitions(graph: Any) -> str:
    nodes = ", ".join(graph["cpu_nodes"])
    return (
        f"{graph['role']} x{graph['width']}: {graph['npu_partitions']} partitions on the NPU, "
        f"{len(graph['cpu_nodes'])} nodes on the CPU: {nodes}"
    )
