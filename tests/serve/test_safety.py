"""Who may ask, under which name, how much and how slowly; and that logs hold no contents."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from autoneural.errors import UserError
from autoneural.serve import safety
from autoneural.serve.app import create_app
from autoneural.serve.models import Models
from autoneural.serve.safety import is_loopback, parse_address, require_key
from autoneural.serve.settings import Settings
from tests.serve.helpers import SlowEngine, ask, call, error_of, running, slow_app

CHAT = "/v1/chat/completions"
BODY = {"messages": [ask("a")], "max_tokens": 1}
JSON = {"Content-Type": "application/json"}


def app_with(served, **settings):
    return create_app(Models([served]), Settings(**settings))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("localhost", ("localhost", 18181)),
        ("[::1]:0", ("::1", 0)),
        ("0.0.0.0:18181", ("0.0.0.0", 18181)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":80", "a:b", "a:70000", "http://a:1", "u@a:1", "::1", "a/b"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UserError, match="expected HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    require_key(host, ())


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.4", "car.local", "localhost.evil.example", "127.0.0.1.nip"]
)
def test_other_addresses_need_a_key(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(UserError, match="needs an API key: set AUTONEURAL_API_KEY"):
        require_key(host, ())
    require_key(host, ("secret",))


@pytest.mark.parametrize("key", ["", " ", "a b", "schlüssel"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(UserError, match="API key must be ASCII"):
        require_key("127.0.0.1", ("good", key))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/cockpit-tiny"),
        ("GET", "/metrics"),
        ("GET", "/props"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
        ("GET", "/health/"),
        # Two slashes alone would name a host.
        ("GET", "http://127.0.0.1//health"),
        ("POST", CHAT),
        ("POST", "/v1/completions"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
    ],
)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic secret",
        "secret",
        "Bearer secret2",
        "Bearer sécret",
    ],
)
def test_every_route_but_health_wants_the_key(served, method, path, authorization) -> None:
    app = app_with(served, api_keys=("secret",))
    headers = {} if authorization is None else {"Authorization": authorization.encode()}
    response = call(app, method, path, headers=headers)
    assert response.status_code == 401
    assert error_of(response)["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"
    assert "secret" not in response.text


def test_with_the_key_all_is_well_and_health_needs_none(served) -> None:
    app = app_with(served, api_keys=("secret",))
    assert call(app, "GET", "/health").status_code == 200
    for form in ("Bearer secret", "bearer secret"):
        response = call(app, "POST", CHAT, json=BODY, headers={"Authorization": form})
        assert response.status_code == 200


@pytest.mark.parametrize("route", ["/health", "/v1/models"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:18181", 200),
        ("[::1]:18181", 200),
        ("localhost:9", 200),
        ("LocalHost", 200),
        ("192.168.1.4:18181", 200),
        ("car.local:18181", 200),
        ("evil.example", 403),
        ("localhost.evil.example:18181", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
        ("[::1", 403),
        ("127.1", 403),
    ],
)
def test_the_host_header_is_checked(served, route: str, host: str, status: int) -> None:
    app = app_with(served, hosts=("Car.local",))
    response = call(app, "GET", route, headers={"Host": host})
    assert response.status_code == status
    if status != 200:
        assert error_of(response)["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:3000", "http://localhost", "http://["],
)
def test_pages_of_other_origins_may_not_ask(served, origin: str) -> None:
    app = app_with(served)
    response = call(app, "POST", CHAT, json=BODY, headers={"Origin": origin})
    assert (response.status_code, error_of(response)["code"]) == (403, "origin_not_allowed")
    preflight = call(
        app, "OPTIONS", CHAT, headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
    )
    for each in (response, preflight):
        assert not [name for name in each.headers if name.startswith("access-control")]


def test_pages_of_our_own_origin_may(served) -> None:
    headers = {"Origin": "http://127.0.0.1"}
    assert call(app_with(served), "POST", CHAT, json=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "", "multipart/form-data; boundary=a", "application/xml"]
)
def test_a_body_must_say_that_it_is_json(served, kind: str) -> None:
    # text/plain is what a page of another origin may post without asking.
    headers = {"Content-Type": kind} if kind else {}
    response = call(app_with(served), "POST", CHAT, content=b'{"messages": []}', headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (415, "not_json")


def test_bodies_are_bounded_whether_or_not_they_say_their_size(served) -> None:
    app = app_with(served, max_body=1000)

    async def pieces():
        for _ in range(20):
            yield b" " * 100

    for content in (b" " * 1001, pieces()):
        response = call(app, "POST", CHAT, content=content, headers=JSON)
        assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")
    assert call(app, "POST", CHAT, json=BODY).status_code == 200


def test_a_refused_body_is_refused_over_a_socket_too(http) -> None:
    response = http.post(CHAT, content=b" " * (33 * 2**20), headers=JSON)
    assert response.status_code == 413


def test_all_bodies_together_are_bounded(served, monkeypatch) -> None:
    app = app_with(served)
    monkeypatch.setattr(safety, "MAX_HELD_BYTES", 10)
    response = call(app, "POST", CHAT, json=BODY)
    assert (response.status_code, error_of(response)["code"]) == (503, "overloaded")
    assert response.headers["retry-after"] == "1"
    monkeypatch.setattr(safety, "MAX_HELD_BYTES", 200)
    for _ in range(5):  # what was held is let go
        assert call(app, "POST", CHAT, json=BODY).status_code == 200


def test_a_slow_body_is_not_waited_for(served) -> None:
    with running(app_with_own_models(served, body_seconds=0.2)) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


def app_with_own_models(served, **settings):
    """An app that may end: what it stops is a worker of its own."""
    return slow_app(served, SlowEngine(), Settings(keepalive=0, **settings))


def test_headers_are_bounded(http) -> None:
    response = http.get("/health", headers={"X-Long": "a" * 40_000})
    assert (response.status_code, error_of(response)["code"]) == (431, "headers_too_large")


def test_logs_hold_no_contents(served, monkeypatch, caplog) -> None:
    app = app_with(served)
    secret = "the driver is called Rumpelstiltskin"

    def fail(*args):
        raise ValueError(secret)

    monkeypatch.setattr("autoneural.serve.app.refuse_unsupported", fail)
    with caplog.at_level(logging.DEBUG):
        response = call(app, "POST", CHAT, json={"messages": [ask(secret)]})
    assert response.status_code == 500
    error_of(response)
    assert "Rumpel" not in response.text + caplog.text
    assert "ValueError" in caplog.text
    assert "test_safety.py" in caplog.text  # where it happened


def test_telemetry_of_the_framework_is_off(served, monkeypatch) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    app = app_with(served)
    assert not app._native_telemetry.enabled()
    telemetry = dict(app._telemetry)
    assert not any(telemetry[key] for key in ("auto_configure", "tracing", "logs", "metrics"))


def test_nothing_but_one_file_asks_the_network() -> None:
    folder = Path(safety.__file__).parent
    clients = ("urllib.request", "http.client", "httpx", "requests", "aiohttp", "urlopen")
    for file in set(folder.glob("*.py")) - {folder / "remote.py"}:
        text = file.read_text("utf-8")
        assert not [name for name in clients if f"import {name}" in text or f"{name}(" in text]
