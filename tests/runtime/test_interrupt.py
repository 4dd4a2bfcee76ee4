"""Ctrl-C leaves a native call at once, and the next one waits for what was left behind."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from autoneural.runtime.interrupt import interruptible


def test_what_work_gives_or_raises_comes_through() -> None:
    assert interruptible(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0)


def test_work_of_another_thread_stays_there() -> None:
    found: list[str] = []
    work = lambda: found.append(threading.current_thread().name)  # noqa: E731
    thread = threading.Thread(target=lambda: interruptible(work), name="mine")
    thread.start()
    thread.join()
    assert found == ["mine"]


def test_an_interrupt_leaves_at_once_and_the_next_call_waits() -> None:
    order: list[str] = []
    go_on = threading.Event()

    def first() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        go_on.wait(10)
        order.append("first")

    with pytest.raises(KeyboardInterrupt):
        interruptible(first)
    assert order == []
    threading.Timer(0.3, go_on.set).start()
    interruptible(lambda: order.append("second"))
    assert order == ["first", "second"]
