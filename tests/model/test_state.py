"""The decoder's state: shapes, names, what a commit keeps."""

from __future__ import annotations

import torch

from autoneural.config import TextConfig
from autoneural.model.state import DecoderState

CONFIG = TextConfig(
    hidden_size=8,
    layer_types=("conv", "full_attention"),
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=4,
)


def test_names_go_with_tensors() -> None:
    state = DecoderState.zeros(CONFIG, batch=2, context=5)
    assert dict(
        zip(
            DecoderState.past_names(CONFIG),
            (tuple(tensor.shape) for tensor in state.tensors()),
            strict=True,
        )
    ) == {
        "past_conv.0": (2, 8, 2),
        "past_key_values.1.key": (2, 1, 5, 4),
        "past_key_values.1.value": (2, 1, 5, 4),
    }
    assert DecoderState.present_names(CONFIG) == [
        "conv_window.0",
        "present.1.key",
        "present.1.value",
    ]


def test_from_tensors_is_the_inverse_of_tensors() -> None:
    state = DecoderState.zeros(CONFIG, batch=1, context=3)
    again = DecoderState.from_tensors(CONFIG, state.tensors())
    assert [[id(t) for t in layer] for layer in again.layers] == [
        [id(t) for t in layer] for layer in state.layers
    ]


def test_commit_keeps_the_counted_tokens_only() -> None:
    state = DecoderState.zeros(CONFIG, batch=1, context=6)
    window = torch.arange(6.0).expand(1, 8, 6)  # two past columns, four new ones
    rows = torch.arange(1.0, 5.0)[:, None].expand(1, 1, 4, 4)
    state.commit(DecoderState([(window,), (rows, -rows)]), position=1, count=3)
    conv, key, value = state.tensors()
    assert conv[0, 0].tolist() == [3, 4]
    assert key[0, 0, :, 0].tolist() == [0, 1, 2, 3, 0, 0]
    assert value[0, 0, :, 0].tolist() == [0, -1, -2, -3, 0, 0]
