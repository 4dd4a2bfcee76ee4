"""Many clients of one server for a while, some of whom leave: what came back, how fast."""

from __future__ import annotations

import http.client
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoneural.bench.server_process import Client, Footprint, Reply, ServerProcess

_LEAVE_WITHIN = 3
"""Who leaves reads 0, 1 or 2 events first: it still waits, has some text, or nearly all of it."""
_IDLE_SECONDS = 5.0


@dataclass(frozen=True)
class Question:
    """A chat request, and the answer that it gets where nothing else was ever asked."""

    body: dict[str, Any]
    alone: str


@dataclass(frozen=True)
class Plan:
    """How many clients, for how long; `leave` is the share of requests that are given up."""

    clients: int
    seconds: float
    leave: float
    seed: int = 0


@dataclass(frozen=True)
class _Outcome:
    kind: str
    reply: Reply | None = None


def measure_load(
    server: ServerProcess,
    questions: Sequence[Question],
    plan: Plan,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """JSON-ready. `answers` counts how requests ended:

    right, wrong (another text than alone, or cut off), left, unavailable (503), server_error (other
    5xx), refused (4xx), broken (the connection).

    `memory_mib` and `files` are the server's: at the `start`, `half` way, `after` the last answer,
    and `late`, when it was idle for a while. `stuck` requests never ended.
    """
    footprints = {"start": server.footprint()}
    start = time.monotonic()
    with ThreadPoolExecutor(plan.clients) as threads:
        asking = [
            threads.submit(_ask_until, start + plan.seconds, server, questions, plan, number)
            for number in range(plan.clients)
        ]
        _wait(start, plan.seconds / 2, plan.seconds, progress)
        footprints["half"] = server.footprint()
        _wait(start, plan.seconds, plan.seconds, progress)
        outcomes = [outcome for each in asking for outcome in each.result()]
    seconds = time.monotonic() - start
    stuck = server.settle()
    footprints["after"] = server.footprint()
    time.sleep(_IDLE_SECONDS)
    footprints["late"] = server.footprint()
    return {
        "clients": plan.clients,
        "seconds": seconds,
        **_figures(outcomes, seconds),
        "stuck": stuck,
        **_memory(footprints),
    }


def _ask_until(
    end: float, server: ServerProcess, questions: Sequence[Question], plan: Plan, number: int
) -> list[_Outcome]:
    rng = random.Random(f"{plan.seed}/{number}")
    outcomes = []
    with server.client() as client:
        while time.monotonic() < end:
            question = rng.choice(questions)
            leaves = rng.random() < plan.leave
            stream = leaves or rng.random() < 0.5
            body = {**question.body, "user": f"client {number}", "stream": stream}
            if stream:
                body["stream_options"] = {"include_usage": True}
            after = rng.randrange(_LEAVE_WITHIN) if leaves else None
            outcomes.append(_ask(client, body, question.alone, after))
    return outcomes


def _ask(client: Client, body: dict[str, Any], alone: str, leave_after: int | None) -> _Outcome:
    try:
        reply = client.ask(body, leave_after)
    except (OSError, http.client.HTTPException):
        client.close()
        return _Outcome("broken")
    if reply.status == 503:
        return _Outcome("unavailable")
    if reply.status != 200:
        return _Outcome("server_error" if reply.status >= 500 else "refused")
    if leave_after is not None:
        return _Outcome("left")
    right = reply.complete and reply.text == alone
    return _Outcome("right" if right else "wrong", reply)


def _wait(
    start: float, until: float, total: float, progress: Callable[[str, int, int], None]
) -> None:
    while (passed := time.monotonic() - start) < until:
        progress("load", int(passed), int(total))
        time.sleep(min(1.0, until - passed))


def _figures(outcomes: Sequence[_Outcome], seconds: float) -> dict[str, Any]:
    counted = Counter(outcome.kind for outcome in outcomes)
    kinds = ("right", "wrong", "left", "unavailable", "server_error", "refused", "broken")
    replies = [outcome.reply for outcome in outcomes if outcome.reply]
    firsts = [1e3 * reply.first for reply in replies if reply.first is not None]
    return {
        "answers": {kind: counted[kind] for kind in kinds},
        "requests_per_second": len(outcomes) / seconds,
        "tokens_per_second": sum(reply.tokens for reply in replies) / seconds,
        "ttft_ms": {f"p{q}": float(np.percentile(firsts, q)) if firsts else None for q in (50, 99)},
    }


def _memory(footprints: dict[str, Footprint]) -> dict[str, Any]:
    return {
        "memory_mib": {when: each.rss_mib for when, each in footprints.items()},
        "files": {when: each.files for when, each in footprints.items()},
    }
