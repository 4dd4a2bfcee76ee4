"""ONNX Runtime GenAI as a peer of `bench speed`: the graph that its own model builder makes.

Blocks of 128, integers for activations (`accuracy_level` 4): the fastest that it has for a CPU. The
decoder alone: it has no encoder for LFM2.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from autoneural.bench.peers import PeerTask, Run
from autoneural.config import TextConfig

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default; before its import


@contextmanager
def opened(text: TextConfig, task: PeerTask, form: str) -> Iterator[Run]:
    """Builds the graph of random weights at precision `form` in a folder that goes away."""
    genai: Any = import_module("onnxruntime_genai")  # whose names are native
    with tempfile.TemporaryDirectory() as folder:
        graph = _build(text, form, Path(folder))
        config = genai.Config(str(graph))
        config.overlay(_threads(task.threads))
        model = genai.Model(config)
        yield Run(lambda: (_prompt(genai, model, text, task), _decode(genai, model, text, task)))


def _build(text: TextConfig, form: str, folder: Path) -> Path:
    from onnxruntime_genai.models.builder import create_model, parse_extra_options
    from transformers import PreTrainedTokenizerFast

    from autoneural.bench.peer_transformers import random_model

    checkpoint, graph = folder / "checkpoint", folder / "graph"
    model = random_model(text, "bfloat16")
    model.config.eos_token_id = model.generation_config.eos_token_id = 0
    model.save_pretrained(checkpoint)
    del model
    words = Tokenizer(WordLevel({"<end>": 0}, unk_token="<end>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained(checkpoint)
    chosen = ["block_size=128", "accuracy_level=4"]
    where = ("", str(checkpoint), str(graph), form, "cpu", str(folder))
    with redirect_stdout(io.StringIO()):
        create_model(*where, **parse_extra_options(*where, chosen))
    return graph


def _threads(count: int) -> str:
    return f'{{"model": {{"decoder": {{"session_options": {{"intra_op_num_threads": {count}}}}}}}}}'


def _prompt(genai: Any, model: Any, text: TextConfig, task: PeerTask) -> float:
    start = time.perf_counter()
    _fresh(genai, model, text, task.prompt, 1)
    return task.prompt / (time.perf_counter() - start)


def _decode(genai: Any, model: Any, text: TextConfig, task: PeerTask) -> float:
    """The first token comes out of the prompt."""
    generator, steps = _fresh(genai, model, text, task.depth, task.answer), task.answer - 1
    start = time.perf_counter()
    for _ in range(steps):
        generator.generate_next_token()
    return steps / (time.perf_counter() - start)


def _fresh(genai: Any, model: Any, text: TextConfig, tokens: int, answer: int) -> Any:
    params = genai.GeneratorParams(model)
    length = tokens + answer
    params.set_search_options(max_length=length, min_length=length, do_sample=False)
    generator = genai.Generator(model, params)
    generator.append_tokens(np.random.default_rng(0).integers(1, text.vocab_size, (1, tokens)))
    generator.generate_next_token()
    return generator
