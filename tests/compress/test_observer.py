"""Observers against brute force."""

import math

import pytest
import torch

from autoneural.compress.observer import (
    HistogramObserver,
    MinMaxObserver,
    ObserverName,
    least_error_scale,
    make_observer,
)
from autoneural.target.numerics import (
    affine_encoding,
    dequantize_affine,
    dequantize_symmetric,
    quantize_affine,
    quantize_symmetric,
)


def _batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 5000, generator=generator) * scale for scale in (0.5, 2.0, 1.0)]


@pytest.mark.parametrize("name", ["minmax", "percentile", "mse"])
def test_a_nan_is_not_forgotten(name: ObserverName) -> None:
    observer = make_observer(name, 16)
    for batch in (torch.tensor([float("nan"), 1.0]), *_batches()):
        observer.observe(batch)
    bounds = observer.range()
    assert bounds is not None
    assert all(math.isnan(bound) for bound in bounds)


def test_min_max_is_the_extremes_of_all_batches() -> None:
    observer = MinMaxObserver()
    assert observer.range() is None
    for batch in (torch.empty(0), *_batches()):
        observer.observe(batch)
    whole = torch.cat(_batches())
    assert observer.range() == (float(whole.min()), float(whole.max()))


def test_percentile_agrees_with_sorting() -> None:
    observer = HistogramObserver("percentile", bits=8, percentile=99)
    for batch in _batches():
        observer.observe(batch)
    whole = torch.cat(_batches()).flatten()
    bounds = observer.range()
    assert bounds is not None
    width = float(whole.max() - whole.min()) / 2048
    assert bounds[0] == pytest.approx(float(whole.quantile(0.01)), abs=3 * width)
    assert bounds[1] == pytest.approx(float(whole.quantile(0.99)), abs=3 * width)


def test_least_error_range_is_near_the_best_of_a_brute_force_search() -> None:
    x = torch.cat([torch.cat(_batches()).flatten(), torch.tensor([60.0])])
    observer = HistogramObserver("mse", bits=4)
    observer.observe(x)
    bounds = observer.range()
    assert bounds is not None

    def error(shrink: float) -> float:
        return _affine_error(x, float(x.min()) * shrink, float(x.max()) * shrink, bits=4)

    best = min(error(s) for s in torch.linspace(1, 0.05, 60).tolist())
    assert _affine_error(x, *bounds, bits=4) <= 1.1 * best
    assert best < 0.5 * error(1.0)


def _affine_error(x: torch.Tensor, low: float, high: float, bits: int) -> float:
    steps = ((x - 0) / ((high - low) / (2**bits - 1))).round()
    zero = round(-low / ((high - low) / (2**bits - 1)))
    q = (steps + zero).clamp(0, 2**bits - 1) - zero
    return float((q * (high - low) / (2**bits - 1) - x).square().mean())


def test_at_16_bits_clipping_one_outlier_does_not_pay() -> None:
    x = torch.cat([torch.cat(_batches()).flatten(), torch.tensor([60.0])]).numpy()
    errors = {}
    for name, observer in {
        "minmax": make_observer("minmax", 16),
        "percentile": HistogramObserver("percentile", 16, percentile=99.99),
    }.items():
        observer.observe(torch.from_numpy(x))
        encoding = affine_encoding(*(observer.range() or (0, 0)))
        errors[name] = abs(dequantize_affine(quantize_affine(x, encoding), encoding) - x).max()
    assert errors["minmax"] < errors["percentile"]


def test_constant_input_has_a_range() -> None:
    observer = HistogramObserver("mse", bits=8)
    observer.observe(torch.full((9,), 2.0))
    assert observer.range() == (2.0, 2.0)


@pytest.mark.parametrize("weighted", [False, True])
def test_least_error_scale_beats_absmax_and_matches_brute_force(weighted: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(8, 64, generator=generator)
    weight[3] = 0
    importance = torch.rand(64, generator=generator) ** 4 if weighted else torch.ones(64)

    def error(scale: torch.Tensor) -> torch.Tensor:
        q = quantize_symmetric(weight.numpy(), scale.numpy(), 4)
        back = torch.from_numpy(dequantize_symmetric(q, scale.numpy()))
        return (back - weight).square() @ importance

    full = (weight.abs().amax(1) / 7).clamp_min(1e-9)
    grid = [error(full * s) for s in torch.linspace(1, 0.3, 200).tolist()]
    chosen = least_error_scale(weight, 4, importance if weighted else None)
    assert (error(chosen) <= torch.stack(grid).amin(0) * 1.1 + 1e-12).all()
    assert error(chosen).sum() < 0.85 * error(full).sum()
    assert chosen[3] == 1
