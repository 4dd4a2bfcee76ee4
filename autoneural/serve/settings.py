"""What the command line decides about a server, and the limits that it does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoneural.runtime.drafting import Speculate

MAX_HEADER_BYTES = 32 * 2**10
MAX_BODY_BYTES = 32 * 2**20
MAX_HELD_BYTES = 256 * 2**20
"""Bodies of all requests together."""
BODY_SECONDS = 30.0
"""How long a client may take to send its body."""
MAX_JSON_ITEMS = 100_000
MAX_MESSAGES = 1_000
MAX_PARTS = 256
MAX_IMAGES = 16
MAX_CHOICES = 8
MAX_STOPS = 16
MAX_STOP_LETTERS = 256
MAX_TEXT_LETTERS = 1_000_000
"""For /tokenize and /detokenize; prompts are bounded by the context."""
CHUNK_SECONDS = 0.01
"""What a model says within it goes to the client of a stream in one chunk."""
PING_SECONDS = 15.0
"""How often a stream sends a comment, so that proxies keep it open."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Times are seconds. `keepalive` 0 never unloads a model; `drain` 0 cancels at once."""

    api_keys: tuple[str, ...] = ()
    """Any of them will do; what is kept of one's requests is not used for another's."""
    hosts: tuple[str, ...] = ()
    """Names that a Host header may give, besides IP addresses and localhost."""
    media_path: Path | None = None
    image_hosts: tuple[tuple[str, int | None], ...] = ()
    """Hosts that pictures are fetched from; see `remote`."""
    max_queue: int = 64
    keepalive: float = 300.0
    memory_budget: int | None = None
    """Bytes that loaded models may count as; with one, models are loaded when asked for."""
    timeout: float = 300.0
    drain: float = 10.0
    speculate: Speculate = "off"
    """For requests that do not say."""
    max_body: int = MAX_BODY_BYTES
    body_seconds: float = BODY_SECONDS
