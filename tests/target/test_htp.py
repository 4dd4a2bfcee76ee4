import numpy as np
import pytest

from autoneural.target.htp import (
    matrix_engine,
    narrow,
    requantization,
    round_significand,
    snap_weight_scale,
)
from autoneural.target.numerics import Encoding

X = Encoding(bits=16, scale=2e-4, zero_point=31000)
Y = Encoding(bits=16, scale=1.7e-3, zero_point=35000)


def exact(x: np.ndarray, w: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return ((x - X.zero_point) @ w) * (X.scale * scale / Y.scale) + Y.zero_point


def layer(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 65536, (64, 96))
    return x, rng.integers(-8, 8, (96, 32)), rng.uniform(0.02, 0.05, 32).astype(np.float32)


def chip(htp: int, x: np.ndarray, w: np.ndarray, scale: np.ndarray) -> np.ndarray:
    plan = requantization(matrix_engine(htp), x=X, weight_scale=scale, weight_sum=w.sum(0), y=Y)
    return plan(x @ w, bits=16).astype(np.float64)


def test_a_significand_of_eleven_bits() -> None:
    m = np.array([0.0071086, 0.99999, 1.0, 3.0, 1 + 2**-10])
    rounded = round_significand(m, 11)
    fractions = np.ldexp(np.frexp(rounded)[0], 11)
    assert np.array_equal(fractions, np.rint(fractions))
    assert np.abs(rounded / m - 1).max() <= 2**-11
    assert np.array_equal(rounded[2:], m[2:])


@pytest.mark.parametrize("htp", [73, 75, 79, 81])
def test_later_generations_lose_the_lower_byte_and_no_more(htp: int) -> None:
    x, w, scale = layer()
    error = chip(htp, x, w, scale) - exact(x, w, scale)
    step = 256 * X.scale * scale / Y.scale
    assert (np.abs(error) <= 1.5 * step + 0.5).all()
    assert error.mean() == pytest.approx(-0.5 * step.mean(), abs=0.1)


@pytest.mark.parametrize("htp", [68, 69])
def test_v68_adds_a_constant_per_channel(htp: int) -> None:
    x, w, scale = layer()
    errors = [chip(htp, x, w, scale) - exact(x, w, scale) for x in (x, x[::-1] // 2)]
    constants = [error.mean(0) for error in errors]
    # The multiplier is 2**-12 off at most, and the zero point of the output is inside the product.
    assert np.abs(constants[0]).max() > 3
    assert np.corrcoef(*constants)[0, 1] > 0.7


def test_snapped_scales_take_the_constant_away() -> None:
    x, w, scale = layer()
    snapped = snap_weight_scale(scale, X.scale, Y.scale)
    assert np.abs(snapped / scale - 1).max() <= 2**-11
    before = chip(68, x, w, scale) - exact(x, w, scale)
    after = chip(68, x, w, snapped) - exact(x, w, snapped)
    assert np.square(after).mean() < np.square(before).mean() / 4


def test_saturates_at_both_ends() -> None:
    w, scale = np.full((96, 2), 7), np.full(2, 1.0, np.float32)
    rows = np.stack([np.zeros(96, np.int64), np.full(96, 65535)])
    assert chip(73, rows, w, scale).tolist() == [[0, 0], [65535, 65535]]


def test_a_bias_moves_the_output() -> None:
    x, w, scale = layer()
    bias = np.full(32, 256 * 100)
    for htp in (68, 73):
        engine = matrix_engine(htp)
        plain, moved = (
            requantization(engine, x=X, weight_scale=scale, weight_sum=w.sum(0), y=Y, bias=b)
            for b in (0, bias)
        )
        assert np.array_equal(moved.shift - plain.shift, np.full(32, 100.0))


def test_a_second_operand_of_16_bits_is_read_in_8() -> None:
    assert narrow(Encoding(bits=16, scale=0.5, zero_point=257 * 40)).zero_point == 40
    assert narrow(X).scale == pytest.approx(257 * X.scale)
    eight = Encoding(bits=8, scale=0.1, zero_point=3)
    assert narrow(eight) == eight
