"""Costs against what was counted by hand, and against what is stored."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from autoneural.compress.cost import cost, decoder_macs, encode_macs, stored_bytes, weight_bytes
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import Sample, calibrate, frozen_tensors
from autoneural.config import ModelConfig, TextConfig, ViTConfig
from autoneural.errors import UserError
from autoneural.model.vlm import VLM, num_parameters


@pytest.mark.parametrize(
    ("shape", "bits", "size"),
    [
        ((3, 10), 4, 3 * 5 + 3 * 4),
        ((3, 9), 4, 3 * 5 + 3 * 4),  # an odd row is whole bytes
        ((3, 10), 8, 30 + 12),
        ((8, 2, 3, 3), 8, 144 + 32),
        ((7,), 16, 14 + 4),
        ((3, 10), 16, 60 + 4),
        ((3, 10), None, 120),
    ],
)
def test_stored_bytes(shape: tuple[int, ...], bits: int | None, size: int) -> None:
    assert stored_bytes(shape, bits) == size


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("ranks", [{}, {"language_model.model.layers.1.self_attn.v_proj": 8}])
def test_weight_bytes_are_those_of_the_quantised_checkpoint(
    config: ModelConfig, samples: list[Sample], name: str, ranks: dict[str, int]
) -> None:
    model = VLM(replace(config, ranks=ranks)).eval().requires_grad_(False)
    expected = weight_bytes(model, PRECISIONS[name])
    calibrate(model, samples, PRECISIONS[name], rounding="nearest", snap=False)
    tensors = frozen_tensors(model)
    assert sum(expected.values()) == sum(tensor.nbytes for tensor in tensors.values())
    path = "language_model.model.layers.0.feed_forward.w1"
    stored = [t.nbytes for n, t in tensors.items() if n.startswith(f"{path}.")]
    assert expected[path] == sum(stored)


def test_a_small_model_counted_by_hand() -> None:
    """ViT of one layer, decoder of one attention layer; every product on its own line."""
    config = ModelConfig(
        name="hand",
        vision=ViTConfig(
            image_size=8,
            patch_size=4,
            hidden_size=6,
            intermediate_size=10,
            num_hidden_layers=1,
            num_attention_heads=2,
            unshuffle=2,
        ),
        projector=replace(_projector(), hidden_size=5),
        text=TextConfig(
            hidden_size=8,
            intermediate_size=12,
            layer_types=("full_attention",),
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=4,
            vocab_size=20,
            max_position_embeddings=16,
        ),
    )
    encode = (
        4 * 6 * (3 * 4 * 4)  # patches
        + 4 * 4 * 6 * 6  # q, k, v, out
        + 2 * 4 * 4 * 6  # scores and mix
        + 2 * 4 * 6 * 10  # mlp
        + 24 * 5  # one token of 24 channels into the projector
        + 5 * 8
    )
    token = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 12
    head = 8 * 20

    def attended(tokens: int, past: int) -> int:
        return 2 * tokens * (past + tokens) * 8

    found = cost(config, prompt=3, context=7)
    assert found.encode_macs == encode
    assert found.prefill_macs == 3 * token + attended(3, 0) + head
    assert found.decode_macs == token + attended(1, 7) + head
    assert found.parameters == num_parameters(VLM(config))
    assert found.weight_bytes == 2 * found.parameters


def _projector():
    from autoneural.config import ProjectorConfig

    return ProjectorConfig()


def test_a_model_that_is_there_costs_what_its_config_says(model: VLM) -> None:
    found = cost(model.config, PRECISIONS["w4a16"], prompt=9, context=20)
    assert found.encode_macs == encode_macs(model)
    assert found.prefill_macs == decoder_macs(model, 9, 0)
    assert found.decode_macs == decoder_macs(model, 1, 20)
    assert found.weight_bytes == sum(weight_bytes(model, PRECISIONS["w4a16"]).values())


def test_narrower_and_of_lower_rank_is_cheaper_by_what_was_left_out(config: ModelConfig) -> None:
    text = replace(config.text, intermediate_sizes=(64, 64, 32))
    plain, narrow = cost(config), cost(replace(config, text=text))
    assert plain.decode_macs - narrow.decode_macs == 3 * 32 * 32
    assert plain.parameters - narrow.parameters == 3 * 32 * 32
    low = cost(replace(config, ranks={"language_model.model.layers.0.feed_forward.w1": 8}))
    assert plain.decode_macs - low.decode_macs == 32 * 64 - 8 * (32 + 64)
    assert plain.encode_macs == narrow.encode_macs == low.encode_macs


def test_positions_that_the_model_does_not_have(config: ModelConfig) -> None:
    with pytest.raises(UserError, match="cost: prompt 8, context 500: the model has 128 positions"):
        cost(config, prompt=8, context=500)
    with pytest.raises(UserError, match="prompt 0"):
        cost(config, prompt=0)


def test_a_tied_matrix_is_counted_once() -> None:
    module = nn.ModuleDict({"a": nn.Linear(4, 3, bias=False), "b": nn.Linear(4, 3, bias=False)})
    module["b"].weight = module["a"].weight
    assert weight_bytes(module) == {"a": 24}
    assert torch.equal(module["a"].weight, module["b"].weight)
