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
PING_SECONDS = 15.0
"""How often a stream sends a comment, so that proxies keep it open."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Times are seconds. `keepalive` 0 never unloads a model; `drain` 0 cancels at once."""

    api_key: str | None = None
    hosts: tuple[str, ...] = ()
    """Names that a Host header may give, besides IP addresses and localhost."""
    media_path: Path | None = None
    max_queue: int = 64
    keepalive: float = 300.0
    timeout: float = 300.0
    drain: float = 10.0
    speculate: Speculate = "off"
    """For requests that do not say."""
    max_body: int = MAX_BODY_BYTES
    body_seconds: float = BODY_SECONDS
