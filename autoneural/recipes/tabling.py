"""The table of precisions and chips: `autoneural compress --table`.

    original, int8 (w8a16), int4 (w4a16kv8)   x   SA8295P, SA8775P, SA8255P
    model bytes, memory at run time, accuracy, legal or not and why; latency needs a board

Accuracy is that of the quantised model on the CPU, the same for every chip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from autoneural.bench.measure import Exam, Measures, compiled_size, measure
from autoneural.checkpoint import load_checkpoint
from autoneural.compress.groups import state_bytes
from autoneural.compress.precision import PRECISIONS
from autoneural.config import ModelConfig
from autoneural.model.vlm import VLM
from autoneural.recipes.steps import Quantize, Workbench
from autoneural.target.chips import Chip

ROWS = {"original": None, "int8": "w8a16", "int4": "w4a16kv8"}
CHIPS = ("SA8295P", "SA8775P", "SA8255P")
_NO_FLOAT = "floating point: the NPU takes integers"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One precision on one chip. `binary_bytes` None: not compiled, and `why` says what is missing.

    `memory_bytes`: weights and the decoder's state at `context` tokens; None where not compiled.
    """

    model: str
    precision: str
    chip: str
    weight_bytes: int
    memory_bytes: int | None
    binary_bytes: int | None
    accuracy: float | None
    context: int
    why: str

    @property
    def legal(self) -> bool:
        return self.binary_bytes is not None


def precision_table(
    workbench: Workbench,
    exam: Exam,
    chips: Sequence[Chip],
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Quantise the float checkpoint `workbench.original` into `folder`, and compile it for `chips`.

    Raises UserError as the quantising does; what a chip refuses is a row that says why.
    """
    rows: list[Row] = []
    for model, precision in ROWS.items():
        checkpoint = workbench.original if precision is None else folder / model
        if precision is not None:
            say(f"{model}: {precision}")
            scratch = replace(workbench, run=folder / f"{model}-run", precision=None)
            Quantize(precision=precision).make(scratch, workbench.original, checkpoint)
        measures = measure(checkpoint, exam, progress=workbench.progress)
        for chip in chips:
            rows.append(_row(model, precision, chip, checkpoint, measures, say))
    return rows


def _row(
    model: str,
    precision: str | None,
    chip: Chip,
    checkpoint: Path,
    measures: Measures,
    say: Callable[[str], None],
) -> Row:
    config = load_checkpoint(checkpoint).config
    context = min(1024, config.text.max_position_embeddings)
    size, why = None, _NO_FLOAT
    if precision is not None:
        say(f"{model}: compiling for {chip.name}")
        size, why = compiled_size(checkpoint, chip, context)
    return Row(
        model=model,
        precision=precision or "bf16",
        chip=chip.name,
        weight_bytes=measures.weight_bytes,
        memory_bytes=None if size is None else size + _state(config, precision, context),
        binary_bytes=size,
        accuracy=measures.mean_accuracy,
        context=context,
        why=why,
    )


def _state(config: ModelConfig, precision: str | None, context: int) -> int:
    with torch.device("meta"):  # shapes are enough
        return state_bytes(VLM(config), PRECISIONS[precision or "w8a16"], context)


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """JSON-ready."""
    return [{**asdict(row), "legal": row.legal, "latency_ms": None} for row in rows]


def print_table(rows: Sequence[Row], console: Console) -> None:
    """One row per precision and chip."""
    table = Table(box=SIMPLE, pad_edge=False)
    for head in ("model", "chip", "legal"):
        table.add_column(head, no_wrap=True)
    for head in ("weights", "binaries", "memory", "accuracy, %"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(
            f"{row.model} ({row.precision})",
            row.chip,
            "yes" if row.legal else "no",
            _mib(row.weight_bytes),
            _mib(row.binary_bytes),
            _mib(row.memory_bytes),
            "–" if row.accuracy is None else f"{100 * row.accuracy:.2f}",
        )
    console.print(table)
    for model, why in dict.fromkeys((row.model, row.why) for row in rows if row.why):
        chips = ", ".join(row.chip for row in rows if (row.model, row.why) == (model, why))
        console.print(f"{model} on {chips}: {why}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"MiB; memory: binaries and the state of {rows[0].context} tokens; compiled, not run; "
        "latency n/a: it takes a board",
        highlight=False,
        soft_wrap=True,
    )


def _mib(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**20:.2f}"
