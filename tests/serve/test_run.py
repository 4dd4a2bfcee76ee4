"""`autoneural serve` as a process: what it refuses to start with, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoneural import cli
from autoneural.errors import UserError
from autoneural.serve.models import Models, Placing
from autoneural.serve.settings import Settings
from tests.serve.helpers import ask, client

ROOT = Path(__file__).resolve().parents[2]


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["serve", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("host", ["0.0.0.0:18181", "[::]:18181", "192.0.2.1", "example.org:80"])
def test_no_other_address_without_a_key(host: str, capsys, monkeypatch) -> None:
    monkeypatch.delenv("AUTONEURAL_API_KEY", raising=False)
    assert "needs an API key: set AUTONEURAL_API_KEY" in refusal(["--host", host], capsys)


def test_an_empty_key_is_none(capsys, monkeypatch) -> None:
    monkeypatch.setenv("AUTONEURAL_API_KEY", "")
    assert "needs an API key" in refusal(["--host", "0.0.0.0:0"], capsys)
    assert "API key must be ASCII" in refusal(["--api-key", ""], capsys)


def test_a_taken_port_is_one_line(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        err = refusal(["--host", f"127.0.0.1:{port}"], capsys)
    assert f"127.0.0.1:{port}: cannot listen there (Address already in use)" in err


def test_what_is_not_there_is_one_line(capsys, tmp_path: Path) -> None:
    assert "no such bundle" in refusal(["nothing"], capsys)
    assert "no such folder" in refusal(["--media-path", str(tmp_path / "x")], capsys)
    assert "expected HOST:PORT" in refusal(["--host", "http://x"], capsys)
    assert "no vision graph for pictures of 8 px" in refusal(["--image-size", "8"], capsys)
    assert "alone counts" in refusal(["--host", "127.0.0.1:0", "--memory-budget", "0.001"], capsys)
    assert "0 is not a number above 0" in refusal(["--memory-budget", "0"], capsys)
    assert "no target 'float'" in refusal(["--host", "127.0.0.1:0", "--target", "float"], capsys)


def test_two_bundles_of_one_name_are_refused(bundle) -> None:
    with pytest.raises(UserError, match="two bundles are called cockpit-tiny"):
        Models.start([bundle, bundle], Placing(), Settings())


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_server_from_the_first_line_to_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "autoneural", "serve", "--host", "127.0.0.1:0", "-v"]
    environment = {**os.environ, "AUTONEURAL_API_KEY": "secret", "PYTHONPATH": str(ROOT)}
    log = tmp_path / "log"
    with log.open("w") as err:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=err)
    try:
        until = time.monotonic() + 60
        while "serving cockpit-tiny (cpu) at http://127.0.0.1:" not in log.read_text():
            assert time.monotonic() < until, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        url = log.read_text().split(" at ")[1].split("/v1")[0]
        with client(url, headers={"Authorization": "Bearer secret"}) as http:
            body = {"messages": [ask("my name is Rumpelstiltskin")], "max_tokens": 1}
            assert http.post("/v1/chat/completions", json=body).status_code == 200
            assert http.get("/v1/models", headers={"Authorization": ""}).status_code == 401
            assert f" a page at {url}/ (" in log.read_text()
            assert http.get("/", headers={"Authorization": ""}).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
    lines = log.read_text()
    assert "/v1/chat/completions" in lines
    assert "Traceback" not in lines
    assert "Rumpel" not in lines
    assert "secret" not in lines
