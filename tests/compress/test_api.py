"""The verbs of the package, as its docstring shows them."""

import torch
from torch import nn

import autoneural.compress.quantize  # noqa: F401  (must not take the verb's name)
from autoneural.compress import PRECISIONS, Calibration, fold, freeze, quantize
from autoneural.compress.quantize import Sample
from autoneural.model.vlm import VLM


def test_three_verbs_on_a_vlm(model: VLM, samples: list[Sample]) -> None:
    fold(model)
    before = samples[0](model)
    precision = PRECISIONS["w8a16"]
    quantize(model, precision)
    with Calibration(model), torch.inference_mode():
        for sample in samples:
            sample(model)
    encodings = freeze(model, precision)
    after = samples[0](model)
    assert encodings["weights"]["projector.linear_1.weight"]["bits"] == 8
    error = float((after - before).norm() / before.norm())
    assert 1e-4 < error < 0.3


def test_the_verb_is_a_function_and_the_file_still_a_module() -> None:
    module = quantize(nn.Sequential(nn.Linear(2, 2)), PRECISIONS["w8a16"])
    assert isinstance(module, nn.Sequential)
