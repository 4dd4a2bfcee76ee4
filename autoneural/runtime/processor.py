"""This machine's processor, as far as the system tells: its name, and what kernels choose by."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

# Under Linux's names.
_FLAGS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
_BYTES_IN_32_BITS = {"avx_vnni", "avx512_vnni", "amx_int8"}


@cache
def processor() -> tuple[str, tuple[str, ...]]:
    """Its name, and those of its flags that matrix kernels choose by; none where none are told."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown processor", ()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    found = set(values.get("flags", values.get("Features", "")).split())
    name = values.get("model name", platform.machine())
    return name, tuple(flag for flag in _FLAGS if flag in found)


def adds_bytes_in_16_bits() -> bool:
    """Whether two products of bytes may be cut off: x86 without VNNI, or that tells no flags."""
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
    return x86 and _BYTES_IN_32_BITS.isdisjoint(processor()[1])
