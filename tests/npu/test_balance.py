"""Biases against the chip's offsets: in the emulator, and what they leave as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from autoneural.npu.balance import balance
from autoneural.npu.layer_checks import reference_session
from autoneural.npu.simulate import simulate
from autoneural.npu.worker import run_job
from autoneural.runtime.qnn import Wheel

CHIPS = pytest.mark.parametrize(("htp", "soc_model"), [(68, 39), (73, 52)], ids=["v68", "v73"])
INNER, COLUMNS = 64, 12
SHAPES = {
    "MatMul": ((1, 6, INNER), (1, 6, COLUMNS), (INNER, COLUMNS)),
    "Gemm": ((6, INNER), (6, COLUMNS), (COLUMNS, INNER)),
    "Conv": ((1, INNER, 4, 4), (1, COLUMNS, 4, 4), (COLUMNS, INNER, 3, 3)),
}
KINDS = pytest.mark.parametrize("kind", SHAPES)
# One step of the accumulator, 256 * m, is about 14 steps of the output with these.
X_SCALE, WEIGHT_SCALE, Y_SCALE = 3e-4, 4e-3, 2.2e-5


def qdq_graph(kind: str, folder: Path) -> Path:
    """One operator with weights of four bits; the Gemm has a bias already."""
    rng = np.random.default_rng(3)
    x_shape, y_shape, w_shape = SHAPES[kind]
    axis = 1 if kind == "MatMul" else 0
    scales = rng.uniform(0.5, 1.5, COLUMNS).astype(np.float32) * np.float32(WEIGHT_SCALE)
    arrays = {
        "w": rng.integers(-7, 8, w_shape).astype(np.int8),
        "sw": scales,
        "zw": np.zeros(COLUMNS, np.int8),
        "b": rng.integers(-(2**18), 2**18, COLUMNS).astype(np.int32),
        "sb": np.float32(X_SCALE) * scales,
        "zb": np.zeros(COLUMNS, np.int32),
    }
    operator = {
        "MatMul": "MatMul (xr, wr)",
        "Gemm": "Gemm <transB = 1> (xr, wr, br)",
        "Conv": "Conv <pads = [1, 1, 1, 1]> (xr, wr)",
    }[kind]
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    one (uint16{list(x_shape)} x) => (uint16{list(y_shape)} y)
    <float sx = {{{X_SCALE}}}, uint16 zx = {{30011}},
     float sy = {{{Y_SCALE * (3 if kind == "Conv" else 1)}}}, uint16 zy = {{36007}}>
    {{
        xr = DequantizeLinear (x, sx, zx)
        wr = DequantizeLinear <axis = {axis}> (w, sw, zw)
        {"br = DequantizeLinear <axis = 0> (b, sb, zb)" if kind == "Gemm" else ""}
        yr = {operator}
        y = QuantizeLinear (yr, sy, zy)
    }}
    """
    proto = onnx.parser.parse_model(text)
    for name, array in arrays.items():
        if kind == "Gemm" or not name.endswith("b"):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    path = folder / f"{kind}.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(proto), path)
    return path


def balanced(path: Path, htp: int) -> Path:
    model = ir.load(path)
    assert balance(model, htp) == 1
    out = path.with_suffix(f".{htp}.onnx")
    ir.save(model, out)
    onnx.checker.check_model(str(out), full_check=True)
    return out


def feeds(kind: str) -> dict[str, NDArray]:
    rng = np.random.default_rng(4)
    x = np.clip(rng.normal(30011, 6000, SHAPES[kind][0]), 0, 65535)
    return {"x": x.astype(np.uint16)}


def on_cpu(path: Path, kind: str) -> NDArray[np.int64]:
    return np.asarray(reference_session(path).run(["y"], feeds(kind))[0]).astype(np.int64)


def emulated(path: Path, kind: str, soc_model: int) -> NDArray[np.int64]:
    source, made = path.with_suffix(".feeds.npz"), path.with_suffix(".out.npz")
    np.savez(source, **feeds(kind))
    item = {"name": kind, "file": str(path), "feeds": str(source), "outputs": str(made)}
    run_job({"do": "run", "soc_model": soc_model, "graphs": [item]})
    return np.load(made)["y"].astype(np.int64)


@CHIPS
@KINDS
def test_the_emulator_comes_closer_to_the_reference(
    kind: str, htp: int, soc_model: int, qnn_wheel: Wheel, tmp_path: Path
) -> None:
    path = qdq_graph(kind, tmp_path)
    reference = on_cpu(path, kind)
    assert ((reference > 0) & (reference < 65535)).mean() > 0.98
    before, after = (
        np.sqrt(np.square(emulated(p, kind, soc_model) - reference).mean())
        for p in (path, balanced(path, htp))
    )
    assert after < before * (0.5 if htp < 73 else 0.8)


@CHIPS
@KINDS
def test_the_closed_form_sees_the_bias(kind: str, htp: int, soc_model: int, tmp_path: Path) -> None:
    """Without the wheel: the simulated chip comes closer too, and loses its offset."""
    path = qdq_graph(kind, tmp_path)
    reference, errors = on_cpu(path, kind), []
    for candidate in (path, balanced(path, htp)):
        model = ir.load(candidate)
        assert simulate(model, htp) == 1
        out = candidate.with_suffix(".sim.onnx")
        ir.save(model, out)
        errors.append(on_cpu(out, kind) - reference)
    assert np.abs(errors[1].mean()) < np.abs(errors[0].mean()) / 2
    assert np.square(errors[1]).mean() < np.square(errors[0]).mean()


def test_module_names_stay_with_the_operator(tmp_path: Path) -> None:
    model = ir.load(qdq_graph("MatMul", tmp_path))
    (matmul,) = (node for node in model.graph if node.op_type == "MatMul")
    matmul.metadata_props["module"] = "layers.0.w1"
    balance(model, 68)
    (gemm,) = (node for node in model.graph if node.op_type == "Gemm")
    assert gemm.metadata_props["module"] == "layers.0.w1"
    assert [output.name for output in model.graph.outputs] == ["y"]
