"""A model quantised and exported with its matrices on disk is the model quantised in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from autoneural.compress.derive import open_float
from autoneural.compress.precision import PRECISIONS, Rule
from autoneural.compress.quantize import Sample, post_training_quantize
from autoneural.compress.rounding import Rounding
from autoneural.compress.streaming import quantize_streamed, stream_model
from autoneural.errors import UserError
from autoneural.model.placeholders import hollow_model, is_placeholder, may_be_hollow
from tests.conftest import TinyCheckpoint

PRECISION = PRECISIONS["w4a16kv8"]


@pytest.fixture(scope="module")
def samples(tiny_checkpoint: TinyCheckpoint) -> list[Sample]:
    config, image = tiny_checkpoint.model.config, tiny_checkpoint.tokenizer.image_id
    random = torch.Generator().manual_seed(1)
    words = torch.randint(270, 300, (1, 9), generator=random)
    seen = torch.tensor([[image] * config.vision.num_tokens])
    pixels = torch.rand(1, 3, 64, 64, generator=random)
    ids = torch.cat((seen, words), 1)
    return [
        Sample(input_ids_BT=ids, pixels_BCHW=pixels, image_token_id=image),
        Sample(input_ids_BT=words, pixels_BCHW=None, image_token_id=image),
    ]


@pytest.mark.parametrize("rounding", ["nearest", "compensated"])
def test_the_result_is_that_of_the_model_in_memory(
    tiny_checkpoint: TinyCheckpoint, samples: list[Sample], tmp_path: Path, rounding: Rounding
) -> None:
    kinds = {"precision": PRECISION, "rounding": rounding}
    post_training_quantize(tiny_checkpoint.folder, samples, tmp_path / "whole", **kinds)
    source = open_float(tiny_checkpoint.folder)
    quantize_streamed(source, samples, tmp_path / "streamed", **kinds)
    whole, streamed = (tmp_path / name for name in ("whole", "streamed"))
    expected, got = (load_file(f / "model.safetensors") for f in (whole, streamed))
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name
    assert (streamed / "encodings.json").read_text() == (whole / "encodings.json").read_text()


def test_weights_are_in_memory_only_while_their_layer_runs(
    tiny_checkpoint: TinyCheckpoint, samples: list[Sample]
) -> None:
    model = stream_model(open_float(tiny_checkpoint.folder), PRECISION)
    matrices = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and "lm_head" not in path
    }
    resident: list[int] = []
    for module in matrices.values():
        module.register_forward_pre_hook(
            lambda *_: resident.append(sum(not is_placeholder(m.weight) for m in matrices.values()))
        )
    expected = samples[0](open_float(tiny_checkpoint.folder).model())
    torch.testing.assert_close(samples[0](model), expected)
    assert len(resident) >= len(matrices)
    assert set(resident) == {1}
    assert all(is_placeholder(module.weight) for module in matrices.values())


def test_what_is_not_rounded_stays_in_memory(tiny_checkpoint: TinyCheckpoint) -> None:
    kept = "language_model.model.layers.0.feed_forward.w1"
    precision = replace(PRECISION, weights=(Rule(kept, None), *PRECISION.weights))
    model = stream_model(open_float(tiny_checkpoint.folder), precision)
    expected = open_float(tiny_checkpoint.folder).model()
    assert torch.equal(model.get_submodule(kept).weight, expected.get_submodule(kept).weight)


def test_a_missing_vector_is_named(tiny_checkpoint: TinyCheckpoint) -> None:
    config = tiny_checkpoint.model.config
    state = dict(tiny_checkpoint.model.state_dict())
    del state["language_model.model.embedding_norm.weight"]
    with pytest.raises(KeyError, match="embedding_norm"):
        hollow_model(config, state)


def test_the_head_is_hollow_only_where_it_is_its_own(tiny_checkpoint: TinyCheckpoint) -> None:
    names = may_be_hollow(tiny_checkpoint.model.config)
    assert "language_model.lm_head.weight" not in names
    assert "language_model.model.layers.0.feed_forward.w1.weight" in names


def test_what_needs_the_model_twice_is_refused(
    tiny_checkpoint: TinyCheckpoint, samples: list[Sample], tmp_path: Path
) -> None:
    source = open_float(tiny_checkpoint.folder)
    with pytest.raises(UserError, match="sequential.*twice"):
        quantize_streamed(
            source, samples, tmp_path / "q", precision=PRECISION, rounding="sequential"
        )
    with pytest.raises(UserError, match="no samples"):
        quantize_streamed(source, [], tmp_path / "q", precision=PRECISION)
    assert not (tmp_path / "q").exists()
