"""Other runtimes on the same shapes with random weights, on this CPU, by the protocol of `speed`.

transformers    Lfm2ForCausalLM and Lfm2VlForConditionalGeneration in fp32 and in bf16
                (bench/peer_transformers.py)
llama.cpp       a GGUF of 4 bits, Q4_0, and mtmd for the picture (bench/peer_llama_cpp.py)
ort-genai       ONNX Runtime GenAI on its own graph of 4 bits, no picture (bench/peer_ort_genai.py)

The decoder has the bundle's shapes. What sees is LFM2-VL's encoder for a decoder of that width: of
another width no picture is measured. Each has a process of its own, which gives its memory back,
and takes turns with ours, repeat by repeat: a machine that is slow for a minute is slow for both. A
peer that is not installed, or fails, is a row that says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from math import isqrt
from subprocess import PIPE
from typing import IO, Any, NamedTuple, cast

from autoneural.config import (
    PRESETS,
    ModelConfig,
    ProjectorConfig,
    TextConfig,
    text_from_dict,
    vision_from_dict,
)
from autoneural.config_vision import TilingConfig, ViTConfig

QUESTION_TOKENS = 32  # behind a picture
_FOUND = "measured "


@dataclass(frozen=True, kw_only=True)
class PeerEncoder:
    """What a peer sees with: LFM2-VL's encoder and its projector."""

    vision: ViTConfig
    projector: ProjectorConfig

    def side(self, pixels: int) -> int:
        """Of a picture, once it is resized: one view as LFM2-VL has it, 64 to 256 tokens.

        It would cut larger pictures into tiles: more work, which a peer is not charged for.
        """
        limits, cell = TilingConfig(), self.vision.patch_size * self.vision.unshuffle
        least, most = isqrt(limits.min_image_tokens), isqrt(limits.max_image_tokens)
        return min(max(round(pixels / cell), least), most) * cell

    def tokens(self, pixels: int) -> int:
        """Of that view."""
        return (self.side(pixels) // self.vision.patch_size // self.vision.unshuffle) ** 2


class Run(NamedTuple):
    """What `opened` of a peer's module yields.

    `text`: one repeat, tokens per second of the prompt and of decoding. `picture` opens an encoder
    beside the decoder: one repeat is milliseconds from pixels and a question to the first logits.
    """

    text: Callable[[], tuple[float, float]]
    picture: Callable[[PeerEncoder], Callable[[], float]] | None = None


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


def _encoder(model: ModelConfig) -> PeerEncoder:
    return PeerEncoder(vision=cast(ViTConfig, model.vision), projector=model.projector)


_ENCODERS = {
    model.text.hidden_size: _encoder(model)
    for name, model in PRESETS.items()
    if name.startswith("lfm2-vl-")
}


@dataclass(frozen=True, kw_only=True)
class PeerTask:
    """What is asked of a peer: the lengths of `speed`, one depth, `image` in pixels of a side."""

    prompt: int
    answer: int
    depth: int
    repeats: int
    threads: int
    image: int


@dataclass(frozen=True, kw_only=True)
class PeerRun:
    """Of each repeat what the peer took, and what ours took right after it.

    By name: `prompt` and `decode` are tokens per second, `picture` milliseconds to the first token.
    `missing` says why there is none, or what there is not. A picture may be missing without a word:
    where the peer has no encoder of that width, or none at all.
    """

    peer: str
    theirs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    ours: Mapping[str, Sequence[float]] = field(default_factory=dict)
    missing: str | None = None


Ours = Callable[[str], Mapping[str, float]]
"""One repeat of ours: of "text" `prompt` and `decode`, of "picture" `picture`."""


def measure_peers(
    names: Sequence[str],
    text: TextConfig,
    task: PeerTask,
    ours: Ours,
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
            asked = _request(peer, text, task, form)
            found.append(_run(f"{name} {form}", asked, ours))
            progress(name, done, len(peer.formats))
    return found


def _request(peer: _Peer, text: TextConfig, task: PeerTask, form: str) -> str:
    encoder = _ENCODERS.get(text.hidden_size)
    asked = {
        "text": asdict(text),
        "encoder": encoder and asdict(encoder),
        "task": asdict(task),
        "module": peer.module,
        "format": form,
    }
    return json.dumps(asked)


def _run(title: str, asked: str, ours: Ours) -> PeerRun:
    """In turns: the peer waits while ours runs, so what slows this machine slows both."""
    theirs, own = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    command = [sys.executable, "-m", "autoneural.bench.peers"]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as log,
        subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        _say(process.stdin, asked)
        for line in process.stdout:
            if line.startswith(_FOUND):
                kind, found = line.removeprefix(_FOUND).split(maxsplit=1)
                for side, values in ((theirs, json.loads(found)), (own, ours(kind))):
                    for test, value in values.items():
                        side[test].append(value)
                _say(process.stdin, "next")
        code = process.wait()
        log.seek(0)
        last = log.read().strip().splitlines()[-1:]
    missing = None
    if code != 0:
        missing = last[0] if last else f"exit code {code}"
        missing = f"picture: {missing}" if theirs else missing
    return PeerRun(peer=title, theirs=theirs, ours=own, missing=missing)


def _say(pipe: IO[str], line: str) -> None:
    with suppress(BrokenPipeError):  # it ended: its exit code and stderr say why
        pipe.write(line + "\n")
        pipe.flush()


def main() -> None:
    """The process of one peer: a request on stdin; on stdout a line per repeat, each answered."""
    # A torchvision that was built for another torch stops the import of transformers, which needs
    # none for pictures that come as patches.
    cast(dict[str, Any], sys.modules)["torchvision"] = None
    asked = json.loads(sys.stdin.readline())
    task, text = PeerTask(**asked["task"]), text_from_dict(asked["text"])
    if text.intermediate_sizes or text.key_value_heads:
        raise ValueError("LFM2 elsewhere has no layers of unequal width")
    module = importlib.import_module(f"autoneural.bench.{asked['module']}")
    with module.opened(text, task, asked["format"]) as run:

        def both() -> dict[str, float]:
            prompt, decode = run.text()
            return {"prompt": prompt, "decode": decode}

        _tell("text", both, task.repeats)
        if asked["encoder"] and run.picture:
            look = run.picture(_encoder_from_dict(asked["encoder"]))
            _tell("picture", lambda: {"picture": look()}, task.repeats)


def _encoder_from_dict(data: dict[str, Any]) -> PeerEncoder:
    vision = cast(ViTConfig, vision_from_dict(data["vision"]))
    return PeerEncoder(vision=vision, projector=ProjectorConfig(**data["projector"]))


def _tell(kind: str, once: Callable[[], dict[str, float]], repeats: int) -> None:
    """Each repeat as soon as it is there, so that none is lost; the first warms up."""
    once()
    for _ in range(repeats):
        print(f"{_FOUND}{kind} {json.dumps(once())}", flush=True)
        if not sys.stdin.readline():
            sys.exit("nobody listens")


if __name__ == "__main__":
    main()
