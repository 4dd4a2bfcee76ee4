"""Error-compensating rounding keeps a layer's output better than nearest rounding."""

import torch

from autoneural.compress.observer import least_error_scale
from autoneural.compress.rounding import output_error, round_compensated, round_nearest


def _layer(rank: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 48, generator=generator)
    mixing = torch.randn(rank, 48, generator=generator)
    inputs = torch.randn(400, rank, generator=generator) @ mixing
    return weight, inputs + 0.1 * torch.randn(400, 48, generator=generator)


def test_output_error_is_what_it_says() -> None:
    weight, inputs = _layer()
    scale = least_error_scale(weight, 4)
    q = round_nearest(weight, scale, 4)
    direct = (inputs.double() @ (q * scale[:, None] - weight).double().T).square().sum()
    hessian = inputs.double().T @ inputs.double()
    assert abs(output_error(weight, q, scale, hessian) / float(direct) - 1) < 1e-6


def test_compensation_more_than_halves_the_error_on_correlated_inputs() -> None:
    weight, inputs = _layer()
    scale, hessian = least_error_scale(weight, 4), inputs.T @ inputs
    compensated = round_compensated(weight, scale, 4, hessian)
    assert compensated.min() >= -8
    assert compensated.max() <= 7
    assert torch.equal(compensated, compensated.round())
    nearest = round_nearest(weight, scale, 4)
    errors = [output_error(weight, q, scale, hessian) for q in (compensated, nearest)]
    assert errors[0] < 0.5 * errors[1]


def test_no_statistics_worth_using_means_nearest() -> None:
    weight, _ = _layer()
    scale = least_error_scale(weight, 4)
    nearest = round_nearest(weight, scale, 4)
    for hessian in (torch.eye(48), torch.full((48, 48), float("nan"))):
        assert torch.equal(round_compensated(weight, scale, 4, hessian), nearest)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight, inputs = _layer()
    inputs[:, 5:9] = 0
    scale = least_error_scale(weight, 4)
    q = round_compensated(weight, scale, 4, inputs.T @ inputs)
    assert torch.isfinite(q).all()
