"""What `autoneural build` took: a table for people, a JSON file for the record."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autoneural.files import write_text
from autoneural.recipes.building import Built, Part

_GB = 1e9


def results(built: Built, command: str) -> dict[str, Any]:
    """JSON-ready: what was built of what, by which command, and what it took.

    `binary_gb` (1e9 bytes) and `binaries` (sha256 by name) are of what the target loads: context
    binaries of a chip, all files of the target `cpu`. `peak_rss_gb` is in GiB.
    """
    files = _binaries(built)
    held = built.bundle.manifest["files"]
    off = [part.nodes_off_npu for part in built.parts if part.nodes_off_npu is not None]
    return {
        "model": built.bundle.name,
        "chip": built.target.removeprefix("htp/"),
        "commit": commit(),
        "command": command,
        "calibration": built.calibration,
        "context": built.bundle.context,
        "image_sizes": list(built.bundle.image_sizes),
        "seconds": round(built.seconds, 1),
        "peak_rss_gb": round(built.peak_rss_gb, 2),
        "binary_gb": round(sum(held[name]["bytes"] for name in files) / _GB, 3),
        "nodes_off_npu": sum(off) if off else None,
        "binaries": {name: held[name]["sha256"] for name in files},
        "parts": [_row(part) for part in built.parts],
    }


def save_results(path: Path, found: dict[str, Any]) -> None:
    """Write results to a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(found, indent=1) + "\n")


def print_built(built: Built, console: Console) -> None:
    """How it was calibrated, a row per step and binary, then the whole."""
    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    for name in ("s", "MB", "off the NPU", "peak GiB"):
        table.add_column(name, justify="right")
    for part in built.parts:
        table.add_row(part.name, *_cells(part))
    found = results(built, "")
    off = "-" if found["nodes_off_npu"] is None else str(found["nodes_off_npu"])
    size = f"{1000 * found['binary_gb']:.1f}"
    table.add_row("all", f"{built.seconds:.1f}", size, off, f"{built.peak_rss_gb:.2f}")
    console.print(built.calibration, highlight=False, soft_wrap=True)
    console.print(table)


def _cells(part: Part) -> list[str]:
    off = "-" if part.nodes_off_npu is None else str(part.nodes_off_npu)
    return [f"{part.seconds:.1f}", f"{part.bytes / 1e6:.1f}", off, f"{part.peak_rss_gb:.2f}"]


def _row(part: Part) -> dict[str, Any]:
    return {
        "part": part.name,
        "seconds": part.seconds,
        "bytes": part.bytes,
        "peak_rss_gb": part.peak_rss_gb,
        "nodes_off_npu": part.nodes_off_npu,
    }


def _binaries(built: Built) -> list[str]:
    names = [n for n in built.bundle.manifest["files"] if n.startswith(f"{built.target}/")]
    return names if built.target == "cpu" else [n for n in names if n.endswith(".bin")]


def commit() -> str | None:
    """That of the clone this runs in; None where only the package is installed."""
    git = shutil.which("git")
    if git is None:
        return None
    here = Path(__file__).resolve().parent
    done = subprocess.run([git, "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True)
    return done.stdout.strip() or None
