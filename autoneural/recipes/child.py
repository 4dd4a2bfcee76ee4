"""A step in a process of its own: its memory can be measured, and is given back when it ends.

    run_child(work, arguments, tell)   work(tell, *arguments) -> value, seconds, peak memory

A child whose parent dies is stopped by the next thing that it tells.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from autoneural.errors import UserError
from autoneural.npu.worker import peak_rss_gb

Tell = Callable[[str, int, int], None]
"""(what, done, total)."""
_PARTING = 30.0
"""Seconds that a child gets to exit by itself."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a child returned, and what it took: `peak_rss_gb` in GiB, mapped files included."""

    value: Any
    seconds: float
    peak_rss_gb: float


def run_child(work: Callable[..., Any], arguments: Sequence[Any], tell: Tell) -> Done:
    """`work(tell, *arguments)` in a new process; both must be importable there.

    Raises the child's UserError, and one of our own when it dies without a word.
    """
    start = time.perf_counter()
    ours, theirs = get_context("spawn").Pipe(duplex=False)
    process = get_context("spawn").Process(
        target=_child, args=(theirs, work, tuple(arguments)), daemon=True
    )
    process.start()
    theirs.close()
    try:
        kind, message = _listen(ours, tell)
        process.join(_PARTING)  # what it holds (semaphores) is released as it exits
    finally:
        process.terminate()  # it has ended, unless we are interrupted
        process.join()
    if kind == "refused":
        raise UserError(message)
    if kind != "done":
        code = process.exitcode or 0
        died = f"signal {-code}" if code < 0 else "an error"
        raise UserError(f"a step ended by {died}; if memory was short, the same command goes on")
    value, peak = message
    return Done(value=value, seconds=time.perf_counter() - start, peak_rss_gb=peak)


def _listen(connection: Connection, tell: Tell) -> tuple[str, Any]:
    """Pass on what is told until there is an outcome: (kind, message)."""
    while True:
        try:
            kind, message = connection.recv()
        except EOFError:
            return "died", None
        if kind != "tell":
            return kind, message
        tell(*message)


def _child(connection: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    def tell(what: str, done: int, total: int) -> None:
        connection.send(("tell", (what, done, total)))

    try:
        value = work(tell, *arguments)
        connection.send(("done", (value, peak_rss_gb())))
    except UserError as error:
        connection.send(("refused", str(error)))
    except (BrokenPipeError, KeyboardInterrupt):
        raise SystemExit(1) from None
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None
