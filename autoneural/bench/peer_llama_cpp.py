"""llama.cpp, as llama-cpp-python brings it, as a peer of `bench speed`: the calls of llama-bench.

The GGUF has random blocks of 4 bits in every matrix, the table of the head too, which
`llama-quantize` would leave at 6: the fastest that llama.cpp has for a CPU. Pictures go
through mtmd (bench/peer_mtmd.py), with an encoder in F16 (bench/peer_mmproj.py).
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from autoneural.bench.peer_gguf import write_random
from autoneural.bench.peers import QUESTION_TOKENS, PeerEncoder, PeerTask, Run
from autoneural.config import TextConfig
from autoneural.config_vision import TilingConfig

llama: Any = import_module("llama_cpp")  # built where it is wanted: no types elsewhere
_BATCH = 512


@contextmanager
def opened(text: TextConfig, task: PeerTask, form: str) -> Iterator[Run]:
    """A file of random weights of ggml's type `form`, and a context of the lengths asked for."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_random(path, text, gguf.GGMLQuantizationType[form])
        context = _open(path, text, task)
        yield Run(
            lambda: (_prompt(context, text, task), _decode(context, text, task)),
            lambda encoder: _picture(context, text, task, encoder, Path(folder) / "mmproj.gguf"),
        )


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *line: None)


def _open(path: Path, text: TextConfig, task: PeerTask) -> Any:
    llama.llama_log_set(_LOG, ctypes.c_void_p())
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    if model is None:
        raise ValueError("llama.cpp does not open the GGUF")
    params = llama.llama_context_default_params()
    look = TilingConfig().max_image_tokens + QUESTION_TOKENS
    params.n_ctx = max(task.prompt, task.depth + task.answer, look)
    params.n_batch = params.n_ubatch = _BATCH
    params.n_threads = params.n_threads_batch = task.threads
    context = llama.llama_init_from_model(model, params)
    if context is None:
        raise ValueError("llama.cpp does not open a context")
    return context


def _prompt(context: Any, text: TextConfig, task: PeerTask) -> float:
    start = time.perf_counter()
    _fresh(context, text, task.prompt)
    return task.prompt / (time.perf_counter() - start)


def _decode(context: Any, text: TextConfig, task: PeerTask) -> float:
    random, steps = np.random.default_rng(1), task.answer - 1
    _fresh(context, text, task.depth)
    start = time.perf_counter()
    for _ in range(steps):
        _feed(context, random.integers(text.vocab_size, size=1))
    return steps / (time.perf_counter() - start)


def _picture(
    context: Any, text: TextConfig, task: PeerTask, encoder: PeerEncoder, path: Path
) -> Callable[[], float]:
    # Here, not above: where there is no libmtmd, prompt and decoding are measured all the same.
    from autoneural.bench.peer_mmproj import write_random_encoder
    from autoneural.bench.peer_mtmd import looker, open_encoder

    write_random_encoder(path, encoder, text.hidden_size)
    eyes = open_encoder(path, context, task.threads, _LOG)
    look = looker(eyes, context, encoder.side(task.image), _BATCH)
    question = np.random.default_rng(1).integers(text.vocab_size, size=QUESTION_TOKENS)

    def once() -> float:
        _empty(context)
        start = time.perf_counter()
        tokens = look()
        _feed(context, question)
        seconds = time.perf_counter() - start
        if tokens != encoder.tokens(task.image):
            raise ValueError(f"mtmd: {tokens} tokens, not {encoder.tokens(task.image)}")
        return seconds * 1e3

    return once


def _empty(context: Any) -> None:
    llama.llama_memory_clear(llama.llama_get_memory(context), True)


def _fresh(context: Any, text: TextConfig, tokens: int) -> None:
    _empty(context)
    ids = np.random.default_rng(0).integers(text.vocab_size, size=tokens)
    for begin in range(0, tokens, _BATCH):
        _feed(context, ids[begin : begin + _BATCH])


def _feed(context: Any, ids: np.ndarray) -> None:
    """Also waits: llama.cpp may compute later than it returns."""
    tokens = (ctypes.c_int32 * len(ids))(*ids.tolist())
    if llama.llama_decode(context, llama.llama_batch_get_one(tokens, len(ids))):
        raise ValueError("llama.cpp: llama_decode failed")
    llama.llama_synchronize(context)
