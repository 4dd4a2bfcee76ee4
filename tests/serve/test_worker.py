"""Requests on their way: bounded, cancelled, timed out, unloaded, ended; nothing stays behind."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi import FastAPI

from autoneural.errors import UserError
from autoneural.serve.app import create_app
from autoneural.serve.models import Models
from autoneural.serve.prompts import chat_runs
from autoneural.serve.settings import Settings
from autoneural.serve.worker import Worker
from tests.serve.helpers import (
    SLOW_STEP,
    SlowEngine,
    ask,
    call,
    client,
    error_of,
    running,
    slow_app,
    wait_until,
)

CHAT = "/v1/chat/completions"
BODY = {"messages": [ask("a")]}


def test_models_are_found_by_name_and_the_first_is_the_default(served) -> None:
    engines = {name: SlowEngine(letters=letters) for name, letters in (("first", 1), ("other", 2))}
    models = [
        dataclasses.replace(only(slow_app(served, engine)), name=name, requests=0)
        for name, engine in engines.items()
    ]
    app = create_app(Models(models), Settings())
    listed = call(app, "GET", "/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["first", "other"]
    for fields, letters in (({}, 1), ({"model": "first"}, 1), ({"model": "other"}, 2)):
        reply = call(app, "POST", CHAT, json={**BODY, **fields}).json()
        assert reply["usage"]["completion_tokens"] == letters
        assert reply["model"] == fields.get("model", "first")
    Models(models).stop()


@contextmanager
def slow_server(served, engine: SlowEngine, **settings) -> Iterator[tuple[str, FastAPI]]:
    app = slow_app(served, engine, Settings(keepalive=0, drain=0, **settings))
    with running(app) as (url, _):
        yield url, app


def only(app: FastAPI):
    """The one model of an app."""
    return next(iter(app.state.server.models))


@contextmanager
def hang_up_after(url: str, body: dict) -> Iterator[None]:
    """Send a request; hang up when the block ends, without reading a byte of the answer."""
    host, port = url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        yield


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_answer(served, stream: bool) -> None:
    engine = SlowEngine()
    with slow_server(served, engine) as (url, app):
        with hang_up_after(url, {**BODY, "stream": stream}):
            wait_until(lambda: engine.steps > 2)
        wait_until(lambda: only(app).requests == 0)
        said = engine.steps
        time.sleep(10 * SLOW_STEP)
        assert engine.steps <= said + 1
        assert not only(app).jobs
        metrics = app.state.server.metrics.text().decode()
        assert 'autoneural_requests_total{end="gone",model="cockpit-tiny"} 1.0' in metrics


def test_a_client_that_leaves_the_queue_frees_its_place(served) -> None:
    engine = SlowEngine()
    with slow_server(served, engine, max_queue=1) as (url, app):
        with client(url) as http, http.stream("POST", CHAT, json={**BODY, "stream": True}):
            wait_until(lambda: engine.steps > 0)
            with hang_up_after(url, BODY):
                wait_until(lambda: only(app).worker.waiting == 1)
            wait_until(lambda: only(app).worker.waiting == 0)
            wait_until(lambda: only(app).requests == 1)
        assert engine.started == 1


def test_a_client_that_leaves_before_its_pictures_are_read_costs_nothing(
    served, monkeypatch
) -> None:
    engine = SlowEngine()
    reading, go_on = threading.Event(), threading.Event()

    def read(*args):
        reading.set()
        assert go_on.wait(20)
        return chat_runs(*args)

    monkeypatch.setattr("autoneural.serve.app.chat_runs", read)
    with slow_server(served, engine) as (url, app):
        with hang_up_after(url, BODY):
            assert reading.wait(20)
        wait_until(lambda: only(app).requests == 0)
        go_on.set()
    assert engine.started == 0


def test_a_full_queue_is_503_with_retry_after(served) -> None:
    engine = SlowEngine()
    with slow_server(served, engine, max_queue=0) as (url, app):
        with client(url) as http, http.stream("POST", CHAT, json={**BODY, "stream": True}):
            wait_until(lambda: engine.steps > 0)
            for stream in (True, False):
                response = http.post(CHAT, json={**BODY, "stream": stream})
                assert (response.status_code, error_of(response)["code"]) == (503, "queue_full")
                assert response.headers["retry-after"] == "1"
            assert http.get("/v1/models").status_code == 200  # others are not held up
        wait_until(lambda: only(app).requests == 0)
        with client(url) as http:
            assert http.post(CHAT, json={**BODY, "max_tokens": 2}).status_code == 200


def test_requests_in_the_queue_are_answered_in_turn(served) -> None:
    engine = SlowEngine()
    app = slow_app(served, engine)
    replies: list[int] = []

    def post(text: str, user: str) -> None:
        body = {"messages": [ask(text)], "max_tokens": 20, "user": user}
        replies.append(call(app, "POST", CHAT, json=body).status_code)

    threads = []
    for text, user in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")):
        before = only(app).requests
        threads.append(threading.Thread(target=post, args=(text, user)))
        threads[-1].start()
        wait_until(lambda before=before: only(app).requests > before)
        wait_until(lambda: only(app).worker.waiting + engine.started == len(threads))
    for thread in threads:
        thread.join()
    assert replies == [200] * 4
    order = [served.processor.tokenizer.decode(ids) for ids in engine.prompts]
    assert [name for text in order for name in ("a1", "a2", "a3", "b1") if name in text] == [
        "a1",
        "a2",
        "b1",  # who asked once does not wait for all of who asked three times
        "a3",
    ]
    only(app).worker.stop()


def test_a_request_that_takes_too_long_is_504(served) -> None:
    engine = SlowEngine()
    app = slow_app(served, engine, Settings(keepalive=0, timeout=0.2))
    response = call(app, "POST", CHAT, json=BODY)
    assert (response.status_code, error_of(response)["code"]) == (504, "timeout")
    assert "0.2 s" in response.text
    steps = engine.steps
    time.sleep(5 * SLOW_STEP)
    assert engine.steps <= steps + 1
    stream = call(app, "POST", CHAT, json={**BODY, "stream": True})
    assert stream.status_code == 200
    *_, last = [line for line in stream.text.split("\n\n") if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
    assert only(app).requests == 0
    only(app).worker.stop()


def test_a_silent_stream_is_kept_open_with_comments(served, monkeypatch) -> None:
    monkeypatch.setattr("autoneural.serve.answering.PING_SECONDS", SLOW_STEP / 5)
    app = slow_app(served, SlowEngine(letters=3))
    stream = call(app, "POST", CHAT, json={**BODY, "stream": True})
    assert ": ping\n\n" in stream.text
    assert stream.text.endswith("data: [DONE]\n\n")
    assert stream.headers["content-type"].startswith("text/event-stream")
    only(app).worker.stop()


class Failing(SlowEngine):
    """Breaks when it is asked `at` a time; works before and after."""

    def answer(self, *args, **kwargs):
        if self.started == 0:
            self.started = 1
            raise RuntimeError("the prompt was: secret")
        return super().answer(*args, **kwargs)


def test_an_engine_that_breaks_is_500_once_and_loaded_again(served, caplog) -> None:
    loaded = []

    def load():
        loaded.append(Failing(letters=2) if not loaded else SlowEngine(letters=2))
        return loaded[-1]

    app = slow_app(served, None)
    only(app).worker.stop()
    worker = Worker("slow", load)
    worker.start()
    only(app).worker = worker
    response = call(app, "POST", CHAT, json=BODY)
    assert response.status_code == 500
    assert "secret" not in response.text + caplog.text
    assert "RuntimeError" in caplog.text
    assert call(app, "POST", CHAT, json=BODY).status_code == 200
    assert len(loaded) == 2
    worker.stop()


def test_an_idle_engine_is_unloaded_and_comes_back(served) -> None:
    loads = []
    worker = Worker("slow", lambda: loads.append(1) or SlowEngine(letters=2), keepalive=0.05)
    worker.start()
    app = slow_app(served, None)
    only(app).worker.stop()
    only(app).worker = worker
    wait_until(lambda: not worker.loaded)
    assert call(app, "GET", "/v1/models").json()["data"][0]["meta"]["loaded"] is False
    assert call(app, "POST", CHAT, json=BODY).status_code == 200
    assert len(loads) == 2
    wait_until(lambda: not worker.loaded)
    worker.stop()


def test_an_engine_that_cannot_come_back_is_503(served, caplog) -> None:
    engines = [SlowEngine()]

    def load():
        if engines:
            return engines.pop()
        raise UserError("bundle: cpu/decode.onnx is missing")

    worker = Worker("slow", load, keepalive=0.05)
    worker.start()
    app = slow_app(served, None)
    only(app).worker.stop()
    only(app).worker = worker
    wait_until(lambda: not worker.loaded)
    response = call(app, "POST", CHAT, json=BODY)
    assert (response.status_code, error_of(response)["code"]) == (503, "no_model")
    assert "cpu/decode.onnx is missing" in caplog.text
    assert "decode.onnx" not in response.text
    worker.stop()


def test_an_engine_that_cannot_be_loaded_says_so_at_the_start() -> None:
    def load():
        raise UserError("no such target")

    with pytest.raises(UserError, match="no such target"):
        Worker("slow", load).start()


def shut_down(served, drain: float) -> tuple[str, int]:
    """What a stream says when the server is told to end in its middle; and the letters said."""
    engine = SlowEngine(letters=60)
    app = slow_app(served, engine, Settings(keepalive=0, drain=drain))
    body = {**BODY, "stream": True}
    with (
        running(app) as (url, server),
        client(url) as http,
        http.stream("POST", CHAT, json=body) as reply,
    ):
        wait_until(lambda: engine.steps > 2)
        server.should_exit = True
        return reply.read().decode(), engine.steps


def test_the_end_waits_for_answers_on_their_way(served) -> None:
    text, steps = shut_down(served, drain=20)
    assert text.endswith("data: [DONE]\n\n")
    assert steps == 60


def test_the_end_cancels_what_takes_too_long(served) -> None:
    text, steps = shut_down(served, drain=0)
    assert '"code":"shutting_down"' in text
    assert "[DONE]" not in text
    assert steps < 60


def test_nothing_new_is_taken_at_the_end(served) -> None:
    app = slow_app(served, SlowEngine())
    app.state.server.models.refuse()
    for method, path in (("POST", CHAT), ("GET", "/health")):
        response = call(app, method, path, **({"json": BODY} if method == "POST" else {}))
        assert (response.status_code, error_of(response)["code"]) == (503, "shutting_down")
    only(app).worker.stop()
