"""A hub at 127.0.0.1: as much of its interface as is asked for when a model is fetched."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "1234567890abcdef1234567890abcdef12345678"


@dataclass
class Repo:
    folder: Path
    licence: str | None
    commit: str = COMMIT
    # What it answers with instead: a status and the hub's error code.
    refusal: tuple[int, str] | None = None


@dataclass
class FakeHub:
    """Serves folders. `stop_after` bytes of a weight file it waits until `go_on` is set.

    `ranges` are the Range headers that came, `fetched` the files that were sent.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    stop_after: int | None = None
    damage: bool = False
    ranges: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> FakeHub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, name: str, folder: Path, licence: str | None = None) -> Repo:
        self.repos[name] = Repo(folder, licence)
        return self.repos[name]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
        else:
            name, rest = "/".join(parts[:2]), parts[2:]
        repo = self.hub.repos.get(name)
        if repo is None:
            self._refuse(401, "RepoNotFound")
        elif repo.refusal is not None:
            self._refuse(*repo.refusal)
        elif len(rest) > 1 and rest[1] not in ("main", repo.commit):
            self._refuse(404, "RevisionNotFound")
        elif rest[:1] == ["resolve"]:
            self._send_file(repo, "/".join(rest[2:]))
        elif rest[:1] == ["tree"]:
            self._send_json([self._entry(repo, path) for path in self._paths(repo)])
        else:
            self._send_json(self._info(name, repo))

    def _info(self, name: str, repo: Repo) -> dict:
        card = {"license": "other", "license_name": repo.licence} if repo.licence else {}
        files = [
            {"rfilename": path, "size": (repo.folder / path).stat().st_size}
            for path in self._paths(repo)
        ]
        return {"id": name, "sha": repo.commit, "cardData": card, "siblings": files}

    def _entry(self, repo: Repo, path: str) -> dict:
        size = (repo.folder / path).stat().st_size
        return {"type": "file", "path": path, "size": size, "oid": "0" * 40}

    def _paths(self, repo: Repo) -> list[str]:
        files = (p for p in repo.folder.rglob("*") if p.is_file())
        return sorted(str(p.relative_to(repo.folder)) for p in files)

    def _send_file(self, repo: Repo, path: str) -> None:
        content = (repo.folder / path).read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        first = 0
        if wanted := self.headers.get("Range"):
            self.hub.ranges.append(wanted)
            first = int(wanted.removeprefix("bytes=").split("-")[0])
        if self.hub.damage:
            content = bytes(len(content))
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", repo.commit)
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.hub.fetched.append(path)
            self._send_body(content[first:], path)

    def _send_body(self, content: bytes, path: str) -> None:
        stop = self.hub.stop_after
        if stop is not None and path.endswith(".safetensors"):
            self.wfile.write(content[:stop])
            self.wfile.flush()
            self.hub.stopped.set()
            self.hub.go_on.wait()
            content = content[stop:]
        self.wfile.write(content)

    def _send_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
