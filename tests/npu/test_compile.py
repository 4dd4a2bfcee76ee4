"""Bundle -> context binaries: everything on the NPU and integer, or a line that names the layer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch

from autoneural.bundle import DEFAULT_BUNDLE, EMBEDDED, Bundle, write_bundle
from autoneural.cli import main
from autoneural.compress.quantize import Sample, post_training_quantize
from autoneural.errors import UserError
from autoneural.npu import compile_part
from autoneural.npu.compile import ChipReport, CompileOptions, compile_bundle
from autoneural.npu.compile_text import print_report
from autoneural.npu.worker import JobFailed, run_job
from autoneural.runtime.qnn import Wheel
from autoneural.target.chips import find_chip
from autoneural.target.legality_table import Probe, Table, user_file, write_tables

pytestmark = pytest.mark.usefixtures("qnn_wheel")

SA8295P, SA8775P = find_chip("SA8295P"), find_chip("SA8775P")
LAYER = "language_model.model.layers.2.feed_forward.sigmoid"
Change = Callable[[ir.Model], None]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The embedded bundle without pictures and prompts: graphs that compile in a second."""
    folder = tmp_path_factory.mktemp("source") / "small"
    return _only(folder, ("verify", "decode", "head"))


def _only(folder: Path, roles: tuple[str, ...], change: dict[str, Change] | None = None) -> Bundle:
    """A copy of the embedded bundle with some roles of its qdq target, some of them changed."""
    shutil.copytree(EMBEDDED / DEFAULT_BUNDLE, folder)
    shutil.rmtree(folder / "cpu")
    manifest = json.loads((folder / "manifest.json").read_text())
    qdq = manifest["targets"]["qdq"]
    qdq["graphs"] = [graph for graph in qdq["graphs"] if graph["role"] in roles]
    manifest["targets"] = {"qdq": qdq}
    for graph in qdq["graphs"]:
        if change and graph["role"] in change:
            model = ir.load(folder / graph["file"])
            change[graph["role"]](model)
            ir.save(model, folder / graph["file"], external_data=f"{graph['role']}.own")
    del manifest["files"]
    (folder / "manifest.json").unlink()
    return write_bundle(folder, manifest)


def _node(model: ir.Model, layer: str, op: str) -> ir.Node:
    [node] = [
        node
        for node in model.graph
        if node.metadata_props.get("module") == layer and node.op_type == op
    ]
    return node


def to_erf(model: ir.Model) -> None:
    """An operator that no HTP has, where the sigmoid was."""
    _node(model, LAYER, "Sigmoid").op_type = "Erf"


def to_wide_weight(model: ir.Model) -> None:
    """A weight of 16 bits, which the matrix engine of v68 does not take."""
    node = _node(model, "language_model.model.layers.2.feed_forward.w1", "MatMul")
    assert node.inputs[1] is not None
    dequantize = node.inputs[1].producer()
    assert dequantize is not None
    for place in (0, 2):
        value = dequantize.inputs[place]
        assert value is not None
        assert value.const_value is not None
        wide = value.const_value.numpy().astype(ml_dtypes.int4).astype(np.int16)
        value.const_value = ir.tensor(wide, name=value.name)
        value.type = ir.TensorType(ir.DataType.INT16)


def to_mixed_signs(model: ir.Model) -> None:
    """Layer scales as signed integers beside unsigned activations: HTP computes them in float."""
    for node in model.graph:
        if not node.metadata_props.get("module", "").endswith("layer_scale"):
            continue
        [dequantize] = [v.producer() for v in node.inputs if v and "dequantize" in _maker(v)]
        assert dequantize is not None
        for place in (0, 2):
            value = dequantize.inputs[place]
            assert value is not None
            assert value.const_value is not None
            signed = (value.const_value.numpy().astype(np.int32) - 32768).astype(np.int16)
            value.const_value = ir.tensor(signed, name=value.name)
            value.type = ir.TensorType(ir.DataType.INT16)


def _maker(value: ir.Value) -> str:
    node = value.producer()
    return str(node.name) if node is not None else ""


@pytest.fixture
def knows_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A legality table without any operator of ours, so that the compiler itself is asked."""
    answers = {Probe(op="None", variant="", rank=1, precision="a16"): ""}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for soc in (SA8295P.soc_model, SA8775P.soc_model):
        path = user_file(soc)
        table = Table(soc_model=soc, compiler="none", date="never", source=path, answers=answers)
        write_tables(path, [table])


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The jobs that go to the compiler."""
    seen: list[dict] = []

    def spy(job, timeout=None):
        seen.append(dict(job))
        return run_job(job, timeout)

    monkeypatch.setattr(compile_part, "run_job", spy)
    return seen


def refusal(bundle: Bundle, out: Path, **options) -> str:
    """The complaint, checked to be one line that leaves nothing behind."""
    with pytest.raises(UserError) as caught:
        compile_bundle(bundle, [SA8295P], out, CompileOptions(**options))
    assert "\n" not in str(caught.value)
    assert not out.exists()
    return str(caught.value)


def whole(report: ChipReport) -> None:
    """Every node on the NPU, no float anywhere."""
    for part in report.parts:
        assert part["nodes_npu"] == part["nodes_total"] > 0
        assert part["float_tensors"] == 0
        assert part["binary_bytes"] > 0


@pytest.mark.parametrize("chip", [SA8295P, SA8775P], ids=lambda chip: chip.generation)
def test_the_embedded_bundle_compiles_whole(chip, tmp_path: Path) -> None:
    source = Bundle.load(EMBEDDED / DEFAULT_BUNDLE)
    [report] = compile_bundle(source, [chip], tmp_path / "out")
    whole(report)
    assert [(p["role"], p["precision"]) for p in report.parts] == [
        ("vision", "w8a16"),
        ("language", "w4a16"),
        ("head", "w8a16"),
    ]
    bundle = Bundle.load(tmp_path / "out")
    assert bundle.manifest["chips"] == [chip.name]
    assert list(bundle.targets) == ["cpu", "qdq", chip.target]
    language = [
        g.file for g in bundle.target(chip.target).graphs if g.role in ("prefill", "decode")
    ]
    assert language == [f"{chip.target}/prefill.onnx", f"{chip.target}/decode.onnx"]
    # Both widths lie in one binary that holds the weights once.
    binaries = sorted(path.name for path in (tmp_path / "out" / chip.target).glob("*.bin"))
    assert binaries == ["head_qnn.bin", "prefill_qnn.bin", "vision_qnn.bin"]
    assert report.parts[1]["binary_bytes"] < 2 * 2_344_716


def test_parts_and_chips_are_added_to_a_bundle(small: Bundle, tmp_path: Path, jobs) -> None:
    out = tmp_path / "out"
    compile_bundle(small, [SA8295P], out)
    first = {path: path.read_bytes() for path in out.rglob("*.bin")}
    compile_bundle(small, [SA8775P], out, CompileOptions(max_part_mb=1))
    bundle = Bundle.load(out)
    assert bundle.manifest["chips"] == ["SA8295P", "SA8775P"]
    assert all(path.read_bytes() == data for path, data in first.items())
    graphs = bundle.target(SA8775P.target).graphs
    decode = [graph for graph in graphs if graph.role == "decode"]
    assert [graph.part for graph in decode] == [0, 1, 2]
    assert [t.name for t in decode[1].inputs][0].startswith("hidden.")
    assert [job["soc_model"] for job in jobs] == [39] * 2 + [52] * 4
    for graph in graphs:
        wrapper = ir.load(bundle.path(graph.file)).graph
        for values, specs in ((wrapper.inputs, graph.inputs), (wrapper.outputs, graph.outputs)):
            ends = {(v.name, str(v.dtype), tuple(v.shape or ())) for v in values}
            assert ends == {(t.name, t.dtype.upper(), t.shape) for t in specs}


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        source = _only(tmp_path / name / "source", ("decode",))
        compile_bundle(source, [SA8295P], tmp_path / name / "out")
        files.append(Bundle.load(tmp_path / name / "out").manifest["files"])
    assert files[0] == files[1]
    assert "htp/SA8295P/decode_qnn.bin" in files[0]


def test_what_the_table_refuses_is_not_compiled(tmp_path: Path, jobs) -> None:
    bundle = _only(tmp_path / "source", ("decode",), {"decode": to_wide_weight})
    text = refusal(bundle, tmp_path / "out")
    assert "language_model.model.layers.2.feed_forward.w1" in text
    assert "w16a16" in text
    assert "legal there: " in text
    assert "w4a16" in text.split("legal there: ")[1]
    assert jobs == []


@pytest.mark.usefixtures("knows_nothing")
def test_what_the_compiler_refuses_is_named(tmp_path: Path) -> None:
    bundle = _only(tmp_path / "source", ("decode",), {"decode": to_erf})
    text = refusal(bundle, tmp_path / "out")
    assert f"SA8295P, language 0: the compiler refuses {LAYER} (Erf): " in text
    assert "not supported" in text


@pytest.mark.usefixtures("knows_nothing")
def test_floats_inside_are_found_and_named(tmp_path: Path) -> None:
    bundle = _only(tmp_path / "source", ("vision",), {"vision": to_mixed_signs})
    text = refusal(bundle, tmp_path / "out")
    assert "30 tensors of the compiled graph are floating point" in text
    assert "vision_encoder.blocks.1.1.layer_scale (Mul)" in text
    assert "and 7 more" in text


def test_allowed_nodes_run_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bundle = _only(tmp_path / "source", ("verify", "decode"), {"decode": to_erf, "verify": to_erf})
    out = tmp_path / "out"
    options = CompileOptions(allow_cpu=("*.layers.2.feed_forward.sig*",))
    [report] = compile_bundle(bundle, [SA8295P], out, options)
    [part] = report.parts
    assert part["nodes_total"] - part["nodes_npu"] == 6
    for graph in part["graphs"]:
        assert "node_sigmoid_2" in graph["cpu_nodes"]
        assert graph["npu_partitions"] == 2
        assert graph["float_tensors"] == 0
    Bundle.load(out)
    from rich.console import Console

    print_report(report, Console(width=200))
    assert "decode x1: 2 partitions on the NPU, 3 nodes on the CPU" in capsys.readouterr().out


@pytest.mark.usefixtures("knows_nothing")
def test_other_nodes_are_not_allowed_with_them(tmp_path: Path) -> None:
    bundle = _only(tmp_path / "source", ("decode",), {"decode": to_erf})
    assert f"refuses {LAYER}" in refusal(bundle, tmp_path / "out", allow_cpu=("*.layers.1.*",))


def test_a_finished_part_is_not_compiled_again(
    small: Bundle, tmp_path: Path, jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, spy = tmp_path / "out", compile_part.run_job

    def fails_at_the_head(job, timeout=None):
        if job["graphs"][0]["name"] == "head":
            raise JobFailed("the compiler crashed (signal 9)")
        return spy(job, timeout)

    monkeypatch.setattr(compile_part, "run_job", fails_at_the_head)
    with pytest.raises(UserError, match=r"head: the compiler failed: .*signal 9"):
        compile_bundle(small, [SA8295P], out)
    monkeypatch.setattr(compile_part, "run_job", spy)
    compile_bundle(small, [SA8295P], out)
    assert [job["graphs"][0]["name"] for job in jobs] == ["verify", "head"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def command(source: Path, out: Path, *more: str) -> list[str]:
    return ["compile", str(source), "-o", str(out), *more]


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_goes_on(small: Bundle, tmp_path: Path, jobs, sign: int, code: int) -> None:
    out = tmp_path / "out"
    python = [sys.executable, "-m", "autoneural"]
    run = subprocess.Popen(
        [*python, *command(small.folder, out, "--chip", "SA8295P", "--chip", "SM8750")],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    while run.poll() is None and not list(tmp_path.glob(".out.compile/*/report.json")):
        time.sleep(0.02)
    run.send_signal(sign)
    _, errors = run.communicate()
    assert run.returncode == code
    assert "Traceback" not in errors
    assert not out.exists()
    compile_bundle(small, [SA8295P], out)
    assert [job["graphs"][0]["name"] for job in jobs] == ["head"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_json_and_nothing_else(
    small: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wishes = ["--context", "1024", "--image-size", "256"]  # what it was exported with
    chips = ["--chip", "sa8255p", "--chip", "SA8775P", "--json"]
    assert main(command(small.folder, tmp_path / "out", *wishes, *chips)) == 0
    reports = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [report["chip"] for report in reports] == ["SA8255P", "SA8775P"]
    assert reports[0]["parts"] == reports[1]["parts"]  # one soc_model, compiled once
    for report in reports:
        language = report["parts"][0]
        assert language["role"] == "language"
        assert language["widths"] == [8, 1]
        assert language["nodes_npu"] == language["nodes_total"]
        assert language["peak_rss_gb"] > 0.05


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, quantised on one random conversation."""
    vision, ids = tiny_checkpoint.model.config.vision, [1, 2, *[3] * 4, 5, 6]
    pixels = torch.rand(1, 3, vision.image_size, vision.image_size)
    sample = Sample(input_ids_BT=torch.tensor([ids]), pixels_BCHW=pixels, image_token_id=3)
    out = tmp_path_factory.mktemp("quantised") / "tiny"
    post_training_quantize(tiny_checkpoint.folder, [sample], out, compared=1)
    return out


def test_a_checkpoint_is_exported_as_asked(checkpoint: Path, tmp_path: Path, capsys) -> None:
    more = ["--context", "64", "--image-size", "128", "--json"]
    assert main(command(checkpoint, tmp_path / "out", *more)) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [part["role"] for part in printed["parts"]] == ["vision", "language", "head"]
    assert printed["parts"][1]["widths"] == [64, 8, 1]
    bundle = Bundle.load(tmp_path / "out")
    assert (bundle.context, bundle.processor.image_size) == (64, 128)
    assert list(bundle.targets) == ["qdq", "htp/SA8295P"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--chip", "SA9999"], "no chip called 'SA9999'; one of SA8295P"),
        (["--context", "512"], "--context 512: bundle cockpit-tiny was exported with 1024"),
        (["--image-size", "512"], "--image-size 512: bundle cockpit-tiny was exported with 256"),
        (["--max-part-mb", "9999"], "--max-part-mb 9999: a number from 1 to 3584"),
    ],
)
def test_wrong_wishes(
    small: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], complaint: str
) -> None:
    assert main(command(small.folder, tmp_path / "out", *more)) == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(small: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("")
    for out, complaint in (
        (tmp_path / "file", "is a file, a bundle needs a folder"),
        (tmp_path / "file" / "out", "cannot be written"),
        (tmp_path / "photos", "holds no bundle"),
        (Path.cwd(), "is the folder you are in"),
    ):
        with pytest.raises(UserError, match=complaint):
            compile_bundle(small, [SA8295P], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos"]


def test_another_models_bundle_is_not_replaced(small: Bundle, tmp_path: Path) -> None:
    other = _only(tmp_path / "other", ("decode",), {"decode": to_erf})
    with pytest.raises(UserError, match="holds another model"):
        compile_bundle(small, [SA8295P], other.folder)
    assert Bundle.load(other.folder).manifest == other.manifest


def test_a_bundle_without_integers(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no target 'qdq'; it holds float"):
        compile_bundle(tiny_bundle, [SA8295P], tmp_path / "out")


def test_without_the_wheel(
    small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, qnn_wheel: Wheel
) -> None:
    monkeypatch.setattr("autoneural.runtime.qnn.find_wheel", lambda: None)
    assert main(command(small.folder, tmp_path / "out")) == 2
    assert "this needs onnxruntime-qnn" in capsys.readouterr().err
