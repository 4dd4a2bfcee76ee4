"""A model that computes as a chip does: against the definition, and what stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoneural.bench.answer_checkpoint import load_model
from autoneural.compress.chip import ChipArithmetic, compute_as
from autoneural.compress.fake_quant import Calibration, freeze, quantize, weight_quantizers
from autoneural.compress.precision import PRECISIONS, Precision, Rule
from autoneural.compress.quantize import (
    Sample,
    build_report,
    calibrate,
    load_quantized,
    post_training_quantize,
)
from autoneural.compress.report import compare
from autoneural.compress.wiring import Wiring, encodings_of, engine_modules, trace
from autoneural.errors import UserError
from autoneural.model.layers import MatMul, Range, SamePad
from autoneural.model.vlm import VLM
from autoneural.target.chips import find_chip
from autoneural.target.htp import matrix_engine, requantization
from autoneural.target.htp_product import second_operand
from autoneural.target.numerics import quantize_affine

W4A16 = PRECISIONS["w4a16"]
PLAIN = Precision(
    name="plain", weights=(Rule("*", 8),), activations=(Rule("*.second", None), Rule("*", 16))
)
GENERATIONS = pytest.mark.parametrize("htp", [68, 73])


class Single(nn.Module):
    """One module of the engine behind a named input."""

    def __init__(self, module: nn.Module, pad: nn.Module | None = None) -> None:
        super().__init__()
        self.x = Range()
        self.pad = nn.Identity() if pad is None else pad
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(self.pad(self.x(x)))


class Product(nn.Module):
    """A product of two named inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y, self.module = Range(), Range(), MatMul()

    def forward(self, x: Tensor) -> Tensor:
        return self.module(self.x(x), self.y(x.flip(-1)).transpose(-1, -2))


def frozen(model: nn.Module, x: Tensor, precision: Precision = PLAIN) -> Wiring:
    """Quantise `model` on one input; returns its wiring."""
    quantize(model, precision)
    with Calibration(model), torch.no_grad():
        model(x)
    freeze(model, precision)
    return trace(model, [lambda m: m(x)])


def integers(model: nn.Module, path: str, x: Tensor) -> np.ndarray:
    """Output of the module at `path`, in integers."""
    seen: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(lambda _, __, y: seen.append(y))
    with torch.no_grad():
        model(x)
    handle.remove()
    return quantize_affine(seen[0].numpy(), encodings_of(model, path, {path: ()})[-1])


def defined(model: Single, x: Tensor, htp: int, accumulate: Callable[[np.ndarray], np.ndarray]):
    """What target/htp.py says about the module's output; `accumulate` adds up raw integers."""
    path = "module"
    wiring = trace(model, [lambda m: m(x)])
    x_encoding, y_encoding = encodings_of(model, path, wiring)
    (quantizer,) = (q for _, _, q in weight_quantizers(model))
    assert quantizer.integers is not None
    assert quantizer.scale is not None
    scale = quantizer.scale.numpy()
    module = model.module
    assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
    bias = np.zeros(len(scale))
    if module.bias is not None:
        step = np.float32(x_encoding.scale) * scale
        bias = np.rint(module.bias.detach().double().numpy() / step)
    plan = requantization(
        matrix_engine(htp),
        x=x_encoding,
        weight_scale=scale,
        weight_sum=quantizer.integers.double().flatten(1).sum(1).numpy(),
        y=y_encoding,
        bias=bias,
    )
    return plan(accumulate(integers(model, "x", x)), y_encoding.bits)


@pytest.fixture
def x() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    # Not centred: the zero points are what the generations treat differently.
    return torch.randn(2, 8, 24, generator=generator) * 3 + 2


@GENERATIONS
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_is_as_defined(htp: int, bias: bool, x: Tensor) -> None:
    torch.manual_seed(1)
    model = Single(nn.Linear(24, 16, bias=bias))
    wiring = frozen(model, x)
    weight = next(q for _, _, q in weight_quantizers(model)).integers
    assert weight is not None
    expected = defined(model, x, htp, lambda q: q.astype(np.int64) @ weight.numpy().T.astype(int))
    plain = integers(model, "module", x)
    compute_as(model, htp, wiring)
    np.testing.assert_array_equal(integers(model, "module", x), expected)
    assert (plain != expected).mean() > 0.05


@GENERATIONS
def test_padding_is_the_zero_point_in_integers(htp: int) -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 3, 7, 7) + 1
    model = Single(nn.Conv2d(3, 5, 3, stride=2), SamePad(3, 2))
    wiring = frozen(model, x)
    weight = next(q for _, _, q in weight_quantizers(model)).integers
    zero = encodings_of(model, "module", wiring)[0].zero_point
    assert weight is not None

    def accumulate(q: np.ndarray) -> np.ndarray:
        raw = torch.from_numpy(
            np.pad(q.astype(float), [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=zero)
        )
        return torch.conv2d(raw, weight.double(), stride=2).movedim(1, -1).numpy()

    expected = np.moveaxis(defined(model, x, htp, accumulate), -1, 1)
    compute_as(model, htp, wiring)
    np.testing.assert_array_equal(integers(model, "module", x), expected)


@GENERATIONS
@pytest.mark.parametrize("bits", [8, 16])
def test_a_product_narrows_its_second_operand(htp: int, bits: int, x: Tensor) -> None:
    model = Product()
    precision = replace(PLAIN, activations=(Rule("*.second", None), Rule("y", bits), Rule("*", 16)))
    wiring = frozen(model, x, precision)
    first, second, y = encodings_of(model, "module", wiring)
    assert second.bits == bits
    operand = second_operand(integers(model, "y", x).swapaxes(-1, -2), second)
    plan = requantization(
        matrix_engine(htp),
        x=first,
        weight_scale=operand.scale,
        weight_sum=operand.integers.sum(-2, keepdims=True),
        y=y,
    )
    expected = plan(integers(model, "x", x) @ operand.integers, y.bits)
    compute_as(model, htp, wiring)
    np.testing.assert_array_equal(integers(model, "module", x), expected)


@GENERATIONS
@pytest.mark.parametrize("how", ["inside", "outside"])
def test_cancelling_takes_the_offset_away(htp: int, how, x: Tensor) -> None:
    torch.manual_seed(1)
    model = Single(nn.Linear(24, 16))
    # Four bits, where a step of the accumulator is many of the output's.
    wiring = frozen(model, x, replace(PLAIN, weights=(Rule("*", 4),)))
    many = torch.randn(64, 8, 24) * 3 + 2
    plain = integers(model, "module", many).astype(int)

    def offsets() -> np.ndarray:
        inner = (plain > 0) & (plain < 65535)
        errors = np.where(inner, integers(model, "module", many).astype(int) - plain, 0)
        return np.abs(errors.mean((0, 1)))

    compute_as(model, htp, wiring)
    before = offsets()
    compute_as(model, htp, wiring, cancel=how)
    after = offsets()
    assert after.mean() < before.mean() * (0.6 if how == "inside" else 0.25)


def test_switching_back_leaves_no_trace(model: VLM, samples: list[Sample]) -> None:
    calibrate(model, samples, W4A16)
    wiring = trace(model, samples)
    plain = samples[0](model)
    outputs = []
    for htp in (68, 73):
        compute_as(model, htp, wiring)
        outputs.append(samples[0](model))
    assert not torch.equal(outputs[0], plain)
    assert not torch.equal(outputs[0], outputs[1])
    compute_as(model, None)
    assert torch.equal(samples[0](model), plain)


def test_gradients_are_those_of_the_output_it_replaces() -> None:
    chip = ChipArithmetic()
    chip.plan = lambda x: x.round()  # pyright: ignore[reportAttributeAccessIssue]
    x = torch.tensor([0.2, 1.7], requires_grad=True)
    y = chip((x,), x * 3)
    assert y.tolist() == [0.0, 2.0]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 3.0]


@pytest.fixture
def quantized(float_checkpoint: Path, samples: list[Sample], tmp_path: Path) -> Path:
    post_training_quantize(float_checkpoint, samples, tmp_path / "int")
    return tmp_path / "int"


def test_a_checkpoint_computes_as_the_calibrated_model_did(
    quantized: Path, float_checkpoint: Path, samples: list[Sample]
) -> None:
    model = load_model(str(float_checkpoint))
    calibrate(model, samples, W4A16)
    compute_as(model, 68, trace(model, samples))
    loaded = load_quantized(quantized, chip=find_chip("SA8295P"))
    assert torch.equal(samples[1](loaded), samples[1](model))


def test_cached_generation_equals_the_full_forward_on_a_chip(
    quantized: Path, make_sample: Callable[..., Sample]
) -> None:
    model = load_quantized(quantized, chip=find_chip("SA8295P"))
    sample = make_sample(30)
    tokens = model.generate(
        sample.input_ids_BT[0],
        sample.pixels_BCHW,
        image_token_id=sample.image_token_id,
        eos_id=-1,
        max_new_tokens=6,
    )
    ids = torch.cat((sample.input_ids_BT, torch.tensor([tokens])), 1)
    logits = replace(sample, input_ids_BT=ids)(model)
    start = sample.input_ids_BT.shape[1] - 1
    assert logits[0, start:-1].argmax(-1).tolist() == tokens


@pytest.mark.parametrize("name", ["w4a16", "w4a16kv8"])
def test_the_report_says_what_a_chip_makes_of_it(
    model: VLM, samples: list[Sample], name: str
) -> None:
    reference = copy.deepcopy(model)
    calibrate(model, samples, PRECISIONS[name])
    chip = find_chip("SA8295P")
    report = build_report(reference, model, samples, PRECISIONS[name], chip)
    assert report.chip == chip.name
    on_chip = [module.chip_sqnr_db for module in report.modules]
    assert on_chip == sorted(on_chip, key=lambda figure: figure or 0.0)
    compute_as(model, chip.htp, trace(model, samples))
    path = "projector.linear_2"
    assert report[path].chip_sqnr_db == compare(reference, model, [path], samples)[path][0]
    assert report[path].chip_sqnr_db != report[path].sqnr_db
    assert report.chip_summary()["worst"] < report.summary()["worst"] + 1


def test_errors_name_the_layer(model: VLM, samples: list[Sample]) -> None:
    calibrate(model, samples, W4A16)
    wiring = dict(trace(model, samples))
    del wiring["projector.linear_1"]
    with pytest.raises(UserError, match=r"^projector\.linear_1: nothing says what it reads"):
        compute_as(model, 68, wiring)


def test_numbers_that_no_chip_takes_are_errors(model: VLM, samples: list[Sample]) -> None:
    wide = copy.deepcopy(model)
    calibrate(wide, samples, replace(W4A16, weights=(Rule("*", 16),)))
    with pytest.raises(UserError, match="16-bit weights"):
        compute_as(wide, 68, trace(wide, samples))
    activations = (Rule("vision_encoder.pixels", 8), *W4A16.activations)
    calibrate(model, samples, replace(W4A16, activations=activations))
    with pytest.raises(UserError, match=r"^vision_encoder\.conv_stem\.conv: a 8-bit input"):
        compute_as(model, 68, trace(model, samples))


def test_every_layer_departs_a_little_and_none_much(model: VLM, samples: list[Sample]) -> None:
    calibrate(model, samples, W4A16)
    plain, paths = copy.deepcopy(model), list(engine_modules(model))
    compute_as(model, 73, trace(model, samples))
    figures = compare(plain, model, paths, samples)
    assert 20 < min(figure for figure, _ in figures.values()) < 60
