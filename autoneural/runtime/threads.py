"""How many threads a graph runs on: what `autoneural tune` measured here, else a thread per core.

    ~/.cache/autoneural/threads-8c61ab0d52f04e17.json
        {"bundle": "cockpit-tiny", "target": "cpu", "threads": {"cpu/decoder.onnx": 1, ...}}

Bundles stay as they are, so this is kept apart, under a hash of what a measurement holds for: the
bundle's manifest, the target, the processor and how much of it there is, ONNX Runtime's version.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import onnxruntime as ort

from autoneural.bundle import Bundle
from autoneural.files import cache_folder, write_text
from autoneural.runtime.processor import processor


def physical_cores() -> int:
    """Cores this process may use, SMT siblings counted once."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        usable = os.sched_getaffinity(0)
        return len({Path(topology.format(cpu)).read_text() for cpu in usable})
    except OSError:
        return usable_processors()


def usable_processors() -> int:
    """Processors this process may use, SMT siblings and all."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def threads_file(bundle: Bundle, target: str) -> Path:
    """Where the counts of this bundle's target on this machine are kept."""
    machine = [*processor(), physical_cores(), usable_processors(), ort.__version__]
    key = json.dumps([bundle.manifest, target, *machine], sort_keys=True)
    return cache_folder() / f"threads-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def read_threads(bundle: Bundle, target: str) -> dict[str, int]:
    """Threads by graph file; empty where nothing was measured, or cannot be read any more."""
    try:
        record = json.loads(threads_file(bundle, target).read_text(encoding="utf-8"))
        found = {str(file): int(count) for file, count in record["threads"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {file: count for file, count in found.items() if 0 < count <= usable_processors()}


def write_threads(bundle: Bundle, target: str, threads: Mapping[str, int]) -> Path:
    """Keep what was measured; returns the file."""
    path = threads_file(bundle, target)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"bundle": bundle.name, "target": target, "threads": dict(threads)}
    write_text(path, json.dumps(record, indent=1) + "\n")
    return path
