"""Non-negative factors, and differences of them."""

from __future__ import annotations

import pytest
import torch

from autoneural.compress.nmf import nmf, nmf_pair


def error(v: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left @ right - v).norm() / v.norm())


def test_a_product_of_non_negative_factors_is_found_again() -> None:
    generator = torch.Generator().manual_seed(1)
    v = torch.rand(24, 3, generator=generator) @ torch.rand(3, 16, generator=generator)
    w, h = nmf(v, 3, iterations=1000)
    assert bool((w >= 0).all() and (h >= 0).all())
    assert error(v, w, h) < 0.01
    assert error(v, *nmf(v, 2, iterations=1000)) > 0.02


def test_every_update_lowers_the_error() -> None:
    v = torch.rand(20, 30, generator=torch.Generator().manual_seed(2))
    errors = [error(v, *nmf(v, 5, iterations=n)) for n in (1, 2, 5, 20, 100)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.9 * errors[0]


def test_a_weight_of_both_signs_is_a_difference() -> None:
    weight = torch.randn(24, 16, generator=torch.Generator().manual_seed(3))
    up, down = nmf_pair(weight, 8)
    assert (up.shape, down.shape) == ((24, 8), (8, 16))
    assert bool((up[:, :4] >= 0).all() and (up[:, 4:] <= 0).all() and (down >= 0).all())
    least = torch.linalg.svdvals(weight)[8:].norm() / weight.norm()
    assert float(least) < error(weight, up, down) < 1


@pytest.mark.parametrize("sign", [1, -1])
def test_a_weight_of_one_sign_gets_the_whole_rank(sign: int) -> None:
    weight = sign * torch.rand(12, 10, generator=torch.Generator().manual_seed(4))
    up, down = nmf_pair(weight, 4)
    assert (up.shape, down.shape) == ((12, 4), (4, 10))
    left, right = nmf(sign * weight, 4)
    torch.testing.assert_close(up @ down, sign * left @ right)


def test_nothing_stays_nothing() -> None:
    up, down = nmf_pair(torch.zeros(6, 5), 4)
    assert (up.shape, down.shape) == ((6, 4), (4, 5))
    assert not (up @ down).any()


def test_negative_values_are_refused() -> None:
    with pytest.raises(ValueError, match="the matrix has negative values"):
        nmf(torch.tensor([[1.0, -1.0]]), 1)
