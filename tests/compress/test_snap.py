"""Scales that a multiplier of 11 bits can hold."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from autoneural.compress.chip import compute_as
from autoneural.compress.fake_quant import weight_quantizers
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import Sample, calibrate
from autoneural.compress.report import compare
from autoneural.compress.snap import snap_scales
from autoneural.compress.wiring import Wiring, encodings_of, engine_modules, trace
from autoneural.model import layers
from autoneural.model.vlm import VLM
from autoneural.target.htp import narrow, round_significand

W4A16 = PRECISIONS["w4a16"]


def multipliers(model: nn.Module, wiring: Wiring) -> dict[str, np.ndarray]:
    """x scale * weight scale / y scale of every layer of the engine."""
    weights = {id(m.get_parameter(q.parameter)): q for _, m, q in weight_quantizers(model)}
    found = {}
    for path, module in engine_modules(model).items():
        first, *second, y = encodings_of(model, path, wiring)
        if isinstance(module, layers.MatMul):
            scale = np.array([narrow(second[0]).scale])
        else:
            quantizer = weights[id(module.weight)]
            assert quantizer.scale is not None
            scale = quantizer.scale.double().numpy()
        found[path] = first.scale * scale / y.scale
    return found


def coarseness(m: np.ndarray) -> float:
    """How far from 11 bits."""
    return float(np.abs(round_significand(m, 11) / m - 1).max())


@pytest.fixture
def calibrated(model: VLM, samples: list[Sample]) -> VLM:
    calibrate(model, samples, W4A16, snap=False)
    return model


def test_every_multiplier_has_11_bits(calibrated: VLM, samples: list[Sample]) -> None:
    wiring = trace(calibrated, samples)
    before = multipliers(calibrated, wiring)
    assert np.median([coarseness(m) for m in before.values()]) > 1e-4
    snap_scales(calibrated, wiring)
    after = multipliers(calibrated, wiring)
    for path, m in after.items():
        assert coarseness(m) < 3e-7, path  # what fp32 scales can hold
        np.testing.assert_allclose(m, before[path], rtol=2.0**-9)


def test_integers_stay_and_weights_are_what_they_stand_for(
    calibrated: VLM, samples: list[Sample]
) -> None:
    before = {p: (q.integers, q.scale) for p, _, q in weight_quantizers(calibrated)}
    snap_scales(calibrated, trace(calibrated, samples))
    moved = 0
    for path, module, quantizer in weight_quantizers(calibrated):
        integers, scale = before[path]
        assert integers is not None
        assert scale is not None
        assert quantizer.integers is integers
        assert quantizer.scale is not None
        torch.testing.assert_close(quantizer.scale, scale, rtol=2.0**-11, atol=0)
        moved += int(not torch.equal(quantizer.scale, scale))
        rows = integers.flatten(1) * quantizer.scale.reshape(-1, 1) if scale.ndim else None
        if rows is not None:
            weight = module.get_parameter(quantizer.parameter)
            assert torch.equal(weight, rows.reshape(weight.shape))
    assert moved > 20
    language_model = calibrated.language_model
    assert language_model.lm_head.weight is language_model.model.embed_tokens.weight


def test_outputs_of_products_keep_their_range(calibrated: VLM, samples: list[Sample]) -> None:
    wiring = trace(calibrated, samples)
    products = [p for p, m in engine_modules(calibrated).items() if isinstance(m, layers.MatMul)]
    before = {path: encodings_of(calibrated, path, wiring)[-1] for path in products}
    moved = snap_scales(calibrated, wiring)
    assert moved.keys() == set(products)
    for path, encoding in moved.items():
        assert encoding == encodings_of(calibrated, path, wiring)[-1]
        assert encoding.zero_point == before[path].zero_point
        assert 1 < encoding.scale / before[path].scale < 1 + 2.0**-10


def test_snapping_costs_nothing(model: VLM, samples: list[Sample]) -> None:
    reference, plain = copy.deepcopy(model), copy.deepcopy(model)
    calibrate(plain, samples, W4A16, snap=False)
    calibrate(model, samples, W4A16)
    paths = list(engine_modules(model))
    before, after = (compare(reference, m, paths, samples) for m in (plain, model))
    change = [after[path][0] - before[path][0] for path in paths]
    assert abs(np.mean(change)) < 0.1
    assert min(change) > -1.0


def test_vision_layers_lose_their_offset_on_old_chips(calibrated: VLM, samples: list[Sample]):
    wiring = trace(calibrated, samples)
    paths = [path for path in engine_modules(calibrated) if path.startswith("vision_encoder")]
    figures = []
    for snapped in (False, True):
        model = copy.deepcopy(calibrated)
        if snapped:
            snap_scales(model, wiring)
        plain = copy.deepcopy(model)
        compute_as(model, 68, wiring)
        figures.append(compare(plain, model, paths, samples[:1]))
    gains = [figures[1][path][0] - figures[0][path][0] for path in paths]
    assert np.median(gains) > 4
    assert gains[0] > 15  # errors add up on the way, so the first layer shows it best


def test_the_encodings_of_a_calibration_are_those_it_computes_with(
    model: VLM, samples: list[Sample]
) -> None:
    activations = calibrate(model, samples, W4A16)["activations"]
    wiring = trace(model, samples)
    for path in engine_modules(model):
        assert activations[path]["scale"] == encodings_of(model, path, wiring)[-1].scale
