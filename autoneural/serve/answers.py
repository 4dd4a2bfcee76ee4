"""OpenAI's objects: whole answers, chunks of a stream, usage, and llama.cpp's `timings`."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from autoneural import __version__
from autoneural.runtime import Result
from autoneural.serve.logprobs import Choice, TokenChoice
from autoneural.serve.worker import Delta, Finished

_FINISH = {"stop": "stop", "stop_sequence": "stop", "length": "length"}


@dataclass(kw_only=True)
class Answers(ABC):
    """The objects of one request: `n` answers to each prompt."""

    model: str
    n: int = 1
    logprobs: bool = False
    include_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self._id = f"{self.prefix}-{secrets.token_hex(12)}"
        self._calls: Counter[int] = Counter()

    prefix = ""
    whole_object = ""
    chunk_object = ""

    def whole(self, finished: Sequence[Finished]) -> dict[str, Any]:
        """The response of a request that does not stream."""
        return {
            **self._head(self.whole_object),
            "choices": [self._whole_choice(each) for each in finished],
            "usage": self._usage(finished),
            "timings": timings(finished[0]),
        }

    def delta(self, delta: Delta, first: bool) -> dict[str, Any]:
        """The chunk of new text; `first` of its answer."""
        return self._chunk([self._delta_choice(delta, first)])

    def last(self, finished: Finished, first: bool) -> dict[str, Any]:
        """The chunk with the finish reason; `first` where the answer had no text."""
        choice = self._delta_choice(Delta(finished.index, ""), first)
        choice["finish_reason"] = _finish(finished.result, self._calls[finished.index])
        return {**self._chunk([choice]), "timings": timings(finished)}

    def usage(self, finished: Sequence[Finished]) -> dict[str, Any]:
        """The chunk of `stream_options.include_usage`."""
        return {**self._chunk([]), "usage": self._usage(finished)}

    def _usage(self, finished: Sequence[Finished]) -> dict[str, Any]:
        """All tokens; a prompt counts once, however many answers it got, as OpenAI counts it."""
        total = finished[0].result.usage.to_dict()
        prompts = sum(each.result.usage.prompt_tokens for each in finished[:: self.n])
        answers = sum(each.result.usage.completion_tokens for each in finished)
        total |= {"prompt_tokens": prompts, "completion_tokens": answers}
        return {**total, "total_tokens": prompts + answers}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        nothing_yet = {"usage": None} if self.include_usage else {}
        return {**self._head(self.chunk_object), "choices": choices, **nothing_yet}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"autoneural-{__version__}",
        }

    @abstractmethod
    def _whole_choice(self, finished: Finished) -> dict[str, Any]:
        """A complete answer."""

    @abstractmethod
    def _delta_choice(self, delta: Delta, first: bool) -> dict[str, Any]:
        """A piece of an answer."""


class ChatAnswers(Answers):
    """`/v1/chat/completions`."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def _whole_choice(self, finished: Finished) -> dict[str, Any]:
        text, calls = finished.delta.text, [call.to_dict() for call in finished.delta.calls]
        content = None if calls and not text else text
        message = {"role": "assistant", "content": content, "refusal": None}
        return {
            "index": finished.index,
            "message": message | ({"tool_calls": calls} if calls else {}),
            "logprobs": self._logprobs(finished.delta.tokens),
            "finish_reason": _finish(finished.result, len(calls)),
        }

    def _delta_choice(self, delta: Delta, first: bool) -> dict[str, Any]:
        said: dict[str, Any] = {"role": "assistant"} if first else {}
        if delta.text or first:
            said["content"] = None if delta.calls and not delta.text else delta.text
        if delta.calls:
            said["tool_calls"] = self._numbered(delta)
        return {
            "index": delta.index,
            "delta": said,
            "logprobs": self._logprobs(delta.tokens) if delta.text or delta.tokens else None,
            "finish_reason": None,
        }

    def _numbered(self, delta: Delta) -> list[dict[str, Any]]:
        """Calls with their places in the answer, each in one piece."""
        before = self._calls[delta.index]
        self._calls[delta.index] += len(delta.calls)
        return [{"index": before + i, **call.to_dict()} for i, call in enumerate(delta.calls)]

    def _logprobs(self, tokens: Sequence[TokenChoice]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = [
            {**_token(t.said), "top_logprobs": [_token(rival) for rival in t.top]} for t in tokens
        ]
        return {"content": content, "refusal": None}


class CompletionAnswers(Answers):
    """`/v1/completions`."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def _whole_choice(self, finished: Finished) -> dict[str, Any]:
        return {
            "index": finished.index,
            "text": finished.result.text,
            "logprobs": self._logprobs(finished.delta.tokens),
            "finish_reason": _finish(finished.result),
        }

    def _delta_choice(self, delta: Delta, first: bool) -> dict[str, Any]:
        return {
            "index": delta.index,
            "text": delta.text,
            "logprobs": self._logprobs(delta.tokens) if delta.text else None,
            "finish_reason": None,
        }

    def _logprobs(self, tokens: Sequence[TokenChoice]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return {
            "tokens": [t.said.text for t in tokens],
            "token_logprobs": [t.said.logprob for t in tokens],
            "top_logprobs": [{rival.text: rival.logprob for rival in t.top} for t in tokens],
            "text_offset": [t.letter for t in tokens],
        }


def _finish(result: Result, calls: int = 0) -> str:
    """OpenAI's reason; an answer that was cut off says so, whatever it called."""
    reason = _FINISH[result.finish_reason]
    return "tool_calls" if calls and reason == "stop" else reason


def timings(finished: Finished) -> dict[str, Any]:
    """The engine's, and how long it was waited for; `ttft_ms` counts from the arrival."""
    return {**finished.result.timings.to_dict(), "queue_ms": finished.queue_ms}


def _token(choice: Choice) -> dict[str, Any]:
    return {"token": choice.text, "logprob": choice.logprob, "bytes": list(choice.data)}
