"""Fake quantisation against the numpy definition; ties, masks, refusals."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from autoneural.compress.fake_quant import (
    Calibration,
    apply_encodings,
    fake_quantize,
    freeze,
    output_quantizers,
    quantize,
    round_weights,
    weight_quantizers,
)
from autoneural.compress.precision import PRECISIONS, Precision, Rule
from autoneural.compress.quantize import Sample, calibrate
from autoneural.errors import UserError
from autoneural.model.layers import Add, Gelu, RMSNorm
from autoneural.model.vlm import VLM
from autoneural.target.numerics import (
    affine_encoding,
    dequantize_affine,
    dequantize_symmetric,
    quantize_affine,
)

W4A16 = PRECISIONS["w4a16"]
PLAIN = Precision(name="plain", weights=(Rule("*", 4),))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = RMSNorm(8, 1e-5)
        self.linear = nn.Linear(8, 6)
        self.act = Gelu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.linear(self.norm(x)))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("low", "high"), [(-3.3, 7.1), (0.0, 0.017), (-1e3, 1e-3)], ids=str)
def test_equals_numpy_to_the_bit(low: float, high: float, bits: int) -> None:
    encoding = affine_encoding(low, high, bits)
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(100_000, generator=generator) * 1.2 - 0.1) * (high - low) + low
    ties = (torch.arange(-50, 50) + 0.5) * encoding.scale
    x = torch.cat((x, ties, torch.tensor([0.0, 1e30, -1e30])))
    expected = dequantize_affine(quantize_affine(x.numpy(), encoding), encoding)
    actual = fake_quantize(x, encoding, torch.tensor(encoding.scale))
    np.testing.assert_array_equal(actual.numpy(), expected)


def test_a_module_by_hand() -> None:
    torch.manual_seed(0)
    model, x = Small(), torch.randn(50, 8)
    quantize(model, PLAIN)
    assert torch.equal(model(x), copy.deepcopy(model)(x))
    with Calibration(model), torch.no_grad():
        model(x)
    encodings = freeze(model, PLAIN)
    weights = {path: q for path, _, q in weight_quantizers(model)}
    integers, scale = weights["linear"].integers, weights["linear"].scale
    assert integers is not None
    assert scale is not None
    assert integers.abs().max() <= 8
    restored = torch.from_numpy(dequantize_symmetric(integers.numpy(), scale.numpy()))
    assert torch.equal(model.linear.weight, restored)
    assert encodings["weights"]["norm.weight"] == {"bits": 16, "axis": None}

    seen = {}
    model.linear.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    model.linear.register_forward_hook(lambda _, __, y: seen.update(y=y))
    with torch.no_grad():
        model(x)
    quantizer = dict(output_quantizers(model))["linear"]
    assert quantizer.encoding is not None
    plain = nn.functional.linear(seen["x"], restored, model.linear.bias).detach().numpy()
    expected = dequantize_affine(quantize_affine(plain, quantizer.encoding), quantizer.encoding)
    np.testing.assert_array_equal(seen["y"].detach().numpy(), expected)


def test_quantize_alone_changes_nothing(model: VLM, samples: list[Sample]) -> None:
    before = samples[0](model)
    names = list(model.state_dict())
    quantize(model, W4A16)
    assert torch.equal(samples[0](model), before)
    assert list(model.state_dict()) == names


def test_tied_outputs_share_one_quantizer(model: VLM, samples: list[Sample]) -> None:
    encodings = calibrate(model, samples, W4A16)["activations"]
    decoder = "language_model.model"
    for first, *others in (
        ("projector.linear_2", f"{decoder}.embed_tokens", f"{decoder}.inputs_embeds"),
        (f"{decoder}.layers.0.conv.gate_in", f"{decoder}.layers.0.conv.window"),
        (f"{decoder}.layers.1.self_attn.k_rotary.add", f"{decoder}.layers.1.self_attn.keys"),
        (f"{decoder}.layers.1.self_attn.v_proj", f"{decoder}.layers.1.self_attn.values"),
    ):
        for other in others:
            assert encodings[other] == encodings[first]
            quantizers = dict(output_quantizers(model))
            assert quantizers[other] is quantizers[first]
    assert (
        encodings[f"{decoder}.layers.0.conv.window"] != encodings[f"{decoder}.layers.2.conv.window"]
    )


def test_known_ranges_do_not_depend_on_data(model: VLM, samples: list[Sample]) -> None:
    activations = calibrate(model, samples, W4A16)["activations"]
    assert activations["vision_encoder.pixels"]["scale"] == float(np.float32(1 / 65535))
    assert activations["vision_encoder.pixels"]["zero_point"] == 0
    for name in ("cos", "sin"):
        encoding = activations[f"language_model.model.{name}"]
        assert encoding["zero_point"] == 32768
    sigmoid = activations["language_model.model.layers.0.feed_forward.sigmoid"]
    assert sigmoid == {"bits": 16, "scale": 2**-16, "zero_point": 0}


def test_mask_value_covers_the_scores_and_hides_later_tokens(
    model: VLM, samples: list[Sample], make_sample: Callable[..., Sample]
) -> None:
    scores = []
    attention = model.get_submodule("language_model.model.layers.1.self_attn.scores")
    handle = attention.register_forward_hook(lambda _, __, y: scores.append(y.abs().max()))
    sums = []
    add = model.get_submodule("language_model.model.layers.1.self_attn.mask_add")
    add.register_forward_hook(lambda _, __, y: sums.append(float(y.max())))
    encodings = calibrate(model, samples, W4A16)
    handle.remove()
    assert encodings["mask_value"] <= -(2 * float(max(scores)) + 23)
    assert encodings["mask_value"] == round(encodings["mask_value"])
    mask = encodings["activations"]["language_model.model.mask"]
    assert mask["zero_point"] == 65535
    masked = encodings["activations"]["language_model.model.layers.1.self_attn.mask_add"]
    assert -masked["zero_point"] * masked["scale"] == pytest.approx(
        encodings["mask_value"], rel=1e-3
    )
    high = (65535 - masked["zero_point"]) * masked["scale"]
    assert high == pytest.approx(max(sums), abs=masked["scale"])
    sample = make_sample(9, image=False)
    changed = copy.deepcopy(sample)
    changed.input_ids_BT[:, -1] += 1
    assert torch.equal(sample(model)[:, :-1], changed(model)[:, :-1])


def test_a_layer_without_integer_form_is_one_line() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4))
    with pytest.raises(UserError, match="^1: cannot quantise a LSTM; [^\n]*$"):
        quantize(model, PLAIN)


def test_a_module_with_its_own_parameter_is_refused() -> None:
    model = Small()
    model.extra = nn.Parameter(torch.ones(3))
    with pytest.raises(UserError, match="cannot quantise a Small"):
        quantize(model, PLAIN)


def test_quantising_twice_is_refused() -> None:
    with pytest.raises(UserError, match="quantised already"):
        quantize(quantize(Small(), PLAIN), PLAIN)


def test_freezing_without_calibration_is_refused() -> None:
    model = quantize(Small(), PLAIN)
    with pytest.raises(UserError, match="norm: no calibration data reached it"):
        freeze(model, PLAIN)
    with pytest.raises(UserError, match="linear: no calibration data reached it"):
        round_weights(model)


def test_text_alone_does_not_calibrate_a_vision_model(
    model: VLM, make_sample: Callable[..., Sample]
) -> None:
    with pytest.raises(UserError, match=r"no calibration data reached it"):
        calibrate(model, [make_sample(0, image=False)], W4A16)


def test_an_overflowing_model_is_named() -> None:
    model = quantize(Small(), PLAIN)
    with Calibration(model), torch.no_grad():
        model(torch.full((1, 8), float("nan")))
    with pytest.raises(UserError, match="the float model overflows here"):
        freeze(model, PLAIN)


def test_ranges_of_an_earlier_calibration_are_forgotten() -> None:
    model = quantize(Small(), PLAIN)
    for factor in (100.0, 1.0):
        model.norm.weight.data.fill_(factor)
        with Calibration(model), torch.no_grad():
            model(torch.ones(2, 8))
    assert dict(output_quantizers(model))["norm"].observer.range() == pytest.approx((1, 1), 1e-4)


def test_unknown_paths_in_encodings_are_refused() -> None:
    good = {"bits": 16, "scale": 1.0, "zero_point": 0}
    with pytest.raises(UserError, match=r"encodings\.json: nowhere"):
        apply_encodings(Small(), {"nowhere": good})
    with pytest.raises(UserError, match=r"encodings\.json: linear"):
        apply_encodings(Small(), {"linear": {"bits": 16}})


def test_add_takes_two_inputs() -> None:
    model = nn.ModuleDict({"add": Add()})
    quantize(model, PLAIN)
    with Calibration(model):
        model["add"](torch.ones(2), torch.ones(2))
    assert freeze(model, PLAIN)["activations"]["add"]["scale"] == float(np.float32(2 / 65535))
