"""transformers' LFM2 and LFM2-VL as a peer of `bench speed`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import (
    Lfm2Config,
    Lfm2ForCausalLM,
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Siglip2VisionConfig,
    Siglip2VisionModel,
)
from transformers.models.lfm2_vl.modeling_lfm2_vl import Lfm2VlMultiModalProjector

from autoneural.bench.peers import QUESTION_TOKENS, PeerEncoder, PeerTask, Run
from autoneural.config import TextConfig


@contextmanager
def opened(text: TextConfig, task: PeerTask, form: str) -> Iterator[Run]:
    """Random weights in torch's number format `form`."""
    torch.set_num_threads(task.threads)
    model = random_model(text, form)
    ids = torch.randint(text.vocab_size, (1, max(task.prompt, task.depth)))
    steps = task.answer - 1  # the first token comes out of the prompt

    @torch.inference_mode()
    def run() -> tuple[float, float]:
        start = time.perf_counter()
        model(ids[:, : task.prompt], use_cache=True, logits_to_keep=1)
        prompt_s = time.perf_counter() - start
        out = model(ids[:, : task.depth], use_cache=True, logits_to_keep=1)
        start = time.perf_counter()
        for _ in range(steps):
            token = out.logits[:, -1:].argmax(-1)
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
        return task.prompt / prompt_s, steps / (time.perf_counter() - start)

    yield Run(run, lambda encoder: _picture(model, encoder, task.image))


def _picture(decoder: Any, encoder: PeerEncoder, pixels: int) -> Callable[[], float]:
    """The picture comes as normalised patches: neither JPEG nor preprocessor is in the time."""
    model, inputs = seeing(decoder, encoder), _inputs(decoder, encoder, pixels)

    @torch.inference_mode()
    def look() -> float:
        start = time.perf_counter()
        model(**inputs, use_cache=True, logits_to_keep=1)
        return (time.perf_counter() - start) * 1e3

    return look


def _inputs(decoder: Any, encoder: PeerEncoder, pixels: int) -> dict[str, torch.Tensor]:
    """Patches [1, patches, 3 * 16 * 16], the picture's tokens and those of the question."""
    size = encoder.vision.patch_size
    grid = encoder.side(pixels) // size
    image = decoder.config.vocab_size - 1
    question = torch.randint(image, (1, QUESTION_TOKENS))
    patches = torch.rand(1, grid**2, 3 * size**2) * 2 - 1
    return {
        "input_ids": torch.cat([torch.full((1, encoder.tokens(pixels)), image), question], dim=1),
        "pixel_values": patches.to(decoder.dtype),
        "spatial_shapes": torch.tensor([[grid, grid]]),
        "pixel_attention_mask": torch.ones(1, grid**2, dtype=torch.long),
    }


def seeing(decoder: Any, encoder: PeerEncoder) -> Any:
    """An Lfm2VlForConditionalGeneration around an Lfm2ForCausalLM, whose weights it shares."""
    vision, projector = encoder.vision, encoder.projector
    tower = Siglip2VisionConfig(
        hidden_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        num_hidden_layers=vision.num_hidden_layers,
        num_attention_heads=vision.num_attention_heads,
        num_patches=vision.num_patches,
        patch_size=vision.patch_size,
        layer_norm_eps=vision.norm_eps,
        vision_use_head=False,
    )
    config = Lfm2VlConfig(
        text_config=decoder.config,
        vision_config=tower,
        image_token_id=decoder.config.vocab_size - 1,
        projector_hidden_act=projector.hidden_act,
        projector_hidden_size=projector.hidden_size,
        projector_bias=projector.bias,
        projector_use_layernorm=projector.layer_norm,
        downsample_factor=vision.unshuffle,
    )
    with torch.device("meta"):  # a second decoder would take as much memory again
        model = Lfm2VlForConditionalGeneration(config)
    model.model.language_model, model.lm_head = decoder.model, decoder.lm_head
    model.model.vision_tower = Siglip2VisionModel(tower).to(decoder.dtype)
    model.model.multi_modal_projector = Lfm2VlMultiModalProjector(config).to(decoder.dtype)
    return model.eval()


def random_model(text: TextConfig, form: str) -> Any:
    """An Lfm2ForCausalLM of these shapes."""
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=text.num_hidden_layers,
        num_attention_heads=text.num_attention_heads,
        num_key_value_heads=text.num_key_value_heads,
        layer_types=list(text.layer_types),
        conv_L_cache=text.conv_L_cache,
        norm_eps=text.norm_eps,
        max_position_embeddings=text.max_position_embeddings,
        rope_parameters={"rope_theta": text.rope_theta, "rope_type": "default"},
        tie_word_embeddings=text.tie_word_embeddings,
    )
    return Lfm2ForCausalLM(config).to(getattr(torch, form)).eval()
