"""`show --memory`: the memory plan of a bundle, a checkpoint or a preset, and its tables.

A bundle and a quantised checkpoint say in which precision they are; what is not quantised is
planned in the one that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from autoneural.bench.memory import MemoryPlan, plan_memory
from autoneural.bundle import EMBEDDED, Bundle
from autoneural.checkpoint import load_checkpoint
from autoneural.compress.precision import Precision, find_precision
from autoneural.config import PRESETS
from autoneural.errors import UserError
from autoneural.files import expand
from autoneural.show import is_checkpoint
from autoneural.target.chips import Chip

_CONTEXT = 4096
_PRECISION = "w4a16kv8"


def plan_of(
    name: str,
    chip: Chip,
    *,
    precision: str | None = None,
    context: int | None = None,
    image_sizes: tuple[int, ...] = (),
) -> MemoryPlan:
    """The memory plan of the bundle, checkpoint or preset called `name`.

    `context` None: the bundle's own, else 4096 or as many positions as there are. Raises UserError,
    one line, for what is not there or does not fit.
    """
    if is_checkpoint(name):
        checkpoint = load_checkpoint(name)
        config, made = checkpoint.config, None
        if checkpoint.encodings is not None:
            made = _recorded(checkpoint.recipe, name)
    elif name in PRESETS and not (expand(name).exists() or (EMBEDDED / name).exists()):
        config, made = PRESETS[name], None
    else:
        return _of_bundle(Bundle.load(name), chip, precision, context, image_sizes)
    limit = config.text.max_position_embeddings
    return plan_memory(
        config,
        _one_of(made, precision, name),
        chip,
        context=context or min(_CONTEXT, limit),
        image_sizes=image_sizes,
    )


def _of_bundle(
    bundle: Bundle,
    chip: Chip,
    precision: str | None,
    context: int | None,
    image_sizes: tuple[int, ...],
) -> MemoryPlan:
    recipe = bundle.manifest.get("recipe", {}).get("parent_recipe", {})
    quantised = any(target != "float" for target in bundle.targets)
    made = _recorded(recipe, bundle.name) if quantised else None
    files: Mapping[str, Any] = bundle.manifest["files"]
    return plan_memory(
        bundle.model,
        _one_of(made, precision, bundle.name),
        chip,
        context=context or bundle.context,
        image_sizes=image_sizes or bundle.image_sizes,
        binaries={
            file: entry["bytes"]
            for file, entry in files.items()
            if file.startswith(f"{chip.target}/") and file.endswith(".bin")
        },
    )


def _recorded(recipe: Mapping[str, Any], where: str) -> Precision:
    try:
        return Precision.from_dict(recipe["precision"], where)
    except KeyError as error:
        raise UserError(f"{where}: its recipe does not say in which precision it is") from error


def _one_of(made: Precision | None, asked: str | None, where: str) -> Precision:
    if made is None:
        return find_precision(asked or _PRECISION)
    if asked is not None:
        raise UserError(f"{where}: is quantised already, in {made.name}: --precision means nothing")
    return made


def print_memory(plan: MemoryPlan, console: Console) -> None:
    """A row per graph, then the whole beside the baseline; megabytes are 1e6 bytes."""
    chip, memory = plan.chip, plan.memory
    vtcm = f"{chip.vtcm_mb} MB of VTCM" if chip.vtcm_mb else "VTCM not published"
    _say(console, f"{plan.model} on {chip.name} (HTP {chip.generation}, {vtcm}), {plan.precision}")
    graphs = _table("MB, planned", "weights", "state", "activations")
    for graph in memory.graphs:
        graphs.add_row(graph.name, *map(_mega, (graph.weights, graph.state, graph.activations)))
    console.print(graphs)
    console.print()
    heads = (f"baseline, {other.context}" for other in plan.baselines)
    whole = _table("MB, in all", f"model, {memory.context}", *heads)
    for text, field in _ROWS:
        cells = (_mega(getattr(each, field)) for each in (memory, *plan.baselines))
        whole.add_row(text, *cells)
    console.print(whole)
    for line in _notes(plan):
        _say(console, line)


_ROWS = (
    ("weights", "weights"),
    ("keys and values", "kv"),
    ("  as int8", "kv_int8"),
    ("  as int16", "kv_int16"),
    ("state of convolutions", "conv_state"),
    ("activations, largest graph", "activations"),
    ("all of it", "total"),
    ("table of tokens, on the host", "host_embedding"),
)


def _notes(plan: MemoryPlan) -> list[str]:
    notes = [f"baseline: {plan.compared}; the number is its context"]
    if plan.chip.weight_sharing is False:
        notes.append(
            f"{plan.chip.name} shares no weights among graphs, says Qualcomm's table: they are "
            "counted with every graph"
        )
    if plan.binaries:
        size = sum(plan.binaries.values())
        notes.append(f"its {len(plan.binaries)} binaries for {plan.chip.name}: {_mega(size)} MB")
    return notes


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table


def _mega(size: int) -> str:
    return f"{size / 1e6:.1f}" if size else "-"


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)
