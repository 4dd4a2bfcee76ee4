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
from dataclasses import dataclass, field

import numpy as np

from autoneural.data.processor import ModelInputs
from autoneural.errors import UserError
from autoneural.runtime import Engine, Result, Sampling, Watch
from autoneural.runtime.drafting import Speculate
from autoneural.runtime.tools import ToolCall
from autoneural.serve.errors import ApiError, internal, of_user_error, unavailable
from autoneural.serve.forms import PLAIN, Form
from autoneural.serve.logprobs import ChoiceLog, TokenChoice
from autoneural.serve.queue import Closed, FairQueue

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


@dataclass(frozen=True)
class Finished:
    """Answer `index` is complete; with all of it where it was not streamed."""

    index: int
    result: Result
    queue_ms: float
    deltas: Sequence[Delta] = ()


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


class _JobWatch(Watch):
    """Ends a cancelled job, and collects log-probabilities where they were asked for."""

    def __init__(self, job: Job, run: Run, engine: Engine) -> None:
        self._stopped = job.stopped
        self.choices: ChoiceLog | None = None
        if job.top_logprobs is not None:
            self.choices = ChoiceLog(engine.tokenizer, job.top_logprobs, run.form.shown)

    def step(self) -> None:
        if self._stopped.is_set():
            raise _Stopped

    def token(self, token: int, logits: np.ndarray) -> None:
        if self.choices is not None:
            self.choices.add(token, logits)


class Worker:
    """The thread of one model. `keepalive` idle seconds unload its engine; 0: it stays."""

    def __init__(self, name: str, load: Callable[[], Engine], keepalive: float = 0.0) -> None:
        self._load = load
        self._keepalive = keepalive
        self._engine: Engine | None = None
        self._queue: FairQueue[Job] = FairQueue()
        self._ready: Future[Engine] = Future()
        self._thread = threading.Thread(target=self._work, name=f"worker {name}", daemon=True)
        self.name = name
        self.busy = False

    def start(self) -> Engine:
        """Load the engine on its thread and wait for it. Raises what loading raises."""
        self._thread.start()
        return self._ready.result()

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
        return self._engine is not None

    @property
    def waiting(self) -> int:
        """How many jobs wait for their turn."""
        return len(self._queue)

    def _work(self) -> None:
        try:
            self._engine = self._load()
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(self._engine)
        try:
            while True:
                job = self._queue.take(self._patience())
                if job is None:
                    self._engine = None
                else:
                    self._answer(job)
        except Closed:
            self._engine = None

    def _patience(self) -> float | None:
        return self._keepalive if self._keepalive and self.loaded else None

    def _answer(self, job: Job) -> None:
        self.busy = True
        try:
            engine = self._loaded()
            for index, run in enumerate(job.runs):
                _run(engine, job, index, run)
        except _Stopped:
            pass
        except ApiError as error:
            job.emit(Failed(error))
        except UserError as error:  # a form that turned out too complex to be followed
            job.emit(Failed(of_user_error(error, None)))
        except Exception as error:
            self._engine = None  # its state may be half of a step; the next job loads another
            # Not the message: it may quote the prompt.
            log.error("%s: %s while answering", self.name, type(error).__name__)
            job.emit(Failed(internal()))
        finally:
            self.busy = False

    def _loaded(self) -> Engine:
        """The engine, loaded again where it was unloaded."""
        if self._engine is None:
            try:
                self._engine = self._load()
            except UserError as error:
                log.error("%s", error)
                raise unavailable(
                    "the model cannot be loaded; see the server's log", "no_model"
                ) from error
        return self._engine


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
        constraint=run.form.constraint,
        shown=run.form.shown,
        watch=watch,
        started=job.arrived,
    )
    reader = run.form.reader()
    said: list[Delta] = []
    tell = job.emit if job.stream else said.append
    for piece in generation:
        tokens = watch.choices.take(piece.text) if watch.choices else ()
        text, calls = reader.push(piece.text)
        if text or calls or tokens:
            tell(Delta(index, text, tokens, calls))
    text, calls = reader.flush()
    if text or calls:
        tell(Delta(index, text, (), calls))
    queue_ms = (taken - job.submitted) * 1e3
    job.emit(Finished(index, generation.result, queue_ms, said))
