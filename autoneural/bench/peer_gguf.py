"""A GGUF of LFM2 with random weights, for peers of `bench speed` that read one."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from autoneural.config import TextConfig

_BLOCK = 32
_CONTROL = ("<|image_start|>", "<|image_end|>", "<|img_thumbnail|>")


def write_random(path: Path, text: TextConfig, kind: gguf.GGMLQuantizationType) -> None:
    """A GGUF of LFM2 whose vocabulary has no words, but the tokens around a picture."""
    writer = gguf.GGUFWriter(path, "lfm2")
    writer.add_context_length(text.max_position_embeddings)
    writer.add_embedding_length(text.hidden_size)
    writer.add_block_count(text.num_hidden_layers)
    writer.add_feed_forward_length(text.intermediate_size)
    writer.add_head_count(text.num_attention_heads)
    writer.add_head_count_kv(
        [text.num_key_value_heads * (kind == "full_attention") for kind in text.layer_types]
    )
    writer.add_layer_norm_rms_eps(text.norm_eps)
    writer.add_rope_freq_base(text.rope_theta)
    writer.add_shortconv_l_cache(text.conv_L_cache)
    _add_vocabulary(writer, text.vocab_size)
    random = np.random.default_rng(0)
    for name, shape in _tensors(text).items():
        if len(shape) == 1 or "shortconv.conv" in name:
            writer.add_tensor(name, np.ones(shape, np.float32))
        else:
            writer.add_tensor(name, _blocks(random, *shape), raw_dtype=kind)
    close(writer)


def close(writer: gguf.GGUFWriter) -> None:
    """Writes what was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _blocks(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Q4_0: of every 32 numbers an fp16 scale, and 16 bytes of two numbers each."""
    found = random.integers(0, 256, (rows, columns // _BLOCK, 2 + _BLOCK // 2), np.uint8)
    # Numbers from -8 to 7 times the scale: rows of about unit length.
    scale = np.array([0.2 / columns**0.5], np.float16)
    found[..., :2] = scale.view(np.uint8)
    return found.reshape(rows, -1)


def _add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    """mtmd asks for the tokens around a picture, which a file without a tokenizer cannot have."""
    plain = size - len(_CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("lfm2")
    writer.add_token_list([f"t{index}" for index in range(plain)] + list(_CONTROL))
    kinds = [gguf.TokenType.NORMAL] * plain + [gguf.TokenType.CONTROL] * len(_CONTROL)
    writer.add_token_types(kinds)
    writer.add_token_merges(["t 0"])  # one at least


def _tensors(text: TextConfig) -> dict[str, tuple[int, ...]]:
    hidden, wide = text.hidden_size, text.intermediate_size
    head = hidden // text.num_attention_heads
    shared = text.num_key_value_heads * head
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (text.vocab_size, hidden),
        "token_embd_norm.weight": (hidden,),
    }
    for index, kind in enumerate(text.layer_types):
        layer: dict[str, tuple[int, ...]] = {
            "attn_norm": (hidden,),
            "ffn_norm": (hidden,),
            "ffn_gate": (wide, hidden),
            "ffn_up": (wide, hidden),
            "ffn_down": (hidden, wide),
        }
        if kind == "full_attention":
            layer |= {
                "attn_q_norm": (head,),
                "attn_k_norm": (head,),
                "attn_q": (hidden, hidden),
                "attn_k": (shared, hidden),
                "attn_v": (shared, hidden),
                "attn_output": (hidden, hidden),
            }
        else:
            layer |= {
                "shortconv.conv": (hidden, text.conv_L_cache),
                "shortconv.in_proj": (3 * hidden, hidden),
                "shortconv.out_proj": (hidden, hidden),
            }
        found |= {f"blk.{index}.{name}.weight": shape for name, shape in layer.items()}
    return found
