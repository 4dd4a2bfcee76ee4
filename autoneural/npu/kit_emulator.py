"""What the HTP emulator computes from the golden inputs of a kit, and how far it is from expected.

Every step is fed its golden inputs, so a difference in one step does not show in the next.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoneural.npu.kit_golden import write_raw
from autoneural.npu.worker import run_job
from autoneural.target.numerics import sqnr_db

Json = Mapping[str, Any]


def add_emulator(folder: Path, io: Json, golden: dict[str, Any]) -> None:
    """Run every step's inputs through the HTP emulator of the chip; record how far it is.

    The emulator cannot load a binary that several graphs share, so it compiles the QDQ graph anew,
    with the same compiler; a graph that is alone in its binary runs from the binary itself.
    Raises JobFailed when the emulator does.
    """
    binaries = [graph["binary"] for graph in io["graphs"]]
    with tempfile.TemporaryDirectory(prefix="autoneural-kit-") as scratch:
        jobs = []
        for graph in io["graphs"]:
            steps = [step for step in golden["steps"] if step["graph"] == graph["name"]]
            if steps:
                alone = binaries.count(graph["binary"]) == 1
                file = graph["ort_wrapper" if alone else "qdq_onnx"]
                for step in steps:
                    step["emulated"] = graph["binary"] if alone else file
                jobs.append(_job(folder, Path(scratch), graph, steps, folder / file))
        result = run_job({"do": "run", "soc_model": io["chip"]["soc_model"], "graphs": jobs})
        for job in jobs:
            steps = [step for step in golden["steps"] if step["graph"] == job["name"]]
            _record(folder, Path(job["outputs"]), steps)
    golden["emulator"] = f"{result['compiler']}, HTP emulator of {io['chip']['name']} on x86-64"


def _job(
    folder: Path, scratch: Path, graph: Json, steps: Sequence[Json], file: Path
) -> dict[str, Any]:
    feeds = scratch / f"{graph['name']}.feeds.npz"
    stacked = {
        tensor["name"]: np.stack(
            [_read(folder / "golden" / step["name"] / "inputs", tensor) for step in steps]
        )
        for tensor in graph["inputs"]
    }
    np.savez(feeds, **stacked)  # pyright: ignore[reportArgumentType]
    outputs = scratch / f"{graph['name']}.outputs.npz"
    return {
        "name": graph["name"],
        "file": str(file),
        "feeds": str(feeds),
        "outputs": str(outputs),
        "runs": len(steps),
    }


def _read(place: Path, tensor: Json) -> np.ndarray:
    dtype = np.dtype(tensor["dtype"]).newbyteorder("<")
    raw = np.fromfile(place / f"{tensor['name']}.raw", dtype)
    return raw.astype(tensor["dtype"]).reshape(tensor["shape"])


def _record(folder: Path, results: Path, steps: Sequence[Json]) -> None:
    with np.load(results) as file:
        for index, step in enumerate(steps):
            place = folder / "golden" / step["name"]
            for output in step["outputs"]:
                found = file[output["name"]][index]
                write_raw(place / "emulator" / f"{output['name']}.raw", found)
                output["emulator"] = distance(_read(place / "expected", output), found, output)


def distance(expected: np.ndarray, found: np.ndarray, output: Json) -> dict[str, float | None]:
    """Largest difference in integers, and SQNR in dB (null: equal), over the rows that count."""
    rows = np.arange(output["rows"])
    a, b = (np.take(x.astype(np.int64), rows, output["axis"]) for x in (expected, found))
    if np.array_equal(a, b):
        return {"max_lsb": 0, "sqnr_db": None}
    decibels = sqnr_db(a - output["zero_point"], b - output["zero_point"])
    return {"max_lsb": int(np.abs(a - b).max()), "sqnr_db": round(max(decibels, -99.0), 2)}
