"""How many threads each graph of a bundle is quickest with on this machine: all counts are tried.

More threads share the arithmetic, and wait for each other at the end of every operator, some
hundred times a token. What wins depends on the graph, so each file has its own count: a small
decoder is quickest on one thread where its prompt wants all, and on a chip with slow cores among
its cores a thread on each is best for nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from autoneural.bundle import Bundle
from autoneural.manifest import Role
from autoneural.runtime.decoder import Decoder
from autoneural.runtime.devices import Placement, place
from autoneural.runtime.session import TargetSessions, load_embedding
from autoneural.runtime.threads import physical_cores, usable_processors, write_threads

Progress = Callable[[str, int, int], None]

_WORTH = 0.97  # of the time with a thread per core: less of a gain is within the error
_SECONDS = 1.0
_ROUNDS = 5
_TOKENS_A_ROUND = 8
# How often a graph runs for a picture, a prompt of 512 tokens and an answer of 128, an eighth of it
# in drafts: what counts where roles share a file.
_PROMPT = 512
_PAST = 256  # tokens that all of it stands behind
_RUNS: Mapping[Role, int] = {"vision": 1, "verify": 16, "decode": 128, "head": 128}


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Milliseconds a run by role and count of threads, and the count that each file is given."""

    bundle: str
    target: str
    cores: int
    milliseconds: Mapping[Role, Mapping[int, float]]
    files: Mapping[str, tuple[Role, ...]]
    threads: Mapping[str, int]
    kept: Path


def tune(
    bundle: Bundle,
    target: str | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Tuning:
    """Measure every count of `counts()` and keep the best of each file for later engines."""
    placement = place(bundle, target)
    tried, times = counts(), defaultdict[Role, dict[int, float]](dict)
    for done, count in enumerate(tried):
        progress(f"threads: {count}", done, len(tried))
        for role, ms in _milliseconds(bundle, placement, count).items():
            times[role][count] = ms
    graphs = bundle.target(placement.target).graphs
    files: defaultdict[str, list[Role]] = defaultdict(list)
    for graph in graphs:
        files[graph.file].append(graph.role)
    width = max(graph.width for graph in graphs)
    threads = {file: best(times, roles, width, physical_cores()) for file, roles in files.items()}
    return Tuning(
        bundle=bundle.name,
        target=placement.target,
        cores=physical_cores(),
        milliseconds=dict(times),
        files={file: tuple(roles) for file, roles in files.items()},
        threads=threads,
        kept=write_threads(bundle, placement.target, threads),
    )


def counts() -> list[int]:
    """A thread per core, and per processor where cores have several; halves of that down to one."""
    cores, found = physical_cores(), {physical_cores(), usable_processors()}
    while cores > 1:
        cores //= 2
        found.add(cores)
    return sorted(found)


def best(
    times: Mapping[Role, Mapping[int, float]], roles: Sequence[Role], width: int, usual: int
) -> int:
    """The count with the least time for all roles of a file; `usual` unless another is worth it."""
    runs: Mapping[Role, int] = {**_RUNS, "prefill": max(1, _PROMPT // width)}

    def total(count: int) -> float:
        return sum(runs[role] * times[role][count] for role in roles)

    found = min(times[roles[0]], key=total)
    return found if total(found) < _WORTH * total(usual) else usual


def _milliseconds(bundle: Bundle, placement: Placement, threads: int) -> dict[Role, float]:
    """Medians, in turns as an answer runs them: what one graph leaves in caches, others find."""
    sessions = TargetSessions.load(bundle, placement, threads)
    decoder, rows = Decoder(bundle, sessions), load_embedding(bundle, sessions)
    inputs: dict[Role, np.ndarray] = {
        graph.spec.role: np.asarray(rows[[0] * graph.spec.width]) for graph in sessions.decoders
    }
    pixels = sessions.vision.inputs.items()
    picture = {name: np.zeros(tensor.shape, tensor.dtype) for name, tensor in pixels}
    widest = max(inputs.values(), key=len)
    while decoder.position < min(_PAST, decoder.context // 2):
        decoder.step(widest, [0] * len(widest))
    hidden = decoder.run(inputs["decode"])["hidden_states"][:, :1]
    spent: defaultdict[Role, list[float]] = defaultdict(list)

    def clock(role: Role, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        spent[role].append(1e3 * (time.perf_counter() - start))

    end, rounds = time.perf_counter() + _SECONDS, 0
    while rounds <= _ROUNDS or time.perf_counter() < end:
        clock("vision", lambda: sessions.vision.run(picture))
        for role in inputs.keys() - {"decode"}:
            clock(role, partial(decoder.run, inputs[role]))
        for _ in range(_TOKENS_A_ROUND):
            clock("decode", lambda: decoder.run(inputs["decode"]))
            clock("head", lambda: decoder.logits(hidden))
        rounds += 1
    return {role: median(times[1:]) for role, times in spent.items()}


def print_tuning(tuning: Tuning, console: Console) -> None:
    """Every graph with its times, and the file's count."""
    tried = sorted(next(iter(tuning.milliseconds.values())))
    title = f"{tuning.bundle} ({tuning.target}), {tuning.cores} cores; milliseconds a run"
    table = Table(title=title, box=SIMPLE, title_justify="left")
    for column in ("file", "graph", *(f"{n} threads" if n > 1 else "1 thread" for n in tried)):
        table.add_column(column, justify="left" if column in ("file", "graph") else "right")
    table.add_column("threads kept", justify="right")
    for file, roles in tuning.files.items():
        for role in dict.fromkeys(roles):
            times = (f"{tuning.milliseconds[role][count]:.2f}" for count in tried)
            table.add_row(file, role, *times, str(tuning.threads[file]))
    console.print(table)
    console.print(f"kept in {tuning.kept}", highlight=False, soft_wrap=True)
