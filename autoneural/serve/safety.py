"""What stands before every route: who may ask, under which name, how much, and for how long.

Loopback needs no key; any other address does. The Host header must be an address, localhost or a
name that was given: a page of `evil.example` whose name is rebound to 127.0.0.1 says so there. No
CORS header is ever sent, and a request that a page of another origin makes is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import os
import stat
import traceback
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoneural.errors import UserError
from autoneural.serve.errors import ApiError, error_reply, internal, invalid, unavailable
from autoneural.serve.settings import MAX_HEADER_BYTES, MAX_HELD_BYTES, MAX_JSON_ITEMS, Settings

log = logging.getLogger("autoneural.serve")

DEFAULT_PORT = 18181
KEY_VARIABLE = "AUTONEURAL_API_KEY"
_LINGER_SECONDS = 1.0


def parse_address(text: str) -> tuple[str, int]:
    """'127.0.0.1:18181', '[::1]:80', 'localhost' -> (host, port). UserError for anything else."""
    try:
        url = urlsplit(f"//{text}")
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if not host or url.netloc != text or "@" in text:
        raise UserError(f"--host {text}: expected HOST:PORT, such as 127.0.0.1:{DEFAULT_PORT}")
    return host, DEFAULT_PORT if port is None else port


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. Of names, only localhost is believed."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def require_key(host: str, api_keys: Collection[str]) -> None:
    """UserError where other machines could ask without a key, or where a key is no key."""
    if not all(map(_is_key, api_keys)):
        raise UserError("an API key must be ASCII without spaces, and not empty")
    if not api_keys and not is_loopback(host):
        raise UserError(
            f"--host {host}: other machines can reach this address, so it needs an API key: "
            f"set {KEY_VARIABLE} (or --api-key-file), or stay on 127.0.0.1"
        )


def _is_key(text: str) -> bool:
    return text.isascii() and text.split() == [text]


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file, one per line; blank lines and those that begin with # say nothing.

    Raises UserError where it cannot be read, has none, or others than its owner may read it.
    """
    try:
        # Windows has no such bits.
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UserError(f"{path}: others may read these keys; run `chmod 600` on it")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a list of API keys ({error})") from error
    keys = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        if not _is_key(line):
            raise UserError(f"{path}:{number}: not an API key: ASCII without spaces, one per line")
        keys.append(line)
    if not keys:
        raise UserError(f"{path}: no API keys in it")
    return tuple(dict.fromkeys(keys))


def tenant_of(key: str) -> bytes:
    """What caches know the owner of a key by."""
    return hashlib.sha256(key.encode()).digest()


class Guard:
    """ASGI middleware. Reads a whole body before any route sees it, within its limits."""

    def __init__(self, app: ASGIApp, settings: Settings, keyless: Collection[str]) -> None:
        """`keyless` are the paths that need no API key."""
        self._app = app
        self._settings = settings
        self._keyless = frozenset(keyless)
        self._hosts = {"localhost", *(host.lower() for host in settings.hosts)}
        self._tenants = {key.encode(): tenant_of(key) for key in settings.api_keys}
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        body = _Body(receive)
        try:
            self._check(scope)
            if scope["method"] not in ("GET", "HEAD"):
                await self._read(scope, body)
            await self._app(scope, body.replay, noted)
        except ApiError as error:
            if b"expect" not in dict(scope["headers"]):
                await body.drain()
            await error_reply(error)(scope, receive, send)
        except Exception as error:
            _log_without_values(error)
            if not started:
                await error_reply(internal())(scope, receive, send)
        finally:
            self._held -= body.size

    def _check(self, scope: Scope) -> None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            raise ApiError(431, "the headers are too large", code="headers_too_large")
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._knows(host):
            message = "the Host header names no address of this server (see --allow-host)"
            raise ApiError(403, message, code="host_not_allowed")
        origin = headers.get("origin")
        if origin is not None and _authority(origin) != host.lower():
            raise ApiError(403, "pages of other origins may not ask", code="origin_not_allowed")
        scope["tenant"] = b""
        if self._tenants and scope["path"] not in self._keyless:
            scope["tenant"] = self._tenant(headers.get("authorization", ""))

    def _knows(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._hosts or _address(name) is not None

    def _tenant(self, authorization: str) -> bytes:
        """Whose key it is. All keys are compared, each in constant time."""
        scheme, _, given = authorization.partition(" ")
        key = given.strip().encode()
        found = [tenant for own, tenant in self._tenants.items() if hmac.compare_digest(key, own)]
        if not found or scheme.lower() != "bearer":
            raise ApiError(
                401,
                "wrong or missing API key; send `Authorization: Bearer KEY`",
                kind="authentication_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found[0]

    async def _read(self, scope: Scope, body: _Body) -> None:
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:18]) > self._settings.max_body:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                async for size in body:
                    self._held += size
                    if body.size > self._settings.max_body:
                        raise self._too_large()
                    if self._held > MAX_HELD_BYTES:
                        raise unavailable("too many large requests at once", "overloaded")
        except TimeoutError as error:
            raise ApiError(408, "the body came too slowly", code="body_timeout") from error
        # A page may send text/plain anywhere without asking first; not so application/json.
        if body.size and headers.get("content-type", "").split(";")[0].strip().lower() != (
            "application/json"
        ):
            raise ApiError(415, "expected Content-Type: application/json", code="not_json")
        if body.items() > MAX_JSON_ITEMS:
            raise invalid(None, f"body: more than {MAX_JSON_ITEMS} items", "too_many_items")

    def _too_large(self) -> ApiError:
        message = f"body: over {self._settings.max_body} bytes"
        return ApiError(413, message, code="body_too_large")


class _Body:
    """A request's body: read once, given to the app as one piece, then the rest of `receive`."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._pieces: list[bytes] = []
        self._complete = False
        self._given = False
        self.size = 0

    async def __aiter__(self):
        """Read to the end; gives the size of every piece."""
        while not self._complete:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ApiError(400, "the client went away")
            piece = message.get("body", b"")
            self._complete = not message.get("more_body", False)
            self._pieces.append(piece)
            self.size += len(piece)
            yield len(piece)

    def items(self) -> int:
        """At least as many as there are values in it: small bodies can become large objects."""
        return sum(piece.count(mark) for piece in self._pieces for mark in (b",", b"[", b"{"))

    async def replay(self) -> Message:
        """`receive` for the app."""
        if self._given or not self._complete:
            return await self._receive()
        self._given = True
        body = b"".join(self._pieces)
        self._pieces.clear()
        return {"type": "http.request", "body": body, "more_body": False}

    async def drain(self) -> None:
        """Let a refused client finish sending, or it may never read why it is refused."""
        self._pieces.clear()
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while not self._complete:
                    message = await self._receive()
                    self._complete = not message.get("more_body", False)  # or it has left
        except TimeoutError:
            pass


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _authority(origin: str) -> str:
    """The host and port of an Origin header; empty where it has none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _log_without_values(error: Exception) -> None:
    """Where it happened and of which kind; the message may quote what a client sent."""
    frames: Iterable[str] = traceback.format_tb(error.__traceback__)
    log.error("%s in a request\n%s", type(error).__name__, "".join(frames).rstrip())
