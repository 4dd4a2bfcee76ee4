"""`bench aimet`: one case for all sides, our side and the judge; AIMET's where it is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from autoneural.bench import aimet
from autoneural.bench.aimet import (
    OURS,
    THEIRS,
    aimet_version,
    compare_tools,
    print_comparison,
    run_graph,
    run_method,
)
from autoneural.bench.quantise_part import quantise_part
from autoneural.bench.shared_case import (
    CALIBRATION,
    FLOAT,
    HELD_OUT,
    Case,
    Part,
    load_runs,
    write_case,
)
from autoneural.cli import main
from autoneural.compress.derive import open_float
from autoneural.compress.quantize import Sample
from autoneural.errors import UserError
from autoneural.target.numerics import Encoding, sqnr_db
from tests.conftest import TinyCheckpoint

COUNT = 3


def sample(seed: int) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.cat((torch.full((4,), 3), torch.randint(10, 300, (8 + seed,), generator=generator)))
    pixels = torch.randint(0, 256, (1, 3, 64, 64), generator=generator)
    return Sample(input_ids_BT=ids[None], pixels_BCHW=pixels.to(torch.uint8), image_token_id=3)


def make_case(checkpoint: Path, folder: Path, part: Part, count: int = COUNT) -> Case:
    model = open_float(checkpoint).model()
    both = ([sample(seed) for seed in range(COUNT)], [sample(seed + 9) for seed in range(COUNT)])
    return write_case(folder, str(checkpoint), model, part, *both, count)


@pytest.fixture(scope="module", params=("vision", "language"))
def case(
    request: pytest.FixtureRequest,
    tiny_checkpoint: TinyCheckpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Case]:
    folder = tmp_path_factory.mktemp(request.param)
    return folder, make_case(tiny_checkpoint.folder, folder, request.param)


def test_a_case_is_whole_and_no_row_of_it_is_padding(case: tuple[Path, Case]) -> None:
    folder, found = case
    assert Case.load(folder) == found
    runs = load_runs(folder / CALIBRATION)
    assert len(runs) == COUNT
    assert found.width == (0 if found.part == "vision" else 12)
    assert set(found.bits.values()) == ({8, 16} if found.part == "vision" else {4, 8, 16})
    assert not any(name.endswith("bias") for name in found.bits)
    outputs = run_graph(folder / FLOAT, load_runs(folder / HELD_OUT), found.output, {})
    assert len(outputs) == COUNT
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


def test_a_case_computes_what_the_model_does(
    case: tuple[Path, Case], tiny_checkpoint: TinyCheckpoint
) -> None:
    folder, found = case
    got = run_graph(folder / FLOAT, load_runs(folder / CALIBRATION), found.output, {})
    first, model = sample(0), open_float(tiny_checkpoint.folder).model()
    with torch.no_grad():
        if found.part == "vision":
            assert first.pixels_BCHW is not None
            expected = model.image_features(first.pixels_BCHW)
        else:
            ids_BT = first.input_ids_BT[:, : found.width]
            expected = model.hidden_states(ids_BT, first.pixels_BCHW, 3)
    assert sqnr_db(expected.numpy(), got[0]) > 80


def test_a_case_needs_as_many_samples_as_are_asked_for(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="vision: the data has 3 of the 4 samples asked for"):
        make_case(tiny_checkpoint.folder, tmp_path, "vision", count=4)


def test_our_simulation_is_what_onnx_runtime_computes(
    case: tuple[Path, Case], tmp_path: Path
) -> None:
    folder, found = case
    job = {"case": str(folder), "out": str(tmp_path), "method": "ptq-best"}
    result = quantise_part(job)
    assert result["seconds"] > 0
    assert 0 < result["idle_bytes"] <= result["peak_bytes"]
    held_out = load_runs(folder / HELD_OUT)
    expected = run_graph(folder / FLOAT, held_out, found.output, {})
    simulated = [run[found.output] for run in load_runs(tmp_path / "simulated.npz")]
    ends = {name: Encoding(**values) for name, values in result["ends"].items()}
    got = run_graph(tmp_path / "qdq.onnx", held_out, found.output, ends)
    own = sqnr_db(expected, simulated)
    assert own > (10 if found.part == "vision" else 3)  # random weights in 4 bits
    assert abs(own - sqnr_db(expected, got)) < 0.5


def test_a_process_that_fails_says_why(case: tuple[Path, Case], tmp_path: Path) -> None:
    folder, found = case
    with pytest.raises(UserError, match="autoneural nonsense: KeyError: 'nonsense'"):
        run_method(OURS, "nonsense", folder, tmp_path, found, sys.executable)


def fake_python(folder: Path, text: str) -> str:
    """An interpreter that answers `-c` with a version, and fails at every job with `text`."""
    file = folder / "python"
    file.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo 9.9 && exit 0\necho "{text}" >&2\nexit 1\n')
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples above instead of a data folder's."""

    def draw(folder: Path, checkpoint: str, part: Part, data: Path, samples: int) -> Case:
        return make_case(Path(checkpoint), folder, part, samples)

    monkeypatch.setattr(aimet, "draw_case", draw)


@pytest.mark.usefixtures("drawn")
def test_a_method_that_fails_is_a_row_that_says_why(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = fake_python(tmp_path, "ValueError: too old")
    command = ["bench", "aimet", str(tiny_checkpoint.folder), "--data", str(tmp_path)]
    command += ["--samples", "2", "--methods", "nearest", "aimet-minmax", "--aimet-python", python]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    ours, theirs = report["rows"]
    assert ours["error"] is None
    assert ours["onnx_db"] > 10
    assert ours["peak_bytes"] > ours["added_bytes"] > 0
    assert theirs["error"] == "aimet-onnx minmax: ValueError: too old"
    assert report["versions"][THEIRS] == "9.9"
    text = printed(report)
    assert "aimet-minmax failed: aimet-onnx minmax: ValueError: too old" in text
    assert "2 samples to calibrate on" in text


def printed(report: dict[str, Any]) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        print_comparison(report, console)
    return captured.get()


def test_the_table_tells_equal_from_a_figure() -> None:
    row = {"name": "a", "tool": OURS, "method": "nearest", "error": None, "simulated_db": None}
    row |= {"onnx_db": 40.26, "seconds": 1.0, "export_seconds": 2.0}
    row |= {"peak_bytes": 3 << 20, "added_bytes": 1 << 20}
    report = {"part": "vision", "precision": "w8a16", "output": "image_features", "samples": 2}
    text = printed({**report, "versions": {"onnxruntime": "1"}, "rows": [row]})
    assert "equal" in text
    assert "40.3" in text


@pytest.mark.parametrize(
    ("methods", "python", "message"),
    [
        (["nonsense"], sys.executable, "method 'nonsense': expected some of nearest"),
        (["aimet-minmax"], "/no/such/python", "--aimet-python /no/such/python: No such file"),
    ],
)
def test_what_is_refused(
    tiny_checkpoint: TinyCheckpoint, methods: list[str], python: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        compare_tools(tiny_checkpoint.folder, "data", methods=methods, python=python)


def test_an_interpreter_without_aimet_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "python"
    file.write_text("#!/bin/sh\necho ModuleNotFoundError: nothing >&2\nexit 1\n")
    file.chmod(0o755)
    with pytest.raises(UserError, match="has no aimet-onnx .ModuleNotFoundError: nothing.: pip"):
        aimet_version(str(file))


def test_an_old_aimet_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "python"
    file.write_text("#!/bin/sh\necho 2.9.1\n")
    file.chmod(0o755)
    with pytest.raises(UserError, match="has aimet-onnx 2.9.1: too old, this needs 2.40 or newer"):
        aimet_version(str(file))


@pytest.mark.parametrize("method", ["minmax", "seqmse"])
def test_aimet_quantises_the_same_graph(
    case: tuple[Path, Case], tmp_path: Path, method: str
) -> None:
    pytest.importorskip("aimet_onnx", reason="aimet-onnx is not installed (extra [aimet])")
    folder, found = case
    run_method(THEIRS, method, folder, tmp_path, found, sys.executable)
    held_out = load_runs(folder / HELD_OUT)
    expected = run_graph(folder / FLOAT, held_out, found.output, {})
    got = run_graph(tmp_path / "qdq.onnx", held_out, found.output, {})
    simulated = [run[found.output] for run in load_runs(tmp_path / "simulated.npz")]
    assert sqnr_db(expected, got) > (10 if found.part == "vision" else 3)
    assert abs(sqnr_db(expected, simulated) - sqnr_db(expected, got)) < 0.5
