"""What can run a bundle on this machine: found, loaded, assigned, and why not.

Qualcomm's libraries are only touched in another process: one that is broken, or built for another
system, may take its process down, and then that is a line of the report.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoneural import __version__
from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.npu.worker import JobFailed, run_job
from autoneural.runtime.devices import Placement
from autoneural.runtime.processor import processor
from autoneural.runtime.qnn import PROVIDER, emulates, is_installed
from autoneural.runtime.session import TargetSessions
from autoneural.runtime.threads import physical_cores
from autoneural.target.chips import DEFAULT_CHIP, Chip, find_chip

Report = dict[str, Any]

_SECONDS = 900
_ON_CPU = ("cpu", "float", "qdq")
_INSTALL = "pip install 'autoneural[npu]', or `make setup` in a clone"
_REINSTALL = (
    "install onnxruntime and onnxruntime-qnn again, in versions that go together "
    "(constraints.txt of the repository names a pair)"
)


def examine(bundle: Bundle, chip: str | None = None) -> Report:
    """The report as JSON-ready data; `chip` is the one to emulate.

    "found" and "loaded" are facts, "assigned" has a row per graph and device, "missing" what is not
    there: {"what", "why", "do"}. Raises UserError for an unknown chip only.
    """
    target = find_chip(chip or DEFAULT_CHIP)
    found, loaded = _found(), _loaded()
    return {
        "found": found,
        "loaded": loaded,
        "assigned": list(_assigned(bundle, target, loaded)),
        "missing": list(_missing(bundle, found, loaded)),
        "bundle": bundle.name,
        "chip": target.name,
    }


def print_report(report: Report, console: Console) -> None:
    """The report for people."""
    found, loaded, npu = report["found"], report["loaded"], report["loaded"]["npu"]
    console.print("[bold]found[/]")
    _line(console, "autoneural", f"{found['autoneural']}, Python {found['python']}")
    _line(console, "machine", f"{found['platform']}, {found['cores']} cores")
    _line(console, "cpu", f"{found['cpu']} ({' '.join(found['cpu_flags']) or 'no flags told'})")
    _line(console, "onnxruntime", found["onnxruntime"] or "not installed")
    _line(console, "onnxruntime-qnn", found["onnxruntime_qnn"] or "not installed")
    console.print("[bold]loaded[/]")
    provider = loaded["compiler"] or f"no: {loaded['error']}"
    _line(console, "CPUExecutionProvider", "part of ONNX Runtime")
    _line(console, PROVIDER, provider)
    for device in loaded["devices"]:
        _line(console, "  device", f"{device['type']} ({device['hardware']})")
    _line(console, "emulator", report["chip"] if loaded["emulator"] else "no")
    _line(console, "npu", f"{'yes' if npu['found'] else 'no'}: {npu['why']}")
    console.print(f"[bold]assigned[/] ({escape(report['bundle'])})")
    console.print(_table(report["assigned"]))
    console.print("[bold]why not[/]" if report["missing"] else "nothing is missing")
    for entry in report["missing"]:
        _line(console, entry["what"], f"{entry['why']}\n  -> {entry['do']}")


def _found() -> Report:
    name, flags = processor()
    return {
        "autoneural": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "cpu": name,
        "cpu_flags": list(flags),
        "cores": physical_cores(),
        "onnxruntime": _version("onnxruntime"),
        "onnxruntime_qnn": _version("onnxruntime-qnn"),
    }


def _loaded() -> Report:
    """What the provider said when it was loaded, in a process of its own, or why it was not."""
    nothing = {"compiler": None, "library": None, "devices": [], "emulator": False}
    if not is_installed():
        error = "onnxruntime-qnn is not installed"
        return {**nothing, "error": error, "npu": _no_npu(error)}
    try:
        answer = run_job({"do": "devices"}, _SECONDS)
    except JobFailed as failed:
        return {**nothing, "error": str(failed), "npu": _no_npu("Qualcomm's provider not loaded")}
    told = {key: answer[key] for key in ("compiler", "library", "devices", "npu")}
    return {**told, "error": None, "emulator": emulates() and bool(answer["devices"])}


def _no_npu(why: str) -> Report:
    return {"found": False, "why": why, "chip": None}


def _assigned(bundle: Bundle, chip: Chip, loaded: Report) -> Iterator[Report]:
    """A row per graph and device: nodes per provider, or the error."""
    for target in _ON_CPU:
        if target in bundle.targets:
            yield from _on_cpu(bundle, target)
    if loaded["emulator"] and "qdq" in bundle.targets:
        yield from _on_qnn(bundle, "emulated", "qdq", chip)
    if loaded["npu"]["found"]:
        yield from _on_npu(bundle, loaded["npu"]["chip"])


def _on_cpu(bundle: Bundle, target: str) -> Iterator[Report]:
    try:
        placement = Placement(device="cpu", target=target, why="doctor")
        sessions = TargetSessions.load(bundle, placement)
    except UserError as error:
        yield {"device": "cpu", "target": target, "error": str(error)}
        return
    for row in sessions.provider_report():
        yield {**row, "target": target}


def _on_npu(bundle: Bundle, chip: str | None) -> Iterator[Report]:
    known = find_chip(chip) if chip else None
    names = [known.target] if known and known.target in bundle.targets else []
    target = next(iter([*names, "qdq"]))
    if target in bundle.targets:
        yield from _on_qnn(bundle, "npu", target, known)


def _on_qnn(bundle: Bundle, device: str, target: str, chip: Chip | None) -> Iterator[Report]:
    specs = bundle.target(target).graphs
    graphs = [{"name": g.file, "file": str(bundle.path(g.file))} for g in specs]
    soc = chip.soc_model if chip else None
    try:
        answer = run_job({"do": "assign", "graphs": graphs, "soc_model": soc}, _SECONDS)
    except JobFailed as failed:
        yield {"device": device, "target": target, "error": str(failed)}
        return
    for spec, row in zip(specs, answer["graphs"], strict=True):
        key = {"role": spec.role, "part": spec.part, "width": spec.width, "file": spec.file}
        result = {k: row[k] for k in ("nodes", "error") if k in row}
        yield {**key, "device": device, "target": target, **result}


def _missing(bundle: Bundle, found: Report, loaded: Report) -> Iterator[Report]:
    """Each thing that is not there, why, and what to do about it."""
    machine, npu = found["platform"], loaded["npu"]
    possible = emulates() or platform.machine().lower() in ("arm64", "aarch64")
    if loaded["error"]:
        do = _REINSTALL if found["onnxruntime_qnn"] else _INSTALL
        do = do if possible else f"nothing: there is no onnxruntime-qnn for {machine} that helps"
        yield {"what": PROVIDER, "why": loaded["error"], "do": do}
    if not emulates():
        why = f"it exists for Linux x86-64, this is {machine}"
        yield {"what": "htp-emulator", "why": why, "do": "use a Linux x86-64 machine or container"}
    if not npu["found"]:
        yield {"what": "npu", "why": npu["why"], "do": _how_to_an_npu()}
    if "qdq" not in bundle.targets:
        held = ", ".join(bundle.targets)
        do = "export it with `--targets cpu qdq`, or compile it for the chip"
        yield {"what": "qdq graphs", "why": f"bundle {bundle.name} holds {held} only", "do": do}


def _how_to_an_npu() -> str:
    if emulates():
        return "take the bundle to a machine with the chip; here there is --device htp-emulator"
    if platform.machine().lower() not in ("arm64", "aarch64"):
        return (
            "take the bundle to a machine with a Qualcomm chip: Windows, Linux or Android on ARM64"
        )
    if sys.platform == "win32":
        return "install the chip maker's NPU driver; the device manager lists it"
    return (
        "see that /dev/fastrpc-cdsp* exists and that your user may open it (`ls -l /dev/fastrpc*`)"
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _table(rows: list[Report]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("  device", "target", "graph", "width", "nodes per provider"):
        table.add_column(heading, no_wrap=heading != "nodes per provider")
    for row in rows:
        name = f"{row['role']}-{row['part']}" if row.get("part") else row.get("role", "")
        nodes = row.get("error") or _nodes(row["nodes"])
        width = str(row.get("width") or "")
        table.add_row(f"  {row['device']}", row["target"], name, width, escape(nodes))
    return table


def _nodes(nodes: Mapping[str, int]) -> str:
    return ", ".join(f"{provider} {count}" for provider, count in nodes.items())


def _line(console: Console, name: str, text: str) -> None:
    console.print(f"  {escape(name)}: {escape(text)}", soft_wrap=True, highlight=False)
