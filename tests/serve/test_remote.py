"""Pictures of other hosts: only of those that were named, only from the internet, within bounds."""

from __future__ import annotations

import ipaddress
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from autoneural import cli
from autoneural.errors import UserError
from autoneural.serve import remote
from autoneural.serve.app import create_app
from autoneural.serve.errors import ApiError
from autoneural.serve.models import Models
from autoneural.serve.remote import Fetcher, is_public, parse_image_host
from autoneural.serve.settings import Settings
from tests.serve.helpers import SlowEngine, ask, call, error_of, picture_bytes, slow_app

CHAT = "/v1/chat/completions"
HOST = "pictures.test"
PNG = picture_bytes()


class Elsewhere(BaseHTTPRequestHandler):
    """A host of pictures that does as the path says."""

    protocol_version = "HTTP/1.0"
    server: Site  # type: ignore[assignment]

    def do_GET(self) -> None:
        self.server.asked.append((self.headers["Host"], self.path))
        self.server.headers = dict(self.headers)
        kind, _, rest = self.path[1:].partition("/")
        getattr(self, kind)(rest)

    def reply(self, data: bytes, kind: str = "image/png", status: int = 200, **headers) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def ok(self, rest: str) -> None:
        self.reply(PNG)

    def type(self, rest: str) -> None:
        self.reply(PNG, rest)

    def status(self, rest: str) -> None:
        self.reply(PNG, status=int(rest))

    def go(self, rest: str) -> None:
        self.reply(b"", status=302, Location=rest)

    def broken(self, rest: str) -> None:
        self.reply(PNG[: len(PNG) // 2])

    def cut(self, rest: str) -> None:
        self.reply(PNG, **{"Content-Length": str(len(PNG) + 1)})

    def large(self, rest: str) -> None:
        self.reply(PNG + bytes(int(rest)))

    def slow(self, rest: str) -> None:
        """A byte now and then: no single wait is long."""
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        for byte in PNG:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.05)

    def slowly(self, rest: str) -> None:
        """The same with headers that do not end."""
        self.send_response(200)
        self.flush_headers()
        for number in range(100):
            self.wfile.write(f"X-{number}: 1\r\n".encode())
            self.wfile.flush()
            time.sleep(0.05)

    def log_message(self, *args) -> None:
        pass


class Site(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Elsewhere)
        self.asked: list[tuple[str, str]] = []
        self.headers: dict[str, str] = {}
        self.port = self.server_port

    def handle_error(self, *args) -> None:
        """A client that hangs up is no news."""


@pytest.fixture(scope="module")
def running_site() -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        yield site
        site.shutdown()


@pytest.fixture
def site(running_site: Site) -> Site:
    running_site.asked.clear()
    return running_site


def to_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def fetcher(site: Site, **options) -> Fetcher:
    """Takes the names of the site for names of the internet."""
    hosts = options.pop("hosts", {(HOST, site.port)})
    found = {"resolve": to_loopback, "allows": lambda address: True, **options}
    return Fetcher(hosts=hosts, **found)


def refusal(fetch: Fetcher, url: str) -> tuple[str, str]:
    with pytest.raises(ApiError) as error:
        fetch(url, "place")
    found = error.value.to_dict()["error"]
    assert (error.value.status, found["param"]) == (400, "place")
    return found["code"], found["message"]


def test_a_picture_of_a_named_host(site: Site) -> None:
    fetch = fetcher(site)
    assert fetch(f"http://{HOST}:{site.port}/ok/a?b=c", "place") == PNG
    assert site.asked == [(f"{HOST}:{site.port}", "/ok/a?b=c")]
    assert set(site.headers) == {"Host", "Accept-Encoding", "Accept", "User-Agent"}
    assert site.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "url",
    [
        "http://other.test:{port}/ok",
        "http://sub.pictures.test:{port}/ok",
        "http://pictures.test.evil.test:{port}/ok",
        "http://pictures.test.:{port}/ok",
        "http://127.0.0.1:{port}/ok",
        "http://pictures.test/ok",
        "http://pictures.test:22/ok",
        "https://pictures.test/ok",
        "http://user@pictures.test:{port}/ok",
        "http://user:word@pictures.test:{port}/ok",
        "http://pictures.test:{port}@evil.test/ok",
        "http://evil.test\\@pictures.test:{port}/ok",
        "ftp://pictures.test:{port}/ok",
        "http://pictures.test:{port}.evil.test/ok",
        "http://[pictures.test/ok",
        "http:///ok",
    ],
)
def test_other_hosts_and_ports_are_refused_unasked(site: Site, url: str) -> None:
    resolved = []

    def resolve(host: str, port: int) -> list[str]:
        resolved.append(host)
        return ["127.0.0.1"]

    code, _ = refusal(fetcher(site, resolve=resolve), url.format(port=site.port))
    assert code == "remote_image_refused"
    assert (site.asked, resolved) == ([], [])


def test_a_host_without_a_port_means_the_usual_ones(site: Site) -> None:
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        raise OSError

    fetch = fetcher(site, hosts={(HOST, None)}, resolve=resolve)
    for url in (f"http://{HOST}/a", f"HTTPS://{HOST.upper()}/a", f"http://{HOST}:80/a"):
        assert refusal(fetch, url)[0] == "image_not_fetched"
    assert asked == [(HOST, 80), (HOST, 443), (HOST, 80)]
    assert refusal(fetch, f"https://{HOST}:80/a")[0] == "remote_image_refused"


PRIVATE = (
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
    *("169.254.169.254", "192.0.0.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00::1", "fec0::1"),
    *("ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1"),
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",  # Teredo of 10.0.0.1
)
PUBLIC = ("93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101")


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(site: Site, address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    fetch = fetcher(site, allows=is_public, resolve=lambda host, port: ["1.1.1.1", address])
    code, message = refusal(fetch, f"http://{HOST}:{site.port}/ok")
    assert code == "remote_image_refused"
    assert "not public" in message


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_loopback_is_refused_unless_a_test_says_otherwise(site: Site) -> None:
    for host in ("127.0.0.1", "localhost"):
        fetch = Fetcher(hosts={(host, site.port)})
        assert "not public" in refusal(fetch, f"http://{host}:{site.port}/ok")[1]
    assert site.asked == []


def test_a_name_is_resolved_once_and_that_address_is_asked(site: Site) -> None:
    """The second time it would be another: a name that is rebound."""
    answers = iter([["127.0.0.1"], ["192.0.2.1"]])
    fetch = fetcher(site, resolve=lambda host, port: next(answers))
    assert fetch(f"http://{HOST}:{site.port}/ok", "place") == PNG
    assert next(answers) == ["192.0.2.1"]


def test_the_next_address_is_tried_where_one_does_not_answer(site: Site) -> None:
    dead = fetcher(site, resolve=lambda host, port: ["::1", "127.0.0.1"])
    assert dead(f"http://{HOST}:{site.port}/ok", "place") == PNG


def test_redirects_are_followed_and_looked_at(site: Site) -> None:
    base = f"http://{HOST}:{site.port}"
    fetch = fetcher(site)
    assert fetch(f"{base}/go//ok", "place") == PNG
    assert fetch(f"{base}/go/{base}/go/{base}/go//ok", "place") == PNG
    site.asked.clear()
    for target in (f"http://evil.test:{site.port}/ok", "http://127.0.0.1/", "file:///etc/passwd"):
        assert refusal(fetch, f"{base}/go/{target}")[0] == "remote_image_refused"
    assert all(path.startswith("/go/") for _, path in site.asked)
    four = f"{base}/go/" * 4 + f"{base}/ok"
    assert "more than 3 redirects" in refusal(fetch, four)[1]


def test_the_addresses_of_a_redirect_are_looked_at(site: Site) -> None:
    names = {HOST: "127.0.0.1", "inside.test": "10.0.0.1"}
    fetch = fetcher(
        site,
        hosts={(HOST, site.port), ("inside.test", None)},
        resolve=lambda host, port: [names[host]],
        allows=lambda address: not str(address).startswith("10."),
    )
    code, message = refusal(fetch, f"http://{HOST}:{site.port}/go/http://inside.test/ok")
    assert (code, "not public" in message) == ("remote_image_refused", True)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("type/text/html", "media type"),
        ("type/image/svg+xml", "media type"),
        ("type/", "media type"),
        ("status/404", "answers 404"),
        ("status/204", "answers 204"),
        ("cut", "cut off"),
        ("large/20000", "over 20000 bytes"),
        ("nothing-of-the-kind", "no proper answer"),
        ("ok a", "no proper answer"),
        ("ü", "no proper answer"),
    ],
)
def test_what_is_no_good_answer(site: Site, monkeypatch, path: str, reason: str) -> None:
    monkeypatch.setattr(remote, "MAX_BYTES", 20000)
    code, message = refusal(fetcher(site), f"http://{HOST}:{site.port}/{path}")
    assert code == "image_not_fetched"
    assert reason in message


@pytest.mark.parametrize("path", ["slow", "slowly"])
def test_the_time_is_bounded_as_a_whole(site: Site, path: str) -> None:
    fetch = fetcher(site, seconds=0.4)
    start = time.monotonic()
    assert "not within 0.4 s" in refusal(fetch, f"http://{HOST}:{site.port}/{path}")[1]
    assert time.monotonic() - start < 3


def test_nobody_there(site: Site) -> None:
    port = site.port
    fetch = fetcher(site, resolve=lambda host, port: ["127.255.255.254"], seconds=1.0)
    assert refusal(fetch, f"http://{HOST}:{port}/ok")[0] == "image_not_fetched"
    none = fetcher(site, resolve=lambda host, port: [])
    assert "not public" in refusal(none, f"http://{HOST}:{port}/ok")[1]


def test_a_certificate_must_be_for_the_name(site: Site) -> None:
    fetch = fetcher(site)
    assert fetch.tls.verify_mode == ssl.CERT_REQUIRED
    assert fetch.tls.check_hostname
    # What is no TLS at all.
    assert "no proper answer" in refusal(fetch, f"https://{HOST}:{site.port}/ok")[1]


@pytest.mark.parametrize(
    "text", ["", "http://a.test", "a.test/x", "a b", "*.a.test", "u@a.test", "a.test:x", "-a"]
)
def test_what_is_no_host_is_refused_at_the_start(text: str, capsys) -> None:
    with pytest.raises(UserError, match="--allow-image-host"):
        parse_image_host(text)
    assert cli.main(["serve", f"--allow-image-host={text}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_hosts_are_read_as_urls_have_them() -> None:
    assert parse_image_host("Images.Example.org") == ("images.example.org", None)
    assert parse_image_host("a.test:8080") == ("a.test", 8080)
    assert parse_image_host("[2001:DB8::1]") == ("2001:db8::1", None)


@pytest.fixture
def allowing(served, site: Site) -> Callable:
    return create_app(Models([served]), Settings(), fetcher(site))


def test_a_request_with_a_picture_of_another_host(allowing, app, site: Site) -> None:
    url = f"http://{HOST}:{site.port}/ok"
    body = {"messages": [ask("What is it?", url)], "max_tokens": 2}
    assert call(allowing, "POST", CHAT, json=body).status_code == 200
    wrong = {
        f"http://{HOST}:{site.port}/broken": ("messages[0].content[0].image_url", "invalid_image"),
        f"http://{HOST}:{site.port}/status/500": (
            "messages[0].content[0].image_url",
            "image_not_fetched",
        ),
        "http://evil.test/a.png": ("messages[0].content[0].image_url", "remote_image_refused"),
    }
    for url, found in wrong.items():
        response = call(allowing, "POST", CHAT, json={"messages": [ask("What is it?", url)]})
        assert response.status_code == 400
        error = error_of(response)
        assert (error["param"], error["code"]) == found
    # The same without --allow-image-host.
    site.asked.clear()
    error = error_of(call(app, "POST", CHAT, json=body))
    assert (error["code"], site.asked) == ("remote_image_refused", [])


def test_waiting_for_a_host_keeps_nobody_else_waiting(served, site: Site) -> None:
    app = slow_app(served, SlowEngine(letters=1))
    server = app.state.server
    server.read_image = type(server.read_image)(None, fetcher(site, seconds=2.0))
    slow = {"messages": [ask("a", f"http://{HOST}:{site.port}/slow")]}
    threads = [
        threading.Thread(target=call, args=(app, "POST", CHAT), kwargs={"json": slow})
        for _ in range(3)
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    assert call(app, "POST", CHAT, json={"messages": [ask("a")]}).status_code == 200
    assert time.monotonic() - start < 1.5
    for thread in threads:
        thread.join()
