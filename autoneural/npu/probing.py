"""Child side of a probe job: many small graphs, each answer on disk before the next is asked.

    graphs  [{"probe": [op, variant, rank, precision], "file", "integer", "options"}]
    answers the file to which one line of JSON per probe is added: {"probe", "reason"}

A probe is accepted (reason "") only if every node is on the NPU and, where it is one of integers,
no tensor of the compiled graph is a float; the options are those of `compile`, and the graph's own.
The compiler says why not in its verbose log alone, so that is switched on and caught.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import onnx_ir as ir
import onnxruntime as ort

from autoneural.npu.compiled_graph import read_dumps
from autoneural.npu.layer_names import LayerNames
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
_COMPLAINT = re.compile(r"<E> (?:\[\d+\] )?(?P<text>.*)")
_OF_TYPE = re.compile(r"failed for node `\S+` of type `(?P<type>\w+)`")
_REASON = re.compile(r"REASON : (?P<text>.*)")
_REQUESTED = re.compile(r"(?P<side>in|out)\[\d+\]:\s*(?:QNN_DATATYPE_)?(?P<type>[A-Z]\w*)")
# What the compiler says after a complaint, or to itself.
_NOISE = ("unexpected Graph", "Requested I/O", "Supported I/O", "Please refer", "QnnBackend_valid")
_NOISE += ("Failed to validate op", "validateNativeOps", "RouterX86", "graphMainFinalize")
_NAMES = (
    (re.compile(r" in the node '[^']*'"), ""),
    (re.compile(r"\s*There is a mismatch for the combination of inputs and outputs\."), ""),
    (re.compile(r"(?<=\.)\w+ node `[^`]*` will not be assigned to QNN EP\."), ""),
    (re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "), ""),
    (re.compile(r'^"[^"]*" generated: '), ""),
    (re.compile(r"(has incorrect Value \d+, expected >= \d+)\.?"), r"\1 (the HTP version)"),
    (re.compile(r"QNNExecutionProvider_\w+"), "the graph"),
)


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


def refusal(log: str) -> str:
    """Why the first refused node of a verbose log was refused; "" where none was.

    In the compiler's words if it complained, else in those of ONNX Runtime's provider.
    """
    complaint = kind = ""
    requested: list[tuple[str, str]] = []
    listing = False
    for line in log.splitlines():
        if "Validation PASSED" in line:
            complaint, requested = "", []
        elif found := _REASON.search(line):
            return _sentence(kind, complaint, requested) or _plain(found["text"])
        elif found := _COMPLAINT.search(line):
            listing = found["text"].startswith("Requested I/O") and not requested
            if not complaint and not found["text"].startswith(_NOISE):
                complaint = _plain(found["text"])
        elif found := _OF_TYPE.search(line):
            kind = found["type"]
        elif listing and (found := _REQUESTED.search(line)):
            requested.append((found["side"], found["type"]))
    return _sentence(kind, complaint, requested)


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
            return refusal(log.read()) or _plain(str(error).split("\n", 1)[0]), None
        if set(nodes_by_provider(session)) != {PROVIDER}:
            return "nothing of it runs on the NPU: ONNX Runtime computes it beforehand", session
        return (_floats(Path(folder), file) if graph["integer"] else ""), session


def _floats(folder: Path, file: Path) -> str:
    compiled = read_dumps(folder, LayerNames(ir.load(file).graph))
    if compiled.partitions == 0:
        return "the compiler wrote no graph"
    if compiled.float_tensors:
        return "computed in floating point, not in integers"
    return ""


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


def _sentence(kind: str, complaint: str, requested: list[tuple[str, str]]) -> str:
    if not complaint:
        return ""
    text = complaint if kind in complaint else f"{kind}: {complaint}"
    if not requested or "datatypes" not in complaint:
        return text
    sides = {side: [t for s, t in requested if s == side] for side in ("in", "out")}
    return f"{text.rstrip('.')}: {', '.join(sides['in'])} -> {', '.join(sides['out'])}"


def _plain(text: str) -> str:
    """Without the names of nodes and graphs, which differ from probe to probe."""
    for pattern, instead in _NAMES:
        text = pattern.sub(instead, text)
    return text.strip()
