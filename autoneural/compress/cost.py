"""What a configuration costs: parameters, stored bytes, multiply-accumulates of its three steps.

    cost(config, PRECISIONS["w4a16"], prompt=128, context=1024)

Counted on the model itself (shapes only, no memory), never by a second formula for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from autoneural.compress.precision import VECTOR_BITS, Precision, bits_for
from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.model.language_model import causal_mask, rotary_tables
from autoneural.model.state import DecoderState
from autoneural.model.vlm import VLM, count_macs, num_parameters

_SCALE_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Cost:
    """MACs: of one picture, of a prompt into an empty context, of one token at a full context.

    Prefill and decode include the head, once. `weight_bytes` is what model.safetensors holds.
    """

    parameters: int
    weight_bytes: int
    encode_macs: int
    prefill_macs: int
    decode_macs: int


def cost(
    config: ModelConfig,
    precision: Precision | None = None,
    *,
    prompt: int = 128,
    context: int | None = None,
) -> Cost:
    """The cost of a model of `config` in `precision` (None: bf16, as float checkpoints are stored).

    `context`: positions before the decoded token, as many as the model has if None. Raises
    UserError when prompt or context do not fit the model's positions.
    """
    most = config.text.max_position_embeddings
    context = most if context is None else context
    if not (0 < prompt <= most and 0 <= context <= most):
        raise UserError(f"cost: prompt {prompt}, context {context}: the model has {most} positions")
    with torch.device("meta"):
        model = VLM(config).eval()
    return Cost(
        parameters=num_parameters(model),
        weight_bytes=sum(weight_bytes(model, precision).values()),
        encode_macs=encode_macs(model),
        prefill_macs=decoder_macs(model, prompt, 0),
        decode_macs=decoder_macs(model, 1, context),
    )


def weight_bytes(model: nn.Module, precision: Precision | None = None) -> dict[str, int]:
    """Module path -> bytes of its own parameters, scales included; a tied matrix counts once."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                size = _parameter_bytes(path, name, parameter.shape, precision)
                found[path] = found.get(path, 0) + size
    return found


def _parameter_bytes(
    path: str, name: str, shape: Sequence[int], precision: Precision | None
) -> int:
    if precision is None:
        return 2 * prod(shape)
    if name == "bias":
        return 4 * prod(shape)
    return stored_bytes(
        shape, VECTOR_BITS if len(shape) == 1 else bits_for(precision.weights, path)
    )


def stored_bytes(shape: Sequence[int], bits: int | None) -> int:
    """Bytes of a weight [out, ...] and its fp32 scales: a row of 4 bits is whole bytes.

    Weights of 16 bits have one scale, others one for each row; without bits it is fp32.
    """
    if bits is None:
        return 4 * prod(shape)
    if bits == VECTOR_BITS:
        return 2 * prod(shape) + _SCALE_BYTES
    return shape[0] * (-(-prod(shape[1:]) * bits // 8) + _SCALE_BYTES)


@torch.no_grad()
def encode_macs(model: VLM) -> int:
    """Multiply-accumulates from the pixels of one picture to its visual tokens."""
    size = model.config.vision.image_size
    with count_macs(model) as counts:
        model.image_features(torch.zeros(1, 3, size, size, device=_device(model)))
    return sum(counts)


@torch.no_grad()
def decoder_macs(model: VLM, tokens: int, context: int) -> int:
    """Multiply-accumulates of `tokens` new positions behind `context` others, and of the head."""
    text, decoder, device = model.config.text, model.language_model, _device(model)
    state = DecoderState.zeros(text, 1, context, device=device)
    positions = torch.arange(context, context + tokens, device=device)
    cos_11Td, sin_11Td = rotary_tables(text, positions)
    embeds_1TD = torch.zeros(1, tokens, text.hidden_size, device=device)
    mask_11TS = causal_mask(tokens, context, context, device)
    with count_macs(model) as counts:
        hidden_1TD, _ = decoder.decode(embeds_1TD, cos_11Td, sin_11Td, mask_11TS, state)
        decoder.lm_head(hidden_1TD[:, -1])
    return sum(counts)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
