"""Pruning: what goes is what matters least, what stays computes what it did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autoneural.checkpoint import load_checkpoint
from autoneural.compress.derive import build_model, open_float, save_derived
from autoneural.compress.fake_quant import quantize
from autoneural.compress.importance import next_token_loss, taylor_scores
from autoneural.compress.input_statistics import mean_squares
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.prune import prune
from autoneural.compress.quantize import Sample
from autoneural.compress.widths import WIDTH_PARTS, find_widths
from autoneural.config import ModelConfig, ViTConfig
from autoneural.errors import UserError
from autoneural.model.vlm import VLM, num_parameters

LAYERS = "language_model.model.layers"
# What the first layer adds to the residual stream.
WRITERS = (f"{LAYERS}.0.conv.out_proj.weight", f"{LAYERS}.0.feed_forward.w2.weight")


def vit(config: ModelConfig) -> VLM:
    encoder = ViTConfig(
        image_size=64,
        patch_size=16,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
    )
    torch.manual_seed(0)
    return VLM(replace(config, vision=encoder)).eval().requires_grad_(False)


def silence_every_second_unit(model: VLM, part: str) -> None:
    """Its rows and its columns: nothing comes in, nothing would get out."""
    state = model.state_dict()
    for width in find_widths(model, [part]):
        for path in width.rows:
            for name in {f"{path}.weight", f"{path}.bias"} & state.keys():
                state[name].unflatten(0, (width.units, -1))[::2] = 0
        state[f"{width.consumer}.weight"].unflatten(1, (width.units, -1))[:, ::2] = 0


@pytest.mark.parametrize("importance", ["activation", "taylor"])
@pytest.mark.parametrize("part", WIDTH_PARTS)
def test_the_function_is_kept_where_nothing_was_lost(
    model: VLM, samples: list[Sample], part: str, importance: Any
) -> None:
    silence_every_second_unit(model, part)
    small, config, record = prune(
        model, model.config, samples, ratio=0.5, parts=[part], importance=importance, tile=1
    )
    units = record["units"]
    assert units
    assert all(2 * after == before for before, after in units.values())
    assert config == small.config != model.config
    assert num_parameters(small) == record["parameters"][1] < num_parameters(model)
    for sample in samples:
        torch.testing.assert_close(sample(small), sample(model), rtol=1e-3, atol=1e-4)


def test_the_function_of_a_vit_is_kept(config: ModelConfig, samples: list[Sample]) -> None:
    model = vit(config)
    silence_every_second_unit(model, "vision")
    small, _, record = prune(
        model, model.config, samples, ratio=0.5, parts=["vision", "blocks"], tile=1
    )
    # One of three blocks went whole, of the others the half that does nothing.
    assert small.config.vision.num_hidden_layers == 2  # pyright: ignore[reportAttributeAccessIssue]
    assert small.config.vision.intermediate_sizes == (16, 16)  # pyright: ignore[reportAttributeAccessIssue]
    assert len(record["dropped"]) == 1
    assert torch.isfinite(samples[0](small)).all()


def test_blocks_that_do_nothing_go_and_the_others_move_up(
    model: VLM, samples: list[Sample]
) -> None:
    for name in (*WRITERS, "vision_encoder.blocks.2.1.layer_scale.gamma"):
        model.get_parameter(name).zero_()
    small, config, record = prune(
        model, model.config, samples, ratio=0.5, parts=["layers", "blocks"]
    )
    assert list(record["dropped"]) == [f"{LAYERS}.0", "vision_encoder.blocks.2.1"]
    assert max(record["dropped"].values()) < 1e-5
    assert config.text.layer_types == ("full_attention", "conv")
    assert [len(stage) for stage in config.vision.stages] == [1, 1, 1, 2]  # pyright: ignore[reportAttributeAccessIssue]
    for sample in samples:
        torch.testing.assert_close(sample(small), sample(model), rtol=1e-4, atol=1e-5)


def test_a_layer_goes_with_its_own_widths_and_ranks(
    config: ModelConfig, samples: list[Sample]
) -> None:
    text = replace(config.text, intermediate_sizes=(32, 48, 64), key_value_heads=(0, 1, 0))
    ranks = {f"{LAYERS}.0.feed_forward.w1": 8, f"{LAYERS}.2.feed_forward.w2": 16}
    torch.manual_seed(0)
    model = VLM(replace(config, text=text, ranks=ranks)).eval().requires_grad_(False)
    for name in WRITERS:
        model.get_parameter(name).zero_()
    small, found, _ = prune(model, model.config, samples, ratio=0.4, parts=["layers"])
    assert found.text.intermediate_sizes == (48, 64)
    assert found.text.key_value_heads == (1, 0)
    assert found.ranks == {f"{LAYERS}.1.feed_forward.w2": 16}
    torch.testing.assert_close(samples[0](small), samples[0](model), rtol=1e-4, atol=1e-5)


def test_factorised_layers_are_pruned_too(config: ModelConfig, samples: list[Sample]) -> None:
    mlp = f"{LAYERS}.0.feed_forward"
    torch.manual_seed(0)
    ranks = {f"{mlp}.w1": 16, f"{mlp}.w2": 16, "projector.linear_1": 16}
    model = VLM(replace(config, ranks=ranks)).eval().requires_grad_(False)
    for part in ("mlp", "projector"):
        silence_every_second_unit(model, part)
    small, _, _ = prune(model, model.config, samples, ratio=0.5, parts=["mlp", "projector"], tile=1)
    assert small.get_parameter(f"{mlp}.w1.up.weight").shape == (32, 16)
    assert small.get_parameter(f"{mlp}.w2.down.weight").shape == (16, 32)
    torch.testing.assert_close(samples[0](small), samples[0](model), rtol=1e-4, atol=1e-5)


def test_the_units_that_matter_stay(model: VLM, samples: list[Sample]) -> None:
    w2 = model.get_parameter(f"{LAYERS}.1.feed_forward.w2.weight")
    loud = torch.arange(3, 64, 4)
    w2[:, loud] *= 50
    expected = w2[:, loud].clone()
    small, _, _ = prune(model, model.config, samples, ratio=0.49, parts=["mlp"], tile=16)
    left = small.get_parameter(f"{LAYERS}.1.feed_forward.w2.weight")
    assert left.shape[1] < 64
    for column in expected.T:
        assert bool(torch.eq(left, column[:, None]).all(0).any())


def test_widths_stay_on_tiles_and_the_ratio_is_met(model: VLM, samples: list[Sample]) -> None:
    _, config, record = prune(model, model.config, samples, ratio=0.25, parts=["mlp"], tile=16)
    assert all(width % 16 == 0 for width in config.text.intermediate_sizes)
    assert sum(config.text.intermediate_sizes) == 0.75 * 3 * 64
    assert min(config.text.intermediate_sizes) >= 32
    _, config, record = prune(model, model.config, samples, ratio=0.4, parts=["vision"], tile=32)
    for before, after in record["units"].values():
        assert after == before or after % 32 == 0


def test_taylor_is_the_slope_of_the_loss(model: VLM, samples: list[Sample]) -> None:
    """Against a finite difference: one unit of the decoder, its column a hair smaller."""
    sample, unit = samples[0], 5
    widths = find_widths(model, ["mlp"])
    scores = taylor_scores(model, widths, [sample], next_token_loss)
    before, step = float(next_token_loss(model.double(), _double(sample))), 1e-4
    column = model.get_parameter(f"{LAYERS}.1.feed_forward.w2.weight")[:, unit]
    column *= 1 - step
    change = (float(next_token_loss(model, _double(sample))) - before) / step
    assert float(scores[f"{LAYERS}.1.feed_forward"][unit]) == pytest.approx(abs(change), rel=1e-2)


def _double(sample: Sample) -> Sample:
    pixels = sample.pixels_BCHW
    return replace(sample, pixels_BCHW=None if pixels is None else pixels.double() / 255)


def test_mean_squares_are_those_of_the_inputs(model: VLM, samples: list[Sample]) -> None:
    paths = ["vision_encoder.pixels", "vision_encoder.conv_stem.conv"]
    pixels = [s.pixels_BCHW for s in samples if s.pixels_BCHW is not None]
    found = mean_squares(model, paths[1:], samples)[paths[1]]
    padded = [torch.nn.functional.pad(x.double() / 255, (0, 1, 0, 1)) for x in pixels]
    expected = torch.cat(padded).square().mean((0, 2, 3))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_a_pruned_model_is_a_plain_checkpoint(
    float_checkpoint: Path, samples: list[Sample], tmp_path: Path
) -> None:
    source = open_float(float_checkpoint)
    small, config, record = prune(
        source.model(), source.config, samples, ratio=0.4, parts=["mlp", "attention"], tile=8
    )
    out = tmp_path / "small"
    facts = {"stage": "prune", **record}
    save_derived(out, small.state_dict(), config, source, facts, exact=True)
    read = load_checkpoint(out)
    assert read.config == config
    assert read.recipe["units"] == record["units"]
    again = build_model(read.config, read.state_dict, out)
    assert torch.equal(samples[0](again), samples[0](small))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"ratio": 0.0}, "ratio 0.0: not between 0 and 1"),
        ({"ratio": 1.0}, "ratio 1.0: not between 0 and 1"),
        ({"parts": ["mlp", "ears"]}, "'mlp, ears': choose from mlp, attention"),
        ({"parts": []}, "choose from mlp"),
        ({"importance": "luck"}, "importance 'luck': expected activation or taylor"),
        ({"tile": 0}, "tile 0"),
        ({"runs": []}, "calibration: no samples"),
        ({"tile": 64}, "nothing to prune at ratio 0.25: no width has a tile of 64 to spare"),
        ({"parts": ["layers"]}, "layers: 25% of 3 is less than one"),
    ],
)
def test_refusals_are_one_line(
    model: VLM, samples: list[Sample], options: dict[str, Any], complaint: str
) -> None:
    given = {"runs": samples, "parts": ["mlp"], **options}
    with pytest.raises(UserError, match=complaint) as caught:
        prune(model, model.config, given.pop("runs"), **given)
    assert "\n" not in str(caught.value)


def test_taylor_needs_a_loss_for_runs_of_its_own(model: VLM, samples: list[Sample]) -> None:
    def run(model: Any) -> object:
        return samples[0](model)

    with pytest.raises(UserError, match="taylor: needs samples of a conversation, or a `loss`"):
        prune(model, model.config, [run], parts=["mlp"], importance="taylor", tile=16)


def test_what_the_model_does_not_have_is_refused(
    config: ModelConfig, samples: list[Sample]
) -> None:
    model = vit(config)
    with pytest.raises(UserError, match="parts: heads: unit has none"):
        prune(model, model.config, samples, parts=["heads"])


def test_a_quantised_model_is_refused(model: VLM, samples: list[Sample]) -> None:
    quantize(model, PRECISIONS["w4a16"])
    with pytest.raises(UserError, match="is quantised already"):
        prune(model, model.config, samples)


def test_a_part_that_no_sample_reaches_is_refused(model: VLM, samples: list[Sample]) -> None:
    text_only = [s for s in samples if s.pixels_BCHW is None]
    with pytest.raises(UserError, match="vision_encoder.*: no sample reached it"):
        prune(model, model.config, text_only, parts=["vision"], tile=8)
