"""Engine: a conversation in, a streamed answer with timings out.

messages -> Processor -> ids, pixels -> vision graph -> rows [T, H]
         -> chunked prefill (reusing what the last answer left) -> sample, decode, ... -> text
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoneural.bundle import Bundle
from autoneural.data.messages import Message, is_blank, normalise_messages
from autoneural.data.processor import ModelInputs
from autoneural.errors import UserError
from autoneural.runtime.beams import BeamGeneration, check_beams
from autoneural.runtime.constraint import Constraint
from autoneural.runtime.decoder import Decoder
from autoneural.runtime.devices import place
from autoneural.runtime.drafting import DRAFTERS, Speculate
from autoneural.runtime.generation import Generation, Prompt, Timings
from autoneural.runtime.images import EncodedImages, ImageEncoder, embed
from autoneural.runtime.prompt import load_processor
from autoneural.runtime.qnn import PROVIDER
from autoneural.runtime.sampling import Sampling
from autoneural.runtime.session import TargetSessions, load_embedding
from autoneural.runtime.speculation import Speculation, StepCosts
from autoneural.runtime.steps import AnswerSteps
from autoneural.runtime.tools import call_marks
from autoneural.runtime.watch import NOBODY, Watch


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
        exact: bool = False,
        exact_reuse: bool = False,
        image_size: int | None = None,
    ) -> None:
        """`bundle` may be a folder or an embedded name; `threads` defaults to physical cores.

        With `exact_reuse`, an answer never depends on what was asked before: see `Decoder`.
        `image_size`: pixels a side of the pictures, one of `Bundle.image_sizes`, the first if None.

        `device` is one of `devices.DEVICES`, or two, `vision=npu,language=cpu`; without a `target`
        each takes its own (cpu: `cpu`). The emulator is for the chip named, SA8295P unless told,
        and runs the `qdq` graphs, compiled in memory, unshared: it refuses binaries that share
        weights. Seconds per answer, not for use.

        `exact`: answers run in blocks of one width (see `steps`), so that speculation changes no
        bit of them. A plain step then costs as much as a wide one.
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
        rows = self._sessions.decoders[0].inputs["inputs_embeds"]
        self._encoder = ImageEncoder(self._sessions.vision, rows)
        self._decoder = Decoder(self.bundle, self._sessions, exact_reuse)
        self._exact = exact
        self._costs: StepCosts | None = None

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

    @property
    def native_seconds(self) -> float:
        """Time spent in ONNX Runtime so far, all graphs together."""
        return self._sessions.seconds

    def step_costs(self) -> StepCosts:
        """What steps with and without drafts cost here: measured once, when first asked for."""
        self._costs = self._costs or self._steps().costs()
        return self._costs

    def generate(
        self,
        messages: Sequence[Message],
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        *,
        speculate: Speculate = "off",
        beams: int = 1,
        constraint: Constraint | None = None,
        tools: Sequence[dict[str, Any]] = (),
    ) -> Generation:
        """Start an answer; iterate over it for `Piece`s, then read `.result`.

        A `constraint` made with this engine's tokenizer holds for every token; where nothing may
        follow it any more, the answer ends with the reason `stop`. With `tools`, as `check_tools`
        gives them, the text has the marks of calls, for a `ToolSplitter`.
        Everything about the request is checked here, before any graph runs. Raises UserError for an
        empty prompt, a malformed message, an unreadable image, or a prompt beyond the context.

        `speculate` guesses several tokens per step (see `drafting`): the same answer, sooner.
        `beams` above 1 search for the answer that is likeliest as a whole (see `beams`): later.
        """
        started = time.perf_counter()
        _require_content(messages)
        return self.answer(
            self.processor(messages, tools=tools),
            sampling,
            max_tokens,
            stop,
            speculate=speculate,
            beams=beams,
            constraint=constraint,
            shown=call_marks(self.tokenizer) if tools else frozenset(),
            started=started,
        )

    def answer(
        self,
        inputs: ModelInputs,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        *,
        speculate: Speculate = "off",
        beams: int = 1,
        constraint: Constraint | None = None,
        shown: frozenset[int] = frozenset(),
        watch: Watch = NOBODY,
        started: float | None = None,
        tenant: bytes = b"",
    ) -> Generation:
        """`generate` for a prompt that `processor` has read, or one put together from token ids.

        The special tokens `shown` stay in the text. `watch` sees every token, may end the answer.
        `ttft_ms` counts from `started`, a time of `time.perf_counter`; from now unless told. Raises
        UserError where the context is too small. What is kept of an answer, its prompt and its
        pictures, is used again for the same `tenant` alone: time tells nobody what another asked.
        """
        if max_tokens is not None and max_tokens < 1:
            raise UserError(f"max_tokens: {max_tokens} is not at least 1")
        if "" in stop:
            raise UserError("stop: an empty text would stop everything")
        if speculate != "off" and speculate not in DRAFTERS:
            raise UserError(f"speculate: {speculate!r} is none of off, {', '.join(DRAFTERS)}")
        sampling = sampling or Sampling()
        check_beams(beams, sampling, speculate)
        room = self._room(inputs)
        prompt = Prompt(
            inputs=inputs,
            sampling=sampling,
            max_tokens=min(room, max_tokens or room),
            stop=tuple(stop),
            started=time.perf_counter() if started is None else started,
            speculate=speculate,
            beams=beams,
            constraint=constraint,
            shown=shown,
            watch=watch,
            tenant=tenant,
        )
        return Generation(self, prompt) if beams == 1 else BeamGeneration(self, prompt)

    def logits(self, messages: Sequence[Message], answer: Sequence[int] = ()) -> np.ndarray:
        """Logits [V] of the next token, after the prompt and the first tokens of an answer."""
        inputs = self.processor(messages)
        prompt = Prompt(
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
        return embed(self._embedding, ids, self.tokenizer.image_id, images.features)

    def _keys(self, ids: np.ndarray, images: EncodedImages, tenant: bytes) -> list[Hashable]:
        """What stands at each position: a token id, or the hash of the picture it belongs to.

        Every prefix begins with whose it is.
        """
        keys: list[Hashable] = ids.tolist()
        each = self.bundle.processor.tokens_per_image
        for index, at in enumerate(np.flatnonzero(ids == self.tokenizer.image_id)):
            keys[at] = images.digests[index // each]
        keys[0] = (tenant, keys[0])
        return keys

    def _prefill(self, prompt: Prompt, timings: Timings) -> np.ndarray:
        """Bring the decoder to the end of the prompt; logits [V] of the first answer token."""
        ids = prompt.inputs.input_ids
        images = self._encoder(prompt.inputs.pixel_values, prompt.watch, prompt.tenant)
        timings.image_n, timings.image_encode_ms = images.encoded, images.ms
        start = time.perf_counter()
        rows, keys = self._rows(ids, images), self._keys(ids, images, prompt.tenant)
        done = timings.cache_n = self._decoder.rewind(keys)
        timings.prompt_n = len(ids) - done
        hidden = rows[:0]
        while done < len(ids):
            prompt.watch.step()
            end = done + self._decoder.chunk_size(len(ids) - done)
            hidden = self._decoder.step(rows[done:end], keys[done:end])
            self._decoder.mark()
            done = end
        logits = self._decoder.logits(hidden)
        timings.prompt_ms = (time.perf_counter() - start) * 1e3
        return logits

    def _steps(self) -> AnswerSteps:
        """Steps from where the decoder is."""
        return AnswerSteps(self._decoder, self._embedding, exact=self._exact)

    def _speculation(self, prompt: Prompt) -> Speculation | None:
        """Drafts for one answer; None where there can be none."""
        kind = prompt.speculate
        if kind == "off" or (kind == "forced" and prompt.constraint is None):
            return None
        return Speculation(DRAFTERS[kind](self.tokenizer.image_id), self.step_costs())

    def _decode(self, token: int) -> np.ndarray:
        """Commit one answer token; logits [V] of the next."""
        return self._decoder.logits(self._decoder.step(self._embedding[[token]], [token]))


def _require_content(messages: Sequence[Message]) -> None:
    """The last message must ask something: a text that is not blank, or an image."""
    if is_blank(normalise_messages(list(messages))[-1]):
        raise UserError("prompt: empty; write a question or add an image")
