"""Where and in which precision training computes."""

from __future__ import annotations

import shutil
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Literal

import torch

from autoneural.errors import UserError
from autoneural.model.vlm import VLM

Precision = Literal["auto", "bf16", "fp32"]


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device: {name} asked for, but torch sees no CUDA device")
    return torch.device(name)


def pick_precision(choice: Precision, device: torch.device) -> Literal["bf16", "fp32"]:
    """`auto` is bf16 where the hardware multiplies it faster than fp32, which is measured."""
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bf16" if native and _bf16_is_faster() else "fp32"


@cache
def _bf16_is_faster() -> bool:
    """AMX multiplies bf16 several times faster than fp32; AVX-512 alone, on some CPUs, slower."""
    return _seconds(torch.bfloat16) < 0.9 * _seconds(torch.float32)


def _seconds(dtype: torch.dtype, repeats: int = 6) -> float:
    """The quickest of a few products of the size of a decoder layer."""
    a_MK, b_KN = torch.ones(2048, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
    taken: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        _ = a_MK @ b_KN
        taken.append(time.perf_counter() - start)
    return min(taken)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """bf16 arithmetic over fp32 weights, or nothing."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def compile_parts(model: VLM) -> None:
    """Compile encoder and decoder in place; parameter names stay as they are."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise UserError("compile: needs a C++ compiler (g++ or clang++) on the PATH")
    # Sequence lengths and image counts vary: one kernel set per length in use, not per batch.
    torch._dynamo.config.recompile_limit = 32
    model.vision_encoder.compile()
    model.language_model.compile()
