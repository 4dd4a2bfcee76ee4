"""Low rank: the least error there is, ranks where they pay, and the way back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoneural.compress.cost import stored_bytes
from autoneural.compress.fake_quant import quantize
from autoneural.compress.low_rank import factorise, merge
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import Sample
from autoneural.compress.rank_choice import Candidate, by_budget, by_energy
from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.model.low_rank import Factorised
from autoneural.model.vlm import VLM

LAYER = "language_model.model.layers.0"
W1 = f"{LAYER}.feed_forward.w1"
EXPANSION = "vision_encoder.blocks.3.0.pw_exp.conv"
W4A16 = PRECISIONS["w4a16"]


def inputs_and_output(model: VLM, path: str, samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """Rows that the layer reads and returns."""
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pair = (inputs[0], output)
        if output.ndim == 4:
            pair = tuple(x.permute(0, 2, 3, 1) for x in pair)  # pyright: ignore[reportAssignmentType]
        seen.append(tuple(x.flatten(0, -2) for x in pair))  # pyright: ignore[reportArgumentType]

    handle = model.get_submodule(path).register_forward_hook(keep)
    for sample in samples:
        sample(model)
    handle.remove()
    x, y = zip(*seen, strict=True)
    return torch.cat(x), torch.cat(y)


@pytest.mark.parametrize("path", [W1, EXPANSION, "projector.linear_2"])
def test_a_pair_of_full_rank_loses_nothing(
    model: VLM, samples: list[Sample], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Candidate, "usable", lambda self, rank: rank)
    rank = min(model.get_submodule(path).get_parameter("weight").shape[:2])
    small, config, record = factorise(model, model.config, samples, rank={path: rank})
    assert config.ranks == {path: rank}
    assert record["layers"][path]["error"] < 1e-5
    for sample in samples:
        torch.testing.assert_close(sample(small), sample(model), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("path", [W1, EXPANSION, f"{LAYER}.conv.in_proj"])
def test_the_recorded_error_is_that_of_the_output(
    model: VLM, samples: list[Sample], path: str
) -> None:
    small, _, record = factorise(model, model.config, samples, rank={path: 8}, tile=8)
    x, y = inputs_and_output(model, path, samples)
    pair = small.get_submodule(path)
    assert isinstance(pair, Factorised)
    got = x @ (pair.up.weight.flatten(1) @ pair.down.weight.flatten(1)).T
    error = float((got - y).norm() / y.norm())
    assert record["layers"][path]["error"] == pytest.approx(error, rel=1e-3)
    assert 0 < error < 1


def test_no_other_pair_of_that_rank_is_nearer_to_the_output(
    model: VLM, samples: list[Sample]
) -> None:
    """The plain SVD of the weight, which does not look at the inputs, is farther off."""
    path = f"{LAYER}.feed_forward.w2"
    x, y = inputs_and_output(model, path, samples)
    weight = model.get_parameter(f"{path}.weight")
    u, s, v = torch.linalg.svd(weight)
    plain = (u[:, :8] * s[:8]) @ v[:8]
    _, _, record = factorise(model, model.config, samples, rank={path: 8}, tile=8)
    ours = record["layers"][path]["error"]
    assert ours < 0.98 * float((x @ plain.T - y).norm() / y.norm())
    # Eckart-Young on the outputs themselves, which no linear layer of rank 8 can beat.
    least = torch.linalg.svdvals(y.double())[8:].norm() / y.double().norm()
    assert ours == pytest.approx(float(least), rel=1e-2)


def test_nmf_has_the_same_interface_and_its_verdict(model: VLM, samples: list[Sample]) -> None:
    small, config, record = factorise(
        model,
        model.config,
        samples,
        rank=8,
        tile=8,
        layers=[f"{LAYER}.feed_forward.*"],
        method="nmf",
    )
    assert set(config.ranks) == {f"{LAYER}.feed_forward.{name}" for name in ("w1", "w2", "w3")}
    for facts in record["layers"].values():
        assert facts["svd_error"] < facts["error"] < 1
    x, y = inputs_and_output(model, W1, samples)
    pair = small.get_submodule(W1)
    assert isinstance(pair, Factorised)
    assert bool((pair.down.weight >= 0).all())
    error = float((pair(x) - y).norm() / y.norm())
    assert record["layers"][W1]["error"] == pytest.approx(error, rel=1e-3)


def test_a_layer_whose_pair_is_not_cheaper_stays_whole(model: VLM, samples: list[Sample]) -> None:
    # 32 x 64: a pair of 21 is cheaper, one of 22 is not.
    _, config, record = factorise(model, model.config, samples, rank={W1: 20}, tile=1)
    assert config.ranks == {W1: 20}
    small, config, record = factorise(model, model.config, samples, rank={W1: 22}, tile=1)
    assert config == model.config
    assert record["layers"][W1]["rank"] == 0
    assert torch.equal(samples[0](small), samples[0](model))
    _, config, _ = factorise(model, model.config, samples, rank={W1: 5}, tile=16)
    assert config.ranks == {W1: 16}


def test_by_energy_keeps_what_was_asked() -> None:
    layer = Candidate(path="a", shape=(64, 64), energies=[4.0, 3.0, 2.0, 1.0] + [0.0] * 60, tile=1)
    assert [by_energy(layer, share) for share in (0.3, 0.7, 0.71, 0.999)] == [1, 2, 3, 4]
    coarse = replace(layer, tile=16)
    assert by_energy(coarse, 0.3) == 16
    assert by_energy(replace(layer, tile=32), 0.3) == 0  # 32 * 128 = 64 * 64: not cheaper


def test_a_budget_is_spent_where_it_keeps_most() -> None:
    steep = Candidate(path="steep", shape=(64, 64), energies=[8.0] + [0.1] * 63, tile=8)
    flat = Candidate(path="flat", shape=(64, 64), energies=[1.0] * 64, tile=8)
    sizes = {rank: flat.bytes(rank, W4A16) for rank in (8, 16, 24, 0)}
    assert sizes[8] == stored_bytes((8, 64), 8) + stored_bytes((64, 8), 8)
    assert by_budget([steep, flat], 2 * sizes[8], W4A16) == {"steep": 8, "flat": 8}
    assert by_budget([steep, flat], sizes[8] + sizes[24], W4A16) == {"steep": 8, "flat": 24}
    assert by_budget([steep, flat], 2 * sizes[0], W4A16) == {"steep": 0, "flat": 0}
    with pytest.raises(UserError, match=rf"too small; these layers take {2 * sizes[8]} at least"):
        by_budget([steep, flat], 2 * sizes[8] - 1, W4A16)


def test_the_budget_holds_for_what_is_built(model: VLM, samples: list[Sample]) -> None:
    from autoneural.compress.cost import weight_bytes

    layers = ["language_model.model.layers.*"]
    before = weight_bytes(model, W4A16)
    _, _, record = factorise(model, model.config, samples, rank=1, layers=layers, tile=8)
    budget = int(0.8 * sum(before[path] for path in record["layers"]))
    small, _, record = factorise(model, model.config, samples, budget=budget, layers=layers, tile=8)
    after = weight_bytes(small, W4A16)
    used = sum(
        size
        for path, size in after.items()
        if path.removesuffix(".up").removesuffix(".down") in record["layers"]
    )
    assert 0.8 * budget < used <= budget


@pytest.mark.parametrize("paths", [None, (W1,)])
def test_merging_gives_the_product_back(
    config: ModelConfig, samples: list[Sample], paths: tuple[str, ...] | None
) -> None:
    ranks = {W1: 24, EXPANSION: 16, f"{LAYER}.feed_forward.w2": 8, "projector.linear_1": 32}
    torch.manual_seed(0)
    model = VLM(replace(config, ranks=ranks)).eval().requires_grad_(False)
    whole, found, merged = merge(model, model.config, paths)
    # 24 of 64 x 32 and 32 of 32 x 48 do not pay, 16 of 96 x 24 and 8 of 32 x 64 do.
    assert set(merged) == (set(paths) if paths else {W1, "projector.linear_1"})
    assert set(found.ranks) == set(ranks) - set(merged)
    assert isinstance(whole.get_submodule(W1), nn.Linear)
    for sample in samples:
        torch.testing.assert_close(sample(whole), sample(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "give one of rank, energy and budget"),
        ({"rank": 8, "energy": 0.5}, "give one of rank, energy and budget"),
        ({"rank": 64}, "rank 64 is too high, its matrix has 32"),
        ({"rank": 0}, "rank 0: not a whole number from 1 up"),
        ({"energy": 1.0}, "energy 1.0: not between 0 and 1"),
        ({"budget": 10}, "budget: 10 bytes is too small"),
        ({"rank": 8, "layers": ["*.w9"]}, r"layers \*\.w9: no linear layer or 1x1 convolution"),
        ({"rank": {"language_model.lm_head": 8}}, "layers language_model.lm_head: no linear"),
        ({"rank": 8, "method": "qr"}, "method 'qr': expected svd or nmf"),
        ({"rank": 8, "tile": 0}, "tile 0"),
        ({"rank": 8, "runs": []}, "calibration: no samples"),
    ],
)
def test_refusals_are_one_line(
    model: VLM, samples: list[Sample], options: dict[str, Any], complaint: str
) -> None:
    options = dict(options)
    runs = options.pop("runs", samples)
    with pytest.raises(UserError, match=complaint) as caught:
        factorise(model, model.config, runs, **options)
    assert "\n" not in str(caught.value)


def test_layers_that_no_sample_reaches_and_quantised_models_are_refused(
    model: VLM, samples: list[Sample]
) -> None:
    text = [sample for sample in samples if sample.pixels_BCHW is None]
    with pytest.raises(UserError, match=r"projector\.linear_1: no sample reached it"):
        factorise(model, model.config, text, rank=8, layers=["projector.*"])
    with pytest.raises(UserError, match="is not factorised; pairs: none"):
        merge(model, model.config, [W1])
    quantize(model, W4A16)
    with pytest.raises(UserError, match="is quantised already"):
        factorise(model, model.config, samples, rank=8)
    with pytest.raises(UserError, match="is quantised already"):
        merge(model, model.config)
