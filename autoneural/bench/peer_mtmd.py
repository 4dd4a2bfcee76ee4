"""mtmd, llama.cpp's library for pictures, in front of a decoder of llama.cpp.

Time counts what mtmd does with the pixels itself: it copies, resizes and normalises them, and runs
the encoder. It starts with pixels, not with a JPEG. The tokens around a picture are left out, which
mtmd would decode one by one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

llama: Any = import_module("llama_cpp")
mtmd: Any = import_module("llama_cpp.mtmd_cpp")


def open_encoder(path: Path, context: Any, threads: int, log: Any) -> Any:
    """An mtmd context of a GGUF, beside the decoder's."""
    for set_log in (mtmd.mtmd_log_set, mtmd.mtmd_helper_log_set):
        set_log(log, ctypes.c_void_p())
    params = mtmd.mtmd_context_params_default()
    params.use_gpu = params.print_timings = params.warmup = False
    params.n_threads = threads
    opened = mtmd.mtmd_init_from_file(str(path).encode(), llama.llama_get_model(context), params)
    if opened is None:
        raise ValueError("mtmd does not open the GGUF")
    return opened


def looker(encoder: Any, context: Any, side: int, batch: int) -> Callable[[], int]:
    """Each call puts a square picture into an empty context, and returns how many tokens it was."""
    pixels = np.random.default_rng(2).integers(0, 256, 3 * side**2, np.uint8)
    bitmap = mtmd.mtmd_bitmap_init(side, side, (ctypes.c_uint8 * pixels.size)(*pixels.tolist()))
    bitmaps = (ctypes.c_void_p * 1)(bitmap)
    marker = mtmd.mtmd_default_marker()
    prompt = mtmd.mtmd_input_text(marker, len(marker), False, True)

    def look() -> int:
        chunks = mtmd.mtmd_input_chunks_init()
        if mtmd.mtmd_tokenize(encoder, chunks, ctypes.byref(prompt), bitmaps, 1):
            raise ValueError("mtmd: mtmd_tokenize failed")
        chunk, past = _image(chunks), ctypes.c_int32(0)
        if mtmd.mtmd_helper_eval_chunk_single(
            encoder, context, chunk, 0, 0, batch, False, ctypes.byref(past)
        ):
            raise ValueError("mtmd: mtmd_helper_eval_chunk_single failed")
        tokens = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        mtmd.mtmd_input_chunks_free(chunks)
        return tokens

    return look


def _image(chunks: Any) -> Any:
    """The only one: between the token that begins a picture and the one that ends it."""
    found = [
        chunk
        for index in range(mtmd.mtmd_input_chunks_size(chunks))
        if mtmd.mtmd_input_chunk_get_type(chunk := mtmd.mtmd_input_chunks_get(chunks, index))
        == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE
    ]
    if len(found) != 1:
        raise ValueError(f"mtmd: {len(found)} views of a picture that is one")
    return found[0]
