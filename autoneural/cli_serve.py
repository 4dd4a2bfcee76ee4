"""The sub-command that answers over HTTP: serve."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoneural import commands_serve
from autoneural.cli_arguments import (
    above_zero,
    add_device,
    add_speculate,
    command,
    natural,
    thread_count,
)


def add_serve(verbs: argparse._SubParsersAction) -> None:
    """`autoneural serve`."""
    add = command(
        verbs, "serve", commands_serve.serve, "answer over HTTP as OpenAI's API does, from bundles"
    )
    add.add_argument(
        "bundles",
        nargs="*",
        metavar="BUNDLE",
        help="folders or names (default: the embedded bundle); the first is the default model",
    )
    add.add_argument(
        "--host",
        default="127.0.0.1:18181",
        metavar="HOST:PORT",
        help="where to listen (default 127.0.0.1:18181); beyond this machine only with a key",
    )
    add.add_argument("--target", choices=("cpu", "qdq", "float"), help="graphs (default cpu)")
    add_device(add)
    add_speculate(add)
    add.add_argument(
        "--threads",
        type=thread_count,
        metavar="N",
        help="per model (default: see `tune`)",
    )
    safety = add.add_argument_group("who may ask, and for what")
    safety.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help="asked of all but /health and the empty page, repeatable, any will do; "
        "AUTONEURAL_API_KEY hides it from `ps`",
    )
    safety.add_argument(
        "--api-key-file", metavar="FILE", help="keys, one per line, that only you may read"
    )
    safety.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name of this machine that clients may use, repeatable; addresses always may",
    )
    safety.add_argument(
        "--media-path", type=Path, metavar="DIR", help="requests may name pictures below this"
    )
    safety.add_argument(
        "--allow-image-host",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="fetch pictures whose http(s) URL is there, repeatable; public addresses only "
        "(default: nothing is fetched)",
    )
    _add_times(add)
    add.add_argument("-v", "--verbose", action="store_true", help="a line per request, no contents")


def _add_times(parser: argparse.ArgumentParser) -> None:
    times = parser.add_argument_group("how many, how long")
    times.add_argument(
        "--max-queue", type=natural, default=64, metavar="N", help="may wait, per model (64)"
    )
    times.add_argument(
        "--memory-budget",
        type=above_zero,
        metavar="GB",
        help="of all loaded models: each is loaded when first asked for, and the least recently "
        "used idle one goes where the next does not fit (default: all are loaded at the start)",
    )
    times.add_argument(
        "--timeout", type=above_zero, default=300, metavar="SECONDS", help="per request (300)"
    )
    times.add_argument(
        "--keepalive",
        type=natural,
        default=300,
        metavar="SECONDS",
        help="unload a model after these without a request (300; 0: never)",
    )
    times.add_argument(
        "--drain",
        type=natural,
        default=10,
        metavar="SECONDS",
        help="after Ctrl-C, answers on their way may finish for these (10; 0: cancel them)",
    )
