"""One job of the HTP compiler or emulator, in a process of its own.

A process of its own because Qualcomm's libraries may crash, hold gigabytes, and can be stopped no
other way; and because a context binary is only proved when another process reloads it.

    compile   graphs [{"name", "file", "feeds"?, "outputs"?}] -> NAME.onnx + *.bin in "out"
    run       graphs [{"name", "file", "feeds", "outputs"}]   -> what they compute
    explain   graphs [{"name", "file"}]                       -> which nodes are refused, and why
    devices                                                   -> what the provider offers here
    assign    graphs [{"name", "file"}]                       -> nodes per provider, CPU allowed
    probe     graphs [{"probe", "file", "integer"}]           -> lines in "answers"; see probing.py

`feeds` and `outputs` are .npz files of arrays by name; with a leading axis "runs" in every array
where "runs" is given. A job with "folder" names its graphs' files from there: the path that a graph
is read by goes into its binary, so only then does it not depend on where it was made.
Run by `run_job` as `python -m autoneural.npu.worker JOB.json`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autoneural.errors import UserError

Job = Mapping[str, Any]

COMPILE_OPTIONS = {
    "htp_graph_finalization_optimization_mode": "3",
    "dump_json_qnn_graph": "1",
    # 4-bit weights in blocks stay integers, where every scale is a 16th of the channel's largest.
    "enable_block_quant_weight_optimization": "1",
}
_FAILED = re.compile(r"Validation FAILED for \d+ nodes in OrtNodeUnit \((?P<op>.*)\) :")
_MEMBER = re.compile(r"Operator type: (?P<op>\S+) Node name: (?P<node>\S+) Node index: \d+")
_REASON = re.compile(r"REASON : (.*)")
_VALIDATING = re.compile(r"Validating Op (\S+)")
_COMPLAINT = re.compile(r"<E> (?:\[\d+\] )?(.*)")


class JobFailed(Exception):
    """The worker ended without a result; the message is its last word."""


def run_job(job: Job, timeout: float | None = None) -> dict[str, Any]:
    """Run `job` in a new process and return its result.

    Raises JobFailed with one line when the process fails, crashes or exceeds `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="autoneural-npu-") as folder:
        file, command, environment = write_job(job, Path(folder))
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout, env=environment
            )
        except subprocess.TimeoutExpired as error:
            raise JobFailed(f"no result after {timeout:.0f} s") from error
        result = file.with_suffix(".result.json")
        if done.returncode != 0 or not result.is_file():
            raise JobFailed(last_word(done.returncode, done.stderr))
        answer = json.loads(result.read_text(encoding="utf-8"))
        if job["do"] == "explain":
            answer["refused"] = refusals(done.stderr)
        return answer


def write_job(job: Job, folder: Path) -> tuple[Path, list[str], dict[str, str]]:
    """Its file in `folder`, and the command and environment of the process that does it."""
    file = folder / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, "-m", "autoneural.npu.worker", str(file)]
    return file, command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def refusals(log: str) -> list[dict[str, str]]:
    """The nodes a verbose log of the provider says were refused: {"node", "op", "reason"}.

    The reason is the compiler's own complaint where it made one, else the provider's.
    """
    complaints: dict[str, str] = {}
    refused: dict[str, dict[str, str]] = {}
    validating = op = node = ""
    for line in log.splitlines():
        if found := _VALIDATING.search(line):
            validating = found[1]
        elif (found := _COMPLAINT.search(line)) and validating:
            complaints.setdefault(validating, found[1].strip())
        elif found := _FAILED.search(line):
            op, node = found["op"], ""
        elif op and (found := _MEMBER.search(line)):
            node = found["node"] if found["op"] == op else node
        elif op and (found := _REASON.search(line)):
            reason = complaints.get(node) or found[1].strip()
            refused.setdefault(node, {"node": node, "op": op, "reason": reason})
            op = ""
    return list(refused.values())


def last_word(code: int, stderr: str) -> str:
    if code < 0:
        return f"the compiler crashed (signal {-code})"
    lines = [line for line in stderr.splitlines() if line.strip()]
    return lines[-1][:500] if lines else f"exit code {code} without a word"


def main(argv: list[str]) -> int:
    """Child side: read the job, do it, write the result beside it."""
    file = Path(argv[1])
    job = json.loads(file.read_text(encoding="utf-8"))
    os.chdir(job.get("folder", "."))
    jobs = {"compile": _compile, "run": _run, "explain": _explain}
    jobs |= {"devices": _devices, "assign": _assign, "probe": _probe}
    result = jobs[job["do"]](job)
    result["peak_rss_gb"] = peak_rss_gb()
    file.with_suffix(".result.json").write_text(json.dumps(result), encoding="utf-8")
    return 0


def _compile(job: Job) -> dict[str, Any]:
    from autoneural.runtime.qnn import nodes_by_provider, open_session, require_wheel
    from autoneural.runtime.qnn import session_options as qnn_options

    out, wheel = Path(job["out"]), require_wheel()
    share, last = job.get("share", False), job["graphs"][-1]["name"]
    report, kept = [], []
    for graph in job["graphs"]:
        entries = {
            "ep.context_enable": "1",
            "ep.context_embed_mode": "0",
            "ep.context_file_path": str(out / f"{graph['name']}.onnx"),
            "ep.share_ep_contexts": str(int(share)),
            "ep.stop_share_ep_contexts": str(int(share and graph["name"] == last)),
        }
        dump = Path(job["dump"]) / graph["name"]
        dump.mkdir(parents=True, exist_ok=True)
        provider = {**COMPILE_OPTIONS, "json_qnn_graph_dir": str(dump)}
        allow = job.get("allow_cpu", False)
        start = time.perf_counter()
        options = qnn_options(
            wheel, job["soc_model"], provider=provider, entries=entries, allow_cpu=allow
        )
        session = open_session(Path(graph["file"]), options)
        seconds = time.perf_counter() - start
        kept.append(session)  # shared weights live as long as every session that shares them
        nodes = nodes_by_provider(session)
        report.append({"name": graph["name"], "seconds": seconds, "nodes": nodes})
    for graph, session in zip(job["graphs"], kept, strict=True):
        if "feeds" in graph:
            _answer(session, graph)
    return {"graphs": report, "compiler": wheel.compiler}


def _run(job: Job) -> dict[str, Any]:
    from autoneural.runtime.qnn import open_session, require_wheel
    from autoneural.runtime.qnn import session_options as qnn_options

    wheel, seconds = require_wheel(), {}
    for graph in job["graphs"]:
        session = open_session(Path(graph["file"]), qnn_options(wheel, job["soc_model"]))
        start = time.perf_counter()
        _answer(session, graph)
        seconds[graph["name"]] = time.perf_counter() - start
    return {"seconds": seconds, "compiler": wheel.compiler}


def _explain(job: Job) -> dict[str, Any]:
    import onnxruntime as ort

    from autoneural.runtime.qnn import nodes_by_provider, open_session, require_wheel
    from autoneural.runtime.qnn import session_options as qnn_options

    ort.set_default_logger_severity(0)
    wheel, nodes = require_wheel(), {}
    for graph in job["graphs"]:
        options = qnn_options(wheel, job["soc_model"], allow_cpu=True)
        options.log_severity_level = 0
        nodes[graph["name"]] = nodes_by_provider(open_session(Path(graph["file"]), options))
    return {"nodes": nodes}


def _answer(session: Any, graph: Mapping[str, Any]) -> None:
    """Run the graph on its feeds, once or once per run, and save the outputs."""
    names = [output.name for output in session.get_outputs()]
    with np.load(graph["feeds"]) as file:
        feeds = {name: file[name] for name in file.files}
    if graph.get("runs"):
        results = [
            session.run(names, {name: array[i] for name, array in feeds.items()})
            for i in range(graph["runs"])
        ]
        arrays = [np.stack(values) for values in zip(*results, strict=True)]
    else:
        arrays = session.run(names, feeds)
    found: dict[str, Any] = dict(zip(names, arrays, strict=True))
    np.savez(graph["outputs"], **found)


def _devices(job: Job) -> dict[str, Any]:
    from autoneural.runtime.devices import find_npu, machine_chip
    from autoneural.runtime.qnn import provider_devices, require_wheel

    wheel = require_wheel()
    devices = [
        {"vendor": d.ep_vendor, "type": d.device.type.name, "hardware": d.device.vendor}
        for d in provider_devices(wheel)
    ]
    (npu, why), chip = find_npu(), machine_chip()
    return {
        "compiler": wheel.compiler,
        "library": str(wheel.library),
        "devices": devices,
        "npu": {"found": npu, "why": why, "chip": chip.name if chip else None},
    }


def _assign(job: Job) -> dict[str, Any]:
    from autoneural.runtime.qnn import nodes_by_provider, open_session, require_wheel
    from autoneural.runtime.qnn import session_options as qnn_options

    rows = []
    for graph in job["graphs"]:
        options = qnn_options(require_wheel(), job["soc_model"], allow_cpu=True)
        try:
            session = open_session(Path(graph["file"]), options)
        # ONNX Runtime's exceptions share no base class below Exception.
        except Exception as error:
            rows.append({"name": graph["name"], "error": str(error).split("\n", 1)[0]})
            continue
        nodes = {provider: len(names) for provider, names in nodes_by_provider(session).items()}
        rows.append({"name": graph["name"], "nodes": nodes})
    return {"graphs": rows}


def _probe(job: Job) -> dict[str, Any]:
    from autoneural.npu.probing import probe

    return probe(job)


def peak_rss_gb() -> float:
    """Of this process alone; 0 where the system does not tell.

    Not getrusage: what it says begins at the size of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) / 2**20 if found else 0.0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
