"""Child side of a probe job: many small graphs, each answer on disk before the next is asked.

    graphs  [{"probe": [op, variant, rank, precision], "file", "integer", "options"}]
    answers the file to which one line of JSON per probe is added: {"probe", "reason"}

A probe is accepted (reason "") only if every node is on the NPU and, where it is one of integers,
no tensor of the compiled graph is a float and the emulator gives about the numbers that ONNX
Runtime gives on the CPU: some operators compile, and compute something else without a word. The
options are those of `compile`, and the graph's own.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from autoneural.npu.compiled_graph import read_dumps
from autoneural.npu.layer_names import LayerNames
from autoneural.npu.probe_log import plain, refusal
from autoneural.npu.worker import COMPILE_OPTIONS
from autoneural.runtime.qnn import (
    PROVIDER,
    Wheel,
    nodes_by_provider,
    open_session,
    require_wheel,
    session_options,
)

_VERBOSE, _ERRORS = 0, 3
# Something else: more than this share of the signal's power, and of the range, is error. Wide of
# what any chip's rounding makes; the certificate of a bundle measures that.
_NOISE_SHARE, _ERROR_SHARE = 0.1, 0.05
_POSITIVE = ("Log", "Sqrt", "Reciprocal", "Div", "Pow")
_TABLE_ROWS = 64


def probe(job: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the compiler for `soc_model` about every graph of the job."""
    ort.set_default_logger_severity(_VERBOSE)  # before the library is loaded, or it stays silent
    wheel = require_wheel()
    held = None
    try:
        with open(job["answers"], "a", encoding="utf-8") as answers:
            for graph in job["graphs"]:
                reason, session = _ask(wheel, job["soc_model"], graph)
                # One session is always open: with the last one the compiler is unloaded, and to
                # load it takes five times as long as a probe.
                held = session or held
                answers.write(json.dumps({"probe": graph["probe"], "reason": reason}) + "\n")
                answers.flush()
    finally:
        ort.set_default_logger_severity(_ERRORS)  # an error's own words come last
    return {"probes": len(job["graphs"])}


def _ask(
    wheel: Wheel, soc_model: int, graph: Mapping[str, Any]
) -> tuple[str, ort.InferenceSession | None]:
    file = Path(graph["file"])
    with tempfile.TemporaryDirectory(prefix="autoneural-probe-") as folder, _caught() as log:
        provider = {**COMPILE_OPTIONS, **graph["options"], "json_qnn_graph_dir": folder}
        options = session_options(wheel, soc_model, provider=provider)
        options.log_severity_level = _VERBOSE
        try:
            session = open_session(file, options)
        # ONNX Runtime's exceptions share no base class below Exception.
        except Exception as error:
            log.seek(0)
            return refusal(log.read()) or plain(str(error).split("\n", 1)[0]), None
        if set(nodes_by_provider(session)) != {PROVIDER}:
            return "nothing of it runs on the NPU: ONNX Runtime computes it beforehand", session
        if not graph["integer"]:
            return "", session
        return _floats(Path(folder), file) or _difference(session, file, graph["probe"][0]), session


def _floats(folder: Path, file: Path) -> str:
    compiled = read_dumps(folder, LayerNames(ir.load(file).graph))
    if compiled.partitions == 0:
        return "the compiler wrote no graph"
    if compiled.float_tensors:
        return "computed in floating point, not in integers"
    return ""


def _difference(session: ort.InferenceSession, file: Path, op: str) -> str:
    """Whether the emulator computes by and large what ONNX Runtime computes on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS
    try:
        reference = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception:  # an operator that this version of ONNX Runtime lacks: nothing to compare
        return ""
    feeds = {put.name: _feed(put, op in _POSITIVE) for put in reference.get_inputs()}
    wanted = reference.run(None, feeds)
    try:
        made = session.run(None, feeds)
    except Exception as error:
        return plain(str(error).split("\n", 1)[0])
    pairs = zip(map(np.asarray, wanted), map(np.asarray, made), strict=True)
    if any(_apart(one, other) for one, other in pairs):
        return "compiled, but the emulator computes something else than the graph says"
    return ""


def _apart(wanted: NDArray[Any], made: NDArray[Any]) -> bool:
    if wanted.dtype not in (np.uint8, np.uint16):
        return False  # indices: of equal values any will do
    error = np.abs(made.astype(np.float64) - wanted)
    noisy = np.mean(error**2) > _NOISE_SHARE * np.var(wanted)
    return bool(noisy and error.max() > _ERROR_SHARE * np.iinfo(wanted.dtype).max)


def _feed(put: ort.NodeArg, positive: bool) -> NDArray[Any]:
    """Random integers an eighth of the range around its middle, or a quarter above."""
    random = np.random.default_rng(sum(put.name.encode()))
    if put.type == "tensor(bool)":
        return random.integers(0, 2, put.shape).astype(bool)
    if put.type == "tensor(int32)":
        return random.integers(0, _TABLE_ROWS, put.shape).astype(np.int32)
    dtype = np.uint8 if put.type == "tensor(uint8)" else np.uint16
    levels = np.iinfo(dtype).max + 1
    numbers = random.normal(levels * (0.75 if positive else 0.5), levels / 16, put.shape)
    return np.clip(np.rint(numbers), 0, levels - 1).astype(dtype)


@contextmanager
def _caught() -> Iterator[IO[str]]:
    """File descriptor 2, where the libraries log, sent to a file for a while."""
    kept = os.dup(2)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        os.dup2(log.fileno(), 2)
        try:
            yield log
        finally:
            os.dup2(kept, 2)
            os.close(kept)
