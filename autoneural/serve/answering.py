"""A request on its way: admitted, prepared, queued, answered as one object or as a stream.

It ends in one of four ways: answered; refused or failed (an ApiError); too slow (504); or the
client went away, which stops the worker before its next token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from autoneural.runtime.drafting import Speculate
from autoneural.serve.answers import Answers
from autoneural.serve.errors import ApiError, Json, timed_out, to_json
from autoneural.serve.forms import PLAIN, Form
from autoneural.serve.metrics import Metrics
from autoneural.serve.models import Served
from autoneural.serve.settings import PING_SECONDS
from autoneural.serve.worker import Delta, Failed, Finished, Job, Ping, Run

log = logging.getLogger("autoneural.serve")

T = TypeVar("T")

_FAREWELL_SECONDS = 1.0
_STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, kw_only=True)
class Threads:
    """Where the parts of a request that take long are done."""

    prepare: Executor
    compile: Executor
    fetch: Executor

    def close(self) -> None:
        """End them, without waiting."""
        for threads in (self.prepare, self.compile, self.fetch):
            threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked, checked as far as that is quick. Threads do the rest: `form`, `prepare`.

    Without a `form` the answer is free text. If it `fetches`, `prepare` waits for other machines.
    """

    served: Served
    form: Callable[[], Form] | None
    prepare: Callable[[Form], Sequence[Run]]
    answers: Answers
    stream: bool
    max_tokens: int | None
    stop: Sequence[str]
    top_logprobs: int | None
    client: Hashable
    speculate: Speculate
    tenant: bytes = b""
    fetches: bool = False
    arrived: float = field(default_factory=time.perf_counter)


class Answer(Response):
    """The response to a `Request`; everything happens when it is called."""

    def __init__(
        self,
        request: Request,
        metrics: Metrics,
        threads: Threads,
        timeout: float,
    ) -> None:
        super().__init__()
        self._request = request
        self._metrics = metrics
        self._threads = threads
        self._timeout = timeout
        self._started = False
        self._gone = False
        self._job: Job | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError where nothing has been sent yet; later errors go into the stream."""
        served = self._request.served
        end = "ok"
        try:
            with served.admitted():
                await self._in_time(scope, receive, send)
        except ApiError as error:
            end = str(error.status)
            if not self._started:
                raise
            await self._say_goodbye(send, error)
        finally:
            self._metrics.ended(served.name, "gone" if self._gone else end)

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving = asyncio.create_task(self._watch_client(receive))
        try:
            async with asyncio.timeout(self._timeout):
                runs = await self._prepared(leaving)
                if runs is not None:
                    await self._answer(runs, scope, receive, send)
        except TimeoutError as error:
            raise timed_out(self._timeout) from error
        finally:
            leaving.cancel()
            if self._job is not None:
                self._withdraw(self._job)

    async def _prepared(self, leaving: asyncio.Task[None]) -> Sequence[Run] | None:
        """What to answer; None where the client left before it was read."""
        form, request = PLAIN, self._request
        if request.form is not None:
            form = await self._on_thread(self._threads.compile, request.form, leaving)
        if form is None:
            return None
        threads = self._threads.fetch if request.fetches else self._threads.prepare
        return await self._on_thread(threads, partial(request.prepare, form), leaving)

    async def _on_thread(
        self, threads: Executor, work: Callable[[], T], leaving: asyncio.Task[None]
    ) -> T | None:
        """What `work` gives; None where the client leaves before."""
        working = asyncio.get_running_loop().run_in_executor(threads, work)
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return None if self._gone else working.result()
        finally:
            working.cancel()  # where it has not begun, it never will

    async def _answer(
        self, runs: Sequence[Run], scope: Scope, receive: Receive, send: Send
    ) -> None:
        request = self._request
        self._job = job = Job(
            runs=runs,
            max_tokens=request.max_tokens,
            stop=request.stop,
            top_logprobs=request.top_logprobs,
            stream=request.stream,
            client=request.client,
            arrived=request.arrived,
            speculate=request.speculate,
            tenant=request.tenant,
        )
        request.served.jobs.add(job)
        request.served.worker.submit(job)
        if request.stream:
            await self._stream(job, send)
        else:
            await self._whole(job, scope, receive, send)

    async def _whole(self, job: Job, scope: Scope, receive: Receive, send: Send) -> None:
        finished: list[Finished] = []
        while len(finished) < len(job.runs):
            finished += [e for e in await _events(job) if isinstance(e, Finished)]
        self._metrics.answered(self._request.served.name, finished)
        self._started = True
        await Json(self._request.answers.whole(finished))(scope, receive, send)

    async def _stream(self, job: Job, send: Send) -> None:
        await self._open_stream(send)
        pinging = asyncio.create_task(_ping(job))
        try:
            await self._stream_events(job, send)
        finally:
            pinging.cancel()

    async def _stream_events(self, job: Job, send: Send) -> None:
        answers = self._request.answers
        finished: list[Finished] = []
        begun: set[int] = set()
        while len(finished) < len(job.runs):
            lines = []
            for event in await _events(job):
                if isinstance(event, Ping):
                    lines.append(b": ping\n\n")
                    continue
                delta = event.delta if isinstance(event, Finished) else event
                if not delta.empty:
                    lines.append(_line(answers.delta(delta, event.index not in begun)))
                    begun.add(event.index)
                if isinstance(event, Finished):
                    finished.append(event)
                    lines.append(_line(answers.last(event, event.index not in begun)))
            more = len(finished) < len(job.runs)
            if not more:
                self._metrics.answered(self._request.served.name, finished)
                lines += [_line(answers.usage(finished))] if answers.include_usage else []
                lines.append(b"data: [DONE]\n\n")
            await _send(send, b"".join(lines), more)

    async def _open_stream(self, send: Send) -> None:
        response = Response(headers=_STREAM_HEADERS, media_type="text/event-stream")
        del response.headers["content-length"]
        self._started = True
        start = {"type": "http.response.start", "status": 200, "headers": response.raw_headers}
        await send(start)

    async def _say_goodbye(self, send: Send, error: ApiError) -> None:
        """End a stream with an error. A client that does not even read that is left alone."""
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await _send(send, _line(error.to_dict()), more=False)
        except TimeoutError:
            log.info("a client stopped reading its stream")

    async def _watch_client(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._job is not None:
            self._job.cancel(ApiError(400, "the client went away"))

    def _withdraw(self, job: Job) -> None:
        served = self._request.served
        job.stopped.set()
        served.worker.forget(job)
        served.jobs.discard(job)


async def _events(job: Job) -> list[Delta | Finished | Ping]:
    """What has happened since the last time, in order. Raises ApiError where the job failed."""
    events = [await job.events.get()]
    while not job.events.empty():
        events.append(job.events.get_nowait())
    for event in events:
        if isinstance(event, Failed):
            raise event.error
    return [event for event in events if not isinstance(event, Failed)]


async def _ping(job: Job) -> None:
    """One timer for a whole stream; one for every token would cost as much as its JSON."""
    while True:
        await asyncio.sleep(PING_SECONDS)
        job.events.put_nowait(Ping())


def _line(value: dict) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"


async def _send(send: Send, body: bytes, more: bool = True) -> None:
    if body or not more:
        await send({"type": "http.response.body", "body": body, "more_body": more})
