"""The scripts that travel with a kit: run the golden steps on a device, judge what comes back."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autoneural.npu.kit_check import main as check
from tests.npu.kit_helpers import read

DOUBLE = """#!/bin/sh
exec {python} {script} "$@"
"""
# Stands for qnn-net-run: checks its arguments, answers with what the kit expects.
NET_RUN = """
import argparse, json, math, pathlib, shutil
parser = argparse.ArgumentParser()
for name in ("backend", "retrieve_context", "input_list", "output_dir"):
    parser.add_argument(f"--{name}", required=True)
for name in ("use_native_input_files", "use_native_output_files"):
    parser.add_argument(f"--{name}", action="store_true", required=True)
args = parser.parse_args()
io = json.loads(pathlib.Path("io.json").read_text())
graphs = [g for g in io["graphs"] if g["binary"] == args.retrieve_context]
lists = args.input_list.split(",")
assert len(lists) == len(graphs) and pathlib.Path(args.retrieve_context).is_file()
(graph, file), = [(g, f) for g, f in zip(graphs, lists) if f != "__"]
line, = pathlib.Path(file).read_text().splitlines()
named = dict(entry.split(":=") for entry in line.split(" "))
assert list(named) == [t["name"] for t in graph["inputs"]]
for tensor in graph["inputs"]:
    size = {"uint8": 1, "uint16": 2}[tensor["dtype"]] * math.prod(tensor["shape"])
    assert pathlib.Path(named[tensor["name"]]).stat().st_size == size
out = pathlib.Path(args.output_dir) / (graph["qnn_graph"] if len(graphs) > 1 else "") / "Result_0"
out.mkdir(parents=True)
for raw in (pathlib.Path(file).parent / "expected").iterdir():
    shutil.copy(raw, out / f"{raw.stem}_native.raw")
"""


@pytest.fixture
def device(kit: Path, tmp_path: Path) -> Callable[[], Path]:
    """Runs golden/run.sh over a stand-in for qnn-net-run; returns the folder of outputs."""

    def run() -> Path:
        script, tool, out = tmp_path / "net_run.py", tmp_path / "qnn-net-run", tmp_path / "out"
        script.write_text(NET_RUN, encoding="utf-8")
        tool.write_text(DOUBLE.format(python=sys.executable, script=script), encoding="utf-8")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        subprocess.run(
            ["sh", "golden/run.sh", str(out)],
            cwd=kit,
            env={"QNN_NET_RUN": str(tool), "PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
        )
        return out

    return run


@pytest.mark.skipif(sys.platform == "win32", reason="run.sh is for a POSIX shell")
def test_the_scripts_run_and_judge_a_device(kit: Path, device: Callable[[], Path]) -> None:
    out = device()
    command = [sys.executable, "-S", "-I", str(kit / "golden" / "check.py"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    steps = read(kit, "golden/golden.json")["steps"]
    outputs = sum(len(step["outputs"]) for step in steps)
    assert done.stdout.splitlines()[-1] == f"{outputs} compared, 0 failed, 0 missing"
    assert done.returncode == 0
    window = next((out / "01-prefill").rglob("conv_window.0_native.raw"))
    values = np.fromfile(window, "<u2").reshape(256, 130)
    count = len(read(kit, "golden/golden.json")["input_ids"])
    values[:, count + 2 :] ^= 0x5555  # padding: nobody reads it
    values.tofile(window)
    assert subprocess.run(command, capture_output=True).returncode == 0
    values[:, 3] ^= 0x5555
    values.tofile(window)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert [line.split()[:2] for line in done.stdout.splitlines() if line.endswith("FAIL")] == [
        ["01-prefill", "conv_window.0"]
    ]


def test_check_reports_what_it_finds(
    kit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check([str(tmp_path), "--golden", str(kit / "golden")]) == 2
    assert "0 compared, 0 failed, 55 missing" in capsys.readouterr().out
    place = tmp_path / "02-head"
    place.mkdir()
    expected = np.fromfile(kit / "golden" / "02-head" / "expected" / "logits.raw", "<u2")
    output = read(kit, "golden/golden.json")["steps"][2]["outputs"][0]
    found = expected.copy()
    found[5] += 40
    found.tofile(place / "logits.raw")
    assert check([str(tmp_path), "--golden", str(kit / "golden")]) == 1
    signal = np.sum((expected.astype(np.int64) - output["zero_point"]) ** 2)
    row = next(line for line in capsys.readouterr().out.splitlines() if "logits " in line)
    assert row.split() == ["02-head", "logits", "40", f"{10 * np.log10(signal / 1600):.2f}", "-"]
    assert check([str(tmp_path), "--golden", str(kit / "golden"), "--max-lsb", "39"]) == 1
    assert "FAIL" in capsys.readouterr().out
    (place / "logits.raw").write_bytes(b"short")
    with pytest.raises(SystemExit, match=r"5 bytes, 2048 expected \(uint16\)"):
        check([str(tmp_path), "--golden", str(kit / "golden")])
