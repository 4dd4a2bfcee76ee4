"""Our side of a comparison on one graph, in a process of its own whose memory can be measured.

`python -m autoneural.bench.quantise_part JOB.json` does what `job_result` says; the other side is
`aimet_worker.py`, which writes the same files.

    JOB.json            {"case", "method", "out"}: folder of a `shared_case`, a name of `METHODS`
    out/simulated.npz   the part's output of every held-out run, by our simulation
    out/qdq.onnx        what is exported; its ends are integers, result["ends"] says which
    out/result.json     {"seconds", "export_seconds", "idle_bytes", "peak_bytes", "ends"}
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoneural.bench.shared_case import (
    CALIBRATION,
    HELD_OUT,
    Case,
    as_runs,
    load_runs,
    part_graph,
)
from autoneural.checkpoint import Checkpoint
from autoneural.compress.derive import open_float
from autoneural.compress.equalize import equalize
from autoneural.compress.fake_quant import output_quantizers
from autoneural.compress.fold import fold
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import calibrate, frozen_tensors
from autoneural.compress.rounding import Rounding
from autoneural.export.graphs import TorchGraph
from autoneural.export.onnx import WeightFile, export_graph, save_model
from autoneural.export.qdq import load_quantization, quantize_graph
from autoneural.model.vlm import VLM
from autoneural.npu.worker import peak_rss_gb


@dataclass(frozen=True, kw_only=True)
class Method:
    """How we round; `rewritten`: norms and scales folded, channels evened out before."""

    rounding: Rounding
    rewritten: bool = False


METHODS = {
    "nearest": Method(rounding="nearest"),
    "compensated": Method(rounding="compensated"),
    "ptq-best": Method(rounding="sequential", rewritten=True),
}


def quantise_part(job: dict[str, Any]) -> dict[str, Any]:
    """Quantise the part, run it on the held-out runs, export it; returns what result.json holds."""
    folder, out, method = Path(job["case"]), Path(job["out"]), METHODS[job["method"]]
    case = Case.load(folder)
    model = open_float(case.checkpoint).model()
    runs = load_runs(folder / CALIBRATION)
    idle, start = _peak_bytes(), time.process_time()
    if method.rewritten:
        fold(model)
        equalize(model)
    graph = part_graph(model, case)
    precision = PRECISIONS[case.precision]
    encodings = calibrate(graph.module, as_runs(graph, runs), precision, rounding=method.rounding)
    seconds, peak = time.process_time() - start, _peak_bytes()
    np.savez(
        out / "simulated.npz", allow_pickle=False, **{case.output: _simulated(graph, case, folder)}
    )
    start = time.process_time()
    ends = _export(graph, model, encodings, out)
    return {
        "seconds": seconds,
        "export_seconds": time.process_time() - start,
        "idle_bytes": idle,
        "peak_bytes": peak,
        "ends": ends,
    }


@torch.inference_mode()
def _simulated(graph: TorchGraph, case: Case, folder: Path) -> np.ndarray:
    found = []
    for run in as_runs(graph, load_runs(folder / HELD_OUT)):
        outputs = run(graph.module)
        found.append(outputs[0] if isinstance(outputs, tuple) else outputs)
    return torch.stack(found).numpy()


def _export(graph: TorchGraph, model: VLM, encodings: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write the integer graph; encodings of its inputs and outputs by name."""
    for _, quantizer in output_quantizers(graph.module):
        quantizer.mode = "off"  # the exporter rounds activations itself
    tensors = frozen_tensors(graph.module)
    exported = export_graph(graph)
    checkpoint = Checkpoint(model.config, tensors, {}, encodings)
    ends = quantize_graph(exported, load_quantization(checkpoint))
    save_model(exported, out / "qdq.onnx", WeightFile(out / "qdq.data"))
    return {name: asdict(encoding) for name, encoding in ends.items()}


def _peak_bytes() -> int:
    return round(peak_rss_gb() * 2**30)


def main(argv: list[str]) -> None:
    """One job; the result is written last, and only where all went well."""
    torch.set_num_threads(1)
    job = json.loads(Path(argv[1]).read_text(encoding="utf-8"))
    result = quantise_part(job)
    (Path(job["out"]) / "result.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv)
