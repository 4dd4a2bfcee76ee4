"""A teacher of which only answers are known: a file, and a server that fails in every way."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autoneural.data.dataset import Source
from autoneural.data.relabel import EndpointTeacher, FileTeacher, relabel
from autoneural.errors import UserError

Reply = tuple[int, bytes] | None


def rows(count: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{number}",
            "task": "demo",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": Image.new("RGB", (4, 4), (number, 0, 0))},
                        {"type": "text", "text": f"what is {number}?"},
                    ],
                },
                {"role": "assistant", "content": "old"},
                {"role": "user", "content": "sure?"},
                {"role": "assistant", "content": "old too"},
            ],
        }
        for number in range(count)
    ]


def said(row: dict[str, Any]) -> list[str]:
    return [m["content"][0]["text"] for m in row["messages"] if m["role"] == "assistant"]


class Server:
    """Answers each question with `reply`; keeps what it was asked."""

    def __init__(self, reply: Callable[[int, dict], Reply]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append({"path": self.path, **body})
                outer.headers.append(dict(self.headers))
                answer = reply(len(outer.asked), body)
                if answer is None:
                    return  # breaks off without a word
                status, content = answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[int, dict], Reply]], Server]]:
    servers: list[Server] = []

    def start(reply: Callable[[int, dict], Reply]) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def ok(text: str) -> Reply:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def echo(number: int, body: dict) -> Reply:
    asked = [m["content"] for m in body["messages"]]
    return ok(f"{asked[0][1]['text']} after {len(asked)}")


def test_a_flaky_server_is_asked_again(serve, tmp_path: Path) -> None:
    failures: list[Reply] = [
        (503, b"busy"), None, (429, b""), (200, b"{"), (200, b'{"choices": []}'),
        (200, b'{"choices": [{"message": {"content": null}}]}'),
    ]  # fmt: skip
    server = serve(lambda n, body: failures[n - 1] if n <= len(failures) else echo(n, body))
    teacher = EndpointTeacher(
        server.url, "m", tmp_path / "c" / "cache.jsonl", tries=7, wait_s=0.001, api_key="k"
    )
    source = Source("demo", rows())
    made = relabel(source, teacher, workers=1)
    assert [said(row) for row in made.rows] == [
        [f"what is {n}? after 1", f"what is {n}? after 3"] for n in range(3)
    ]
    assert made.unanswered == 0
    assert made.rows[1]["task"] == "demo"
    assert len(server.asked) == 6 + 6
    last = server.asked[-1]
    assert last["path"] == "/v1/chat/completions"
    assert (last["model"], last["temperature"]) == ("m", 0)
    assert server.headers[-1]["Authorization"] == "Bearer k"
    kind, _, data = last["messages"][0]["content"][0]["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0)) == (2, 0, 0)
    # The second question is asked behind the teacher's own first answer.
    assert last["messages"][1] == {"role": "assistant", "content": "what is 2? after 1"}


def test_what_was_answered_is_not_asked_again(serve, tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"
    server = serve(lambda n, body: echo(n, body) if n <= 3 else (500, b"down\nfor  good"))
    teacher = EndpointTeacher(server.url, "m", cache, tries=2, wait_s=0.001)
    with pytest.raises(UserError, match=r"no answer in 2 tries \(500 down for good\); 3 answers"):
        relabel(Source("demo", rows()), teacher, workers=1)
    with cache.open("a") as file:
        file.write('{"key": "half')  # killed while it wrote
    healthy = serve(echo)
    again = EndpointTeacher(healthy.url, "m", cache)
    first = relabel(Source("demo", rows()), again, workers=2)
    assert len(healthy.asked) == 3
    assert len(cache.read_text().splitlines()) == 6
    once_more = relabel(Source("demo", rows()), EndpointTeacher(healthy.url, "m", cache))
    assert [said(row) for row in once_more.rows] == [said(row) for row in first.rows]
    assert len(healthy.asked) == 3


def test_a_refusal_is_final(serve, tmp_path: Path) -> None:
    server = serve(lambda n, body: (401, b'{"error": "no such key"}'))
    teacher = EndpointTeacher(server.url, "m", tmp_path / "c.jsonl", wait_s=0.001)
    with pytest.raises(UserError, match="refused: 401 .*no such key") as caught:
        relabel(Source("demo", rows(1)), teacher)
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 1


def test_a_slow_server_is_given_up(serve, tmp_path: Path) -> None:
    def slow(number: int, body: dict) -> Reply:
        time.sleep(0.3)
        return None

    server = serve(slow)
    teacher = EndpointTeacher(
        server.url, "m", tmp_path / "c.jsonl", tries=2, timeout_s=0.05, wait_s=0.001
    )
    with pytest.raises(UserError, match=r"no answer in 2 tries \(timed out\)"):
        relabel(Source("demo", rows(1)), teacher)


def test_empty_answers_leave_their_row_out(serve, tmp_path: Path) -> None:
    server = serve(lambda n, body: ok(" ") if "what is 1?" in json.dumps(body) else ok("yes"))
    teacher = EndpointTeacher(server.url, "m", tmp_path / "c.jsonl")
    seen: list[tuple[int, int]] = []
    made = relabel(
        Source("demo", rows()), teacher, progress=lambda done, total: seen.append((done, total))
    )
    assert [row["id"] for row in made.rows] == ["r0", "r2"]
    assert made.unanswered == 1
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_only_addresses_of_the_web_are_asked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected an address that starts with http"):
        EndpointTeacher("file:///etc/passwd", "m", tmp_path / "c.jsonl")


def test_answers_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(
        '{"id": "r0", "answers": ["a", "b"]}\n\n{"id": "r2", "answers": ["c", " d "]}\n'
    )
    made = relabel(Source("demo", rows()), FileTeacher(path))
    assert [said(row) for row in made.rows] == [["a", "b"], ["c", "d"]]
    assert made.unanswered == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"answers\.jsonl:1: expected an id and answers"),
        ('{"id": "r0"}', r":1: expected an id and answers \('answers'\)"),
        ('{"id": "r0", "answers": [1]}', "answers is not a list of texts"),
        ('{"id": "r0", "answers": ["a"]}', "r0: 1 answers, the row has 2 questions"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        relabel(Source("demo", rows(1)), FileTeacher(path))
    with pytest.raises(UserError, match="cannot be read"):
        FileTeacher(tmp_path / "none.jsonl")
