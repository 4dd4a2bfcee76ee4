"""Pictures from elsewhere, for a server that was told which hosts to trust (--allow-image-host).

A request could make the server ask what only the server can reach (SSRF). So: the host of the URL
and of every redirect is on the list; its name is resolved once, none of the addresses may belong to
a private network, and the connection goes to that very address, whatever the name means a moment
later (rebinding). Size, time and media type are bounded. No proxy is used, no cookie is kept.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit

from autoneural.errors import UserError
from autoneural.serve.errors import ApiError, invalid

MEDIA_TYPES = ("image/jpeg", "image/jpg", "image/png", "image/webp", "image/bmp", "image/gif")
SCHEMES = ("http", "https")
MAX_BYTES = 10 * 2**20
SECONDS = 10.0
_REDIRECTS = 3
_MOVED = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Host = tuple[str, int | None]
"""A name in small letters, and a port; None: the usual one of the scheme."""


def parse_image_host(text: str) -> Host:
    """'example.org', 'example.org:8080', '[2001:db8::1]' -> name and port. UserError otherwise."""
    try:
        url = urlsplit(f"//{text}")
        name, port = url.hostname or "", url.port
    except ValueError:
        name, port, url = "", None, None
    if (
        url is None
        or url.netloc != text
        or "@" in text
        or not (_NAME.fullmatch(name) or ":" in name)
    ):
        raise UserError(f"--allow-image-host {text}: expected a host, such as images.example.org")
    return name, port


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, as the system knows them. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet, and so does any that it stands for."""
    inner = _inner(address)
    if inner is not None:
        return is_public(inner)
    private = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not private and not getattr(address, "is_site_local", False)


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to an IPv6 one end up at: mapped, NAT64, 6to4, Teredo."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]


class _Refused(Exception):
    """This may not be fetched."""


class _Failed(Exception):
    """This could not be fetched."""


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Fetches pictures of `hosts`. Tests give it another way to resolve, and other addresses."""

    hosts: Collection[Host]
    resolve: Callable[[str, int], Sequence[str]] = resolve
    allows: Callable[[Address], bool] = is_public
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    seconds: float = SECONDS

    def __call__(self, url: str, param: str) -> bytes:
        """The file at `url`, undecoded. Raises ApiError (400) with `param`."""
        try:
            return self._fetch(url, time.monotonic() + self.seconds)
        except _Refused as error:
            raise invalid(param, f"{error}; send a data URL", "remote_image_refused") from error
        except _Failed as error:
            raise _not_fetched(param, str(error)) from error
        except TimeoutError as error:
            raise _not_fetched(param, f"not within {self.seconds:g} s") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _not_fetched(param, "no proper answer from its host") from error

    def _fetch(self, url: str, until: float) -> bytes:
        for _ in range(1 + _REDIRECTS):
            parts, place = self._checked(url)
            with self._asked(parts, place, until) as response:
                if response.status not in _MOVED:
                    return _body(response, until)
                target = urljoin(url, response.getheader("Location") or "")
            if parts.scheme == "https" and not target.lower().startswith("https:"):
                raise _Refused("it is redirected from https to something else")
            url = target
        raise _Failed(f"more than {_REDIRECTS} redirects")

    def _checked(self, url: str) -> tuple[SplitResult, tuple[str, int]]:
        """The parts of a URL that may be fetched, and its host and port."""
        try:
            parts = urlsplit(url)
            named = parts.port
        except ValueError as error:
            raise _Refused("it is not a URL") from error
        host, usual = parts.hostname or "", _PORTS.get(parts.scheme)
        if usual is None:
            raise _Refused("only http and https are fetched")
        if parts.username is not None or parts.password is not None:
            raise _Refused("a URL with a user name is not fetched")
        port = usual if named is None else named
        if (host, port) not in self.hosts and not (port == usual and (host, None) in self.hosts):
            raise _Refused("its host is not one that this server may ask (--allow-image-host)")
        return parts, (host, port)

    @contextmanager
    def _asked(
        self, parts: SplitResult, place: tuple[str, int], until: float
    ) -> Iterator[http.client.HTTPResponse]:
        addresses = self._addresses(*place)
        tls = self.tls if parts.scheme == "https" else None
        connection = _Pinned(*place, addresses, tls, _left(until))
        # A timeout of a socket starts anew with every byte; this one does not.
        ending = threading.Timer(_left(until), connection.cut)
        ending.daemon = True
        ending.start()
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = {"Accept": ", ".join(MEDIA_TYPES), "User-Agent": "autoneural"}
            connection.request("GET", path, headers=headers)
            with connection.getresponse() as response:
                _left(until)  # headers that were cut off look like their end
                yield response
        except (OSError, http.client.HTTPException):
            _left(until)  # where the time is up, that is why
            raise
        finally:
            ending.cancel()
            connection.close()

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = list(self.resolve(host, port))
        except OSError as error:
            raise _Failed("its host has no address") from error
        if not found or not all(self.allows(ipaddress.ip_address(each)) for each in found):
            raise _Refused("its host has an address that is not public")
        return found


class _Pinned(http.client.HTTPConnection):
    """A connection to addresses that were looked at, under the name that they were found by."""

    def __init__(
        self,
        host: str,
        port: int,
        addresses: Sequence[str],
        tls: ssl.SSLContext | None,
        seconds: float,
    ) -> None:
        super().__init__(host, port, timeout=seconds)
        self.default_port = _PORTS["https" if tls else "http"]  # leaves it out of the Host header
        self._addresses = addresses
        self._tls = tls
        self._seconds = seconds
        self._open: socket.socket | None = None
        self._cut = False

    def connect(self) -> None:
        """To the first address that answers."""
        self.sock = self._open = self._connected()
        if self._tls is not None:
            self.sock = self._open = self._tls.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self.sock.do_handshake()
        if self._cut:
            raise TimeoutError

    def _connected(self) -> socket.socket:
        share = self._seconds / len(self._addresses)
        for number, address in enumerate(self._addresses, 1):
            try:
                found = socket.create_connection((address, self.port), share)
                found.settimeout(self._seconds)
                return found
            except OSError:
                if number == len(self._addresses):
                    raise
        raise OSError("no address")

    def cut(self) -> None:
        """End it, from another thread."""
        self._cut = True
        if self._open is not None:  # `sock` is None once the headers of a last answer are there
            with suppress(OSError):  # it may have ended already
                self._open.shutdown(socket.SHUT_RDWR)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _body(response: http.client.HTTPResponse, until: float) -> bytes:
    if response.status != 200:
        raise _Failed(f"its host answers {response.status}")
    kind = (response.getheader("Content-Type") or "").split(";")[0].strip().lower()
    if kind not in MEDIA_TYPES:
        raise _Failed(f"its media type is not one of {', '.join(MEDIA_TYPES)}")
    data = response.read(MAX_BYTES + 1)
    _left(until)  # what was cut off looks like the end
    if len(data) > MAX_BYTES:
        raise _Failed(f"over {MAX_BYTES} bytes")
    if response.length:
        raise _Failed("it was cut off")
    return data


def _not_fetched(param: str, reason: str) -> ApiError:
    return invalid(param, f"cannot be fetched: {reason}", "image_not_fetched")
