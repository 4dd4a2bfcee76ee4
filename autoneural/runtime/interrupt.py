"""Native calls that Ctrl-C can leave: a step of an emulated graph takes seconds, or minutes.

Python looks at signals between its own instructions, never inside a native call. So the call runs
on a thread of its own and the main thread waits where it can be woken. What was left behind runs on
to its end: the next call waits for it, and a program that ends before it is ended without taking
down the libraries under it, which would crash.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_INTERRUPTED = 130
_POLL_SECONDS = 0.2  # on Windows a wait without a limit cannot be woken

# The last call: its thread, and what is set when it is over. Not `is_alive`: Python 3.11 takes a
# thread for dead when a join of it is interrupted.
_last: tuple[threading.Thread, threading.Event] | None = None


def interruptible(work: Callable[[], _T]) -> _T:
    """What `work()` gives or raises; KeyboardInterrupt at once, not when `work` is over."""
    if threading.current_thread() is not threading.main_thread():
        return work()  # signals reach the main thread only
    global _last
    _wait()
    answers: list[_T] = []
    errors: list[BaseException] = []
    over = threading.Event()

    def call() -> None:
        try:
            answers.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=call, daemon=True)
    _last = thread, over
    thread.start()
    _wait()
    if errors:
        raise errors[0]
    return answers[0]


def _running() -> bool:
    return _last is not None and _last[0].ident is not None and not _last[1].is_set()


def _wait() -> None:
    while _last is not None and _running():
        _last[1].wait(_POLL_SECONDS)


@atexit.register
def _leave() -> None:
    if _running():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_INTERRUPTED)
