"""Short forms that the tests of the server share: pictures, messages, servers, a slow engine."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import numpy as np
from fastapi import FastAPI
from PIL import Image

from autoneural.runtime.generation import Piece, Result, Timings, Usage
from autoneural.serve.app import create_app
from autoneural.serve.models import Models, Served
from autoneural.serve.run import AppServer
from autoneural.serve.settings import Settings
from autoneural.serve.worker import Worker

SLOW_STEP = 0.01


def picture_bytes(seed: int = 0, form: str = "PNG", size: tuple[int, int] = (70, 50)) -> bytes:
    """A picture file of coloured blocks, another one for every seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize(size).save(file, form)
    return file.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def ask(text: str, *urls: str) -> dict[str, Any]:
    """A turn of the user, in OpenAI's form."""
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": "user", "content": [*images, {"type": "text", "text": text}]}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


@contextmanager
def running(app: FastAPI) -> Iterator[tuple[str, AppServer]]:
    """The app on a port of its own; gives the URL and the server."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = AppServer(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def client(url: str, **options: Any) -> httpx2.Client:
    """An HTTP client that no proxy setting of the machine leads astray."""
    return httpx2.Client(base_url=url, trust_env=False, timeout=60, **options)


def call(app: FastAPI, method: str, path: str, **options: Any) -> httpx2.Response:
    """One request to an app without a socket. `host` sets the Host header."""

    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as asker:
            return await asker.request(method, path, **options)

    return asyncio.run(send())


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """The error object, which has exactly OpenAI's keys."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return error


def wait_until(condition, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.005)


class SlowEngine:
    """Says one letter every `SLOW_STEP` seconds, as often as it may; counts what it did."""

    def __init__(self, tokenizer: Any = None, letters: int = 2000) -> None:
        self.tokenizer = tokenizer
        self.letters = letters
        self.steps = 0
        self.started = 0
        self.prompts: list[list[int]] = []

    def answer(self, inputs, sampling, max_tokens, stop, *, watch, **others):
        self.started += 1
        self.prompts.append(inputs.input_ids.tolist())
        return _SlowGeneration(self, min(max_tokens or self.letters, self.letters), watch)


class _SlowGeneration:
    def __init__(self, engine: SlowEngine, letters: int, watch) -> None:
        self._engine, self._letters, self._watch = engine, letters, watch

    def __iter__(self):
        for _ in range(self._letters):
            self._watch.step()
            self._engine.steps += 1
            time.sleep(SLOW_STEP)
            yield Piece("x")

    @property
    def result(self) -> Result:
        return Result(
            text="x" * self._letters,
            token_ids=(120,) * self._letters,
            finish_reason="length",
            usage=Usage(prompt_tokens=1, completion_tokens=self._letters, cached_tokens=0),
            timings=Timings(predicted_n=self._letters, ttft_ms=1.0),
        )


def slow_app(served: Served, engine: Any, settings: Settings | None = None) -> FastAPI:
    """An app whose only model is `engine`; the rest of it is that of `served`."""
    settings = settings or Settings(keepalive=0)
    worker = Worker("slow", lambda: engine, settings.keepalive)
    worker.start()
    slow = dataclasses.replace(
        served, worker=worker, max_queue=settings.max_queue, requests=0, jobs=set()
    )
    return create_app(Models([slow]), settings)
