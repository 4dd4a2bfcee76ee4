"""How the number formats of an operator are written."""

from __future__ import annotations

import pytest

from autoneural.target.precision import Formats, parse, write


@pytest.mark.parametrize(
    ("op", "text"),
    [
        ("MatMul", "w4a16"),
        ("MatMul", "w4a16/tensor"),
        ("Conv", "w8a16/block64"),
        ("Mul", "u16a16"),
        ("Mul", "w16a16/channel"),
        ("Add", "a16xa8"),
        ("Softmax", "a16>a8"),
        ("MatMul", "a16xa16"),
        ("Conv", "w4a16/tensor>a8"),
        ("Gelu", "fp16"),
    ],
)
def test_what_is_written_is_read_back(op: str, text: str) -> None:
    assert write(op, parse(op, text)) == text


def test_the_usual_granularity_is_the_operators() -> None:
    assert parse("Conv", "w8a8").granularity == "channel"
    assert parse("Mul", "w8a8").granularity == "tensor"
    assert parse("Mul", "a8").granularity == ""


def test_equal_activations_are_one_except_in_products() -> None:
    both = Formats(activations=(16, 16))
    assert write("Add", both) == "a16"
    assert write("MatMul", both) == "a16xa16"


def test_the_output_is_as_wide_as_the_widest_activation() -> None:
    assert parse("Add", "a8xa16").output_bits == 16
    assert parse("Add", "a16>a8").output_bits == 8
    assert write("Add", Formats(activations=(16,), output=16)) == "a16"


@pytest.mark.parametrize("text", ["", "w4", "a16/tensor", "x4a8", "w4a16>8", "fp8"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a precision"):
        parse("MatMul", text)
