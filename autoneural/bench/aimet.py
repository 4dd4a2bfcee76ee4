"""Our quantisation beside AIMET's: one float graph, one set of samples, one judge.

    shared case -> each method in a process of its own -> its simulation, its QDQ graph
                -> ONNX Runtime runs all QDQ graphs as written -> SQNR against the float graph

Every weight has the same bits on both sides and every activation 16. Both compute on one thread.
`seconds` are of CPU time, which a busy machine does not stretch, from the float model to frozen
encodings; `added_bytes` is what that took beyond what libraries, model and samples had taken.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from autoneural.bench import quantise_part
from autoneural.bench.held_out import held_out_rows, trained_tasks
from autoneural.bench.perplexity import row_samples
from autoneural.bench.shared_case import (
    FLOAT,
    HELD_OUT,
    Arrays,
    Case,
    Part,
    load_runs,
    write_case,
)
from autoneural.checkpoint import find_checkpoint, load_recipe
from autoneural.compress.derive import open_float
from autoneural.errors import UserError
from autoneural.export.parity import exact_session
from autoneural.recipes.quantizing import calibration_samples
from autoneural.target.numerics import Encoding, dequantize_affine, quantize_affine, sqnr_db

OURS, THEIRS = "autoneural", "aimet-onnx"
TOOLS: Mapping[str, tuple[str, str]] = {
    **{name: (OURS, name) for name in quantise_part.METHODS},
    "aimet-minmax": (THEIRS, "minmax"),
    "aimet-seqmse": (THEIRS, "seqmse"),
    "aimet-adaround": (THEIRS, "adaround"),
}
"""Name -> tool and its method. AdaRound takes hours where the others take seconds."""
DEFAULT = tuple(name for name in TOOLS if name != "aimet-adaround")
_WORKER = Path(__file__).with_name("aimet_worker.py")
_OLDEST = (2, 40)  # the first whose sessions take options; QDQ export with integers came in 2.15
_DRAWN = 2  # conversations per sample: some have no picture, some are short


def compare_tools(
    checkpoint: str | Path,
    data: str | Path,
    *,
    part: Part = "vision",
    samples: int = 16,
    methods: Sequence[str] = DEFAULT,
    python: str = sys.executable,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Every method on the same case: {"part", "precision", "versions", ..., "rows": [...]}.

    `samples` to calibrate on, from `data`, and as many held-out ones to judge by. `python`: an
    interpreter that has aimet-onnx. A method that fails is a row with "error". Raises UserError for
    an unknown method, a checkpoint that is quantised, too few samples, or where `python` has no
    aimet-onnx and a method needs it.
    """
    unknown = [name for name in methods if name not in TOOLS]
    if unknown:
        raise UserError(f"method {unknown[0]!r}: expected some of {', '.join(TOOLS)}")
    versions = {"onnxruntime": ort.__version__}
    if any(TOOLS[name][0] == THEIRS for name in methods):
        versions[THEIRS] = aimet_version(python)
    with TemporaryDirectory(prefix="autoneural-aimet-") as temporary:
        folder = Path(temporary)
        progress("the float graph and its samples")
        case = draw_case(folder, str(checkpoint), part, Path(data), samples)
        expected = run_graph(folder / FLOAT, load_runs(folder / HELD_OUT), case.output, {})
        rows = []
        for name in methods:
            progress(name)
            out = folder / name
            out.mkdir()
            rows.append(_row(name, folder, out, case, python, expected))
    return {
        "checkpoint": str(checkpoint),
        "part": part,
        "precision": case.precision,
        "output": case.output,
        "width": case.width,
        "samples": samples,
        "versions": versions,
        "rows": rows,
    }


def aimet_version(python: str) -> str:
    """That of aimet-onnx in the interpreter `python`. UserError for none and for an old one."""
    command = [python, "-c", "import aimet_onnx; print(aimet_onnx.__version__)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        why = _last_line(done.stderr)
    except OSError as error:
        raise UserError(f"--aimet-python {python}: {error.strerror or error}") from error
    if done.returncode != 0:
        raise UserError(
            f"{python} has no aimet-onnx ({why}): pip install 'autoneural[aimet]', or name an "
            "interpreter that has it with --aimet-python"
        )
    version = done.stdout.split()[-1]
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < _OLDEST:
        raise UserError(f"{python} has aimet-onnx {version}: too old, this needs 2.40 or newer")
    return version


def draw_case(folder: Path, checkpoint: str, part: Part, data: Path, samples: int) -> Case:
    """`shared_case` of a float checkpoint: calibrated by training rows, judged by held-out ones."""
    source = open_float(checkpoint)
    checkpoint = str(find_checkpoint(checkpoint).resolve())
    rows = held_out_rows(trained_tasks(load_recipe(checkpoint)), _DRAWN * samples)
    return write_case(
        folder,
        checkpoint,
        source.model(),
        part,
        calibration_samples(checkpoint, data, _DRAWN * samples),
        row_samples(checkpoint, source.config, rows),
        samples,
    )


def _row(
    name: str, folder: Path, out: Path, case: Case, python: str, expected: NDArray[np.float32]
) -> dict[str, Any]:
    tool, method = TOOLS[name]
    row: dict[str, Any] = {"name": name, "tool": tool, "method": method, "error": None}
    try:
        result = run_method(tool, method, folder, out, case, python)
        simulated = load_runs(out / "simulated.npz")
        ends = {key: Encoding(**value) for key, value in result["ends"].items()}
        got = run_graph(out / "qdq.onnx", load_runs(folder / HELD_OUT), case.output, ends)
    except UserError as error:
        return {**row, "error": str(error)}
    return {
        **row,
        "simulated_db": _rounded(sqnr_db(expected, [run[case.output] for run in simulated])),
        "onnx_db": _rounded(sqnr_db(expected, got)),
        "seconds": round(result["seconds"], 2),
        "export_seconds": round(result["export_seconds"], 2),
        "peak_bytes": result["peak_bytes"],
        "added_bytes": result["peak_bytes"] - result["idle_bytes"],
    }


def run_method(
    tool: str, method: str, folder: Path, out: Path, case: Case, python: str
) -> dict[str, Any]:
    """Do one job in a new process. UserError with its last words where it fails."""
    job = {"case": str(folder), "out": str(out), "method": method, **asdict(case)}
    file = out / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if tool == OURS:
        command = [sys.executable, "-m", quantise_part.__name__, str(file)]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        source = None
    else:
        command, source = [python, "-", str(file)], _WORKER.read_text(encoding="utf-8")
    done = subprocess.run(
        command, input=source, capture_output=True, text=True, env=environment, cwd=out
    )
    result = out / "result.json"
    if done.returncode != 0 or not result.is_file():
        raise UserError(f"{tool} {method}: {_last_line(done.stderr) or done.returncode}")
    return json.loads(result.read_text(encoding="utf-8"))


def run_graph(
    file: Path, runs: Sequence[Arrays], output: str, ends: Mapping[str, Encoding]
) -> NDArray[np.float32]:
    """One output of every run, real numbers [runs, ...], by ONNX Runtime, node by node as written.

    `ends` are the encodings of inputs and outputs that are integers. UserError where the graph
    does not load.
    """
    try:
        session = exact_session(file)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise UserError(f"{file.name}: {_last_line(str(error))}") from error
    found = []
    for run in runs:
        feeds = {n: quantize_affine(x, ends[n]) if n in ends else x for n, x in run.items()}
        result = np.asarray(session.run([output], feeds)[0])
        found.append(dequantize_affine(result, ends[output]) if output in ends else result)
    return np.stack(found)


def print_comparison(report: Mapping[str, Any], console: Console) -> None:
    """One row per method; what failed says why below."""
    table = Table(box=SIMPLE, pad_edge=False)
    for head in ("tool", "method"):
        table.add_column(head)
    heads = ("own simulation, dB", "ONNX Runtime, dB", "CPU, s", "export, s", "peak, MiB")
    for head in (*heads, "of it added"):
        table.add_column(head, justify="right")
    for row in report["rows"]:
        table.add_row(row["tool"], row["method"], *_cells(row))
    console.print(table)
    what = f"{report['part']}, {report['precision']}: SQNR of {report['output']} against float, "
    what += f"{report['samples']} samples to calibrate on and as many held out, one thread"
    console.print(what, highlight=False)
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    console.print(versions, highlight=False)
    for row in report["rows"]:
        if row["error"]:
            console.print(f"{row['name']} failed: {row['error']}", highlight=False, markup=False)


def _cells(row: Mapping[str, Any]) -> list[str]:
    if row["error"]:
        return ["failed"] + ["–"] * 5
    figures = [_decibels(row["simulated_db"]), _decibels(row["onnx_db"])]
    figures += [f"{row['seconds']:.1f}", f"{row['export_seconds']:.1f}"]
    return figures + [f"{row[key] / 2**20:.0f}" for key in ("peak_bytes", "added_bytes")]


def _rounded(decibels: float) -> float | None:
    """None where nothing differs, which JSON has no number for."""
    return round(decibels, 2) if math.isfinite(decibels) else None


def _decibels(figure: float | None) -> str:
    return "equal" if figure is None else f"{figure:.1f}"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:300]
