"""Turns are fair; closing wakes whoever waits."""

from __future__ import annotations

import threading
import time

import pytest

from autoneural.serve.queue import Closed, FairQueue


def test_clients_take_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3"):
        queue.put("a", item)
    queue.put("b", "b1")
    queue.put("c", "c1")
    queue.put("b", "b2")
    assert len(queue) == 6
    assert [queue.take() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0


def test_what_was_removed_is_not_given() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("a", "a1")
    queue.put("a", "a2")
    queue.put("b", "b1")
    queue.remove("a", "a1")
    queue.remove("b", "b1")
    queue.remove("c", "never there")
    assert queue.take() == "a2"
    assert queue.take(0.01) is None


def test_waiting_ends_with_an_item_or_the_time_or_the_end() -> None:
    queue: FairQueue[str] = FairQueue()
    start = time.monotonic()
    assert queue.take(0.05) is None
    assert time.monotonic() - start >= 0.05
    threading.Timer(0.05, queue.put, ("a", "late")).start()
    assert queue.take(10) == "late"
    threading.Timer(0.05, queue.close).start()
    with pytest.raises(Closed):
        queue.take()
    with pytest.raises(Closed):
        queue.put("a", "too late")
