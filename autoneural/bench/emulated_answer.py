"""Does a whole model answer on a chip's emulator as its integer graphs do? One picture question.

    reference  qdq graphs on the CPU: prompt in chunks, N greedy tokens      a process
    emulator   the chip's graphs, fed the same tokens, stage by stage        a process per binary

    end to end   its own features and state all along: what errors accumulate to, in the logits
    part         one run of a graph on the reference's inputs: what that part alone gets wrong

Greedy tokens go on behind an end token: the weights may be random. What a process computed waits in
`.<bundle>.answer` until all have ended: the same command goes on from there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from autoneural.bench.answer_plan import TARGET, Plan, Stage, graph_name, plan_answer
from autoneural.bench.answer_sides import (
    OUT,
    answer_reference,
    emulate,
    load_arrays,
    new_values,
)
from autoneural.bench.drift_errors import STATE, kind_of
from autoneural.bundle import Bundle
from autoneural.data.messages import Message
from autoneural.files import sha256, write_text
from autoneural.manifest import MANIFEST, GraphSpec
from autoneural.npu.verify import require_compiled
from autoneural.npu.worker import peak_rss_gb
from autoneural.recipes.build_report import commit
from autoneural.recipes.child import Done, Tell, run_child
from autoneural.runtime.chain import Arrays
from autoneural.runtime.devices import place
from autoneural.runtime.qnn import require_wheel
from autoneural.runtime.session import decode
from autoneural.target.chips import Chip
from autoneural.target.numerics import sqnr_db

TOP = 10
_ALL_NOISE_DB = -99.9
Say = Callable[[str], None]


def measure_answer(
    bundle: Bundle,
    chip: Chip,
    messages: Sequence[Message],
    steps: int = 8,
    *,
    tell: Tell = lambda what, done, total: None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """The emulated answer beside the reference's, JSON-ready; `peak_rss_gb` in GiB.

    `tell` gets (what, done, total), `say` a line after each process. Raises UserError, one line,
    where nothing emulates, the bundle is not compiled for the chip, or the question does not fit.
    """
    placement = place(bundle, TARGET, "htp-emulator", chip.name)
    require_compiled(bundle, chip)
    scratch = bundle.folder.resolve().with_name(f".{bundle.folder.resolve().name}.answer")
    plan = plan_answer(bundle, chip, placement, messages, steps, scratch)
    found = compare_answers(plan, tell=tell, say=say)
    shutil.rmtree(plan.folder, ignore_errors=True)
    with suppress(OSError):
        scratch.rmdir()  # another question may have been cut off, and go on
    return {
        "model": bundle.name,
        "chip": chip.name,
        "commit": commit(),
        "compiler": require_wheel().compiler,
        "precision": bundle.target(TARGET).precision.get("language", ""),
        "bundle_sha256": sha256(bundle.folder / MANIFEST),
        "context": bundle.context,
        "image_size": bundle.processor.image_size,
        **found,
    }


def compare_answers(
    plan: Plan,
    *,
    tell: Tell = lambda what, done, total: None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Both sides: what they took, and the rows."""
    reference = _once(plan, "reference", answer_reference, (plan,), tell, say)
    emulated = [_once(plan, s.name, emulate, (plan, s), tell, say) for s in plan.stages]
    parts = [
        row
        for stage, done in zip(plan.stages, emulated, strict=True)
        for row in _part_rows(plan, stage, done)
    ]
    sides = {"reference": [reference], "emulator": emulated}
    seconds = {name: round(sum(d.seconds for d in done), 1) for name, done in sides.items()}
    peaks = {name: max(d.peak_rss_gb for d in done) for name, done in sides.items()}
    return {
        "prompt_tokens": plan.prompt,
        "steps": len(reference.value) - 1,
        "tokens": reference.value,
        "seconds": round(sum(seconds.values()), 1),
        # At one time: this process and its largest child.
        "peak_rss_gb": round(peak_rss_gb() + max(peaks.values()), 2),
        "sides": {n: {"seconds": seconds[n], "peak_rss_gb": round(peaks[n], 2)} for n in sides},
        "rows": [*parts, *_answer_rows(plan, reference.value)],
    }


def _once(
    plan: Plan, name: str, work: Callable[..., Any], arguments: Sequence[Any], tell: Tell, say: Say
) -> Done:
    """What `work` gave in a process of its own, now or when the command ran before."""
    path = plan.folder / f"{name}.json"
    try:
        done = Done(**json.loads(path.read_text(encoding="utf-8")))
        again = ", there already"
    except (OSError, ValueError, TypeError):
        done, again = run_child(work, arguments, tell), ""
        write_text(path, json.dumps(asdict(done)))
    say(f"{name}: {done.seconds:.0f} s, {done.peak_rss_gb:.2f} GiB{again}")
    return done


def _part_rows(plan: Plan, stage: Stage, done: Done) -> list[dict[str, Any]]:
    """A row per graph: how far it is off on the reference's inputs, and what it took."""
    rows = []
    for spec, ran in zip(stage.graphs, done.value, strict=True):
        took = {key: round(ran[key], 1) for key in ("open_seconds", "run_seconds", "runs")}
        rows.append(
            {
                "row": ran["graph"],
                "inputs": "reference",
                **_figures(plan, spec),
                "shipped": stage.shipped,
                **took,
                "peak_rss_gb": round(done.peak_rss_gb, 2),
            }
        )
    return rows


def _figures(plan: Plan, spec: GraphSpec) -> dict[str, Any]:
    """Of one graph: SQNR of what it hands on, and of the new state that is furthest off."""
    folder, name = plan.folder, graph_name(spec)
    if spec.role == "vision":
        [features] = spec.outputs
        seen, own = (decode(np.load(folder / f"{n}.npy"), features) for n in ("seen", "own"))
        return {"sqnr_db": _db(seen, own)}
    call = plan.kept[spec.width or 1]
    sides = [load_arrays(folder / f"{name}.npz", OUT), load_arrays(folder / f"{name}.got.npz")]
    wanted, got = (
        {t.name: new_values(t.name, decode(side[t.name], t), call) for t in spec.outputs}
        for side in sides
    )
    if spec.role == "head":
        return compare_logits(wanted["logits"][0, 0], got["logits"][0, 0])
    hidden = next(name for name in wanted if kind_of(name) == "hidden")
    return {
        "sqnr_db": _db(wanted[hidden], got[hidden]),
        "state_db": _worst(wanted, got),
    }


def _worst(wanted: Arrays, got: Arrays) -> float | None:
    figures = [_db(wanted[name], got[name]) for name in wanted if kind_of(name) in STATE]
    return min((figure for figure in figures if figure is not None), default=None)


def _answer_rows(plan: Plan, tokens: Sequence[int]) -> list[dict[str, Any]]:
    """End to end: the logits behind the prompt, and behind each token of the answer."""
    pairs = (np.load(plan.folder / f"{name}.npy") for name in ("logits", "own-logits"))
    return [
        {
            "row": f"after token {index}" if index else "after the prompt",
            "inputs": "own",
            "token": token,
            **compare_logits(wanted, got),
        }
        for index, (wanted, got, token) in enumerate(zip(*pairs, tokens, strict=True))
    ]


def compare_logits(wanted: np.ndarray, got: np.ndarray) -> dict[str, Any]:
    """Of two rows of logits [V]: SQNR, whether the best is the same, and how many of the best 10.

    Of equal logits those of lower ids are better, as for greedy sampling.
    """
    best = [np.argsort(-row, kind="stable")[:TOP] for row in (wanted, got)]
    return {
        "sqnr_db": _db(wanted, got),
        "top1_equal": bool(best[0][0] == best[1][0]),
        "top10": len(set(best[0].tolist()) & set(best[1].tolist())),
    }


def _db(wanted: np.ndarray, got: np.ndarray) -> float | None:
    """None where nothing differs."""
    figure = sqnr_db(wanted, got)
    # Where all is noise the figure is minus infinity, which JSON lacks.
    return None if figure == np.inf else round(max(figure, _ALL_NOISE_DB), 1)


def print_answer(report: dict[str, Any], console: Console) -> None:
    """The report of `measure_answer` as a table, a row per part and per token."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    for name in ("inputs", "SQNR dB", "state dB", "top 1", f"top {TOP}", "open s", "runs", "s"):
        table.add_column(name, justify="right")
    for row in report["rows"]:
        table.add_row(row["row"], row["inputs"], *_cells(row))
    line = "{model}, {precision}, emulated {chip}: prompt of {prompt_tokens} tokens, {steps} steps"
    console.print(line.format(**report), highlight=False, soft_wrap=True)
    console.print(table)
    for name, side in report["sides"].items():
        console.print(f"{name}: {side['seconds']} s, {side['peak_rss_gb']} GiB", highlight=False)


def _cells(row: dict[str, Any]) -> list[str]:
    figures = ["exact" if row.get(key, "") is None else str(row.get(key, "")) for key in _FIGURES]
    same = {True: "same", False: "another", None: ""}[row.get("top1_equal")]
    top = f"{row['top10']}/{TOP}" if "top10" in row else ""
    return [*figures, same, top, *(str(row.get(key, "")) for key in _TOOK)]


_FIGURES = ("sqnr_db", "state_db")
_TOOK = ("open_seconds", "runs", "run_seconds")
