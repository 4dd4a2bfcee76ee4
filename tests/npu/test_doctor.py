"""`doctor`: what it finds here, and that a missing, broken or crashing wheel is only a line."""

from __future__ import annotations

import io
import json
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autoneural import cli
from autoneural.bundle import DEFAULT_BUNDLE, Bundle
from autoneural.errors import UserError
from autoneural.npu import doctor
from autoneural.npu.doctor import examine, print_report
from autoneural.npu.worker import JobFailed
from autoneural.runtime.qnn import PROVIDER, Wheel

NPU = {"found": True, "why": "an NPU", "chip": "SA8775P"}
LOADED = {"compiler": "QNN 9", "library": "libqnn.so", "devices": [], "npu": NPU}
# A package like Qualcomm's whose library is what a test says.
PACKAGE = """
import pathlib
__version__ = "9.9"
def get_qnn_htp_path():
    return __file__
def get_library_path():
    {body}
"""


@pytest.fixture
def fake_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Puts a wheel of our own in the place of Qualcomm's, for this process and its children."""

    def fake(body: str) -> None:
        package = tmp_path / "onnxruntime_qnn"
        package.mkdir()
        (package / "__init__.py").write_text(PACKAGE.format(body=body))
        (package / "build_and_package_info.py").write_text('qnn_version = "2.99"')
        monkeypatch.delitem(sys.modules, "onnxruntime_qnn", raising=False)
        monkeypatch.syspath_prepend(tmp_path)

    return fake


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Answers `devices` and `assign` in the place of the worker; an exception is raised."""

    def fake(devices: Any, assign: Any = None) -> None:
        def run_job(job: dict, timeout: float) -> Any:
            answer = {"devices": devices, "assign": assign}[job["do"]]
            if isinstance(answer, Exception):
                raise answer
            return answer(job) if callable(answer) else answer

        monkeypatch.setattr(doctor, "is_installed", lambda: True)
        monkeypatch.setattr(doctor, "run_job", run_job)

    return fake


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return Bundle.load(DEFAULT_BUNDLE)


def printed(report: dict) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=200))
    return out.getvalue()


def complaint(report: dict, what: str) -> dict:
    return next(entry for entry in report["missing"] if entry["what"] == what)


def test_the_emulator_takes_every_node_of_the_embedded_model(
    qnn_wheel: Wheel, embedded: Bundle
) -> None:
    report = examine(embedded, "SA8775P")
    assert report["loaded"]["compiler"] == qnn_wheel.compiler
    assert report["loaded"]["emulator"] is True
    assert report["chip"] == "SA8775P"
    emulated = [row for row in report["assigned"] if row["device"] == "emulated"]
    assert {row["file"] for row in emulated} == {g.file for g in embedded.target("qdq").graphs}
    assert all(list(row["nodes"]) == [PROVIDER] for row in emulated)
    cpu = [row for row in report["assigned"] if row["device"] == "cpu"]
    assert {row["target"] for row in cpu} == {"cpu", "qdq"}
    assert all(list(row["nodes"]) == ["CPUExecutionProvider"] for row in cpu)
    assert [entry["what"] for entry in report["missing"]] == ["npu"]
    text = printed(report)
    assert f"{PROVIDER}: {qnn_wheel.compiler}" in text
    assert "emulator: SA8775P" in text
    assert text.count("emulated") == len(emulated)


def test_facts_of_the_machine(jobs, tiny_bundle: Bundle) -> None:
    jobs(JobFailed("x"))
    found = examine(tiny_bundle)["found"]
    assert found["python"] == platform.python_version()
    assert found["onnxruntime"] == metadata.version("onnxruntime")
    assert found["cores"] >= 1
    if "avx2" in cpuinfo():
        assert "avx2" in found["cpu_flags"]
    assert set(found["cpu_flags"]) <= cpuinfo()


def cpuinfo() -> set[str]:
    path = Path("/proc/cpuinfo")
    return set(path.read_text().split()) if path.exists() else set()


def test_without_the_wheel_it_says_how_to_get_it(monkeypatch, tiny_bundle: Bundle) -> None:
    monkeypatch.setattr(doctor, "is_installed", lambda: False)
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    monkeypatch.setattr(doctor, "emulates", lambda: True)
    report = examine(tiny_bundle)
    assert report["loaded"]["error"] == "onnxruntime-qnn is not installed"
    assert "autoneural[npu]" in complaint(report, PROVIDER)["do"]
    assert [row["target"] for row in report["assigned"]] == ["float"] * 5
    assert f"{PROVIDER}: no: onnxruntime-qnn is not installed" in printed(report)


def test_a_wrong_platform_is_told_so(monkeypatch, tiny_bundle: Bundle) -> None:
    monkeypatch.setattr(doctor, "is_installed", lambda: False)
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    monkeypatch.setattr(doctor, "emulates", lambda: False)
    monkeypatch.setattr(doctor.platform, "machine", lambda: "riscv64")
    report = examine(tiny_bundle)
    assert "riscv64" in complaint(report, PROVIDER)["do"]
    assert "Linux x86-64" in complaint(report, "htp-emulator")["why"]
    assert "Qualcomm chip" in complaint(report, "npu")["do"]


def test_a_library_that_does_not_load_shows_the_loaders_words(
    fake_wheel, tmp_path: Path, tiny_bundle: Bundle
) -> None:
    (tmp_path / "not_a_library.so").write_bytes(b"not ELF")
    fake_wheel("return str(pathlib.Path(__file__).parents[1] / 'not_a_library.so')")
    report = examine(tiny_bundle)
    why = complaint(report, PROVIDER)["why"]
    assert "not_a_library.so" in why
    assert "cannot be loaded" in why
    assert "\n" not in why


def test_a_wheel_that_does_not_import_is_a_line(fake_wheel, tiny_bundle: Bundle) -> None:
    fake_wheel("pass\nimport no_such_module_of_ours")
    why = complaint(examine(tiny_bundle), PROVIDER)["why"]
    assert "installed but broken" in why
    assert "no_such_module_of_ours" in why


@pytest.mark.skipif(sys.platform == "win32", reason="signals end processes on POSIX only")
def test_a_crash_is_a_line(fake_wheel, tiny_bundle: Bundle) -> None:
    fake_wheel("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    report = examine(tiny_bundle)
    assert "crashed (signal 11)" in complaint(report, PROVIDER)["why"]
    assert report["assigned"]


def test_an_npu_gets_the_binaries_of_its_chip(jobs, embedded: Bundle) -> None:
    asked: list[dict] = []

    def assign(job: dict) -> dict:
        asked.append(job)
        return {"graphs": [{"name": g["name"], "nodes": {PROVIDER: 1}} for g in job["graphs"]]}

    jobs(LOADED, assign)
    report = examine(embedded)
    rows = [row for row in report["assigned"] if row["device"] == "npu"]
    assert {row["target"] for row in rows} == {"qdq"}
    assert asked[0]["soc_model"] == 52
    assert not [entry for entry in report["missing"] if entry["what"] == "npu"]
    assert "npu: yes: an NPU" in printed(report)


def test_graphs_that_crash_the_compiler_are_a_row(jobs, embedded: Bundle) -> None:
    jobs(LOADED, JobFailed("the compiler crashed (signal 11)"))
    report = examine(embedded)
    errors = [row["error"] for row in report["assigned"] if row["device"] == "npu"]
    assert errors == ["the compiler crashed (signal 11)"]
    assert "signal 11" in printed(report)


def test_a_refused_graph_is_a_row(jobs, embedded: Bundle) -> None:
    jobs(
        LOADED,
        lambda job: {"graphs": [{"name": g["name"], "error": "no [v68]"} for g in job["graphs"]]},
    )
    assert printed(examine(embedded)).count("no [v68]") == len(embedded.target("qdq").graphs)


def test_a_bundle_without_integer_graphs_is_told_so(jobs, tiny_bundle: Bundle) -> None:
    jobs(LOADED)
    assert "--targets cpu qdq" in complaint(examine(tiny_bundle), "qdq graphs")["do"]


def test_an_unknown_chip_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(UserError, match="no chip called 'SA1'"):
        examine(tiny_bundle, "SA1")


def test_the_command_prints_json(jobs, tiny_bundle: Bundle, capsys) -> None:
    jobs(JobFailed("no library"))
    assert cli.main(["doctor", str(tiny_bundle.folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"found", "loaded", "assigned", "missing", "bundle", "chip"}
    assert cli.main(["doctor", str(tiny_bundle.folder), "--chip", "nope"]) == 2
    assert "no chip called 'nope'" in capsys.readouterr().err
