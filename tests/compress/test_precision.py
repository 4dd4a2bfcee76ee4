"""Rules and ties on module paths."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from autoneural.compress.fake_quant import (
    WeightQuantizer,
    output_quantizers,
    quantize,
    weight_quantizers,
)
from autoneural.compress.precision import (
    PRECISIONS,
    Precision,
    Rule,
    bits_for,
    find_precision,
    load_precision,
    save_precision,
    tie_groups,
)
from autoneural.compress.quantize import Sample, calibrate
from autoneural.errors import UserError
from autoneural.model.layers import Gelu, RMSNorm, Softmax
from autoneural.model.vlm import VLM
from autoneural.target.chips import find_chip
from autoneural.target.legality import legal
from autoneural.target.numerics import Encoding, quantize_affine

ATTENTION = "language_model.model.layers.1.self_attn"


def test_first_matching_rule_decides() -> None:
    rules = (Rule("a.*.norm", None), Rule("a.*", 4), Rule("*", 8))
    assert bits_for(rules, "a.0.norm") is None
    assert bits_for(rules, "a.0.w1") == 4
    assert bits_for(rules, "b") == 8
    assert bits_for(rules[:2], "b") is None


def test_ties_are_per_layer() -> None:
    paths = ["m.0.k", "m.0.keys", "m.1.k", "m.1.keys", "m.2.k", "out", "mx0.k"]
    groups = tie_groups([("m.{layer}.k", "m.{layer}.keys"), ("out", "in")], paths)
    assert groups == [["m.0.k", "m.0.keys"], ["m.1.k", "m.1.keys"]]


@pytest.mark.parametrize(
    ("path", "bits"),
    [
        ("vision_encoder.blocks.0.0.conv_exp", 8),
        ("projector.linear_1", 8),
        ("language_model.model.embed_tokens", 8),
        ("language_model.model.layers.0.conv.conv", 8),
        ("language_model.model.layers.0.conv.in_proj", 4),
        ("language_model.model.layers.11.feed_forward.w2", 4),
        ("vision_encoder.embeddings.position_embedding", 16),
    ],
)
def test_default_recipe(path: str, bits: int) -> None:
    assert bits_for(PRECISIONS["w4a16"].weights, path) == bits


@pytest.mark.parametrize(
    "path",
    [
        "projector.linear_1",
        "language_model.model.layers.0.conv.in_proj",
        "language_model.model.layers.0.feed_forward.w1",
    ],
)
def test_both_halves_of_a_pair_have_the_bits_of_the_layer(path: str) -> None:
    rules = (Rule("*.feed_forward.w1", 8), *PRECISIONS["w4a16"].weights)
    for half in ("down", "up"):
        assert bits_for(rules, f"{path}.{half}") == bits_for(rules, path)
    own = (Rule(f"{path}.down", 16), *rules)
    assert bits_for(own, f"{path}.down") == 16
    assert bits_for(own, f"{path}.up") == bits_for(rules, path)


def test_what_a_pair_returns_is_tied_as_the_layer_was() -> None:
    paths = ["m.0.v.down", "m.0.v.up", "m.0.values", "m.1.v", "m.1.values"]
    groups = tie_groups([("m.{layer}.v", "m.{layer}.values")], paths)
    assert groups == [["m.0.v.up", "m.0.values"], ["m.1.v", "m.1.values"]]


def shared(model: VLM, name: str) -> dict[str, set[str]]:
    """Which modules of the attention layer have one range, by the first of them."""
    quantize(model, PRECISIONS[name])
    groups: dict[int, set[str]] = {}
    for path, quantizer in output_quantizers(model):
        if path.startswith(ATTENTION):
            path = path.removeprefix(f"{ATTENTION}.")
            groups.setdefault(id(quantizer), set()).add(path)
    return {min(group): group for group in groups.values() if len(group) > 1}


def test_a_cache_of_16_bits_has_the_encoding_of_what_computes_its_rows(model: VLM) -> None:
    assert shared(model, "w4a16") == {
        "k_rotary.add": {"k_rotary.add", "key_rows", "keys"},
        "v_proj": {"v_proj", "value_rows", "values"},
    }


def test_a_cache_of_8_bits_has_that_of_its_rows_only(model: VLM) -> None:
    assert shared(model, "w4a16kv8") == {
        "key_rows": {"key_rows", "keys"},
        "value_rows": {"value_rows", "values"},
    }


def test_kv8_is_w4a16_but_for_keys_and_values(model: VLM) -> None:
    old, new = PRECISIONS["w4a16"], PRECISIONS["w4a16kv8"]
    assert old.weights == new.weights
    paths = [path for path, _ in model.named_modules()]
    differ = {p for p in paths if bits_for(old.activations, p) != bits_for(new.activations, p)}
    cache = ("key_rows", "keys", "value_rows", "values")
    seconds = {path for path in paths if path.startswith("vision") and path.endswith(".second")}
    assert differ == {f"{ATTENTION}.{name}" for name in cache} | seconds
    assert len(seconds) == 4


def test_kv8_keeps_a_symmetric_cache_and_hands_out_its_integers(
    model: VLM, samples: list[Sample]
) -> None:
    activations = calibrate(model, samples, PRECISIONS["w4a16kv8"], rounding="nearest")[
        "activations"
    ]
    rows = {}
    for name in ("key_rows", "value_rows"):
        encoding = Encoding(**activations[f"{ATTENTION}.{name}"])
        assert (encoding.bits, encoding.zero_point) == (8, 128)
        model.get_submodule(f"{ATTENTION}.{name}").register_forward_hook(
            lambda _, __, output, e=encoding: rows.setdefault(e, output)
        )
    samples[0](model)
    for encoding, real in rows.items():
        steps = quantize_affine(real.numpy(), encoding).astype(int) - encoding.zero_point
        assert np.unique(steps).size > 20
        np.testing.assert_array_equal(steps.astype(np.float32) * np.float32(encoding.scale), real)
        # Calibrated on this very sample: the largest value takes the last integer.
        assert np.abs(steps).max() <= 127


def test_symmetric_wins_over_a_range_of_one_sign(model: VLM, samples: list[Sample]) -> None:
    symmetric = replace(PRECISIONS["w8a16"], symmetric=("*.silu",))
    activations = calibrate(model, samples, symmetric, rounding="nearest")["activations"]
    middles = {a["zero_point"] for path, a in activations.items() if path.endswith(".silu")}
    assert middles == {1 << 15}
    assert {a["zero_point"] for p, a in activations.items() if p.endswith(".gate")} != {1 << 15}


def test_w4a16full_has_4_bits_wherever_there_is_something_to_gain(model: VLM) -> None:
    quantize(model, PRECISIONS["w4a16full"])
    bits = {path: q.bits for path, module, q in weight_quantizers(model) if _matrix(module, q)}
    kept = ("dw_start.conv", "dw_mid.conv", "down_conv", "conv_stem.conv", "embed_tokens")
    kept += ("layers.0.conv.conv", "layers.2.conv.conv")
    assert {p for p, b in bits.items() if b == 8} == {p for p in bits if p.endswith(kept)}
    assert bits["vision_encoder.blocks.2.1.attn.output.proj"] == 4
    assert bits["projector.linear_2"] == 4
    assert set(bits.values()) == {4, 8}


def _matrix(module: nn.Module, quantizer: WeightQuantizer) -> bool:
    return module.get_parameter(quantizer.parameter).ndim > 1


@pytest.mark.parametrize("name", ["SA8295P", "SA8775P"])
@pytest.mark.parametrize("form", ["1x1", "", "1x1 bias"])
def test_chips_take_convolutions_of_w4a16full(name: str, form: str) -> None:
    assert legal(find_chip(name), "Conv", "w4a16", variant=form, rank=4).accepted


def test_block_weights_are_left_out_because_chips_refuse_them() -> None:
    for name in ("SA8295P", "SA8775P"):
        for rank in (2, 3, 4):
            said = legal(find_chip(name), "MatMul", "w4a16/block64", rank=rank)
            assert said.accepted is False


def test_w8a8_is_wide_where_a_chip_or_the_numbers_want_it(
    model: VLM, samples: list[Sample]
) -> None:
    chip = find_chip("SA8295P")
    assert legal(chip, "Conv", "w8a8", variant="1x1", rank=4).accepted
    assert legal(chip, "RMSNormalization", "u8a8", rank=4).accepted is False
    activations = calibrate(model, samples, PRECISIONS["w8a8"], rounding="nearest")["activations"]
    bits = {path: encoding["bits"] for path, encoding in activations.items()}
    for path, module in model.named_modules():
        if isinstance(module, RMSNorm):
            assert bits[path] == 16, path
        if isinstance(module, nn.Conv2d | nn.Conv1d | Gelu | Softmax):
            assert bits[path] == 8, path
    for name in ("key_rows", "keys", "value_rows", "values"):
        assert activations[f"{ATTENTION}.{name}"]["zero_point"] == 128
    assert bits["language_model.model.layers.0.conv.window"] == 8
    for name in ("mask", "layers.1.self_attn.mask_add", "layers.0.operator_add"):
        assert bits[f"language_model.model.{name}"] == 16


def test_a_mixed_cache_is_tied_layer_by_layer(model: VLM) -> None:
    base = PRECISIONS["w8a16"]
    rules = tuple(Rule(f"{ATTENTION}.{name}", 8) for name in ("key_rows", "keys"))
    mixed = replace(base, activations=(*rules, *base.activations))
    quantize(model, mixed)
    found = dict(output_quantizers(model))
    at = {path.removeprefix(f"{ATTENTION}."): q for path, q in found.items()}
    assert at["key_rows"] is at["keys"] is not at["k_rotary.add"]
    assert at["v_proj"] is at["value_rows"] is at["values"]
    assert (at["keys"].bits, at["keys"].symmetric) == (8, True)
    assert (at["k_rotary.add"].bits, at["values"].bits) == (16, 16)
    assert not at["values"].symmetric


def test_a_window_narrower_than_its_gate_is_not_tied_to_it(model: VLM) -> None:
    base, window = PRECISIONS["w8a16"], "language_model.model.layers.0.conv.window"
    quantize(model, replace(base, activations=(Rule(window, 8), *base.activations)))
    found = dict(output_quantizers(model))
    gate = found["language_model.model.layers.0.conv.gate_in"]
    assert (gate.bits, found[window].bits) == (16, 8)
    assert (
        found["language_model.model.layers.2.conv.window"]
        is found["language_model.model.layers.2.conv.gate_in"]
    )


def test_half_an_edit_of_a_cache_is_refused(model: VLM) -> None:
    base = PRECISIONS["w4a16kv8"]
    edited = replace(base, activations=(Rule(f"{ATTENTION}.keys", 16), *base.activations))
    with pytest.raises(UserError, match=r"key_rows has 8 bits and .*keys 16, but they share one"):
        quantize(model, edited)


@pytest.mark.parametrize("key", ["weights", "activations"])
def test_a_rule_for_a_module_that_is_not_there_is_refused(key: str, model: VLM) -> None:
    rules = (Rule("language_model.model.layers.9.w2", 8), *getattr(PRECISIONS["w4a16"], key))
    with pytest.raises(UserError, match=rf"{key}: no module language_model\.model\.layers\.9\.w2"):
        quantize(model, replace(PRECISIONS["w4a16"], **{key: rules}))


@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=lambda p: p.name)
def test_a_precision_survives_its_file(precision: Precision, tmp_path: Path) -> None:
    path = tmp_path / "precision.json"
    save_precision(path, precision)
    assert load_precision(path) == precision
    assert find_precision(path) == precision
    assert find_precision(precision.name) is precision


Edit = Callable[[dict], object]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["weights"][1].update(bits=5), r"weights\[1\]: bits: 5 is not one of 4, 8"),
        (lambda d: d["weights"][0].update(bits=True), r"weights\[0\]: bits: True"),
        (lambda d: d["activations"][2].update(bits=4), r"activations\[2\]: bits: 4 is not one of"),
        (lambda d: d["weights"][0].pop("pattern"), r"weights\[0\]: pattern: is missing"),
        (lambda d: d["weights"][0].update(pattern=7), r"weights\[0\]: pattern: expected a text"),
        (lambda d: d.pop("name"), "name: is missing"),
        (lambda d: d.update(colour="red"), "colour: no such key; one of name, weights"),
        (lambda d: d.update(weights={}), "weights: expected a list"),
        (lambda d: d.update(observer="eyes"), "observer: 'eyes' is not one of minmax"),
        (lambda d: d["fixed"][0].update(maximum=-1), r"fixed\[0\]: maximum: expected a number"),
        (lambda d: d["fixed"][0].update(signed=1), r"fixed\[0\]: signed: expected true or false"),
        (lambda d: d["ties"].append("a"), r"ties\[4\]: expected a list"),
        (lambda d: d["mask"].pop("scores"), "mask: scores: is missing"),
    ],
)
def test_an_edited_file_names_the_key_at_fault(edit: Edit, message: str, tmp_path: Path) -> None:
    path, data = tmp_path / "precision.json", PRECISIONS["w4a16"].to_dict()
    edit(data)
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=message) as caught:
        load_precision(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_precision_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "precision.json"
    for text, message in (("{", "not JSON"), ("[1]", "expected an object")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            load_precision(path)
    with pytest.raises(UserError, match="expected one of w4a16, .*, or a file"):
        find_precision(tmp_path / "nothing.json")
    with pytest.raises(UserError, match="No such file"):
        load_precision(tmp_path / "nothing.json")
