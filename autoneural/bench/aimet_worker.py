"""AIMET's side of a comparison on one graph. Fed to an interpreter that has aimet-onnx on stdin.

Needs nothing of ours, because that interpreter may be another. Reads and writes the same files as
`quantise_part.py`, and job["bits"]: the bits of every weight by its name in the graph.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from aimet_onnx import (  # pyright: ignore[reportMissingImports]
    QuantizationSimModel,
    apply_adaround,
    apply_seq_mse,
)

Arrays = dict[str, np.ndarray]
# Qualcomm's rules for HTP with one scale per channel of every linear, as ours.
RULES = "htp_quantsim_config_v73_per_channel_linear.json"


def main(argv: list[str]) -> None:
    job = json.loads(Path(argv[1]).read_text(encoding="utf-8"))
    folder, out = Path(job["case"]), Path(job["out"])
    model = onnx.load(folder / "float.onnx")
    # By its place: a simulation gives outputs that are read inside as well another name.
    place = [output.name for output in model.graph.output].index(job["output"])
    runs = load_runs(folder / "calibration.npz")
    idle, start = peak_bytes(), time.process_time()
    sim = quantise(model, runs, job)
    seconds, peak = time.process_time() - start, peak_bytes()
    held_out = load_runs(folder / "held_out.npz")
    outputs = [sim.session.run(None, run)[place] for run in held_out]
    np.savez(out / "simulated.npz", allow_pickle=False, **{job["output"]: np.stack(outputs)})
    start = time.process_time()
    onnx.save(sim.to_onnx_qdq(prequantize_constants=True), out / "qdq.onnx")
    result = {
        "seconds": seconds,
        "export_seconds": time.process_time() - start,
        "idle_bytes": idle,
        "peak_bytes": peak,
        "ends": {},
    }
    (out / "result.json").write_text(json.dumps(result), encoding="utf-8")


def quantise(model: onnx.ModelProto, runs: list[Arrays], job: dict[str, Any]) -> Any:
    """A calibrated simulation, its weights rounded by job["method"]."""
    sim = QuantizationSimModel(
        model,
        param_type="int8",
        activation_type="int16",
        quant_scheme="min_max",
        config_file=RULES,
        session_options_kwargs={"intra_op_num_threads": 1},
    )
    for name, bits in job["bits"].items():
        sim.qc_quantize_op_dict[name].set_bitwidth(bits)
    if job["method"] == "seqmse":
        apply_seq_mse(sim, runs)
    elif job["method"] == "adaround":
        apply_adaround(sim, runs)
    sim.compute_encodings(runs)
    return sim


def load_runs(file: Path) -> list[Arrays]:
    with np.load(file) as arrays:
        stacked = {name: arrays[name] for name in arrays.files}
    count = len(next(iter(stacked.values())))
    return [{name: array[i] for name, array in stacked.items()} for i in range(count)]


def peak_bytes() -> int:
    """Of this process alone: what getrusage says begins at the size of the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main(sys.argv)
