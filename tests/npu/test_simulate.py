"""The simulated graph against the emulator itself, and against the reference where it has to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from autoneural.npu.layer_checks import reference_session
from autoneural.npu.simulate import engine_nodes, simulate
from autoneural.npu.worker import run_job
from autoneural.runtime.qnn import Wheel

CHIPS = {68: 39, 69: 36, 73: 52, 75: 57, 79: 69, 81: 87}
SHAPES = {
    "matmul": ((1, 8, 64), (1, 8, 24)),
    "gemm": ((8, 64), (8, 24)),
    "conv": ((1, 64, 6, 6), (1, 24, 6, 6)),
    "depthwise": ((1, 64, 6, 6), (1, 64, 6, 6)),
    "strided": ((1, 64, 6, 6), (1, 64, 3, 3)),
    "product": ((1, 8, 64), (1, 8, 24)),
}
# Output scales that spread the outputs over a good part of their grid.
_FINE = {"matmul": 2e-4, "gemm": 2e-4, "conv": 6e-4, "depthwise": 8e-5, "strided": 8e-5}
_FINE["product"] = 6e-3
WEIGHTS = {
    "matmul": (64, 24),
    "gemm": (24, 64),
    "conv": (24, 64, 3, 3),
    "depthwise": (64, 1, 3, 3),
    "strided": (64, 1, 3, 3),
}


def qdq_graph(kind: str, path: Path, bits: int = 8, zero_point: int = 128) -> Path:
    """One operator between integers, with random weights and uneven zero points."""
    rng = np.random.default_rng(5)
    x_shape, y_shape = SHAPES[kind]
    tensors = {"sx": np.float32(3e-4), "zx": np.uint16(30011), "zy": np.uint16(36007)}
    nodes = [helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["xr"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT16, x_shape)]
    if kind == "product":
        tensors |= {
            "sw": np.float32(0.04),
            "zw": np.uint8(zero_point),
            "sy": np.float32(_FINE[kind]),
        }
        inputs.append(helper.make_tensor_value_info("w", TensorProto.UINT8, (1, 64, 24)))
        nodes.append(helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wr"]))
    else:
        shape = WEIGHTS[kind]
        axis = 1 if kind == "matmul" else 0
        top = 2 ** (bits - 1) - 1
        tensors["w"] = rng.integers(-top, top + 1, shape).astype(np.int8)
        tensors["sw"] = rng.uniform(1e-3, 2e-3, shape[axis]).astype(np.float32)
        tensors["zw"] = np.zeros(shape[axis], np.int8)
        tensors["sy"] = np.float32(_FINE[kind])
        nodes.append(helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wr"], axis=axis))
    nodes.append(_operator(kind, tensors, rng))
    nodes.append(helper.make_node("QuantizeLinear", ["yr", "sy", "zy"], ["y"]))
    graph = helper.make_graph(
        nodes,
        kind,
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.UINT16, y_shape)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    save(model, path)
    return path


def _operator(kind: str, tensors: dict, rng: np.random.Generator):
    if kind in ("matmul", "product"):
        return helper.make_node("MatMul", ["xr", "wr"], ["yr"])
    if kind == "gemm":
        tensors["b"] = rng.integers(-(2**20), 2**20, 24).astype(np.int32)
        tensors["sb"] = (tensors["sx"] * tensors["sw"]).astype(np.float32)
        tensors["zb"] = np.zeros(24, np.int32)
        return helper.make_node("Gemm", ["xr", "wr", "br"], ["yr"], transB=1)
    stride = 2 if kind == "strided" else 1
    pads = [0, 0, 1, 1] if kind == "strided" else [1, 1, 1, 1]
    groups = 1 if kind == "conv" else 64
    attributes = {"strides": [stride, stride], "pads": pads, "group": groups}
    return helper.make_node("Conv", ["xr", "wr"], ["yr"], **attributes)


def with_bias(path: Path) -> Path:
    """The Gemm's bias needs its DequantizeLinear, which comes before the operator."""
    model = ir.load(path)
    graph = model.graph
    gemm = next(node for node in graph if node.op_type == "Gemm")
    b, sb, zb = (graph.initializers[name] for name in ("b", "sb", "zb"))
    dequantize = ir.node("DequantizeLinear", [b, sb, zb], {"axis": 0})
    graph.insert_before(gemm, dequantize)
    gemm.replace_input_with(2, dequantize.outputs[0])
    ir.save(model, path)
    return path


def build(kind: str, folder: Path) -> Path:
    path = qdq_graph(kind, folder / f"{kind}.onnx")
    return with_bias(path) if kind == "gemm" else path


def feeds(kind: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    # Around the zero point and not over the whole range, as activations are.
    x = np.clip(rng.normal(30011, 6000, SHAPES[kind][0]), 0, 65535).astype(np.uint16)
    w = rng.integers(0, 256, (1, 64, 24)).astype(np.uint8)
    return {"x": x, "w": w} if kind == "product" else {"x": x}


def simulated(path: Path, htp: int) -> Path:
    model = ir.load(path)
    assert simulate(model, htp) == len(engine_nodes(ir.load(path).graph))
    out = path.with_suffix(f".{htp}.onnx")
    ir.save(model, out)
    return out


def run(path: Path, values: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(reference_session(path).run(["y"], values)[0]).astype(np.int64)


@pytest.mark.parametrize("kind", SHAPES)
def test_the_simulated_graph_is_near_the_reference(kind: str, tmp_path: Path) -> None:
    path, values = build(kind, tmp_path), feeds(kind)
    reference = run(path, values)
    assert reference.std() > 1000  # the output is neither flat nor saturated
    assert ((reference > 0) & (reference < 65535)).mean() > 0.99
    for htp in (68, 73):
        error = run(simulated(path, htp), values) - reference
        assert np.abs(error).max() <= 60
        assert error.any() != (kind == "strided")


@pytest.mark.parametrize("htp", CHIPS)
def test_the_emulator_computes_what_is_simulated(
    htp: int, qnn_wheel: Wheel, tmp_path: Path
) -> None:
    kinds = [kind for kind in SHAPES if kind != "strided"]
    jobs = []
    for kind in kinds:
        path, source = build(kind, tmp_path), tmp_path / f"{kind}.feeds.npz"
        np.savez(source, **feeds(kind))
        outputs = str(tmp_path / f"{kind}.out.npz")
        jobs.append({"name": kind, "file": str(path), "feeds": str(source), "outputs": outputs})
    run_job({"do": "run", "soc_model": CHIPS[htp], "graphs": jobs})
    for kind, job in zip(kinds, jobs, strict=True):
        emulated = np.load(job["outputs"])["y"].astype(np.int64)
        error = emulated - run(simulated(tmp_path / f"{kind}.onnx", htp), feeds(kind))
        # A step here and there where a sum falls on the border between two.
        assert np.abs(error).max() <= 1, kind
        assert (error == 0).mean() > 0.95, kind
        plain = emulated - run(tmp_path / f"{kind}.onnx", feeds(kind))
        assert np.abs(error).sum() <= np.abs(plain).sum(), kind
        assert htp > 69 or np.square(plain).mean() > 100 * np.square(error).mean(), kind


@pytest.mark.parametrize("htp", [68, 73])
def test_columns_off_centre_are_rounded_once_more(
    htp: int, qnn_wheel: Wheel, tmp_path: Path
) -> None:
    path = qdq_graph("product", tmp_path / "product.onnx", zero_point=100)
    values, source = feeds("product"), tmp_path / "feeds.npz"
    np.savez(source, **values)
    job = {"name": "product", "file": str(path), "feeds": str(source)}
    job["outputs"] = str(tmp_path / "out.npz")
    run_job({"do": "run", "soc_model": CHIPS[htp], "graphs": [job]})
    emulated = np.load(job["outputs"])["y"].astype(np.int64)
    plain, predicted = (
        np.square(emulated - run(file, values)).mean() for file in (path, simulated(path, htp))
    )
    assert predicted < plain / 100
