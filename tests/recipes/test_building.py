"""`build`: a checkpoint to a bundle that answers; killed, it goes on; wrong, one line."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from autoneural.bundle import Bundle
from autoneural.checkpoint import load_recipe
from autoneural.cli import main
from autoneural.errors import UserError
from autoneural.npu.binary_checks import check_binaries
from autoneural.npu.traces import trace
from autoneural.recipes.build_report import print_built, results
from autoneural.recipes.building import AFFORDABLE, BuildOptions, Built, build
from autoneural.runtime.engine import Engine
from autoneural.runtime.qnn import Wheel
from autoneural.show import facts
from autoneural.target.chips import find_chip
from tests.conftest import TinyCheckpoint
from tests.runtime.helpers import answer, ask, picture

OPTIONS = BuildOptions(samples=1, context=128, image_sizes=(64, 128))


@pytest.fixture(scope="module")
def built(tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tiny_checkpoint.folder, tmp_path_factory.mktemp("built") / "cpu", OPTIONS)


def test_the_bundle_answers(built: Built) -> None:
    result = answer(Engine(built.bundle), [ask("what is it?", picture(64))], max_tokens=3)
    assert result.usage.completion_tokens == 3


def test_it_answers_at_the_size_that_is_asked_for(
    built: Built, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert built.bundle.image_sizes == (64, 128)
    picture(64).save(tmp_path / "a.png")
    words = ["infer", str(built.bundle.folder), "--image", str(tmp_path / "a.png")]
    words += ["-p", "what is it?", "--max-tokens", "3"]
    assert Engine(built.bundle, image_size=128).processor.image_size == 128
    assert main([*words, "--image-size", "128"]) == 0
    capsys.readouterr()
    assert main([*words, "--image-size", "256"]) == 2
    said = capsys.readouterr().err
    assert "no vision graph for pictures of 256 px; it has 64, 128" in said
    assert facts(str(built.bundle.folder))["image"] == "64 or 128 px, 4 tokens"


def test_what_it_took_is_told(built: Built) -> None:
    found = json.loads(json.dumps(results(built, "autoneural build x")))
    assert (found["model"], found["chip"]) == ("tiny-test", "cpu")
    assert [part["part"] for part in found["parts"]] == ["quantise", "export"]
    assert all(0.05 < part["peak_rss_gb"] < 8 and part["bytes"] for part in found["parts"])
    assert found["peak_rss_gb"] > max(part["peak_rss_gb"] for part in found["parts"])
    assert found["image_sizes"] == [64, 128]
    assert found["nodes_off_npu"] is None
    held = built.bundle.manifest["files"]
    assert found["binaries"] == {n: held[n]["sha256"] for n in held if n.startswith("cpu/")}
    console = Console(file=io.StringIO(), width=60)
    print_built(built, console)
    lines = console.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
    assert lines[0].rstrip() == built.calibration
    assert [line.split()[0] for line in lines[1:]] == ["part", "quantise", "export", "all"]


def test_the_recipe_says_that_no_data_was_given(built: Built) -> None:
    recipe = load_recipe(built.bundle.folder.with_name("cpu-run") / "quantised")
    assert recipe["calibration"] == (
        "calibrated on 1 drawn example pictures at each of 64 128 px, not on your data"
    )
    assert recipe["calibration_samples"] == 2
    assert recipe["rounding"] == "compensated"  # 100 million parameters are more than these
    assert AFFORDABLE == 100_000_000


def test_a_second_run_makes_nothing(built: Built, tiny_checkpoint: TinyCheckpoint) -> None:
    said: list[str] = []
    manifest = built.bundle.folder / "manifest.json"
    before = manifest.stat().st_mtime_ns
    again = build(tiny_checkpoint.folder, built.bundle.folder, OPTIONS, say=said.append)
    assert [line for line in said if "there already" in line] == [
        "quantised: there already",
        "exported: there already",
    ]
    assert manifest.stat().st_mtime_ns == before
    assert again.parts == built.parts


def test_a_quantised_checkpoint_is_not_quantised_again(built: Built, tmp_path: Path) -> None:
    quantised = built.bundle.folder.with_name("cpu-run") / "quantised"
    again = build(quantised, tmp_path / "again", OPTIONS)
    assert [part.name for part in again.parts] == ["export"]
    files = built.bundle.manifest["files"]
    assert again.bundle.manifest["files"] == files
    with pytest.raises(UserError, match="quantised already: --rounding"):
        build(quantised, tmp_path / "other", replace(OPTIONS, rounding="nearest"))


def test_killed_it_goes_on(built: Built, tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> None:
    out, run = tmp_path / "bundle", tmp_path / "bundle-run"
    command = [sys.executable, "-m", "autoneural", "build", str(tiny_checkpoint.folder)]
    command += ["--chip", "cpu", "--context", "128", "--samples", "1", "-o", str(out)]
    command += ["--image-size", "64", "128"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while not _whole_graphs(run) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not out.exists()
    whole = _whole_graphs(run)
    assert 0 < len(whole) < 6
    said: list[str] = []
    told: list[str] = []
    again = build(
        tiny_checkpoint.folder,
        out,
        OPTIONS,
        say=said.append,
        tell=lambda what, done, total: told.append(what),
    )
    assert "quantised: there already" in said
    assert "exported: there already" not in said
    kept = [line.removesuffix(": there already") for line in told if "there already" in line]
    assert [f"{name}.onnx" for name in kept] == whole
    assert again.bundle.manifest["files"] == built.bundle.manifest["files"]
    assert not (run / "exporting").exists()


def _whole_graphs(run: Path) -> list[str]:
    """Graphs that an export under way has written down as whole."""
    records = list(run.glob("exporting/*/finished.json"))
    return list(json.loads(records[0].read_text())["graphs"]) if records else []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (replace(OPTIONS, context=512), "--context 512: tiny-test has 256 positions"),
        (replace(OPTIONS, image_sizes=(70,)), "70 is not a multiple of 32"),
        (replace(OPTIONS, image_sizes=(64, 70)), "image size 70: not a multiple of 32"),
        (replace(OPTIONS, image_sizes=(64, 64)), "image sizes 64 64: name each once"),
    ],
)
def test_wrong_sizes_are_refused_at_once(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, options: BuildOptions, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build(tiny_checkpoint.folder, tmp_path / "out", options)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_inside_a_step_is_one_line(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path
) -> None:
    options = replace(OPTIONS, data=tmp_path / "missing.jsonl")
    with pytest.raises(UserError, match=r"missing\.jsonl"):
        build(tiny_checkpoint.folder, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_for_a_chip(tiny_checkpoint: TinyCheckpoint, tmp_path: Path, qnn_wheel: Wheel) -> None:
    options = replace(OPTIONS, chip=find_chip("SA8295P"))
    built = build(tiny_checkpoint.folder, tmp_path / "car", options)
    found = results(built, "")
    names = [part["part"] for part in found["parts"]]
    vision, language = "vision 64 128 px", "language 0 AR-128 AR-8 AR-1"
    assert names == ["quantise", "export", vision, language, "head"]
    assert found["nodes_off_npu"] == 0
    assert found["chip"] == "SA8295P"
    assert all(name.endswith(".bin") for name in found["binaries"])
    assert len(found["binaries"]) == 3
    bundle = Bundle.load(tmp_path / "car")
    assert set(bundle.targets) == {"qdq", "htp/SA8295P"}
    # Both encoders lie in one binary, which computes what each graph does alone.
    traces = trace(bundle, [[ask("what is it?", picture(64))]])
    checks = check_binaries(bundle, find_chip("SA8295P"), traces)
    graphs = ["vision", "vision-128", "prefill", "verify", "decode", "head"]
    assert [(check.graph, check.identical) for check in checks] == [(g, True) for g in graphs]
    said: list[str] = []
    build(tiny_checkpoint.folder, tmp_path / "car", options, say=said.append)
    assert "built: there already" in said
