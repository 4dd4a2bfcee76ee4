"""Who may be in memory: models come when they are used, and the least recently used one goes.

Every worker asks before it answers. Where the next model does not fit, idle ones are unloaded,
those that were used longest ago first; where busy ones are in the way it waits for them. Whoever
asks stands in one line, so a busy model cannot keep another out for ever.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from autoneural.runtime import Engine

GB = 10**9
_CHECK_SECONDS = 0.2


class Memory:
    """Shares `budget` bytes among models; None: as many as there are. Thread-safe."""

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self._changed = threading.Condition()
        self._line: list[Loadable] = []
        self._loaded: OrderedDict[Loadable, None] = OrderedDict()  # longest ago first
        self._busy: set[Loadable] = set()

    def admit(self, model: Loadable, check: Callable[[], None]) -> None:
        """Wait until `model` may be in memory; it is busy from now on. `check` may raise."""
        with self._changed:
            self._line.append(model)
            try:
                while self._line[0] is not model or not self._make_room(model):
                    check()
                    self._changed.wait(_CHECK_SECONDS)
                self._loaded[model] = None
                self._loaded.move_to_end(model)
                self._busy.add(model)
            finally:
                self._line.remove(model)
                self._changed.notify_all()

    def leave(self, model: Loadable) -> None:
        """It is idle from now on, or not in memory at all."""
        with self._changed:
            self._busy.discard(model)
            if not model.loaded:
                self._loaded.pop(model, None)
            self._changed.notify_all()

    def _make_room(self, model: Loadable) -> bool:
        """Unload as many idle models as it takes, or none where that would not help."""
        if self.budget is None or model in self._loaded:
            return True
        idle = [each for each in self._loaded if each not in self._busy]
        free = self.budget - sum(each.size for each in self._loaded)
        if free + sum(each.size for each in idle) < model.size:
            return False
        for each in idle:
            if free >= model.size:
                break
            each.unload()
            del self._loaded[each]
            free += each.size
        return True


class Loadable:
    """An engine that comes and goes. Used by one thread; others may unload it while it is idle."""

    def __init__(self, load: Callable[[], Engine], size: int, memory: Memory) -> None:
        self._load = load
        self._memory = memory
        self._engine: Engine | None = None
        self.size = size

    @property
    def loaded(self) -> bool:
        """Whether the engine is in memory."""
        return self._engine is not None

    @contextmanager
    def used(self, check: Callable[[], None] = lambda: None) -> Iterator[Engine]:
        """The engine, loaded where it was not. Raises what loading raises, and what `check` does
        while there is no room for it yet."""
        self._memory.admit(self, check)
        try:
            if self._engine is None:
                self._engine = self._load()
            yield self._engine
        finally:
            self._memory.leave(self)

    def drop(self) -> None:
        """Out of memory with it, on its own thread, in use or not."""
        self.unload()
        self._memory.leave(self)

    def unload(self) -> None:
        """Forget the engine. For `Memory`, and what holds it: the place in there stays."""
        self._engine = None
