"""`bench serve`: a short run, what counts as a fault, how bad answers are counted."""

from __future__ import annotations

import copy
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from rich.console import Console

from autoneural import cli
from autoneural.bench.server_process import Client, ServerProcess
from autoneural.bench.serving import asked_questions, faults, measure_serving, print_serving
from autoneural.bench.serving_load import Plan, _ask
from autoneural.bundle import EMBEDDED, Bundle
from autoneural.errors import UserError

CHUNK = {"choices": [{"delta": {"content": "yes"}}]}
STREAM = f"data: {json.dumps(CHUNK)}\n\n"
WHOLE = {"choices": [{"message": {"content": "yes"}}], "usage": {"completion_tokens": 2}}
REPLIES = {
    "right": (200, STREAM + "data: [DONE]\n\n"),
    "cut": (200, STREAM),
    "500": (500, "{}"),
    "503": (503, "{}"),
    "400": (400, "{}"),
}
GOOD: dict[str, Any] = {
    "bundle": "x",
    "target": "cpu",
    "overhead": {
        "answers": 1,
        "tokens": 2,
        "engine_tokens_per_second": 20.0,
        "http_tokens_per_second": 19.0,
        "decoding_share": 0.02,
        "share": 0.05,
        "different": 0,
    },
    "load": {
        "clients": 1,
        "seconds": 1.0,
        "answers": dict.fromkeys(
            ("right", "wrong", "left", "unavailable", "server_error", "refused", "broken"), 0
        ),
        "requests_per_second": 1.0,
        "tokens_per_second": 2.0,
        "ttft_ms": {"p50": 10.0, "p99": None},
        "stuck": 0,
        "memory_mib": {"start": 90.0, "half": 100.0, "after": 104.0, "late": 104.0},
        "files": {"start": 9, "half": 30, "after": 9, "late": 9},
    },
}


class _Replies(BaseHTTPRequestHandler):
    """Answers with whatever the request's `user` names."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, text = REPLIES[body["user"]]
        data = text.encode() if body["stream"] or status != 200 else json.dumps(WHOLE).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Replies) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("user", "stream", "alone", "leave", "kind"),
    [
        ("right", True, "yes", None, "right"),
        ("right", False, "yes", None, "right"),
        ("right", True, "no", None, "wrong"),
        ("right", False, "no", None, "wrong"),
        ("cut", True, "yes", None, "wrong"),
        ("right", True, "no", 1, "left"),
        ("500", True, "yes", None, "server_error"),
        ("503", False, "yes", None, "unavailable"),
        ("400", False, "yes", None, "refused"),
    ],
)
def test_every_end_of_a_request_is_told_apart(port, user, stream, alone, leave, kind) -> None:
    with Client(port) as client:
        outcome = _ask(client, {"user": user, "stream": stream}, alone, leave)
    assert outcome.kind == kind


def test_a_broken_connection_is_counted(port) -> None:
    with Client(port) as client:
        assert _ask(client, {"user": "?", "stream": True}, "yes", None).kind == "broken"


@pytest.mark.parametrize(
    ("where", "value", "line"),
    [
        (("load", "answers", "wrong"), 2, "2 requests: wrong"),
        (("load", "answers", "server_error"), 1, "1 requests: server error"),
        (("load", "answers", "broken"), 1, "1 requests: broken"),
        (("load", "stuck"), 3, "3 requests never ended"),
        (("load", "memory_mib", "late"), 106.0, "memory grew from 100 to 106 MiB"),
        (("load", "files", "late"), 11, "2 more files are open than at the start"),
        (("overhead", "different"), 1, "1 answers differ from the engine's"),
    ],
)
def test_what_is_a_fault(where: tuple[str, ...], value: float, line: str) -> None:
    report = copy.deepcopy(GOOD)
    assert faults(report) == []
    holder = report
    for key in where[:-1]:
        holder = holder[key]
    holder[where[-1]] = value
    assert faults(report) == [line]


def test_where_memory_is_not_known_nothing_is_said_of_it() -> None:
    report = copy.deepcopy(GOOD)
    for name in ("memory_mib", "files"):
        report["load"][name] = dict.fromkeys(report["load"][name])
    assert faults(report) == []
    out = io.StringIO()
    print_serving(report, Console(file=out, width=100))
    assert "start -, half -, after -, late -" in out.getvalue()


@pytest.mark.parametrize(("wrong", "code"), [(0, 0), (1, 1)])
def test_the_exit_code_says_whether_it_held(wrong, code, monkeypatch, capsys) -> None:
    report = copy.deepcopy(GOOD)
    report["load"]["answers"]["wrong"] = wrong
    monkeypatch.setattr("autoneural.bench.serving.measure_serving", lambda *_, **__: report)
    assert cli.main(["bench", "serve", "--json"]) == code
    out, err = capsys.readouterr()
    assert json.loads(out)["faults"] == (["1 requests: wrong"] if wrong else [])
    assert ("autoneural: 1 requests: wrong" in err) == bool(wrong)


def test_a_short_run() -> None:
    bundle = Bundle.load(EMBEDDED / "cockpit-tiny")
    report = measure_serving(
        bundle,
        None,
        Plan(clients=3, seconds=1.5, leave=0.5),
        threads=1,
        rounds=1,
        questions=asked_questions()[:2],
    )
    load, overhead = report["load"], report["overhead"]
    assert load["answers"]["right"] > 0
    assert {k: n for k, n in load["answers"].items() if n}.keys() <= {"right", "left"}
    assert load["stuck"] == 0
    assert load["tokens_per_second"] > 0
    assert (overhead["answers"], overhead["different"]) == (2, 0)
    assert overhead["tokens"] > 2
    assert overhead["engine_tokens_per_second"] > 0
    assert overhead["http_tokens_per_second"] > 0
    assert overhead["decoding_share"] < 1
    out = io.StringIO()
    print_serving(report, Console(file=out, width=100))
    assert "cockpit-tiny (cpu), 3 clients for" in out.getvalue()


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(UserError, match="did not start .*no such bundle"), ServerProcess("nothing"):
        pass
