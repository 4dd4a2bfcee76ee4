"""`bench compile` at toy size: the same path as at full size, in seconds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from autoneural.bench import compile_size
from autoneural.bench.compile_size import measure_compile
from autoneural.bench.piece import plan_piece
from autoneural.bench.random_graphs import random_model
from autoneural.cli import main
from autoneural.config import preset
from autoneural.errors import UserError
from autoneural.model.vlm import num_parameters
from autoneural.npu.compiled_graph import CompiledGraph
from autoneural.npu.worker import JobFailed
from autoneural.runtime.qnn import PROVIDER, Wheel
from autoneural.target.chips import find_chip

DECODER = ["--part", "decoder", "--layers", "2", "--context", "64", "--widths", "16", "1"]
STEP = {"layers": 1, "context": 16, "widths": (1,)}  # quick to export
COMMON = {"chip", "compiler", "preset", "part", "precision", "shared", "nodes_npu", "nodes_total"}
COMMON |= {"float_tensors", "parameters", "binary_bytes", "compile_seconds", "export_seconds"}
COMMON |= {"compile_peak_rss_gb", "export_peak_rss_gb"}
WHEEL = Wheel(version="0", sdk="0", library=Path("x.so"), backend=Path("y.so"))


def bench(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    code = main(["bench", "compile", "--preset", "cockpit-tiny", "--json", *options])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


def check_figures(figures: dict[str, Any]) -> None:
    assert figures["chip"] == "SA8295P"
    assert figures["float_tensors"] == 0
    assert figures["nodes_npu"] == figures["nodes_total"] > 100
    # A process that holds torch, or Qualcomm's libraries, and no more than a toy model.
    assert 0.1 < figures["compile_peak_rss_gb"] < 2
    assert 0.1 < figures["export_peak_rss_gb"] < 2
    assert figures["compile_seconds"] > 0
    assert figures["export_seconds"] > 0


def test_vision(capsys: pytest.CaptureFixture[str], qnn_wheel: Wheel) -> None:
    figures = bench(capsys, "--part", "vision", "--image-size", "64")
    check_figures(figures)
    assert figures.keys() == COMMON | {"image_size"}
    assert figures["precision"] == "w8a16"
    assert 0.9 < figures["binary_bytes"] / figures["parameters"] < 2


def test_decoder_weights_are_stored_once(
    capsys: pytest.CaptureFixture[str], qnn_wheel: Wheel
) -> None:
    shared = bench(capsys, *DECODER)
    alone = bench(capsys, *DECODER, "--no-share")
    for figures in (shared, alone):
        check_figures(figures)
        assert figures.keys() == COMMON | {"layers", "context", "widths"}
        assert figures["precision"] == "w4a16"
    assert (shared["shared"], alone["shared"]) == (True, False)
    weights = shared["parameters"] / 2
    assert shared["binary_bytes"] > weights
    assert shared["binary_bytes"] < alone["binary_bytes"] - 0.9 * weights


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(job: object) -> None:
        assert list(tmp_path.glob("*/weights.data"))
        raise KeyboardInterrupt

    monkeypatch.setattr(compile_size, "require_wheel", lambda: WHEEL)
    monkeypatch.setattr(compile_size.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(compile_size, "run_job", interrupted)
    piece, chip = plan_piece("cockpit-tiny", "decoder", **STEP), find_chip("SA8295P")
    with pytest.raises(KeyboardInterrupt):
        measure_compile(piece, chip, progress=print)
    assert list(tmp_path.iterdir()) == []


def test_failed_steps_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piece, chip = plan_piece("cockpit-tiny", "vision"), find_chip("SA8295P")

    def crash(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "Traceback:\nRuntimeError: too odd\n")

    def refuse(job: object) -> None:
        raise JobFailed("the compiler crashed (signal 11)")

    monkeypatch.setattr(compile_size, "require_wheel", lambda: WHEEL)
    monkeypatch.setattr(compile_size.subprocess, "run", crash)
    with pytest.raises(UserError, match=r"^cockpit-tiny vision, 256 px: .*RuntimeError: too odd$"):
        measure_compile(piece, chip, progress=print)
    made = {"graphs": ["vision"], "peak_rss_gb": 0.1}
    monkeypatch.setattr(compile_size, "_make_graphs", lambda *_: made)
    monkeypatch.setattr(compile_size, "run_job", refuse)
    with pytest.raises(UserError, match=r"^SA8295P: did not compile: the compiler crashed"):
        measure_compile(piece, chip, progress=print)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "huge", "--part", "vision"], "no preset 'huge'"),
        (["--chip", "SA9999", "--part", "vision"], "no chip called 'SA9999'"),
        (["--part", "vision", "--image-size", "500"], "--image-size 500: not a multiple of 32"),
        (["--part", "vision", "--layers", "4"], "--layers: means nothing for --part vision"),
        (["--part", "decoder", "--image-size", "64"], "--image-size: means nothing for"),
        (["--part", "decoder", "--layers", "17"], "--layers 17: autoneural-1.5b has 16"),
        (["--part", "decoder", "--context", "8192"], "autoneural-1.5b has 4096 positions"),
        (["--part", "decoder", "--context", "64"], "--widths 128: not within the context, 64"),
        (["--part", "decoder", "--widths", "8", "8"], "--widths: name each width once"),
        (["--preset", "vit-1.5b", "--part", "vision", "--image-size", "500"], "image_size: not a"),
    ],
)
def test_bad_shapes_are_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "compile", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_without_the_wheel(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoneural.runtime.qnn.find_wheel", lambda: None)
    assert main(["bench", "compile", "--part", "vision"]) == 2
    error = capsys.readouterr().err
    assert "onnxruntime-qnn" in error
    assert len(error.splitlines()) == 1


def test_floating_point_is_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece, chip = plan_piece("cockpit-tiny", "decoder", **STEP), find_chip("SA8295P")
    nodes = {PROVIDER: ["a", "b"], "CPUExecutionProvider": ["c"]}
    answer = {"graphs": [{"name": "ar1", "nodes": nodes}], "peak_rss_gb": 1.0}
    compiled = CompiledGraph(partitions=1, float_tensors=3, float_layers=tuple("abcde"))
    lines: list[str] = []
    monkeypatch.setattr(compile_size, "require_wheel", lambda: WHEEL)
    monkeypatch.setattr(compile_size, "run_job", lambda job: answer)
    monkeypatch.setattr(compile_size, "read_dumps", lambda *_: compiled)
    figures = measure_compile(piece, chip, progress=lines.append)
    assert figures["float_tensors"] == 3
    assert (figures["nodes_npu"], figures["nodes_total"]) == (2, 3)
    assert "  ar1: floating point in a, b, c and 2 more" in lines


def test_only_the_part_is_in_memory() -> None:
    piece = plan_piece("cockpit-tiny", "decoder", layers=1)
    model = random_model(piece)
    real = [name for name, p in model.named_parameters() if not p.is_meta]
    assert real
    assert all(name.startswith("language_model.model.") for name in real)
    assert not any("embed_tokens" in name or "layers.1." in name for name in real)
    vision = random_model(plan_piece("cockpit-tiny", "vision"))
    real = {name.split(".")[0] for name, p in vision.named_parameters() if not p.is_meta}
    assert real == {"vision_encoder", "projector"}


def test_shapes_are_those_of_the_preset() -> None:
    vision = plan_piece("autoneural-1.5b", "vision")
    assert vision.image_size == 768
    assert vision.config.vision == preset("autoneural-1.5b").vision
    tiny = plan_piece("cockpit-tiny", "decoder")
    assert (tiny.layers, tiny.context, tiny.widths) == (4, 1024, (128, 1))
    conv = 256 * (768 + 256 + 3) + 2 * 256  # in_proj, out_proj, three taps, two norms
    attention = 4 * 256 * 256 + 2 * 64 + 2 * 256
    feed_forward = 3 * 256 * 640
    layers = 2 * (conv + attention + 2 * feed_forward)
    assert num_parameters(random_model(tiny).language_model) == layers + 256
