"""Reading the operators of a graph, in the words of the probes and of the table."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from autoneural.bundle import DEFAULT_BUNDLE, EMBEDDED
from autoneural.npu.probes import Form, forms
from autoneural.npu.uses import read_uses
from autoneural.target.chips import find_chip
from autoneural.target.legality import legal, problems
from autoneural.target.precision import BLOCK

SIX = ("SA8295P", "SA8255P", "SA8775P", "SM8650", "SM8750", "X Elite")
GRAPHS = sorted((EMBEDDED / DEFAULT_BUNDLE / "qdq").glob("*.onnx"))
SINGLE = [form for form in forms() if not form.op.startswith(BLOCK)]


@pytest.fixture(autouse=True)
def no_tables_of_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def ident(form: Form) -> str:
    return f"{form.op} {form.variant} r{form.rank}"


@pytest.mark.parametrize("form", SINGLE, ids=ident)
def test_a_probe_is_read_as_what_it_asks(form: Form) -> None:
    precisions = {form.precisions[0], form.precisions[len(form.precisions) // 2]}
    for precision in precisions:
        uses = read_uses(form.model(precision))
        read = [(use.op, use.variant, use.rank, use.precision) for use in uses]
        assert (form.op, form.variant, form.rank, precision) in read


@pytest.mark.parametrize("op", ["MatMul", "Conv", "Add", "RMSNormalization", "Concat"])
def test_every_precision_is_read_as_it_is_written(op: str) -> None:
    for form in (form for form in SINGLE if form.op == op):
        for precision in form.precisions:
            assert [use.precision for use in read_uses(form.model(precision))] == [precision]


@pytest.mark.parametrize("name", SIX)
@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_the_embedded_bundle_is_known_and_legal(path: Path, name: str) -> None:
    chip, uses = find_chip(name), read_uses(path)
    assert uses
    assert [str(problem) for problem in problems(chip, uses)] == []
    verdicts = [legal(chip, u.op, u.precision, variant=u.variant, rank=u.rank) for u in uses]
    assert all(verdict.accepted for verdict in verdicts)


def test_layers_are_called_by_their_modules() -> None:
    (head,) = read_uses(EMBEDDED / DEFAULT_BUNDLE / "qdq" / "head.onnx")
    assert head.layer == "language_model.lm_head"
    assert (head.op, head.precision, head.rank, head.variant) == ("MatMul", "w8a16", 3, "")


def test_a_node_without_a_module_is_called_by_its_name() -> None:
    (use,) = read_uses(next(f for f in SINGLE if f.op == "Relu").model("a16"))
    assert use.layer.startswith("Relu")


def quantized(*nodes: str, values: str = "") -> ir.Model:
    """The nodes between x (uint16) and y, with a scale `s` and zero points `z`, `z8`."""
    body = "\n".join(nodes)
    return ir.from_onnx_text(f"""
        <ir_version: 10, opset_import: ["": 23]>
        g (uint16[1, 4, 8] x) => (uint16[1, 4, 8] y)
        <float s = {{0.5}}, uint16 z = {{7}}, uint8 z8 = {{7}}, float[8] gain = {{1,1,1,1,1,1,1,1}}
         {values}>
        {{ r = DequantizeLinear(x, s, z)
           {body}
           y = QuantizeLinear(last, s, z) }}""")


def test_requantising_is_a_convert_each_way() -> None:
    model = quantized("q = QuantizeLinear(r, s, z8)", "last = DequantizeLinear(q, s, z8)")
    assert [(use.op, use.precision) for use in read_uses(model)] == [
        ("Convert", "a16>a8"),
        ("Convert", "a8>a16"),
    ]


def test_a_value_that_is_not_quantised_makes_both_its_ends_float() -> None:
    model = quantized("bare = Relu(r)", "last = Sigmoid(bare)", values=", float[1, 4, 8] bare")
    assert [use.precision for use in read_uses(model)] == ["fp32", "fp32"]


@pytest.mark.parametrize(
    ("scale", "zero", "variant"),
    [
        ("0.0000152587890625", 0, ""),  # 1 / 65536
        ("0.0000152590219", 0, ""),  # 1 / 65535
        ("0.0000137331197", 0, "other range"),
        ("0.0000152590219", 100, "other range"),
    ],
)
def test_a_sigmoid_is_told_apart_by_its_range(scale: str, zero: int, variant: str) -> None:
    model = quantized(
        "f = Sigmoid(r)",
        "q = QuantizeLinear(f, t, u)",
        "q1 = DequantizeLinear(q, t, u)",
        "last = Relu(q1)",
        values=f", float t = {{{scale}}}, uint16 u = {{{zero}}}",
    )
    assert read_uses(model)[0].variant == variant


def test_a_float_constant_makes_its_reader_float() -> None:
    (use,) = read_uses(quantized("last = Mul(r, gain)"))
    assert (use.op, use.precision, use.variant) == ("Mul", "fp32", "vector")
