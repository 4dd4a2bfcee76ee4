"""Observers against brute force."""

import math

import pytest
import torch

from autoneural.compress.fake_quant import fake_quantize
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


@pytest.mark.parametrize("name", ["minmax", "percentile", "mse", "entropy"])
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


@pytest.mark.parametrize("name", ["minmax", "percentile", "mse", "entropy"])
def test_constant_input_has_a_range(name: ObserverName) -> None:
    observer = make_observer(name, bits=8)
    observer.observe(torch.full((9,), 2.0))
    assert observer.range() == (2.0, 2.0)


def _bulk_and_tail(share: float, where: float) -> torch.Tensor:
    """Standard normal values, and a share of them near `where` instead, on both sides."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(400_000, generator=generator)
    count = int(len(x) * share)
    x[:count] = where * (0.9 + 0.2 * torch.rand(count, generator=generator)) * x[:count].sign()
    return x


def _errors(x: torch.Tensor, bits: int) -> dict[str, tuple[float, float]]:
    """Observer -> mean square error of all values, and of the bulk below 3."""
    found = {}
    for name in ("minmax", "percentile", "mse", "entropy"):
        observer = make_observer(name, bits)
        observer.observe(x)
        encoding = affine_encoding(*(observer.range() or (0, 0)), bits=bits)
        error = (fake_quantize(x, encoding, torch.tensor(encoding.scale)) - x).square()
        found[name] = float(error.mean()), float(error[x.abs() < 3].mean())
    return found


def test_entropy_keeps_the_bulk_where_squared_error_keeps_the_tail() -> None:
    errors = _errors(_bulk_and_tail(share=5e-4, where=40.0), bits=8)
    whole, bulk = zip(*(errors[name] for name in ("mse", "entropy")), strict=True)
    assert bulk[1] < 0.2 * bulk[0]
    assert whole[0] < 0.2 * whole[1]


def test_percentile_drops_what_is_rarer_than_it_says_however_far_out() -> None:
    errors = _errors(_bulk_and_tail(share=5e-6, where=3000.0), bits=8)
    assert errors["percentile"][1] < 1e-3 * errors["mse"][1]


def test_squared_error_is_least_with_mse_at_4_bits() -> None:
    errors = {name: whole for name, (whole, _) in _errors(_bulk_and_tail(1e-3, 8.0), 4).items()}
    assert min(errors, key=lambda name: errors[name]) == "mse"
    assert errors["mse"] < 0.7 * errors["minmax"]


def test_entropy_at_16_bits_leaves_the_range_whole() -> None:
    x = _bulk_and_tail(1e-4, 60.0)
    observer = make_observer("entropy", 16)
    observer.observe(x)
    assert observer.range() == pytest.approx((float(x.min()), float(x.max())))


def test_entropy_of_values_of_one_sign_keeps_zero() -> None:
    observer = make_observer("entropy", 8)
    observer.observe(_bulk_and_tail(5e-4, 40.0).abs() + 0.5)
    low, high = observer.range() or (1, 0)
    assert low == 0
    assert 3 < high < 20


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
