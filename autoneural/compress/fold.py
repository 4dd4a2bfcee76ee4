"""Norm weights and layer scales folded into the layers beside them, exactly.

    W (g * n(x) + b)  =  (W diag(g)) n(x) + W b        g becomes ones, b zeros
    gamma * (W x)     =  (diag(gamma) W) x             gamma becomes ones

The closing norm of the decoder can only go into a head of its own: `untie_head`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from autoneural.compress.rewrite import (
    Reading,
    Rewrite,
    readings,
    refuse_quantized,
    scale_inputs,
    scale_outputs,
)
from autoneural.model import layers
from autoneural.model import vision_encoder as cnn
from autoneural.model.vlm import VLM


def fold(model: nn.Module) -> Rewrite:
    """Fold every norm that only linears read, and every layer scale, of `model`, in place.

    Raises UserError when the model is quantised.
    """
    refuse_quantized(model)
    found, others = readings(model)
    done = Rewrite(method="fold", skipped=others)
    for reading in found:
        _fold_norm(reading, done)
    for path, block in model.named_modules():
        _fold_layer_scale(path, block, done)
    return done


@torch.no_grad()
def _fold_norm(reading: Reading, done: Rewrite) -> None:
    norm, bias = reading.norm, getattr(reading.norm, "bias", None)
    if isinstance(bias, Tensor) and bool(bias.any()):
        deaf = [path for path, reader in reading.readers.items() if reader.bias is None]
        if deaf:
            done.skipped[reading.path] = f"its bias has nowhere to go: {deaf[0]} has none"
            return
        for reader in reading.readers.values():
            assert isinstance(reader, nn.Linear)
            reader.bias.add_(reader.weight @ bias.repeat(reader.in_features // len(bias)))
        bias.zero_()
    elif bool((norm.weight == 1).all()):
        return
    for reader in reading.readers.values():
        scale_inputs(reader, norm.weight)
    norm.weight.fill_(1.0)
    done.pairs.append((reading.path, tuple(reading.readers)))


@torch.no_grad()
def _fold_layer_scale(path: str, block: nn.Module, done: Rewrite) -> None:
    scale = getattr(block, "layer_scale", None)
    if not isinstance(scale, layers.LayerScale2d) or bool((scale.gamma == 1).all()):
        return
    if isinstance(block, cnn.AttentionBlock):
        target = "attn.output.proj"
        scale_outputs(block.attn.output.proj, scale.gamma)
    elif isinstance(block, cnn.InvertedResidualBlock):
        target = "pw_proj.bn"
        block.pw_proj.bn.weight.mul_(scale.gamma)
    else:
        done.skipped[f"{path}.layer_scale"] = f"unknown block {type(block).__name__}"
        return
    scale.gamma.fill_(1.0)
    done.pairs.append((f"{path}.layer_scale", (f"{path}.{target}",)))


def untie_head(model: VLM) -> None:
    """Give the head a matrix of its own, in place; `model.config` says so from then on.

    Costs vocabulary x width weights in a checkpoint and nothing in a bundle, where the table lies
    beside the graphs anyway.
    """
    refuse_quantized(model)
    head = model.language_model.lm_head
    if model.language_model.is_tied:
        head.weight = nn.Parameter(head.weight.detach().clone(), head.weight.requires_grad)
    text = replace(model.config.text, tie_word_embeddings=False)
    model.config = replace(model.config, text=text)
    model.language_model.config = text
