"""LFM2 decoder: gated short convolutions and grouped-query attention, with explicit state.

    layer   h = x + op(norm(x)),  y = h + w2(silu(w1 n) * w3 n),  n = norm(h)
    conv    b, c, x = in_proj(n);  v = depthwise_causal(b * x);  out_proj(c * v)
    attn    q, k normalised per head, then rotated;  softmax(q k^T / sqrt(d) + mask) v

Written for an NPU: static shapes, rank <= 4, no Einsum; masks and rotary tables are inputs, past
tokens come first. Parameter names are LFM2's. Shape suffixes: see `layers.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from autoneural.config import TextConfig
from autoneural.model.layers import (
    Add,
    Concat,
    MatMul,
    Mul,
    Range,
    RMSNorm,
    Rotary,
    Scale,
    Sigmoid,
    Softmax,
)
from autoneural.model.state import DecoderState, LayerState

MASK_VALUE = -1e4  # additive; exp of it is 0 in fp32, and it leaves a 16-bit range usable


def rotary_tables(config: TextConfig, positions_T: Tensor) -> tuple[Tensor, Tensor]:
    """cos, sin [1,1,T,d] in fp32; `sin` carries the sign of rotate-half (first half negative)."""
    exponents = torch.arange(0, config.head_dim, 2, device=positions_T.device) / config.head_dim
    angles = positions_T[:, None].float() / config.rope_theta**exponents
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1)[None, None], torch.cat((-sin, sin), -1)[None, None]


def causal_mask(
    width: int, committed: int = 0, context: int = 0, device: torch.device | str | None = None
) -> Tensor:
    """[1,1,T,C+T], 0 where attended: the committed past slots, then the new tokens so far."""
    past = torch.arange(context, device=device).expand(width, context) >= committed
    new = torch.ones(width, width, dtype=torch.bool, device=device).triu(1)
    return torch.cat((past, new), -1).float()[None, None] * MASK_VALUE


class ShortConv(nn.Module):
    """Gated depthwise causal convolution over the last `conv_L_cache` tokens."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.in_proj = nn.Linear(width, 3 * width, bias=False)
        self.gate_in = Mul()
        self.window = Concat(dim=2)
        self.conv = nn.Conv1d(width, width, config.conv_L_cache, groups=width, bias=False)
        self.gate_out = Mul()
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x_BTD: Tensor, past_BDL: Tensor) -> tuple[Tensor, Tensor]:
        b_BDT, c_BDT, x_BDT = self.in_proj(x_BTD).transpose(1, 2).chunk(3, dim=1)
        window_BDT = self.window(past_BDL, self.gate_in(b_BDT, x_BDT))
        y_BDT = self.gate_out(c_BDT, self.conv(window_BDT))
        return self.out_proj(y_BDT.transpose(1, 2)), window_BDT


class Attention(nn.Module):
    """Grouped-query attention over past and new tokens; returns the new keys and values only."""

    def __init__(self, config: TextConfig, kv_heads: int) -> None:
        super().__init__()
        width, head_dim = config.hidden_size, config.head_dim
        self.head_dim = head_dim
        self.num_heads = config.num_attention_heads // config.num_key_value_heads * kv_heads
        self.num_kv_heads = kv_heads
        self.q_proj = nn.Linear(width, self.num_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, self.num_kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, self.num_kv_heads * head_dim, bias=False)
        self.q_layernorm = RMSNorm(head_dim, config.norm_eps)
        self.k_layernorm = RMSNorm(head_dim, config.norm_eps)
        self.q_rotary = Rotary()
        self.k_rotary = Rotary()
        self.scale = Scale(head_dim**-0.5)
        self.key_rows = Range()
        self.value_rows = Range()
        self.keys = Concat(dim=2)
        self.values = Concat(dim=2)
        self.scores = MatMul()
        self.mask_add = Add()
        self.softmax = Softmax()
        self.mix = MatMul()
        self.out_proj = nn.Linear(self.num_heads * head_dim, width, bias=False)

    def forward(
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_B1TS: Tensor, past: LayerState
    ) -> tuple[Tensor, LayerState]:
        batch, tokens, _ = x_BTD.shape
        q_BThd = self.q_layernorm(self.q_proj(x_BTD).view(batch, tokens, -1, self.head_dim))
        k_BThd = self.k_layernorm(self.k_proj(x_BTD).view(batch, tokens, -1, self.head_dim))
        v_BhTd = self.v_proj(x_BTD).view(batch, tokens, -1, self.head_dim).transpose(1, 2)
        q_BhTd = self.scale(self.q_rotary(q_BThd.transpose(1, 2), *rotary))
        # What the cache is given: its own encoding, where that is not the one of the computation.
        k_BhTd = self.key_rows(self.k_rotary(k_BThd.transpose(1, 2), *rotary))
        v_BhTd = self.value_rows(v_BhTd)
        keys_BhSd = self.keys(past[0], k_BhTd)
        values_BhSd = self.values(past[1], v_BhTd)
        y_BhTd = self._attend(q_BhTd, keys_BhSd, values_BhSd, mask_B1TS)
        y_BTD = y_BhTd.transpose(1, 2).reshape(batch, tokens, -1)
        return self.out_proj(y_BTD), (k_BhTd, v_BhTd)

    def _attend(self, q_BhTd: Tensor, k_BhSd: Tensor, v_BhSd: Tensor, mask_B1TS: Tensor) -> Tensor:
        # The query heads of one key head are stacked as rows, so keys are never repeated.
        batch, _, tokens, _ = q_BhTd.shape
        grouped_BhTd = q_BhTd.reshape(batch, self.num_kv_heads, -1, self.head_dim)
        scores_BhTS = self.scores(grouped_BhTd, k_BhSd.transpose(2, 3))
        scores_BhTS = scores_BhTS.view(batch, self.num_heads, tokens, -1)
        weights_BhTS = self.softmax(self.mask_add(scores_BhTS, mask_B1TS))
        grouped_BhTS = weights_BhTS.view(batch, self.num_kv_heads, -1, k_BhSd.shape[2])
        return self.mix(grouped_BhTS, v_BhSd).view(batch, self.num_heads, tokens, -1)


class FeedForward(nn.Module):
    """w2(silu(w1 x) * w3 x)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)
        self.sigmoid = Sigmoid()
        self.silu = Mul()
        self.gate = Mul()

    def forward(self, x_BTD: Tensor) -> Tensor:
        up_BTD = self.w1(x_BTD)
        act_BTD = self.silu(up_BTD, self.sigmoid(up_BTD))
        return self.w2(self.gate(act_BTD, self.w3(x_BTD)))


class DecoderLayer(nn.Module):
    """Short convolution or attention, then the feed-forward, each behind a norm and a skip."""

    def __init__(self, config: TextConfig, layer: int) -> None:
        super().__init__()
        self.is_conv = config.layer_types[layer] == "conv"
        if self.is_conv:
            self.conv = ShortConv(config)
        else:
            self.self_attn = Attention(config, config.kv_heads(layer))
        self.feed_forward = FeedForward(config.hidden_size, config.mlp_width(layer))
        self.operator_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.ffn_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.operator_add = Add()
        self.ffn_add = Add()

    def forward(
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_B1TS: Tensor, past: LayerState
    ) -> tuple[Tensor, LayerState]:
        normed_BTD = self.operator_norm(x_BTD)
        if self.is_conv:
            y_BTD, window_BDT = self.conv(normed_BTD, past[0])
            new: LayerState = (window_BDT,)
        else:
            y_BTD, new = self.self_attn(normed_BTD, rotary, mask_B1TS, past)
        x_BTD = self.operator_add(x_BTD, y_BTD)
        return self.ffn_add(x_BTD, self.feed_forward(self.ffn_norm(x_BTD))), new


class Decoder(nn.Module):
    """Embedding table, layers and closing norm: `model.*` of an LFM2 checkpoint."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.inputs_embeds = Range()
        self.cos = Range()
        self.sin = Range()
        self.mask = Range()
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.embedding_norm = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(
        self,
        inputs_embeds_BTD: Tensor,
        cos_11Td: Tensor,
        sin_11Td: Tensor,
        mask_B1TS: Tensor,
        state: DecoderState,
    ) -> tuple[Tensor, DecoderState]:
        x_BTD = self.inputs_embeds(inputs_embeds_BTD)
        rotary = (self.cos(cos_11Td), self.sin(sin_11Td))
        mask_B1TS = self.mask(mask_B1TS)
        new: list[LayerState] = []
        for layer, past in zip(self.layers, state.layers, strict=True):
            x_BTD, layer_state = layer(x_BTD, rotary, mask_B1TS, past)
            new.append(layer_state)
        return self.embedding_norm(x_BTD), DecoderState(new)


class LanguageModel(nn.Module):
    """The decoder and its head, which is the embedding table unless the config unties them.

    `state_dict` holds the tied matrix once, as `model.embed_tokens.weight`; loading accepts
    `lm_head.weight` beside it, which is how transformers keeps it in memory.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.reset_parameters()
        if config.tie_word_embeddings:
            self.tie_weights()
        self.register_state_dict_post_hook(_drop_tied_head)
        self.register_load_state_dict_pre_hook(_fill_tied_head)
        self.register_load_state_dict_post_hook(_retie)

    def reset_parameters(self) -> None:
        """Linears normal with std 1/sqrt(fan in), less for those that write to the residual."""
        depth = (2 * self.config.num_hidden_layers) ** -0.5
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Linear):
                last = name.endswith(("out_proj", "w2"))
                std = module.in_features**-0.5 * (depth if last else 1.0)
                nn.init.normal_(module.weight, std=std)
        nn.init.normal_(self.model.embed_tokens.weight, std=0.02)

    @property
    def is_tied(self) -> bool:
        """Whether the head is the embedding table."""
        head = self.lm_head
        return isinstance(head, nn.Linear) and head.weight is self.model.embed_tokens.weight

    def tie_weights(self) -> None:
        """Make the head use the embedding table."""
        self.lm_head.weight = self.model.embed_tokens.weight

    def decode(
        self,
        inputs_embeds_BTD: Tensor,
        cos_11Td: Tensor,
        sin_11Td: Tensor,
        mask_B1TS: Tensor,
        state: DecoderState,
    ) -> tuple[Tensor, DecoderState]:
        """The core that is exported: hidden states [B,T,D] after the closing norm, new state."""
        return self.model(inputs_embeds_BTD, cos_11Td, sin_11Td, mask_B1TS, state)

    def forward(self, inputs_embeds_BTD: Tensor) -> Tensor:
        """Hidden states [B,T,D] of whole sequences, nothing before them; pad on the right."""
        batch, tokens, _ = inputs_embeds_BTD.shape
        device = inputs_embeds_BTD.device
        state = DecoderState.zeros(
            self.config, batch, 0, dtype=_compute_dtype(inputs_embeds_BTD), device=device
        )
        cos_11Td, sin_11Td = rotary_tables(self.config, torch.arange(tokens, device=device))
        mask_11TS = causal_mask(tokens, device=device)
        return self._decode_as(inputs_embeds_BTD, cos_11Td, sin_11Td, mask_11TS, state)[0]

    def extend(
        self, inputs_embeds_BTD: Tensor, state: DecoderState, position: int, count: int
    ) -> Tensor:
        """Run a chunk at `position` and commit its first `count` tokens (the rest is padding).

        Returns the hidden states [B,count,D]; `state` is updated in place.
        """
        tokens, device = inputs_embeds_BTD.shape[1], inputs_embeds_BTD.device
        context = next((layer[0].shape[2] for layer in state.layers if len(layer) == 2), 0)
        positions = torch.arange(position, position + tokens, device=device)
        mask_11TS = causal_mask(tokens, position, context, device)
        cos_11Td, sin_11Td = rotary_tables(self.config, positions)
        hidden_BTD, new = self._decode_as(inputs_embeds_BTD, cos_11Td, sin_11Td, mask_11TS, state)
        state.commit(new, position, count)
        return hidden_BTD[:, :count]

    def _decode_as(
        self,
        x_BTD: Tensor,
        cos_11Td: Tensor,
        sin_11Td: Tensor,
        mask_11TS: Tensor,
        past: DecoderState,
    ) -> tuple[Tensor, DecoderState]:
        # A mask or table wider than the weights would lift keys to fp32 and values not.
        dtype = x_BTD.dtype
        return self.decode(x_BTD, cos_11Td.to(dtype), sin_11Td.to(dtype), mask_11TS.to(dtype), past)


def _compute_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def _drop_tied_head(module: Any, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    if module.is_tied:
        state_dict.pop(f"{prefix}lm_head.weight", None)


def _fill_tied_head(module: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    embedding = state_dict.get(f"{prefix}model.embed_tokens.weight")
    if module.is_tied and embedding is not None:
        state_dict.setdefault(f"{prefix}lm_head.weight", embedding)


def _retie(module: Any, _: Any) -> None:
    # load_state_dict(assign=True) gives the two names a parameter each, over the same data.
    head, embedding = module.lm_head, module.model.embed_tokens.weight
    if isinstance(head, nn.Linear) and head.weight.data_ptr() == embedding.data_ptr():
        module.tie_weights()
