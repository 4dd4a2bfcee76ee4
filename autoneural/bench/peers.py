"""Other runtimes on the same shapes with random weights, on this CPU, by the protocol of `speed`.

transformers    Lfm2ForCausalLM in fp32 and in bf16 (bench/peer_transformers.py)
llama.cpp       a GGUF of 4 bits, Q4_0 (bench/peer_llama_cpp.py)
ort-genai       ONNX Runtime GenAI on its own graph of 4 bits (bench/peer_ort_genai.py)

The decoder alone, without pictures. Each runs after ours, in a process of its own, which gives its
memory back: figures of one run are compared with each other, not with those of another day. A peer
that is not installed, or fails, is a row that says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from autoneural.config import TextConfig, text_from_dict

Run = Callable[[], tuple[float, float]]
"""One repeat: tokens per second of the prompt and of decoding."""


@dataclass(frozen=True, kw_only=True)
class _Peer:
    """The number formats that it runs in, the modules that it needs, and ours that runs it."""

    formats: tuple[str, ...]
    needs: tuple[str, ...]
    module: str


_PEERS = {
    "transformers": _Peer(
        formats=("float32", "bfloat16"),
        needs=("torch", "transformers"),
        module="peer_transformers",
    ),
    "llama.cpp": _Peer(
        formats=("Q4_0",),
        needs=("llama_cpp", "gguf"),
        module="peer_llama_cpp",
    ),
    "ort-genai": _Peer(
        formats=("int4",),
        needs=("torch", "transformers", "onnxruntime_genai"),
        module="peer_ort_genai",
    ),
}
PEERS = tuple(_PEERS)


@dataclass(frozen=True, kw_only=True)
class PeerTask:
    """What is asked of a peer: the lengths of `speed`, one depth."""

    prompt: int
    answer: int
    depth: int
    repeats: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class PeerRun:
    """Tokens per second of each repeat. `missing` says why there is none."""

    peer: str
    prompt: tuple[float, ...] = ()
    decode: tuple[float, ...] = ()
    missing: str | None = None


def measure_peers(
    names: Sequence[str],
    text: TextConfig,
    task: PeerTask,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[PeerRun]:
    """One row per peer (of PEERS) and number format, in order."""
    found: list[PeerRun] = []
    for name in names:
        peer = _PEERS[name]
        lacking = [module for module in peer.needs if importlib.util.find_spec(module) is None]
        if lacking:
            found.append(PeerRun(peer=name, missing=f"not installed: {', '.join(lacking)}"))
            continue
        for done, form in enumerate(peer.formats, 1):
            found.append(_run(f"{name} {form}", peer, text, task, form))
            progress(name, done, len(peer.formats))
    return found


def _run(title: str, peer: _Peer, text: TextConfig, task: PeerTask, form: str) -> PeerRun:
    asked = {"text": asdict(text), "task": asdict(task), "module": peer.module, "format": form}
    command = [sys.executable, "-m", "autoneural.bench.peers"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return PeerRun(peer=title, missing=last)
    rates = json.loads(done.stdout.splitlines()[-1])
    return PeerRun(peer=title, prompt=tuple(rates["prompt"]), decode=tuple(rates["decode"]))


def main() -> None:
    """The process of one peer: a request on stdin, the rates on the last line of stdout."""
    # The decoder needs no pictures, and a torchvision that was built for another torch stops the
    # import of transformers.
    cast(dict[str, Any], sys.modules)["torchvision"] = None
    asked = json.load(sys.stdin)
    task, text = PeerTask(**asked["task"]), text_from_dict(asked["text"])
    if text.intermediate_sizes or text.key_value_heads:
        raise ValueError("LFM2 elsewhere has no layers of unequal width")
    module = importlib.import_module(f"autoneural.bench.{asked['module']}")
    with module.opened(text, task, asked["format"]) as run:
        rates = [run() for _ in range(task.repeats + 1)][1:]
    prompt, decode = zip(*rates, strict=True)
    print(json.dumps({"prompt": prompt, "decode": decode}))


if __name__ == "__main__":
    main()
