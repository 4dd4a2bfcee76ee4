"""The decoder's state, explicit: what goes into a step and what comes out.

    layer        in                                   out (T new tokens)
    conv         past_conv      [B,D,L-1]             conv_window  [B,D,L-1+T]
    attention    key and value  [B,kv,C,d] each       the new rows [B,kv,T,d] each

A step never decides how many of its T tokens count; `commit` does, afterwards. Padded chunks and
rejected drafts therefore cost nothing: their columns and rows are simply not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoneural.config import TextConfig

LayerState = tuple[Tensor, ...]  # (conv,) or (key, value)


@dataclass
class DecoderState:
    """One tuple of tensors per layer: `(conv,)` or `(key, value)`."""

    layers: list[LayerState]

    @classmethod
    def zeros(
        cls,
        config: TextConfig,
        batch: int,
        context: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> DecoderState:
        """The state before the first token, with room for `context` past tokens (0 in training)."""
        conv = (batch, config.hidden_size, config.conv_L_cache - 1)
        layers: list[LayerState] = []
        for layer, kind in enumerate(config.layer_types):
            rows = (batch, config.kv_heads(layer), context, config.head_dim)
            shapes = [conv] if kind == "conv" else [rows, rows]
            layers.append(tuple(torch.zeros(s, dtype=dtype, device=device) for s in shapes))
        return cls(layers)

    @staticmethod
    def past_names(config: TextConfig) -> list[str]:
        """Graph input names, in the order of `tensors`."""
        return _names(config, "past_conv.{}", "past_key_values.{}")

    @staticmethod
    def present_names(config: TextConfig) -> list[str]:
        """Graph output names, in the order of `tensors`."""
        return _names(config, "conv_window.{}", "present.{}")

    @classmethod
    def from_tensors(cls, config: TextConfig, tensors: Sequence[Tensor]) -> DecoderState:
        """Inverse of `tensors`."""
        rest = iter(tensors)
        counts = (1 if kind == "conv" else 2 for kind in config.layer_types)
        return cls([tuple(next(rest) for _ in range(count)) for count in counts])

    def tensors(self) -> list[Tensor]:
        """All tensors, layer by layer, key before value."""
        return [tensor for layer in self.layers for tensor in layer]

    def commit(self, new: DecoderState, position: int, count: int) -> None:
        """Keep, in place, the first `count` tokens of a step that began at `position`.

        Raises ValueError where the context has no room for them.
        """
        for past, fresh in zip(self.layers, new.layers, strict=True):
            if len(past) == 1:
                past[0].copy_(fresh[0][:, :, count : count + past[0].shape[2]])
            else:
                for buffer, rows in zip(past, fresh, strict=True):
                    # A slice beyond the end is empty, and one row would vanish in it unnoticed.
                    if position + count > buffer.shape[2]:
                        raise ValueError(f"position {position} + {count} > {buffer.shape[2]}")
                    buffer[:, :, position : position + count] = rows[:, :, :count]


def _names(config: TextConfig, conv: str, attention: str) -> list[str]:
    names: list[str] = []
    for index, kind in enumerate(config.layer_types):
        if kind == "conv":
            names.append(conv.format(index))
        else:
            prefix = attention.format(index)
            names += [f"{prefix}.key", f"{prefix}.value"]
    return names
