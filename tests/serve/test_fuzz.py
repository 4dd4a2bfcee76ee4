"""Malformed requests: refused or answered, never a 5xx, and afterwards all is as it was.

400 of them unless `AUTONEURAL_FUZZ` says another number; the last line of `pytest -s` has figures.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from autoneural.bench.server_process import ServerProcess
from tests.serve.helpers import wait_until
from tests.serve.malformed import CHAT, PATHS, posted, raw

REQUESTS = int(os.environ.get("AUTONEURAL_FUZZ", "400"))
RAW = REQUESTS // 10
SLOW = max(REQUESTS // 100, 2)
WARM = min(REQUESTS // 4, 1000)
BACK = 1.05 if REQUESTS >= 1000 else 1.15  # a short warm-up leaves some of what is built once
GOOD = {"messages": [{"role": "user", "content": "Is it on?"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--threads", "1", "--keepalive", "0") as server:
        yield server
        assert server.running, server.log
        assert "Traceback" not in server.log, server.log


def send_posted(server: ServerProcess, rng: random.Random, count: int) -> Counter[str]:
    """Whatever is wrong with the bodies, the connection stays and there is an answer."""
    seen: Counter[str] = Counter()
    with server.client() as client:
        for _ in range(count):
            kind, path, body = posted(rng)
            status, answer = client.post(path, body)
            assert status < 500, (kind, body[:2000])
            assert status == 200 or b'"message":' in answer, (kind, body[:2000])
            seen[f"{kind} {status}"] += 1
    return seen


def send_raw(server: ServerProcess, rng: random.Random, count: int) -> Counter[str]:
    """Broken HTTP: some answers are the web server's own, and some of it never ends."""
    seen: Counter[str] = Counter()
    for _ in range(count):
        kind, data = raw(rng)
        with socket.create_connection(("127.0.0.1", server.port), timeout=0.2) as connection:
            try:
                connection.sendall(data)
                answer = connection.recv(100)
            except OSError:
                answer = b""  # it waits for more, or has hung up while we talked
        found = re.match(rb"HTTP/1.1 (\d+) ", answer)
        status = found[1].decode() if found else "none"
        assert status < "500" or status == "none", (kind, data[:2000])
        seen[f"{kind} {status}"] += 1
    return seen


def slow_bodies(server: ServerProcess, count: int) -> list[socket.socket]:
    """Clients that begin to send a body and do not go on."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\n" + "{"
    slow = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        connection.sendall(head.encode())
        slow.append(connection)
    return slow


def warm_up(server: ServerProcess) -> None:
    """What is built once and stays: caches, and 50 MiB that a panic of llguidance's leaves.

    It panics where it cuts what is no number in the middle of a letter.
    """
    body = GOOD | {"response_format": {"type": "json_object", "schema": {"minimum": "é" * 50}}}
    with server.client() as client:
        assert client.post(CHAT, json.dumps(body).encode())[0] == 400
    send_posted(server, random.Random("warm"), WARM)


def held(server: ServerProcess) -> tuple[float, int]:
    """Its memory in MiB and its open files."""
    found = server.footprint()
    assert found.rss_mib is not None
    assert found.files is not None
    return found.rss_mib, found.files


@pytest.mark.skipif(sys.platform != "linux", reason="a process's memory is read from /proc")
def test_malformed_requests_are_never_our_fault_and_leave_nothing(server: ServerProcess) -> None:
    rng = random.Random(0)
    with server.client() as client:
        alone = [client.ask(GOOD).text for _ in range(3)]
    warm_up(server)
    memory, files = held(server)
    slow = slow_bodies(server, SLOW)
    began = time.monotonic()
    seen = send_raw(server, rng, RAW) + send_posted(server, rng, REQUESTS - RAW - SLOW)
    took = time.monotonic() - began
    if took > 30:  # what the server waits for a body
        assert {connection.recv(12) for connection in slow} == {b"HTTP/1.1 408"}
    for connection in slow:
        connection.close()
    assert server.settle() == 0
    with server.client() as client:
        assert client.ask(GOOD).text == alone[0]
    wait_until(lambda: held(server)[1] <= files)
    after, _ = held(server)
    figures = f"{took:.0f} s, {memory:.0f} MiB before, {after:.0f} after"
    print(f"\n{REQUESTS} requests, {figures}: {dict(sorted(seen.items()))}")
    assert after < BACK * memory
    assert seen["json 400"] > REQUESTS / 5  # most are wrong,
    assert seen["json 200"] > REQUESTS / 50  # and some go all the way


def test_the_server_still_answers(http) -> None:
    body = PATHS[CHAT] | {"stop": None}
    assert http.post(CHAT, json=body).status_code == 200
