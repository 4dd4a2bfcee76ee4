"""Engine: a conversation in, a streamed answer with timings out.

messages -> Processor -> ids, pixels -> vision graph -> rows [T, H]
         -> chunked prefill (reusing what the last answer left) -> sample, decode, ... -> text
"""

from __future__ import annotations

import time
from collections.abc import Generator, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autoneural.bundle import Bundle
from autoneural.data.messages import Message, normalise_messages
from autoneural.data.processor import ModelInputs
from autoneural.errors import UserError
from autoneural.runtime.decoder import Decoder
from autoneural.runtime.devices import place
from autoneural.runtime.images import EncodedImages, ImageEncoder
from autoneural.runtime.prompt import load_processor
from autoneural.runtime.qnn import PROVIDER
from autoneural.runtime.sampling import Sampler, Sampling
from autoneural.runtime.session import TargetSessions, load_embedding
from autoneural.runtime.stream import TextStream

FinishReason = Literal["stop", "stop_sequence", "length", "cancelled"]


@dataclass(frozen=True)
class Piece:
    """Text that became ready to show; never half a character, never empty."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts under OpenAI's names; `cached_tokens` were not computed again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's `usage` object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(kw_only=True)
class Timings:
    """llama.cpp's `timings`, and ours: `ttft_ms`, `image_encode_ms`, `image_n`.

    `image_n` counts the pictures that were encoded now, not those whose features were kept.
    `prompt_*` is the prefill of the tokens that were not cached, image encoding apart. The first
    token comes out of the prefill, so the `predicted_*` rates are over the other predicted_n - 1;
    they are None where nothing was measured. Time the caller spends on a piece is not counted.
    """

    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    ttft_ms: float | None = None
    image_encode_ms: float = 0.0
    image_n: int = 0

    def to_dict(self) -> dict[str, Any]:
        """All fields with the rates, JSON-ready."""
        steps = self.predicted_n - 1
        return {
            **asdict(self),
            "prompt_per_token_ms": _ratio(self.prompt_ms, self.prompt_n),
            "prompt_per_second": _ratio(1e3 * self.prompt_n, self.prompt_ms),
            "predicted_per_token_ms": _ratio(self.predicted_ms, steps),
            "predicted_per_second": _ratio(1e3 * steps, self.predicted_ms),
        }


def _ratio(amount: float, per: float) -> float | None:
    return amount / per if amount > 0 and per > 0 else None


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished answer. `token_ids` include the end token where the model gave one."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings


@dataclass(frozen=True, kw_only=True)
class _Prompt:
    """A request that passed all checks."""

    inputs: ModelInputs
    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...]
    started: float


class Engine:
    """Runs one target of a bundle, one answer at a time; not for use from several threads.

    The state of the last answer stays, so a conversation that goes on computes only what is new.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        target: str | None = None,
        *,
        device: str = "cpu",
        chip: str | None = None,
        require_npu: bool = False,
        threads: int | None = None,
        image_size: int | None = None,
    ) -> None:
        """`bundle` may be a folder or an embedded name; `threads` defaults to physical cores.

        `image_size`: pixels a side of the pictures, one of `Bundle.image_sizes`, the first if None.

        `device` is one of `devices.DEVICES`; without a `target` it takes its own (cpu: `cpu`). The
        emulator is for the chip named, SA8295P unless told, and runs the `qdq` graphs, compiled in
        memory, unshared: it refuses binaries that share weights. Seconds per answer, not for use.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        if image_size is not None:
            self.bundle = self.bundle.at_size(image_size)
        self.placement = place(self.bundle, target, device, chip, require_npu=require_npu)
        self.target = self.placement.target
        self.processor = load_processor(self.bundle)
        self.tokenizer = self.processor.tokenizer
        self._sessions = TargetSessions.load(self.bundle, self.placement, threads)
        self._embedding = load_embedding(self.bundle, self._sessions)
        self._encoder = ImageEncoder(self._sessions.vision)
        self._decoder = Decoder(self.bundle, self._sessions)

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._decoder.context

    def reset(self) -> None:
        """Forget the last conversation; the next prompt is computed from its first token."""
        self._decoder.reset()

    def provider_report(self) -> list[dict[str, Any]]:
        """Per graph or part: role, part, width, file, device, and its nodes per provider."""
        return self._sessions.provider_report()

    def nodes_beside_npu(self) -> int:
        """How many nodes fell to the CPU although an NPU was chosen."""
        rows = [row["nodes"] for row in self.provider_report() if row["device"] == "npu"]
        return sum(n for nodes in rows for provider, n in nodes.items() if provider != PROVIDER)

    def generate(
        self,
        messages: Sequence[Message],
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
    ) -> Generation:
        """Start an answer; iterate over it for `Piece`s, then read `.result`.

        Everything about the request is checked here, before any graph runs. Raises UserError for an
        empty prompt, a malformed message, an unreadable image, or a prompt beyond the context.
        """
        started = time.perf_counter()
        _require_content(messages)
        if max_tokens is not None and max_tokens < 1:
            raise UserError(f"max_tokens: {max_tokens} is not at least 1")
        inputs = self.processor(messages)
        room = self._room(inputs)
        prompt = _Prompt(
            inputs=inputs,
            sampling=sampling or Sampling(),
            max_tokens=min(room, max_tokens or room),
            stop=tuple(stop),
            started=started,
        )
        return Generation(self, prompt)

    def logits(self, messages: Sequence[Message], answer: Sequence[int] = ()) -> np.ndarray:
        """Logits [V] of the next token, after the prompt and the first tokens of an answer."""
        inputs = self.processor(messages)
        prompt = _Prompt(
            inputs=inputs,
            sampling=Sampling(),
            max_tokens=self._room(inputs),
            stop=(),
            started=time.perf_counter(),
        )
        logits = self._prefill(prompt, Timings())
        for token in answer:
            logits = self._decode(token)
        return logits

    def _room(self, inputs: ModelInputs) -> int:
        """Tokens left for the answer, at least 1."""
        tokens, images = len(inputs.input_ids), len(inputs.pixel_values)
        if tokens < self.context:
            return self.context - tokens
        each = self.bundle.processor.tokens_per_image
        share = f", {images} x {each} of them for images" if images else ""
        raise UserError(
            f"prompt: {tokens} tokens{share}, but the context holds {self.context} including "
            "the answer; use fewer images, a shorter text or a new conversation"
        )

    def _rows(self, ids: np.ndarray, images: EncodedImages) -> np.ndarray:
        """[T, H] in the encoding of `inputs_embeds`, image features in the places of images."""
        rows = np.asarray(self._embedding[ids])
        if images.features:
            rows[ids == self.tokenizer.image_id] = np.concatenate(images.features)
        return rows

    def _keys(self, ids: np.ndarray, images: EncodedImages) -> list[Hashable]:
        """What stands at each position: a token id, or the hash of the picture it belongs to."""
        keys: list[Hashable] = ids.tolist()
        each = self.bundle.processor.tokens_per_image
        for index, at in enumerate(np.flatnonzero(ids == self.tokenizer.image_id)):
            keys[at] = images.digests[index // each]
        return keys

    def _prefill(self, prompt: _Prompt, timings: Timings) -> np.ndarray:
        """Bring the decoder to the end of the prompt; logits [V] of the first answer token."""
        ids = prompt.inputs.input_ids
        images = self._encoder(prompt.inputs.pixel_values)
        timings.image_n, timings.image_encode_ms = images.encoded, images.ms
        start = time.perf_counter()
        rows, keys = self._rows(ids, images), self._keys(ids, images)
        done = timings.cache_n = self._decoder.rewind(keys)
        timings.prompt_n = len(ids) - done
        hidden = rows[:0]
        while done < len(ids):
            end = done + self._decoder.chunk_size(len(ids) - done)
            hidden = self._decoder.step(rows[done:end], keys[done:end])
            self._decoder.mark()
            done = end
        logits = self._decoder.logits(hidden)
        timings.prompt_ms = (time.perf_counter() - start) * 1e3
        return logits

    def _decode(self, token: int) -> np.ndarray:
        """Commit one answer token; logits [V] of the next."""
        return self._decoder.logits(self._decoder.step(self._embedding[[token]], [token]))


class Generation:
    """An answer on its way: iterate for pieces, `close()` to stop; then `.result` is there."""

    def __init__(self, engine: Engine, prompt: _Prompt) -> None:
        self._engine = engine
        self._prompt = prompt
        self._text = TextStream(engine.tokenizer, prompt.stop)
        self._token_ids: list[int] = []
        self._reason: FinishReason | None = None
        self._timings = Timings()
        self._pieces = self._run()

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """Stop here. The engine stays usable, the text so far is in `.result`."""
        self._pieces.close()
        self._reason = self._reason or "cancelled"

    @property
    def result(self) -> Result:
        """The answer, once the iteration has ended or was closed; before that it has none."""
        if self._reason is None:
            raise RuntimeError("the answer is not finished: iterate over it, or close() it, first")
        timings = self._timings
        return Result(
            text=self._text.text,
            token_ids=tuple(self._token_ids),
            finish_reason=self._reason,
            usage=Usage(
                prompt_tokens=len(self._prompt.inputs.input_ids),
                completion_tokens=len(self._token_ids),
                cached_tokens=timings.cache_n,
            ),
            timings=timings,
        )

    def _run(self) -> Generator[Piece, None, None]:
        reason: FinishReason = "cancelled"
        try:
            for text in self._answer():
                if text:
                    yield Piece(text)
            reason = self._finish_reason() or reason
            if rest := self._text.flush():
                yield Piece(rest)
        finally:
            # Also on close() and KeyboardInterrupt: what was said so far stays readable.
            self._text.flush()
            self._reason = reason

    def _answer(self) -> Iterator[str]:
        """Text per token, until a reason to stop; the time between tokens goes to the timings."""
        engine, prompt, timings = self._engine, self._prompt, self._timings
        sampler = Sampler(prompt.sampling, prompt.inputs.input_ids.tolist())
        logits = engine._prefill(prompt, timings)
        text = self._take(sampler.sample(logits))
        timings.ttft_ms = (time.perf_counter() - prompt.started) * 1e3
        while True:
            yield text
            if self._finish_reason():
                return
            start = time.perf_counter()
            logits = engine._decode(self._token_ids[-1])
            text = self._take(sampler.sample(logits))
            timings.predicted_ms += (time.perf_counter() - start) * 1e3

    def _take(self, token: int) -> str:
        self._token_ids.append(token)
        self._timings.predicted_n += 1
        return self._text.push(token)

    def _finish_reason(self) -> FinishReason | None:
        """Why the answer is over, or None while it goes on."""
        if self._token_ids[-1] == self._engine.tokenizer.eos_id:
            return "stop"
        if self._text.stopped:
            return "stop_sequence"
        return "length" if len(self._token_ids) >= self._prompt.max_tokens else None


def _require_content(messages: Sequence[Message]) -> None:
    """The last message must ask something: a text that is not blank, or an image."""
    last = normalise_messages(list(messages))[-1]
    if not any(part["type"] == "image" or part["text"].strip() for part in last["content"]):
        raise UserError("prompt: empty; write a question or add an image")
