"""Sockets, signals and the end: what turns the app into a process.

Ctrl-C (or SIGTERM) once: no new request is taken, those on their way may finish for `drain` seconds
and are then ended with an error. Twice: at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Sequence

import uvicorn
from fastapi import FastAPI

from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.serve.allocator import give_back_large_blocks
from autoneural.serve.app import Server, create_app
from autoneural.serve.memory import GB
from autoneural.serve.models import Models, Placing
from autoneural.serve.safety import require_key
from autoneural.serve.settings import MAX_HEADER_BYTES, Settings

_CONNECTIONS = 512
_FAREWELL_SECONDS = 3


def serve(
    bundles: Sequence[Bundle],
    address: tuple[str, int],
    settings: Settings,
    placing: Placing,
    *,
    verbose: bool = False,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> None:
    """Serve until Ctrl-C, which raises KeyboardInterrupt at the end.

    Raises UserError where the address needs a key, is taken, or a bundle cannot run here.
    """
    host, port = address
    require_key(host, settings.api_keys)
    give_back_large_blocks()
    logging.basicConfig(format="autoneural: %(message)s", level=logging.WARNING)
    with _bound(host, port) as listener:
        models = Models.start(bundles, placing, settings)
        app = create_app(models, settings)
        where = f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        names = ", ".join(f"{served.name} ({served.target})" for served in models)
        budget = settings.memory_budget
        names += f" within {budget / GB:g} GB" if budget else ""
        text = f"serving {names} at http://{where}/v1 and a page at http://{where}/ (Ctrl-C stops)"
        server = AppServer(app, verbose=verbose, ready=lambda: say(text))
        try:
            server.run(sockets=[listener])
        finally:
            app.state.server.close()  # a second Ctrl-C skips the app's own end


class AppServer(uvicorn.Server):
    """uvicorn, which lets answers on their way finish for a while before it ends."""

    def __init__(
        self, app: FastAPI, *, verbose: bool = False, ready: Callable[[], None] = lambda: None
    ) -> None:
        """`ready` is called once clients can connect."""
        self._server: Server = app.state.server
        self._ready = ready
        drain = self._server.settings.drain
        config = uvicorn.Config(
            app,
            # It stops reading headers that do not end; the other implementation goes on.
            http="h11",
            ws="none",
            loop="asyncio",
            h11_max_incomplete_event_size=2 * MAX_HEADER_BYTES,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=int(drain) + _FAREWELL_SECONDS,
            log_config=None,
            log_level="info" if verbose else "warning",
            access_log=verbose,
            # Nobody in front of us is believed about who asks.
            proxy_headers=False,
            server_header=False,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port, then say so: who reads it connects at once."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what is new, wait, then cancel."""
        models = self._server.models
        models.refuse()
        loop = asyncio.get_running_loop()
        ending = loop.call_later(self._server.settings.drain, models.cancel)
        await super().shutdown(sockets)
        ending.cancel()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen yet, so that a taken port shows at once."""
    listener = None
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise UserError(f"--host {host}:{port}: cannot listen there ({error.strerror})") from error
    return listener
