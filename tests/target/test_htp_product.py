"""The second operand of a product: by hand, and against the emulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from autoneural.npu.worker import run_job
from autoneural.runtime.qnn import Wheel
from autoneural.target.htp import matrix_engine, narrow, requantization
from autoneural.target.htp_product import second_operand
from autoneural.target.numerics import Encoding, sqnr_db

ROWS, INNER, COLUMNS = 24, 40, 16
DTYPES = {8: "uint8", 16: "uint16"}


def encoding(bits: int, zero_point: int, scale: float = 0.01) -> Encoding:
    return Encoding(bits=bits, scale=float(np.float32(scale)), zero_point=zero_point)


def test_eight_bits_around_the_middle_are_taken_as_they_are() -> None:
    q = np.arange(256).reshape(128, 2)
    operand = second_operand(q, encoding(8, 128))
    np.testing.assert_array_equal(operand.integers, q - 128)
    np.testing.assert_array_equal(operand.scale, encoding(8, 128).scale)


def test_a_column_that_reaches_too_far_is_stretched_alone() -> None:
    q = np.array([[0, 0], [100, 100], [255, 127]])
    operand = second_operand(q, encoding(8, 0))
    np.testing.assert_array_equal(operand.integers, [[0, 0], [50, 100], [127, 127]])
    np.testing.assert_allclose(operand.scale / encoding(8, 0).scale, [[255 / 127, 1]], rtol=1e-3)


def test_below_the_zero_point_there_is_one_step_more() -> None:
    operand = second_operand([[0], [128]], encoding(8, 128))
    assert operand.integers.tolist() == [[-128], [0]]
    operand = second_operand([[0], [129]], encoding(8, 129))
    assert operand.integers.tolist() == [[-128], [0]]
    assert operand.scale > encoding(8, 129).scale


def test_sixteen_bits_are_rounded_to_eight() -> None:
    wide = encoding(16, 257 * 128)
    q = np.arange(0, 65536, 5).reshape(-1, 1)
    operand = second_operand(q, wide)
    real = (q - wide.zero_point) * wide.scale
    error = np.abs(operand.integers * operand.scale - real) / narrow(wide).scale
    assert 0.4 < error[real < 127 * narrow(wide).scale].max() < 0.52


def product_graph(second: Encoding, y: Encoding) -> str:
    dtype = DTYPES[second.bits]
    return f"""
    <ir_version: 10, opset_import: ["" : 21]>
    product (uint16[1,{ROWS},{INNER}] a, {dtype}[1,{INNER},{COLUMNS}] b)
        => (uint16[1,{ROWS},{COLUMNS}] y)
    <float sa = {{0.001}}, uint16 za = {{30011}},
     float sb = {{{second.scale!r}}}, {dtype} zb = {{{second.zero_point}}},
     float sy = {{{y.scale!r}}}, uint16 zy = {{{y.zero_point}}}>
    {{
        ar = DequantizeLinear (a, sa, za)
        br = DequantizeLinear (b, sb, zb)
        yr = MatMul (ar, br)
        y = QuantizeLinear (yr, sy, zy)
    }}
    """


CASES = [(8, 128), (8, 153), (8, 20), (16, 32768), (16, 39321), (16, 6554), (16, 0)]


@pytest.mark.parametrize(("htp", "soc_model"), [(68, 39), (73, 52)], ids=["v68", "v73"])
@pytest.mark.parametrize(("bits", "zero_point"), CASES)
def test_the_emulator_multiplies_by_it(
    htp: int, soc_model: int, bits: int, zero_point: int, qnn_wheel: Wheel, tmp_path: Path
) -> None:
    rng = np.random.default_rng(bits + zero_point)
    x, y = encoding(16, 30011, 0.001), encoding(16, 36007, 0.02)
    second = encoding(bits, zero_point, 0.02 if bits == 8 else 0.02 / 257)
    a = np.clip(rng.normal(30011, 6000, (1, ROWS, INNER)), 0, 65535).astype(np.uint16)
    b = rng.integers(0, 2**bits, (1, INNER, COLUMNS)).astype(DTYPES[bits])
    graph, feeds, outputs = (str(tmp_path / n) for n in ("g.onnx", "f.npz", "o.npz"))
    ir.save(ir.from_onnx_text(product_graph(second, y)), graph)
    np.savez(feeds, a=a, b=b)
    item = {"name": "g", "file": graph, "feeds": feeds, "outputs": outputs}
    run_job({"do": "run", "soc_model": soc_model, "graphs": [item]})
    emulated = np.load(outputs)["y"].astype(int) - y.zero_point
    operand = second_operand(b, second)
    total = operand.integers.sum(-2, keepdims=True)
    plan = requantization(
        matrix_engine(htp), x=x, weight_scale=operand.scale, weight_sum=total, y=y
    )
    predicted = plan(a @ operand.integers, 16).astype(int) - y.zero_point
    exact = (a.astype(int) - 30011) @ (b.astype(int) - zero_point) * x.scale * second.scale
    assert np.abs(emulated - predicted).max() <= 1
    assert sqnr_db(emulated, predicted) > sqnr_db(emulated, exact / y.scale)
    assert sqnr_db(emulated, predicted) > 70
