"""What this machine can do, measured here and now: the roofs that speeds are compared with.

read    GB/s from memory, all threads at once, of an array that no cache holds
matrix  GMAC/s of ONNX Runtime's fp32 and int8 (u8 x s8) products of 512 x 2048 x 2048

Each is the best of several runs. The model of a product is written here byte by byte, since the
installation that only runs bundles has no `onnx`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from autoneural.errors import UserError
from autoneural.runtime.processor import processor

BUSY = 0.1
"""Share of the processor that others may take before figures are refused."""
_STAT = Path("/proc/stat")
_RAPL = Path("/sys/class/powercap")
_ARRAY_BYTES = 512 << 20
_PASSES = 3
_SECONDS = 0.3
_M, _K, _N = 512, 2048, 2048
_FLOAT, _UINT8, _INT8, _INT32 = 1, 2, 3, 6  # TensorProto.DataType


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The roofs: GB/s read from memory, GMAC/s of matrix products."""

    read_gb_s: float
    fp32_gmac_s: float
    int8_gmac_s: float


def measure_machine(threads: int) -> Machine:
    """Takes some seconds, and half a GiB of memory for a moment."""
    return Machine(
        read_gb_s=read_bandwidth(threads),
        fp32_gmac_s=matrix_peak("fp32", threads),
        int8_gmac_s=matrix_peak("int8", threads),
    )


def read_bandwidth(threads: int, size: int = _ARRAY_BYTES) -> float:
    """GB/s at which `threads` threads together read an array of `size` bytes."""
    parts = np.array_split(np.ones(size // 8, np.int64), threads)
    with ThreadPoolExecutor(threads) as pool:
        return size / 1e9 / _best(lambda: list(pool.map(np.max, parts)))


def matrix_peak(kind: Literal["fp32", "int8"], threads: int) -> float:
    """GMAC/s of one large product with constant weights."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        product_model(kind, _M, _K, _N), options, providers=["CPUExecutionProvider"]
    )
    x = np.ones((_M, _K), np.float32 if kind == "fp32" else np.uint8)
    return _M * _K * _N / 1e9 / _best(lambda: session.run(None, {"x": x}))


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest run, after one that warms up."""
    work()
    times: list[float] = []
    while len(times) < _PASSES or sum(times) < _SECONDS:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def product_model(kind: Literal["fp32", "int8"], m: int, k: int, n: int) -> bytes:
    """An ONNX model y [m, n] = x [m, k] w, w constant: MatMul, or MatMulInteger of u8 and s8."""
    fp32 = kind == "fp32"
    dtypes = (_FLOAT, _FLOAT, _FLOAT) if fp32 else (_UINT8, _INT8, _INT32)
    weight = np.ones((k, n), np.float32 if fp32 else np.int8)
    node = _text(1, "x") + _text(1, "w") + _text(2, "y")
    node += _text(4, "MatMul" if fp32 else "MatMulInteger")
    tensor = _number(1, k) + _number(1, n) + _number(2, dtypes[1]) + _text(8, "w")
    tensor += _bytes(9, weight.tobytes())
    graph = _bytes(1, node) + _text(2, "product") + _bytes(5, tensor)
    graph += _bytes(11, _value("x", dtypes[0], m, k)) + _bytes(12, _value("y", dtypes[2], m, n))
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 17))


def _value(name: str, dtype: int, *shape: int) -> bytes:
    """A ValueInfoProto."""
    dims = b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, dtype) + _bytes(2, dims)))


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def require_idle(seconds: float = 1.0) -> None:
    """UserError where others take more than a tenth of the processor; unknown counts as idle."""
    share = busy_share(seconds)
    if share is not None and share > BUSY:
        raise UserError(
            f"this machine is busy: others take {100 * share:.0f} % of its processor; wait, or "
            "measure all the same with --busy"
        )


def busy_share(seconds: float) -> float | None:
    """Share of the processor, 0 to 1, that is in use while we sleep; None where none can tell."""
    before = _ticks()
    time.sleep(seconds)
    after = _ticks()
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])


def _ticks() -> tuple[int, int] | None:
    """(busy, all) ticks of all processors since the start of the system."""
    try:
        first = _STAT.read_text(encoding="ascii").split("\n", 1)[0]
    except OSError:
        return None
    ticks = [int(number) for number in first.split()[1:9]]  # guests are in the first two already
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


class Energy:
    """Joules of a `meter` block; None where the system does not tell (RAPL, often for root)."""

    joules: float | None = None


@contextmanager
def meter() -> Iterator[Energy]:
    """Energy of all processor packages while the block runs, whoever uses them."""
    energy, before = Energy(), _microjoules()
    yield energy
    after = _microjoules()
    if before and before.keys() == after.keys():
        spent = ((after[zone] - before[zone]) % _range(zone) for zone in before)
        energy.joules = sum(spent) / 1e6


def _microjoules() -> dict[Path, int]:
    zones = (zone for zone in sorted(_RAPL.glob("intel-rapl:*")) if zone.name.count(":") == 1)
    try:
        return {zone: int((zone / "energy_uj").read_text()) for zone in zones}
    except OSError:
        return {}


def _range(zone: Path) -> int:
    """Where the counter wraps."""
    return int((zone / "max_energy_range_uj").read_text()) + 1


def cpu_name() -> str:
    """The processor's name, and the extensions that matrix kernels choose by."""
    name, flags = processor()
    return f"{name}, {os.cpu_count()} CPUs ({', '.join(flags) or '-'})"
