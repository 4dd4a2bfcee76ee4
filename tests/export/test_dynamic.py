"""The CPU target with activations ranged at run time, as a bundle and from the command line."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from autoneural.bundle import Bundle
from autoneural.cli import main
from autoneural.compress.quantize import load_quantized
from autoneural.export.graphs import build_graph, graph_keys
from autoneural.export.parity import compare_float, run_float, run_torch, sample_inputs, worst


def test_linears_are_integer_products_near_the_float_ones(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    command = ["export", str(checkpoint), "-o", str(out), "--targets", "cpu", "--context", "64"]
    assert main([*command, "--dynamic"]) == 0
    target = Bundle.load(out).target("cpu")
    assert target.precision == {"vision": "w8a32", "language": "w4a8dyn", "head": "w8a8dyn"}
    model = load_quantized(checkpoint, activations=False)
    keys = {key.name: key for key in graph_keys(model, 64, 64, 8)}
    for spec in target.graphs:
        path = out / spec.file
        operators = {node.op_type for node in ir.load(path).graph}
        assert {"DynamicQuantizeLinear", "MatMulInteger"} <= operators
        assert not {"MatMulNBits", "Gemm"} & operators
        graph = build_graph(model, keys[path.stem])
        inputs = sample_inputs(graph, model.language_model.model.embed_tokens.weight)
        parity = worst(compare_float(run_torch(graph, inputs), run_float(path, inputs)))
        assert 15 < parity.sqnr_db < 70, path.stem


def test_it_is_of_the_cpu_target_alone(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(checkpoint), "-o", "x", "--targets", "qdq", "--dynamic"]
    assert main(command) == 2
    assert "--dynamic is of target cpu" in capsys.readouterr().err
