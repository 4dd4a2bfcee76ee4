"""How fast a bundle answers on this CPU, beside what the machine could do: llama-bench's protocol.

prompt    `prompt` random tokens from a fresh state: tokens per second
decode    `answer` tokens behind `depth` others: tokens per second, and what of the time is not
          ONNX Runtime's (sampling, text, masks, state)
image     a JPEG and a question: time to the first token, as decode, encode and prefill

Every test runs once to warm up and `repeats` times to count; figures are medians, with the least
and the most. Tokens are random and the end token is never taken, so answers have the length asked
for. Roofs are measured in the same run, when the engine's peak of memory has been read.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any

import numpy as np
from PIL import Image

from autoneural.bench.graph_work import (
    GraphWork,
    bytes_per_token,
    profile_graphs,
    prompt_macs,
)
from autoneural.bench.machine import Machine, cpu_name, measure_machine, meter
from autoneural.bench.peers import QUESTION_TOKENS, PeerRun, PeerTask, measure_peers
from autoneural.bundle import Bundle
from autoneural.data.processor import ModelInputs
from autoneural.errors import UserError
from autoneural.npu.worker import peak_rss_gb
from autoneural.runtime.constraint import Constraint
from autoneural.runtime.engine import Engine
from autoneural.runtime.generation import Timings
from autoneural.runtime.threads import physical_cores, read_threads
from autoneural.runtime.watch import NOBODY, Watch

Progress = Callable[[str, int, int], None]
_SHALLOW = 128


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is measured. `depths` (): 128 tokens, and as many as leave room for the answer.

    `peers`: see `peers`; they decode at the least depth, and take turns with ours.
    """

    prompt: int = 512
    answer: int = 128
    repeats: int = 5
    image: int = 512
    depths: tuple[int, ...] = ()
    threads: int | None = None
    peers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The median of some runs, the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(median=statistics.median(values), least=min(values), most=max(values))


class _Endless(Constraint):
    """Any token but the one that ends an answer."""

    def __init__(self, end: int) -> None:
        self._end = end

    def copy(self) -> _Endless:
        return self

    @property
    def finished(self) -> bool:
        return False

    def mask(self, logits: np.ndarray) -> np.ndarray:
        logits = logits.copy()
        logits[self._end] = -np.inf
        return logits

    def accept(self, token: int) -> None:
        """Nothing to remember."""


class _Decoding(Watch):
    """What has been spent when the first token is there: from then on it is decoding."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.native: float | None = None
        self.cpu = self.wall = 0.0

    def token(self, token: int, logits: np.ndarray) -> None:
        if self.native is None:
            self.native, self.cpu = self._engine.native_seconds, time.process_time()
            self.wall = time.perf_counter()


@dataclass(frozen=True, kw_only=True)
class _Look:
    """One picture and a question, up to the first token; `tiles`: runs of the encoder."""

    decode_ms: float
    encode_ms: float
    prefill_ms: float
    tokens: int
    tiles: int

    @property
    def ttft_ms(self) -> float:
        return self.decode_ms + self.encode_ms + self.prefill_ms


@dataclass(frozen=True, kw_only=True)
class _Decode:
    """One decoding run. Shares are of its time; `cpu` in processors."""

    tokens_per_second: float
    outside: float
    cpu: float
    joules: float | None


def measure_speed(
    bundle: Bundle,
    target: str | None,
    protocol: Protocol,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """The report of a bundle on this CPU, JSON-ready; `None` stands for what could not be measured.

    Raises UserError where prompt, or depth and answer together, do not fit the context.
    """
    protocol = _fitted(protocol, bundle.context)
    threads = protocol.threads or physical_cores()
    engine = Engine(bundle, target, threads=protocol.threads)
    prompt = _prompt(engine, protocol, progress)
    decode = {depth: _decode(engine, protocol, depth, progress) for depth in protocol.depths}
    image = _image(engine, protocol, progress)
    peak_rss, target = peak_rss_gb() * 2**30 or None, engine.target
    peers = _peer_rows(engine, protocol, threads, progress)
    del engine  # its weights would stand in memory beside those of the profiled graphs
    machine, graphs = measure_machine(threads), profile_graphs(bundle, target, threads)
    return {
        "bundle": bundle.name,
        "target": target,
        "precision": dict(bundle.target(target).precision),
        "context": bundle.context,
        "cpu": cpu_name(),
        "threads": threads,
        "tuned": {} if protocol.threads else read_threads(bundle, target),
        "repeats": protocol.repeats,
        "machine": asdict(machine),
        "prompt": _prompt_row(protocol.prompt, prompt, graphs, machine),
        "decode": [_decode_row(depth, runs, graphs, machine) for depth, runs in decode.items()],
        "image": _image_row(protocol.image, image, graphs, machine),
        "memory": _memory_row(peak_rss, bundle, target),
        "npu": None,
        "peers": peers,
        "graphs": [graph.to_dict() for graph in graphs],
    }


def _fitted(protocol: Protocol, context: int) -> Protocol:
    room = context - protocol.answer
    depths = protocol.depths or tuple(sorted({min(_SHALLOW, room), room}))
    for what, tokens, most in (
        ("-p", protocol.prompt, context - 1),
        *(("--depth", depth, room) for depth in depths),
    ):
        if not 0 < tokens <= most:
            answer = "" if what == "-p" else f" and an answer of {protocol.answer}"
            raise UserError(f"{what} {tokens}{answer}: the bundle's context is {context} tokens")
    return replace(protocol, depths=tuple(sorted(depths)))


def _tokens(engine: Engine, count: int) -> np.ndarray:
    """Random ids; never a picture's."""
    ids = np.random.default_rng(0).integers(engine.tokenizer.vocab_size, size=count)
    ids[ids == engine.tokenizer.image_id] = engine.tokenizer.eos_id
    return ids


def _run(engine: Engine, inputs: ModelInputs, tokens: int, watch: Watch = NOBODY) -> Timings:
    endless = _Endless(engine.tokenizer.eos_id)
    generation = engine.answer(inputs, max_tokens=tokens, constraint=endless, watch=watch)
    for _ in generation:
        pass
    return generation.result.timings


def _prompt(engine: Engine, protocol: Protocol, progress: Progress) -> list[float]:
    """Tokens per second of each repeat."""
    rates = []
    for done in range(protocol.repeats + 1):
        rates.append(_prompt_once(engine, protocol.prompt))
        progress("prompt", done, protocol.repeats)
    return rates[1:]


def _prompt_once(engine: Engine, tokens: int) -> float:
    engine.reset()
    return 1e3 * tokens / _run(engine, _text_inputs(engine, tokens), 1).prompt_ms


def _text_inputs(engine: Engine, tokens: int) -> ModelInputs:
    side = engine.processor.image_size
    return ModelInputs(_tokens(engine, tokens), np.empty((0, 3, side, side), np.uint8))


def _decode(engine: Engine, protocol: Protocol, depth: int, progress: Progress) -> list[_Decode]:
    """The prompt is the same each time, so all but its end is there already."""
    inputs, runs = _text_inputs(engine, depth), []
    for done in range(protocol.repeats + 1):
        runs.append(_decode_once(engine, inputs, protocol.answer))
        progress(f"decode at {depth}", done, protocol.repeats)
    return runs[1:]


def _decode_once(engine: Engine, inputs: ModelInputs, tokens: int) -> _Decode:
    watch = _Decoding(engine)
    with meter() as energy:
        timings = _run(engine, inputs, tokens, watch)
    seconds, steps = timings.predicted_ms / 1e3, timings.predicted_n - 1
    native = engine.native_seconds - (watch.native or 0.0)
    return _Decode(
        tokens_per_second=steps / seconds,
        outside=1 - native / seconds,
        cpu=(time.process_time() - watch.cpu) / (time.perf_counter() - watch.wall),
        joules=None if energy.joules is None else energy.joules / tokens,
    )


def _image(engine: Engine, protocol: Protocol, progress: Progress) -> list[_Look]:
    """Each time another picture: the engine keeps the features of those it has seen."""
    found = []
    for done in range(protocol.repeats + 1):
        found.append(_look(engine, protocol.image, done))
        progress("image", done, protocol.repeats)
    return found[1:]


def _look(engine: Engine, pixels: int, seed: int) -> _Look:
    content = [{"type": "image", "image": picture(pixels, seed)}, _question(engine)]
    engine.reset()
    start = time.perf_counter()
    inputs = engine.processor([{"role": "user", "content": content}])
    decode_ms = (time.perf_counter() - start) * 1e3
    timings = _run(engine, inputs, 1)
    return _Look(
        decode_ms=decode_ms,
        encode_ms=timings.image_encode_ms,
        prefill_ms=timings.prompt_ms,
        tokens=timings.prompt_n,
        tiles=timings.image_n,
    )


def _question(engine: Engine) -> dict[str, str]:
    """A text part of 32 tokens, or a few more."""
    text = "what is it?"
    while len(engine.tokenizer.encode(text)) < QUESTION_TOKENS:
        text += " and what is that?"
    return {"type": "text", "text": text}


def picture(side: int, seed: int) -> bytes:
    """A JPEG of `side` x `side` pixels: smooth shapes, as photographs have, and some noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.int16)
    noisy = (smooth + random.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=90)
    return file.getvalue()


def _prompt_row(
    tokens: int, rates: Sequence[float], graphs: Sequence[GraphWork], machine: Machine
) -> dict[str, Any]:
    rate = Spread.of(rates)
    gmac_s = rate.median * prompt_macs(graphs, tokens) / tokens / 1e9
    return {"tokens": tokens, "tokens_per_second": asdict(rate), **_roof(gmac_s, machine)}


def _roof(gmac_s: float, machine: Machine) -> dict[str, float]:
    """GMAC/s, and its shares of what large products reach."""
    return {
        "gmac_s": gmac_s,
        "share_of_fp32": gmac_s / machine.fp32_gmac_s,
        "share_of_int8": gmac_s / machine.int8_gmac_s,
    }


def _decode_row(
    depth: int, runs: Sequence[_Decode], graphs: Sequence[GraphWork], machine: Machine
) -> dict[str, Any]:
    rate = Spread.of([run.tokens_per_second for run in runs])
    read = bytes_per_token(graphs, depth)
    joules = [run.joules for run in runs if run.joules is not None]
    gb_s = rate.median * read / 1e9
    return {
        "depth": depth,
        "tokens_per_second": asdict(rate),
        "outside_onnxruntime": statistics.median(run.outside for run in runs),
        "cpus": statistics.median(run.cpu for run in runs),
        "joules_per_token": statistics.median(joules) if joules else None,
        "bytes_per_token": read,
        "gb_s": gb_s,
        "share_of_read": gb_s / machine.read_gb_s,
    }


def _image_row(
    pixels: int, looks: Sequence[_Look], graphs: Sequence[GraphWork], machine: Machine
) -> dict[str, Any]:
    encoder = next(graph for graph in graphs if graph.role == "vision")
    encode = Spread.of([look.encode_ms for look in looks])
    ttft = Spread.of([look.ttft_ms for look in looks])
    seeing, tokens = encoder.macs * looks[0].tiles, looks[0].tokens
    macs = seeing + prompt_macs(graphs, tokens)
    return {
        "pixels": pixels,
        "tokens": tokens,
        "decode_ms": asdict(Spread.of([look.decode_ms for look in looks])),
        "encode_ms": asdict(encode),
        "prefill_ms": asdict(Spread.of([look.prefill_ms for look in looks])),
        "ttft_ms": asdict(ttft),
        "encode": _roof(seeing / encode.median / 1e6, machine),
        "ttft": _roof(macs / ttft.median / 1e6, machine),
    }


def _peer_rows(
    engine: Engine, protocol: Protocol, threads: int, progress: Progress
) -> list[dict[str, Any]]:
    """Tokens per second of each, ms to the first token, and how many times as fast ours is."""
    depth = min(protocol.depths)
    task = PeerTask(
        prompt=protocol.prompt,
        answer=protocol.answer,
        depth=depth,
        repeats=protocol.repeats,
        threads=threads,
        image=protocol.image,
    )
    seeds = count(protocol.repeats + 1)

    def ours(kind: str) -> dict[str, float]:
        if kind == "picture":
            return {"picture": _look(engine, protocol.image, next(seeds)).ttft_ms}
        prompt = _prompt_once(engine, protocol.prompt)
        run = _decode_once(engine, _text_inputs(engine, depth), protocol.answer)
        return {"prompt": prompt, "decode": run.tokens_per_second}

    runs = measure_peers(protocol.peers, engine.bundle.model.text, task, ours, progress)
    return [{"peer": run.peer, "depth": depth, **_peer_row(run)} for run in runs]


def _peer_row(run: PeerRun) -> dict[str, Any]:
    row: dict[str, Any] = {"missing": run.missing}
    for test in ("prompt", "decode", "picture"):
        pairs = list(zip(run.theirs.get(test, ()), run.ours.get(test, ()), strict=True))
        ratios = [a / b if test == "picture" else b / a for a, b in pairs]
        row[test] = asdict(Spread.of(run.theirs[test])) if pairs else None
        row[f"{test}_ratio"] = statistics.median(ratios) if pairs else None
    return row


def _memory_row(peak_rss: float | None, bundle: Bundle, target: str) -> dict[str, Any]:
    files = {file: entry["bytes"] for file, entry in bundle.manifest["files"].items()}
    held = sum(size for file, size in files.items() if file.startswith(f"{target}/"))
    return {
        "peak_rss_bytes": peak_rss,
        "bundle_bytes": held,
        "ratio": peak_rss / held if peak_rss else None,
    }
