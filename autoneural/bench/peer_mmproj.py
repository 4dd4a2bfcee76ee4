"""A GGUF of LFM2-VL's encoder and projector with random weights, as llama.cpp's mtmd reads one.

Matrices are F16, one of the two forms in which encoders are published, and the faster one: Q8_0,
which leaves rows of 4304 at F16, took 15 % longer on one core with VNNI. All else is fp32.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from autoneural.bench.peer_gguf import close
from autoneural.bench.peers import PeerEncoder


def write_random_encoder(path: Path, encoder: PeerEncoder, width: int) -> None:
    """The encoder in front of a decoder of `width`."""
    vision, grid = encoder.vision, round(encoder.vision.num_patches**0.5)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(gguf.VisionProjectorType.LFM2)
    writer.add_vision_projection_dim(width)
    writer.add_vision_image_size(grid * vision.patch_size)
    writer.add_vision_patch_size(vision.patch_size)
    writer.add_vision_embedding_length(vision.hidden_size)
    writer.add_vision_feed_forward_length(vision.intermediate_size)
    writer.add_vision_block_count(vision.num_hidden_layers)
    writer.add_vision_head_count(vision.num_attention_heads)
    writer.add_vision_attention_layernorm_eps(vision.norm_eps)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    writer.add_vision_projector_scale_factor(vision.unshuffle)
    writer.add_vision_use_gelu(True)
    random = np.random.default_rng(0)
    for name, shape in _tensors(encoder, width).items():
        writer.add_tensor(name, _values(random, name, shape))
    close(writer)


def _values(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        one = name.endswith("weight")  # of a norm
        return np.full(shape, one, np.float32)
    values = random.standard_normal(shape, np.float32) / np.prod(shape[1:]) ** 0.5
    return values.astype(np.float32 if "position" in name else np.float16)


def _tensors(encoder: PeerEncoder, width: int) -> dict[str, tuple[int, ...]]:
    vision, projector = encoder.vision, encoder.projector
    hidden, wide = vision.hidden_size, vision.intermediate_size
    cell = hidden * vision.unshuffle**2
    found: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (hidden, 3, vision.patch_size, vision.patch_size),
        "v.patch_embd.bias": (hidden,),
        "v.position_embd.weight": (vision.num_patches, hidden),
    }
    for index in range(vision.num_hidden_layers):
        layer = f"v.blk.{index}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            found |= _linear(f"{layer}.{name}", hidden, hidden)
        found |= _linear(f"{layer}.ffn_up", wide, hidden)
        found |= _linear(f"{layer}.ffn_down", hidden, wide)
        found |= _norm(f"{layer}.ln1", hidden) | _norm(f"{layer}.ln2", hidden)
    found |= _norm("v.post_ln", hidden)
    if projector.layer_norm:
        found |= _norm("mm.input_norm", cell)
    found |= _linear("mm.1", projector.hidden_size, cell)
    return found | _linear("mm.2", width, projector.hidden_size)


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    """mtmd wants biases everywhere: the projector of LFM2-VL has them."""
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}
