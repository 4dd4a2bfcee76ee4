"""One engine, one thread: takes jobs in turn, answers them token by token, sleeps when idle.

The thread talks to the event loop through `Job.events` alone, and the loop to the thread through
`Job.cancel`, which takes effect before the next chunk of a prompt or the next token.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from autoneural.data.processor import ModelInputs
from autoneural.errors import UserError
from autoneural.runtime import Engine, Result, Sampling, Watch
from autoneural.runtime.drafting import Speculate
from autoneural.runtime.tools import ToolCall
from autoneural.serve.errors import ApiError, internal, of_user_error, unavailable
from autoneural.serve.forms import PLAIN, Form
from autoneural.serve.logprobs import ChoiceLog, TokenChoice
from autoneural.serve.memory import Loadable, Memory
from autoneural.serve.queue import Closed, FairQueue
from autoneural.serve.settings import CHUNK_SECONDS

log = logging.getLogger("autoneural.serve")


@dataclass(frozen=True)
class Run:
    """One prompt and how to answer it."""

    inputs: ModelInputs
    sampling: Sampling
    form: Form = PLAIN


@dataclass(frozen=True)
class Delta:
    """New text and calls of answer `index`, with the tokens where they were asked for."""

    index: int
    text: str
    tokens: Sequence[TokenChoice] = ()
    calls: Sequence[ToolCall] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self.text or self.tokens or self.calls)


@dataclass(frozen=True)
class Finished:
    """Answer `index` is complete; `delta` is what no event before has told of it."""

    index: int
    result: Result
    queue_ms: float
    delta: Delta


@dataclass(frozen=True)
class Failed:
    """The job ends here."""

    error: ApiError


@dataclass(frozen=True)
class Ping:
    """Nothing has happened, but who listens should know that we are here."""


Event = Delta | Finished | Failed | Ping


@dataclass(kw_only=True, eq=False)
class Job:
    """A request on its way through a worker. Made on the event loop that reads its `events`.

    They end with a Failed, or with one Finished for each of the `runs`.
    """

    runs: Sequence[Run]
    max_tokens: int | None
    stop: Sequence[str]
    top_logprobs: int | None
    """None: no log-probabilities; 0: those of the tokens that were said."""
    stream: bool
    client: Hashable
    arrived: float
    speculate: Speculate = "off"
    tenant: bytes = b""
    submitted: float = field(default_factory=time.perf_counter)
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    stopped: threading.Event = field(default_factory=threading.Event)

    def cancel(self, error: ApiError) -> None:
        """End the job with `error`, from the event loop's thread. Harmless once it has ended."""
        if not self.stopped.is_set():
            self.stopped.set()
            self.events.put_nowait(Failed(error))

    def emit(self, event: Event) -> None:
        """Hand an event to the event loop, from the worker's thread."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:
            self.stopped.set()  # the loop is closed: nobody reads any more


class _Stopped(Exception):
    """The job was cancelled."""


def _go_on(job: Job) -> None:
    if job.stopped.is_set():
        raise _Stopped


class _JobWatch(Watch):
    """Ends a cancelled job, and collects log-probabilities where they were asked for."""

    def __init__(self, job: Job, run: Run, engine: Engine) -> None:
        self._job = job
        self.choices: ChoiceLog | None = None
        if job.top_logprobs is not None:
            self.choices = ChoiceLog(engine.tokenizer, job.top_logprobs, run.form.shown)

    def step(self) -> None:
        _go_on(self._job)

    def token(self, token: int, logits: np.ndarray) -> None:
        if self.choices is not None:
            self.choices.add(token, logits)


class _Said:
    """An answer on its way to the event loop: whole, or in a stream what a short time made.

    A small model says its tokens faster than they can be sent one by one, and faster than read.
    """

    def __init__(self, job: Job, index: int) -> None:
        self._job, self._index = job, index
        self._told = 0.0
        self._waiting: list[Delta] = []

    def add(self, text: str, calls: Sequence[ToolCall], tokens: Sequence[TokenChoice]) -> None:
        """Tell it, unless something was told a moment ago; then it waits for what comes next."""
        delta = Delta(self._index, text, tokens, calls)
        if delta.empty:
            return
        self._waiting.append(delta)
        now = time.perf_counter()
        if self._job.stream and now - self._told >= CHUNK_SECONDS:
            self._told = now
            self._job.emit(self.rest())

    def rest(self) -> Delta:
        """What has not been told, in one piece."""
        waiting, self._waiting = self._waiting, []
        text = "".join(delta.text for delta in waiting)
        tokens = [token for delta in waiting for token in delta.tokens]
        calls = [call for delta in waiting for call in delta.calls]
        return Delta(self._index, text, tokens, calls)


class Worker:
    """The thread of one model. `keepalive` idle seconds unload its engine; 0: it stays.

    Its engine counts as `size` bytes of `memory`.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], Engine],
        keepalive: float = 0.0,
        *,
        size: int = 0,
        memory: Memory | None = None,
    ) -> None:
        self._model = Loadable(load, size, memory or Memory())
        self._keepalive = keepalive
        self._queue: FairQueue[Job] = FairQueue()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name=f"worker {name}", daemon=True)
        self.name = name
        self.busy = False

    def start(self, *, load: bool = True) -> None:
        """Load the engine on its thread and wait for it; raises what loading raises.

        Without `load` the first job does.
        """
        if not load:
            self._ready.set_result(None)
        self._thread.start()
        self._ready.result()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises ApiError (503) when the worker has been stopped."""
        try:
            self._queue.put(job.client, job)
        except Closed as error:
            raise shutting_down() from error

    def forget(self, job: Job) -> None:
        """Take a cancelled job out of the queue, if it still waits."""
        self._queue.remove(job.client, job)

    def stop(self, seconds: float = 5.0) -> None:
        """Take no more jobs; wait for the present step to end."""
        self._queue.close()
        if self._thread.is_alive():
            self._thread.join(seconds)

    @property
    def loaded(self) -> bool:
        """Whether the engine is in memory."""
        return self._model.loaded

    @property
    def size(self) -> int:
        """Bytes that the engine counts as, loaded or not."""
        return self._model.size

    @property
    def waiting(self) -> int:
        """How many jobs wait for their turn."""
        return len(self._queue)

    def _work(self) -> None:
        if not self._ready.done() and not self._load_first():
            return
        try:
            while True:
                job = self._queue.take(self._patience())
                if job is None:
                    self._model.drop()
                else:
                    self._answer(job)
        except Closed:
            self._model.drop()

    def _load_first(self) -> bool:
        try:
            with self._model.used():
                pass
        except BaseException as error:
            self._ready.set_exception(error)
            return False
        self._ready.set_result(None)
        return True

    def _patience(self) -> float | None:
        return self._keepalive if self._keepalive and self.loaded else None

    def _answer(self, job: Job) -> None:
        self.busy = True
        try:
            self._run_all(job)
        except _Stopped:
            pass
        except ApiError as error:
            job.emit(Failed(error))
        except UserError as error:  # a form that turned out too complex to be followed
            job.emit(Failed(of_user_error(error, None)))
        except Exception as error:
            self._model.drop()  # its state may be half of a step; the next job loads another
            # Not the message: it may quote the prompt.
            log.error("%s: %s while answering", self.name, type(error).__name__)
            job.emit(Failed(internal()))
        finally:
            self.busy = False

    def _run_all(self, job: Job) -> None:
        with ExitStack() as stack:
            try:
                engine = stack.enter_context(self._model.used(partial(_go_on, job)))
            except UserError as error:
                log.error("%s", error)
                raise unavailable(
                    "the model cannot be loaded; see the server's log", "no_model"
                ) from error
            for index, run in enumerate(job.runs):
                _run(engine, job, index, run)


def shutting_down() -> ApiError:
    """503: the server is about to end."""
    return unavailable("the server is shutting down", "shutting_down")


def _run(engine: Engine, job: Job, index: int, run: Run) -> None:
    taken = time.perf_counter()
    watch = _JobWatch(job, run, engine)
    watch.step()
    generation = engine.answer(
        run.inputs,
        run.sampling,
        job.max_tokens,
        job.stop,
        speculate=job.speculate,
        tenant=job.tenant,
        constraint=run.form.constraint,
        shown=run.form.shown,
        watch=watch,
        started=job.arrived,
    )
    reader, said = run.form.reader(), _Said(job, index)
    for piece in generation:
        tokens = watch.choices.take(piece.text) if watch.choices else ()
        said.add(*reader.push(piece.text), tokens)
    said.add(*reader.flush(), ())
    queue_ms = (taken - job.submitted) * 1e3
    job.emit(Finished(index, generation.result, queue_ms, said.rest()))
