"""Who is next: clients take turns, and the requests of one client stay in order."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The queue takes and gives nothing any more."""


class FairQueue(Generic[T]):
    """Thread-safe, and not bounded: whoever puts things in counts them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._closed = False

    def put(self, client: Hashable, item: T) -> None:
        """Add `item` behind the other items of `client`. Raises Closed."""
        with self._changed:
            if self._closed:
                raise Closed
            self._waiting.setdefault(client, deque()).append(item)
            self._changed.notify()

    def take(self, seconds: float | None = None) -> T | None:
        """The next item; None where nothing came within `seconds`. Raises Closed."""
        until = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            while not self._waiting and not self._closed:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            if self._closed:
                raise Closed
            client, items = self._waiting.popitem(last=False)
            item = items.popleft()
            if items:
                self._waiting[client] = items  # behind all others
            return item

    def remove(self, client: Hashable, item: T) -> None:
        """Forget `item`, if it still waits."""
        with self._changed:
            items = self._waiting.get(client, deque())
            if item in items:
                items.remove(item)
            if not items:
                self._waiting.pop(client, None)

    def close(self) -> None:
        """Wake whoever waits with Closed."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return sum(len(items) for items in self._waiting.values())
