"""What a server withstands, and what HTTP costs beside the same engine in this process.

The overhead is that of one client that streams: every question is asked over HTTP and of an engine
here, in turn, so what else the machine does slows both alike. Both have been asked the same before,
so both have kept the same. It is told twice: of the time from the first token to the last, which
is what a token costs, and of the whole, where a request is as dear for a word as for a page.
"""

from __future__ import annotations

import base64
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from autoneural.bench.server_process import ServerProcess
from autoneural.bench.serving_load import Plan, Question, measure_load
from autoneural.bundle import Bundle
from autoneural.demo import EXAMPLES, load_demo
from autoneural.runtime import Engine, Result
from autoneural.serve.models import Placing

MAX_TOKENS = 64
GROWTH = 1.05
"""More memory than this, of what it had half way, is a leak."""
_JSON = {
    "driver.jpg": 'Answer as JSON with the keys "eyes", "mouth" and "state".',
    "door.jpg": 'Answer as JSON with the keys "object", "side" and "action".',
    "child.jpg": 'Answer as JSON with the keys "emotion", "buckled" and "advice".',
}

Progress = Callable[[str, int, int], None]
Asked = tuple[Sequence[Path], str]


@dataclass(frozen=True)
class Pair:
    """One answer of the engine and the same over HTTP: seconds of all of it, and of decoding."""

    engine: float
    engine_decoding: float
    http: float
    http_decoding: float
    tokens: int


def asked_questions() -> list[Asked]:
    """The demo's first questions, a word or two each, and three longer answers."""
    first = [(case.images, case.turns[0].prompt) for case in load_demo()]
    return [*first, *(((EXAMPLES / name,), text) for name, text in _JSON.items())]


def measure_serving(
    bundle: Bundle,
    target: str | None,
    plan: Plan,
    *,
    threads: int | None = None,
    rounds: int = 5,
    questions: Sequence[Asked] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """The load (see `measure_load`) and the `overhead` of HTTP; JSON-ready.

    `threads` are those of the engine, on either side. Raises UserError where no server starts.
    """
    engine = Placing(target=target, threads=threads).engine(bundle)
    asked = asked_questions() if questions is None else questions
    options = [str(bundle.folder), *(["--target", target] if target else [])]
    options += ["--threads", str(threads)] if threads else []
    with ServerProcess(*options) as server:
        overhead, known = _overhead(engine, server, asked, rounds, progress)
        load = measure_load(server, known, plan, progress)
    return {"bundle": bundle.name, "target": engine.target, "overhead": overhead, "load": load}


def faults(report: dict[str, Any]) -> list[str]:
    """What must not happen under load and did, a line each."""
    load, found = report["load"], []
    for kind in ("wrong", "server_error", "refused", "broken"):
        if count := load["answers"][kind]:
            found.append(f"{count} requests: {kind.replace('_', ' ')}")
    if load["stuck"]:
        found.append(f"{load['stuck']} requests never ended")
    memory, files = load["memory_mib"], load["files"]
    if memory["late"] and memory["late"] > GROWTH * memory["half"]:
        found.append(f"memory grew from {memory['half']:.0f} to {memory['late']:.0f} MiB")
    if files["late"] and files["late"] > files["start"]:
        found.append(f"{files['late'] - files['start']} more files are open than at the start")
    if report["overhead"]["different"]:
        found.append(f"{report['overhead']['different']} answers differ from the engine's")
    return found


def _overhead(
    engine: Engine, server: ServerProcess, asked: Sequence[Asked], rounds: int, progress: Progress
) -> tuple[dict[str, Any], list[Question]]:
    """Both sides' speed, and the questions with what the engine answers to each alone."""
    pairs: list[Pair] = []
    known, different = [], 0
    with server.client() as client:
        for turn in range(rounds + 1):  # the first warms up
            for number, (images, text) in enumerate(asked):
                question, seconds, own = _engine_answer(engine, images, text, alone=not turn)
                start = time.perf_counter()
                reply = client.ask({**question.body, "stream": True})
                http_seconds = time.perf_counter() - start
                different += reply.text != question.alone or not reply.complete
                if turn:
                    decoding = own.timings.predicted_ms / 1e3
                    tokens = own.usage.completion_tokens
                    pairs.append(Pair(seconds, decoding, http_seconds, reply.decoding, tokens))
                else:
                    known.append(question)
                progress("overhead", turn * len(asked) + number + 1, (rounds + 1) * len(asked))
    return _compare(pairs, different), known


def _engine_answer(
    engine: Engine, images: Sequence[Path], text: str, *, alone: bool
) -> tuple[Question, float, Result]:
    """The question, and how many seconds the engine takes to the end of its answer, with that."""
    files = [path.read_bytes() for path in images]
    message = {
        "role": "user",
        "content": [*({"type": "image", "image": each} for each in files), _text(text)],
    }
    if alone:
        engine.reset()
    start = time.perf_counter()
    generation = engine.generate([message], max_tokens=MAX_TOKENS)
    answer = "".join(piece.text for piece in generation)
    seconds = time.perf_counter() - start
    parts = [{"type": "image_url", "image_url": {"url": _data_url(each)}} for each in files]
    body = {
        "messages": [{"role": "user", "content": [*parts, _text(text)]}],
        "max_tokens": MAX_TOKENS,
    }
    return Question(body, answer), seconds, generation.result


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _data_url(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"


def _compare(pairs: Sequence[Pair], different: int) -> dict[str, Any]:
    tokens = sum(pair.tokens for pair in pairs)
    later = tokens - len(pairs)  # decoding is the time behind the first
    engine = sum(pair.engine_decoding for pair in pairs)
    over_http = sum(pair.http_decoding for pair in pairs)
    return {
        "answers": len(pairs),
        "tokens": tokens,
        "engine_tokens_per_second": later / engine,
        "http_tokens_per_second": later / over_http,
        "decoding_share": 1 - engine / over_http,
        "share": 1 - statistics.median(pair.engine / pair.http for pair in pairs),
        "different": different,
    }


def print_serving(report: dict[str, Any], console: Console) -> None:
    """A line per figure."""
    load, overhead = report["load"], report["overhead"]
    table = Table(box=SIMPLE, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("requests per second", f"{load['requests_per_second']:.2f}")
    table.add_row("tokens per second", f"{load['tokens_per_second']:.1f}")
    for name, value in load["ttft_ms"].items():
        table.add_row(f"time to the first text, {name}", f"{value:,.0f} ms" if value else "-")
    for kind, count in load["answers"].items():
        table.add_row(f"answers: {kind.replace('_', ' ')}", str(count))
    table.add_row("requests that never ended", str(load["stuck"]))
    table.add_row("server's memory, MiB", _course(load["memory_mib"]))
    table.add_row("server's open files", _course(load["files"]))
    table.add_row("one client over HTTP, tok/s", f"{overhead['http_tokens_per_second']:.1f}")
    table.add_row("the engine alone, tok/s", f"{overhead['engine_tokens_per_second']:.1f}")
    table.add_row("HTTP's share of decoding", f"{100 * overhead['decoding_share']:.1f} %")
    table.add_row("HTTP's share of a whole answer (median)", f"{100 * overhead['share']:.1f} %")
    console.print(table)
    console.print(
        f"{report['bundle']} ({report['target']}), {load['clients']} clients for "
        f"{load['seconds']:.0f} s; overhead over {overhead['answers']} answers, "
        f"{overhead['tokens']} tokens",
        highlight=False,
    )


def _course(values: dict[str, float | None]) -> str:
    return ", ".join(f"{k} {v:.0f}" if v is not None else f"{k} -" for k, v in values.items())
