"""Reports of `quality` as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_quality(report: dict[str, Any], console: Console) -> None:
    """One row per task, then one per kind of question."""
    table = Table("task", "accuracy", "95 % interval", "blind", "majority", "questions")
    for name, task in report["tasks"].items():
        low, high = task["ci95"]
        blind = "-" if task["blind"] is None else f"{task['blind']:.3f}"
        interval = f"{low:.3f} to {high:.3f}"
        row = (f"{task['accuracy']:.3f}", interval, blind, f"{task['majority']:.3f}")
        table.add_row(name, *row, str(task["n"]), style="bold")
        for kind, score in task["questions"].items():
            table.add_row(f"  {kind}", f"{score['accuracy']:.3f}", "", "", "", str(score["n"]))
    table.add_section()
    table.add_row("mean", f"{report['mean']:.3f}", style="bold")
    console.print(table)
    for name, task in report["tasks"].items():
        for kind, score in task["alarms"].items():
            console.print(_alarm(f"{name}, {kind}", score), highlight=False, soft_wrap=True)
    hidden = report["unanswerable"]
    if hidden["n"]:
        console.print(
            f"unanswerable: of {hidden['n']} questions {hidden['made_up']:.3f} were answered all "
            f"the same; of {hidden['answerable']} others {hidden['refused']:.3f} were refused",
            highlight=False,
            soft_wrap=True,
        )


def _alarm(what: str, score: dict[str, Any]) -> str:
    low, high = score["ci95"]
    answers = " or ".join(score["answers"])
    if not score["n"]:
        recalled = "none there to recall"
    else:
        recalled = f"recalled {score['recall']:.3f} ({low:.3f} to {high:.3f}, of {score['n']})"
    clear = f"false alarms {score['false_alarms']:.3f} (of {score['clear']})"
    return f"{what}: {answers} {recalled}, {clear}"


def print_difference(result: dict[str, Any], a: str, b: str, console: Console) -> None:
    """The outcome of `quality.paired_difference`, in points."""
    left, right = result["accuracy"]
    low, high = (100 * edge for edge in result["ci95"])
    console.print(f"{a}: {left:.4f}\n{b}: {right:.4f}", highlight=False)
    console.print(
        f"difference: {100 * result['difference']:+.2f} points (95 %: {low:+.2f} to {high:+.2f}) "
        f"over {result['n']} questions; {result['lost']} lost, {result['won']} won",
        highlight=False,
    )
