"""Sequential rounding keeps what the model computes better than layers on their own."""

import copy

import pytest
import torch
from torch import nn

from autoneural.compress.fake_quant import quantize, round_weights, weight_quantizers
from autoneural.compress.precision import PRECISIONS, Precision, Rule
from autoneural.compress.quantize import Sample, calibrate
from autoneural.compress.report import Run, compare
from autoneural.compress.rounding import Rounding
from autoneural.compress.sequential import best_weight, round_sequentially
from autoneural.errors import UserError
from autoneural.model.layers import Gelu, RMSNorm, RMSNorm2d
from autoneural.model.vlm import VLM


class Stack(nn.Module):
    """A stem with a bias on inputs that are never negative, dense and depthwise, then linears."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.act = Gelu()
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.norm = RMSNorm2d(12, 1e-6)
        self.conv = nn.Conv2d(12, 20, 1, bias=False)
        self.rows = RMSNorm(20, 1e-6)
        self.up = nn.Linear(20, 40)
        self.bend = Gelu()
        self.down = nn.Linear(40, 16)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(self.act(self.stem(x_BCHW))))
        y = self.rows(self.conv(y).flatten(2).transpose(1, 2))
        return self.down(self.bend(self.up(y)))


@pytest.fixture
def stack() -> Stack:
    torch.manual_seed(0)
    return Stack().eval().requires_grad_(False)


def pictures(seed: int) -> list[Run]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.rand(3, 3, generator=generator)
    colours = torch.rand(6, 1, 3, 16, 16, generator=generator)
    mixed = torch.einsum("oc,nbchw->nbohw", mixing, colours)
    return [lambda m, x=x: m(x) for x in mixed]


def sqnr(model: Stack, rounding: Rounding, bits: int, path: str) -> float:
    """Of weights alone, on pictures that no rounding has seen."""
    rounded = copy.deepcopy(model)
    quantize(rounded, Precision(name="test", weights=(Rule("*", bits),)))
    if rounding == "sequential":
        round_sequentially(rounded, model, pictures(1))
    else:
        round_weights(rounded, "nearest")
    return compare(model, rounded, [path], pictures(2))[path][0]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("path", ["stem", "conv", "down"])
def test_every_layer_is_nearer_than_with_nearest_rounding(
    stack: Stack, bits: int, path: str
) -> None:
    assert sqnr(stack, "sequential", bits, path) > sqnr(stack, "nearest", bits, path) + 3


def test_a_bias_takes_the_constant_error(stack: Stack) -> None:
    rounded = quantize(copy.deepcopy(stack), Precision(name="test", weights=(Rule("*", 4),)))
    round_sequentially(rounded, stack, pictures(1))
    seen: dict[int, list[torch.Tensor]] = {id(stack): [], id(rounded): []}
    for model in (stack, rounded):
        model.down.register_forward_hook(lambda _, __, y, m=model: seen[id(m)].append(y))
        for run in pictures(1):
            run(model)
    error = torch.cat(seen[id(rounded)]) - torch.cat(seen[id(stack)])
    assert error.mean((0, 1)).abs().max() < 1e-5
    assert error.abs().max() > 1e-2
    assert not torch.equal(rounded.down.bias, stack.down.bias)


def test_errors_of_earlier_layers_are_made_up_for() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 12, generator=generator, dtype=torch.float64)
    q = x * torch.linspace(0.8, 1.3, 12)
    weight = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    best = best_weight(weight, x.T @ q, q.T @ q)
    kept, mended = ((q @ w.T - x @ weight.T).square().sum() for w in (weight, best))
    assert mended < 0.1 * kept
    assert torch.equal(best_weight(weight, q.T @ q, q.T @ q), weight)
    broken = torch.full((12, 12), float("nan")).double()
    assert torch.equal(best_weight(weight, broken, broken), weight)


def test_through_calibrate_every_weight_is_rounded_once(model: VLM, samples: list[Sample]) -> None:
    seen: list[tuple[str, int, int]] = []
    calibrate(model, samples, PRECISIONS["w4a16"], lambda *s: seen.append(s), rounding="sequential")
    stages = [stage for stage, _, _ in seen]
    assert set(stages) == {"weights", "ranges"}
    assert stages.count("ranges") == len(samples)
    done, total = [(done, total) for stage, done, total in seen if stage == "weights"][-1]
    assert done == total > 30
    for path, module, quantizer in weight_quantizers(model):
        assert quantizer.integers is not None, path
        assert quantizer.scale is not None, path
        rows = quantizer.integers.flatten(1) if quantizer.axis == 0 else quantizer.integers
        back = (rows * quantizer.scale.reshape(-1, 1)).reshape(quantizer.integers.shape)
        assert torch.equal(module.get_parameter(quantizer.parameter), back), path


def test_an_unknown_rounding_is_one_line(model: VLM, samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="'up': expected one of nearest, compensated, sequential"):
        calibrate(model, samples, PRECISIONS["w4a16"], rounding="up")


def test_without_pictures_the_encoder_is_named(model: VLM, samples: list[Sample]) -> None:
    with pytest.raises(UserError, match=r"vision_encoder\S+: no calibration data reached it"):
        calibrate(model, samples[2:3], PRECISIONS["w4a16"], rounding="sequential")
