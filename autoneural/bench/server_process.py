"""`autoneural serve` as a process of its own, and a client that looks at it from the outside."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from autoneural.errors import UserError

CHAT = "/v1/chat/completions"
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_TIMEOUT = 330.0
_HEADERS = {"Content-Type": "application/json"}
_PORT = re.compile(r" at http://127\.0\.0\.1:(\d+)/v1")


@dataclass(frozen=True)
class Footprint:
    """What a process holds: resident memory in MiB, open file descriptors. None: not known here."""

    rss_mib: float | None
    files: int | None

    @classmethod
    def of(cls, pid: int) -> Footprint:
        """From /proc, which Linux alone has."""
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            files = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            return cls(None, None)
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        return cls(int(found[1]) / 1024 if found else None, files)


class ServerProcess:
    """`with ServerProcess("--threads", "1") as server:`, on a free port of this machine.

    `options` are those of `autoneural serve`. Raises UserError where it does not start.
    """

    def __init__(self, *options: str) -> None:
        self._command = [sys.executable, "-m", "autoneural", "serve", *options]
        self._command += ["--host", "127.0.0.1:0"]

    def __enter__(self) -> ServerProcess:
        keyless = {k: v for k, v in os.environ.items() if k != "AUTONEURAL_API_KEY"}
        self._process = subprocess.Popen(
            self._command,
            env=keyless,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self.pid = self._process.pid
        self._lines: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self.port = self._wait_for_port()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def running(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """All that the server has said so far."""
        return "".join(self._lines)

    def footprint(self) -> Footprint:
        """What the server holds right now."""
        return Footprint.of(self.pid)

    def client(self) -> Client:
        """A connection of its own."""
        return Client(self.port)

    def in_flight(self) -> int:
        """Requests that wait, are computed or being sent, by the server's own /metrics."""
        with self.client() as client:
            status, text = client.get("/metrics")
        if status != 200:
            raise UserError(f"/metrics: answered {status}")
        found = re.findall(r"^autoneural_requests_in_flight\{.*\} (\S+)$", text, re.MULTILINE)
        return int(sum(map(float, found)))

    def settle(self, seconds: float = 10.0) -> int:
        """Wait until no request is on its way; how many still are after `seconds`."""
        until = time.monotonic() + seconds
        while (left := self.in_flight()) and time.monotonic() < until:
            time.sleep(0.1)
        return left

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._lines.append(line)

    def _wait_for_port(self) -> int:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            over = not self.running
            if over:
                self._listener.join()
            if found := _PORT.search(self.log):
                return int(found[1])
            if over:
                break
            time.sleep(0.05)
        said = " ".join(self.log.split()) or "without a word"
        raise UserError(f"{' '.join(self._command[2:])}: did not start ({said})")

    def _end(self) -> None:
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How a request ended. Times are seconds since it was sent.

    `complete`: the answer came to its end, in a stream with its last event. `first`: when the first
    text of a stream came. `decoding` is the server's own figure, from the first token to the last.
    """

    status: int
    text: str = ""
    tokens: int = 0
    decoding: float = 0.0
    first: float | None = None
    seconds: float = 0.0
    complete: bool = False


class Client:
    """One connection, which is kept. Raises OSError or HTTPException where it breaks."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the next request connects again."""
        self._connection.close()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        self._connection.request("GET", path)
        reply = self._connection.getresponse()
        return reply.status, reply.read().decode("utf-8")

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body, for whatever `body` is."""
        self._connection.request("POST", path, body, _HEADERS)
        reply = self._connection.getresponse()
        return reply.status, reply.read()

    def ask(self, body: dict[str, Any], leave_after: int | None = None) -> Reply:
        """Answer a chat request; hang up after so many events of a stream."""
        start = time.perf_counter()
        self._connection.request("POST", CHAT, json.dumps(body), _HEADERS)
        reply = self._connection.getresponse()
        if reply.status != 200:
            reply.read()
            return Reply(status=reply.status, seconds=time.perf_counter() - start)
        if body.get("stream"):
            return self._read_stream(reply, start, leave_after)
        answer = json.loads(reply.read())
        return Reply(
            status=200,
            text=answer["choices"][0]["message"]["content"],
            tokens=answer["usage"]["completion_tokens"],
            seconds=time.perf_counter() - start,
            complete=True,
        )

    def _read_stream(
        self, reply: http.client.HTTPResponse, start: float, leave_after: int | None
    ) -> Reply:
        text, tokens, first, events, complete, decoding = "", 0, None, 0, False, 0.0
        while events != leave_after and (line := reply.readline()):
            if not line.startswith(b"data: "):
                continue
            events += 1
            if line.startswith(b"data: [DONE]"):
                complete = True
                continue
            chunk = json.loads(line[len(b"data: ") :])
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            decoding = chunk.get("timings", {}).get("predicted_ms", 1e3 * decoding) / 1e3
            for choice in chunk.get("choices", ()):
                text += choice["delta"].get("content") or ""
            if text and first is None:
                first = time.perf_counter() - start
        if events == leave_after:
            self.close()
        return Reply(
            status=200,
            text=text,
            tokens=tokens,
            decoding=decoding,
            first=first,
            seconds=time.perf_counter() - start,
            complete=complete,
        )
