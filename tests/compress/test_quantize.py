"""From a float checkpoint to a quantised one and back."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoneural.checkpoint import load_checkpoint
from autoneural.compress.precision import PRECISIONS, Rule
from autoneural.compress.quantize import (
    Sample,
    build_report,
    calibrate,
    integer_weights,
    load_quantized,
    post_training_quantize,
)
from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.model.vlm import VLM

W4A16 = PRECISIONS["w4a16"]


@pytest.fixture
def quantized(float_checkpoint: Path, samples: list[Sample], tmp_path: Path) -> Path:
    post_training_quantize(float_checkpoint, samples, tmp_path / "int")
    return tmp_path / "int"


def test_reloaded_model_gives_the_same_bits(
    float_checkpoint: Path,
    quantized: Path,
    samples: list[Sample],
    config: ModelConfig,
    make_sample: Callable[..., Sample],
) -> None:
    model = VLM(config).eval().requires_grad_(False)
    model.load_state_dict(
        {k: v.float() for k, v in load_checkpoint(float_checkpoint).state_dict.items()}
    )
    calibrate(model, samples, W4A16)
    reloaded = load_quantized(quantized)
    for seed in (20, 21):
        sample = make_sample(seed)
        assert torch.equal(sample(reloaded), sample(model))


def test_stored_format(quantized: Path) -> None:
    checkpoint = load_checkpoint(quantized)
    encodings, tensors = checkpoint.encodings, checkpoint.state_dict
    assert encodings is not None
    assert encodings["version"] == 1
    w1 = "language_model.model.layers.0.feed_forward.w1.weight"
    assert encodings["weights"][w1] == {"bits": 4, "axis": 0}
    assert tensors[w1].dtype == torch.uint8
    assert tensors[w1].shape == (64, 16)
    assert tensors[f"{w1}_scale"].shape == (64,)
    embedding = "language_model.model.embed_tokens.weight"
    assert encodings["weights"][embedding] == {"bits": 8, "axis": 0}
    assert tensors[embedding].dtype == torch.int8
    assert "language_model.lm_head.weight" not in encodings["weights"]
    norm = "language_model.model.layers.0.operator_norm.weight"
    assert tensors[norm].dtype == torch.int16
    assert tensors[f"{norm}_scale"].shape == ()
    gamma = next(name for name in encodings["weights"] if name.endswith(".gamma"))
    assert encodings["weights"][gamma] == {"bits": 16, "axis": None}
    assert tensors["projector.linear_1.bias"].dtype == torch.float32
    assert set(encodings["activations"]["projector.linear_2"]) == {"bits", "scale", "zero_point"}
    assert checkpoint.recipe["precision"]["name"] == "w4a16"


def test_weights_alone_are_the_dequantised_integers(quantized: Path) -> None:
    weights = integer_weights(load_checkpoint(quantized))
    model = load_quantized(quantized, activations=False)
    state = model.state_dict()
    for name, weight in weights.items():
        assert torch.equal(state[name], torch.from_numpy(weight.dequantize()))
        assert int(abs(weight.values).max()) <= {4: 8, 8: 127, 16: 32767}[weight.bits]
    assert not any(module._forward_hooks for module in model.modules())


def test_cached_generation_equals_the_full_forward(
    quantized: Path, make_sample: Callable[..., Sample]
) -> None:
    model = load_quantized(quantized)
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


def test_state_stays_on_its_grid(quantized: Path, make_sample: Callable[..., Sample]) -> None:
    model = load_quantized(quantized)
    encodings = load_checkpoint(quantized).encodings
    assert encodings is not None
    window = encodings["activations"]["language_model.model.layers.0.conv.window"]
    seen = []
    module = model.get_submodule("language_model.model.layers.0.conv.window")
    module.register_forward_hook(lambda _, args, y: seen.append((args, y)))
    make_sample(31)(model)
    (past, fresh), output = seen[0]
    assert torch.equal(output, torch.cat((past, fresh), 2))
    steps = output / torch.tensor(window["scale"])
    assert torch.equal(steps.round() * torch.tensor(window["scale"]), output)


def test_sqnr_floors(model: VLM, samples: list[Sample]) -> None:
    def worst(weights: tuple[Rule, ...], prefix: str) -> float:
        precision = replace(W4A16, weights=weights)
        quantized = copy.deepcopy(model)
        calibrate(quantized, samples, precision)
        report = build_report(model, quantized, samples, precision)
        return min(m.sqnr_db for m in report.modules if m.path.startswith(prefix))

    # Activations and 16-bit weights alone, then the recipe's 8 bits, then its 4.
    assert worst((Rule("*", 16),), "") > 50
    assert worst(PRECISIONS["w8a16"].weights, "vision_encoder") > 23
    assert worst(PRECISIONS["w8a16"].weights, "language_model") > 15
    four = worst(W4A16.weights, "language_model")
    assert 2 < four < worst(PRECISIONS["w8a16"].weights, "language_model")


def test_nearest_rounding_needs_one_pass_and_no_search(model: VLM, samples: list[Sample]) -> None:
    path = "language_model.model.layers.0.feed_forward.w1"
    weight = model.get_submodule(path).weight.clone()
    seen: list[tuple[str, int, int]] = []
    # Snapping moves scales by a hair afterwards.
    calibrate(model, samples, W4A16, lambda *s: seen.append(s), rounding="nearest", snap=False)
    assert seen == [("ranges", done, len(samples)) for done in range(1, len(samples) + 1)]
    scale = weight.abs().amax(1) / 7
    nearest = (weight / scale[:, None]).round() * scale[:, None]
    assert torch.equal(model.get_submodule(path).weight, nearest)


def test_report_is_sorted_and_leaves_masks_out(
    float_checkpoint: Path, samples: list[Sample], tmp_path: Path
) -> None:
    progress: list[tuple[str, int, int]] = []
    report = post_training_quantize(
        float_checkpoint,
        samples,
        tmp_path / "int",
        progress=lambda *a: progress.append(a),
    )
    figures = [module.sqnr_db for module in report.modules]
    assert figures == sorted(figures)
    paths = {module.path for module in report.modules}
    assert not any(path.endswith(("mask", "mask_add")) for path in paths)
    assert report["projector.linear_1"].weight_bits == 8
    assert progress[-1] == ("ranges", len(samples), len(samples))


def test_quantising_twice_is_refused(quantized: Path, samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="quantised already"):
        post_training_quantize(quantized, samples, quantized.with_name("again"))
    assert not quantized.with_name("again").exists()


def test_no_samples_is_refused(float_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no samples"):
        post_training_quantize(float_checkpoint, [], tmp_path / "int")


def test_a_float_checkpoint_is_not_a_quantised_one(float_checkpoint: Path) -> None:
    with pytest.raises(UserError, match="not quantised"):
        load_quantized(float_checkpoint)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda e: e.update(version=9), "version 9"),
        (lambda e: e.pop("weights"), "weights is missing"),
        (lambda e: e["weights"].update({"no.such": {"bits": 8, "axis": 0}}), r"no\.such"),
        (lambda e: e["weights"]["projector.linear_1.weight"].update(bits=4), "not as stored"),
        (lambda e: e["activations"].update({"no.such": {}}), r"no\.such"),
    ],
    ids=["version", "section", "unknown weight", "wrong bits", "unknown module"],
)
def test_damaged_encodings_are_one_line(quantized: Path, damage, message: str) -> None:
    path = quantized / "encodings.json"
    encodings = json.loads(path.read_text())
    damage(encodings)
    path.write_text(json.dumps(encodings))
    with pytest.raises(UserError, match=message) as caught:
        load_quantized(quantized)
    assert "\n" not in str(caught.value)
