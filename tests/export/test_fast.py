"""The CPU target with activations of 4-bit linears rounded to bytes, from the command line."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from autoneural.bundle import Bundle
from autoneural.cli import main
from autoneural.compress.quantize import load_quantized
from autoneural.export.graphs import GraphKey, build_graph
from autoneural.export.parity import compare_float, run_float, run_torch, sample_inputs, worst

INTEGER = "MatMulIntegerToFloat"
ROLES = (("decode", 1, "MatMulNBits"), ("verify", 8, INTEGER), ("prefill", 64, INTEGER))


def test_linears_round_their_activations_and_stay_near_the_float_ones(
    checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    command = ["export", str(checkpoint), "-o", str(out), "--targets", "cpu", "--context", "64"]
    assert main([*command, "--fast"]) == 0
    bundle = Bundle.load(out)
    assert bundle.manifest["recipe"]["fast"] is True
    words = {"vision": "w8a8dyn", "language": "w4a8dyn", "head": "w8a8dyn"}
    assert bundle.target("cpu").precision == words
    model = load_quantized(checkpoint, activations=False)
    for role, width, kernel in ROLES:
        spec = next(g for g in bundle.target("cpu").graphs if g.role == role)
        assert spec.file == f"cpu/{'decode' if width == 1 else 'prefill'}.onnx"
        nodes = [n for n in ir.load(out / spec.file).graph if n.op_type in ("MatMulNBits", INTEGER)]
        assert {n.op_type for n in nodes} == {kernel}
        for node in nodes:
            if node.op_type == "MatMulNBits":
                found = [node.attributes[a].as_int() for a in ("bits", "accuracy_level")]
                assert found == [4, 4]
        graph = build_graph(model, GraphKey(role=role, width=width, context=64))
        inputs = sample_inputs(graph, model.language_model.model.embed_tokens.weight)
        got = run_float(out / spec.file, inputs)
        parity = worst(compare_float(run_torch(graph, inputs), got))
        assert 15 < parity.sqnr_db < 70


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "CKPT", "--targets", "qdq", "--fast"], "--fast is of target cpu"),
        (["build", "CKPT", "--chip", "SA8295P", "--fast"], "--fast is of --chip cpu: SA8295P"),
        (["export", "CKPT", "--targets", "qdq", "--kv8"], "--kv8 is of target cpu"),
        (["build", "CKPT", "--chip", "SA8295P", "--kv8"], "--kv8 is of --chip cpu"),
    ],
)
def test_what_is_of_the_cpu_target_alone(
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    words = [str(checkpoint) if word == "CKPT" else word for word in words]
    assert main([*words, "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
