"""Where and in which precision training computes."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext
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
    """`auto` is bf16 where the hardware multiplies it (emulated bf16 is slower than fp32)."""
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bf16" if native else "fp32"


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
