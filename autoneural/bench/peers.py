"""Other runtimes on the same shapes with random weights, on this CPU, by the protocol of `speed`.

transformers    Lfm2ForCausalLM in fp32 and in bf16: the decoder alone, without pictures

Each runs after ours, in a process of its own, which gives its memory back: figures of one run are
compared with each other, not with those of another day. A peer that is not installed, or fails, is
a row that says so.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from autoneural.config import TextConfig, text_from_dict

_DTYPES = ("float32", "bfloat16")


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
    """One row per peer and number format, in order."""
    found: list[PeerRun] = []
    for name in names:
        if any(importlib.util.find_spec(module) is None for module in ("torch", name)):
            found.append(PeerRun(peer=name, missing="not installed"))
            continue
        for done, dtype in enumerate(_DTYPES, 1):
            found.append(_run(f"{name} {dtype}", text, task, dtype))
            progress(name, done, len(_DTYPES))
    return found


def _run(title: str, text: TextConfig, task: PeerTask, dtype: str) -> PeerRun:
    request = json.dumps({"text": asdict(text), "task": asdict(task), "dtype": dtype})
    command = [sys.executable, "-m", "autoneural.bench.peers"]
    done = subprocess.run(command, input=request, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return PeerRun(peer=title, missing=last)
    rates = json.loads(done.stdout.splitlines()[-1])
    return PeerRun(peer=title, prompt=tuple(rates["prompt"]), decode=tuple(rates["decode"]))


def main() -> None:
    """The process of one peer: a request on stdin, the rates on stdout."""
    # The decoder needs no pictures, and a torchvision that was built for another torch stops the
    # import of transformers.
    cast(dict[str, Any], sys.modules)["torchvision"] = None
    request = json.load(sys.stdin)
    task, text = PeerTask(**request["task"]), text_from_dict(request["text"])
    run = _transformers(text, task, request["dtype"])
    rates = [run() for _ in range(task.repeats + 1)][1:]
    prompt, decode = zip(*rates, strict=True)
    print(json.dumps({"prompt": prompt, "decode": decode}))


def _transformers(
    text: TextConfig, task: PeerTask, dtype: str
) -> Callable[[], tuple[float, float]]:
    """Random weights; the returned function gives tokens per second (prompt, decode) of one run."""
    import torch
    from transformers import Lfm2ForCausalLM

    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    model = Lfm2ForCausalLM(_lfm2_config(text)).to(getattr(torch, dtype)).eval()
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

    return run


def _lfm2_config(text: TextConfig) -> Any:
    """Raises ValueError for layers of unequal width, which LFM2's configuration cannot tell."""
    from transformers import Lfm2Config

    if text.intermediate_sizes or text.key_value_heads:
        raise ValueError("transformers' LFM2 has no layers of unequal width")
    return Lfm2Config(
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


if __name__ == "__main__":
    main()
