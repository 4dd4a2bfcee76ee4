"""The bundles that are served, by name: what each is, its worker, and how many requests it has."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from autoneural.bundle import Bundle
from autoneural.data.processor import Processor
from autoneural.errors import UserError
from autoneural.manifest import DECODERS
from autoneural.runtime import Engine
from autoneural.runtime.devices import Placement, place
from autoneural.runtime.footprint import footprint
from autoneural.runtime.prompt import load_processor
from autoneural.serve.errors import ApiError, unavailable
from autoneural.serve.forms import Forms
from autoneural.serve.memory import GB, Memory
from autoneural.serve.settings import Settings
from autoneural.serve.worker import Job, Worker, shutting_down


@dataclass(frozen=True, kw_only=True)
class Placing:
    """Where the graphs of all bundles run: the arguments of `Engine`."""

    target: str | None = None
    device: str = "cpu"
    chip: str | None = None
    require_npu: bool = False
    threads: int | None = None
    exact: bool = False

    def settle(self, bundle: Bundle) -> Placement:
        """Where that bundle will run. Raises UserError where it cannot."""
        return place(bundle, self.target, self.device, self.chip, require_npu=self.require_npu)

    def engine(self, bundle: Bundle) -> Engine:
        """An engine whose answers do not depend on what it was asked before."""
        return Engine(
            bundle,
            self.target,
            device=self.device,
            chip=self.chip,
            require_npu=self.require_npu,
            threads=self.threads,
            exact=self.exact,
            exact_reuse=True,
        )


@dataclass(kw_only=True, eq=False)
class Served:
    """A bundle at work. `requests` counts those that wait, run, or are being sent."""

    name: str
    bundle: Bundle
    worker: Worker
    processor: Processor
    forms: Forms
    target: str
    context: int
    longest_token: int
    max_queue: int
    created: int = field(default_factory=lambda: int(time.time()))
    requests: int = 0
    closing: bool = False
    jobs: set[Job] = field(default_factory=set)

    @classmethod
    def start(
        cls, bundle: Bundle, placing: Placing, settings: Settings, memory: Memory | None = None
    ) -> Served:
        """Load the engine of `bundle`, or with a budget of memory leave that to the first request.

        Raises UserError where it cannot run here, or is larger than the budget.
        """
        memory = memory or Memory(settings.memory_budget)
        placement = placing.settle(bundle)
        size = _checked_size(bundle, placement, memory.budget)
        worker = Worker(
            bundle.name,
            lambda: placing.engine(bundle),
            settings.keepalive,
            size=size,
            memory=memory,
        )
        worker.start(load=memory.budget is None)
        graphs = bundle.target(placement.target).graphs
        processor = load_processor(bundle)
        tokenizer = processor.tokenizer
        return cls(
            name=bundle.name,
            bundle=bundle,
            worker=worker,
            processor=processor,
            forms=Forms(tokenizer),
            target=placement.label,
            context=min(graph.context for graph in graphs if graph.role in DECODERS),
            longest_token=max(map(len, tokenizer.byte_table())),
            max_queue=settings.max_queue,
        )

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place for one request. Raises ApiError (503) when all places are taken."""
        if self.closing:
            raise shutting_down()
        if self.requests > self.max_queue:
            raise unavailable(f"{self.name}: {self.max_queue} requests wait already", "queue_full")
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's model object, and what llama.cpp's clients look for in it."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "autoneural",
            "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
            "meta": {
                "n_ctx": self.context,
                "n_vocab": self.processor.tokenizer.vocab_size,
                "target": self.target,
                "loaded": self.worker.loaded,
                "size": self.worker.size,
            },
        }


class Models:
    """All served bundles; the first is the one that a request without a `model` means."""

    def __init__(self, served: Sequence[Served]) -> None:
        self._by_name: Mapping[str, Served] = {each.name: each for each in served}

    @classmethod
    def start(cls, bundles: Sequence[Bundle], placing: Placing, settings: Settings) -> Models:
        """Load them all, but those that share a budget of memory: they come when asked for.

        Raises UserError where one cannot run or is too large, or two have the same name.
        """
        names = [bundle.name for bundle in bundles]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"serve: two bundles are called {name}; serve one of them")
        memory = Memory(settings.memory_budget)
        return cls([Served.start(bundle, placing, settings, memory) for bundle in bundles])

    def __iter__(self) -> Iterator[Served]:
        return iter(self._by_name.values())

    def find(self, name: str | None) -> Served:
        """The model that a request means. Raises ApiError (404) for a name that is not served."""
        if name is None:
            return next(iter(self))
        if name not in self._by_name:
            known = ", ".join(self._by_name)
            message = f"model: there is no {name!r} here; there is {known}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return self._by_name[name]

    @property
    def closing(self) -> bool:
        """Whether the server is about to end."""
        return any(served.closing for served in self)

    def refuse(self) -> None:
        """Admit no more requests."""
        for served in self:
            served.closing = True

    def cancel(self) -> None:
        """End every request that is on its way, from the event loop's thread."""
        for served in self:
            for job in list(served.jobs):
                job.cancel(shutting_down())

    def stop(self) -> None:
        """End the workers."""
        for served in self:
            served.worker.stop()


def _checked_size(bundle: Bundle, placement: Placement, budget: int | None) -> int:
    vision = placement.vision.target if placement.vision else None
    size = footprint(bundle, placement.target, vision)
    if budget is not None and size > budget:
        raise UserError(
            f"--memory-budget {budget / GB:g} GB: {bundle.name} ({placement.target}) alone counts "
            f"{size / GB:.3g} GB; raise the budget or leave the bundle out"
        )
    return size
