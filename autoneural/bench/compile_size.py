"""What compiling a part of a full-size model costs: binary size, time, memory. Weights are random.

    Piece -> [process: build, quantise, export] -> [process: compile] -> figures

Each step runs in a process of its own: its peak memory is its own, and is given back.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir
from rich.console import Console
from rich.table import Table

from autoneural.bench.piece import Piece
from autoneural.errors import UserError
from autoneural.npu.compile_part import precision
from autoneural.npu.compiled_graph import read_dumps
from autoneural.npu.layer_names import LayerNames
from autoneural.npu.worker import JobFailed, run_job
from autoneural.runtime.qnn import PROVIDER, require_wheel
from autoneural.target.chips import Chip

_NAMED = 3


def measure_compile(
    piece: Piece, chip: Chip, *, share: bool = True, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Make the piece's graphs and compile them for `chip`, sharing weights if `share`.

    `progress` gets a line before and after each step. Nothing is left on the disk.
    Raises UserError where the wheel is missing or a step fails, with its last words.
    """
    wheel = require_wheel()
    with tempfile.TemporaryDirectory(prefix="autoneural-bench-") as name:
        folder = Path(name)
        progress(f"{piece.title}: build, quantise, export")
        made = _timed(_make_graphs, piece, folder)
        progress(f"  {_cost(made)}")
        progress(f"{piece.title}: compile for {chip.name}, {wheel.compiler}")
        share = share and len(made["graphs"]) > 1
        compiled = _timed(_compile, folder, made["graphs"], chip, share)
        progress(f"  {_cost(compiled)}")
        return {
            "chip": chip.name,
            "compiler": wheel.compiler,
            "preset": piece.preset,
            "part": piece.part,
            **piece.shapes(),
            "shared": share,
            **_inspect(folder, compiled["graphs"], progress),
            "parameters": made["parameters"],
            "binary_bytes": sum(p.stat().st_size for p in (folder / "out").glob("*.bin")),
            "compile_seconds": round(compiled["seconds"], 1),
            "compile_peak_rss_gb": round(compiled["peak_rss_gb"], 2),
            "export_seconds": round(made["seconds"], 1),
            "export_peak_rss_gb": round(made["peak_rss_gb"], 2),
        }


def _timed(step: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    start = time.perf_counter()
    result = step(*args)
    return {**result, "seconds": time.perf_counter() - start}


def _make_graphs(piece: Piece, folder: Path) -> dict[str, Any]:
    if importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    request = folder / "request.json"
    request.write_text(json.dumps({"piece": asdict(piece), "folder": str(folder)}))
    command = [sys.executable, "-m", "autoneural.bench.random_graphs", str(request)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    result = request.with_suffix(".result.json")
    if done.returncode != 0 or not result.is_file():
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{piece.title}: export failed: {words[-1][:500]}")
    return json.loads(result.read_text(encoding="utf-8"))


def _compile(folder: Path, stems: list[str], chip: Chip, share: bool) -> dict[str, Any]:
    (folder / "out").mkdir()
    job = {
        "do": "compile",
        "soc_model": chip.soc_model,
        "share": share,
        "folder": str(folder),
        "graphs": [{"name": stem, "file": f"{stem}.onnx"} for stem in stems],
        "out": str(folder / "out"),
        "dump": str(folder / "dump"),
    }
    try:
        return run_job(job)
    except JobFailed as error:
        raise UserError(f"{chip.name}: did not compile: {error}") from error


def _inspect(
    folder: Path, graphs: list[dict[str, Any]], progress: Callable[[str], None]
) -> dict[str, Any]:
    """Nodes, float tensors and precision; `progress` hears which layers are in floating point."""
    found = {"precision": "", "nodes_npu": 0, "nodes_total": 0, "float_tensors": 0}
    for graph in graphs:
        model = ir.load(folder / f"{graph['name']}.onnx").graph
        compiled = read_dumps(folder / "dump" / graph["name"], LayerNames(model))
        if compiled.float_layers:
            progress(f"  {graph['name']}: floating point in {_some(compiled.float_layers)}")
        found["precision"] = precision(model)
        found["nodes_npu"] += len(graph["nodes"].get(PROVIDER, ()))
        found["nodes_total"] += sum(map(len, graph["nodes"].values()))
        found["float_tensors"] += compiled.float_tensors
    return found


def _some(layers: Sequence[str]) -> str:
    rest = len(layers) - _NAMED
    return ", ".join(layers[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def print_compile(figures: dict[str, Any], console: Console) -> None:
    """The figures as a table of two columns."""
    shapes = ("image_size", "layers", "context", "widths")
    table = Table(show_header=False)
    rows = {
        "part": f"{figures['preset']}, {figures['part']}",
        **{key.replace("_", " "): _plain(figures[key]) for key in shapes if key in figures},
        "chip": f"{figures['chip']}, {figures['compiler']}",
        "precision": figures["precision"],
        "nodes on the NPU": f"{figures['nodes_npu']} of {figures['nodes_total']}",
        "float tensors": str(figures["float_tensors"]),
        "parameters": f"{figures['parameters'] / 1e6:.1f} M",
        "binary": f"{figures['binary_bytes'] / 2**20:.1f} MiB"
        + (", weights shared" if figures["shared"] else ""),
    }
    for step in ("compile", "export"):
        cost = {key: figures[f"{step}_{key}"] for key in ("seconds", "peak_rss_gb")}
        rows[step] = _cost(cost)
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def _cost(step: dict[str, Any]) -> str:
    return f"{step['seconds']:.1f} s, {step['peak_rss_gb']:.2f} GiB of memory at most"


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
