"""transformers' Lfm2ForCausalLM as a peer of `bench speed`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Lfm2Config, Lfm2ForCausalLM

from autoneural.bench.peers import PeerTask, Run
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

    yield run


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
