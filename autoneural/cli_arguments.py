"""What several sub-commands share: how they are declared, and arguments of one meaning."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable

Handler = Callable[[argparse.Namespace], int | None]
_MOST_THREADS = 1024


def command(
    verbs: argparse._SubParsersAction, name: str, run: Handler, text: str
) -> argparse.ArgumentParser:
    description = f"{text[0].upper()}{text[1:]}."
    parser = verbs.add_parser(name, help=text, description=description)
    parser.set_defaults(run=run)
    return parser


def add_bundle(parser: argparse.ArgumentParser, metavar: str = "BUNDLE") -> None:
    parser.add_argument(
        "bundle", nargs="?", metavar=metavar, help="folder or name (default: the embedded bundle)"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image-size",
        type=positive,
        metavar="PX",
        help="of pictures, where the bundle has several",
    )
    where = parser.add_argument_group("where it runs")
    where.add_argument(
        "--device",
        help="cpu (default); npu of this machine, or cuda (both untested on hardware); auto: npu, "
        "else cpu; "
        "htp-emulator: compiled for a chip and emulated, slowly (Linux x86-64); or apart, as in "
        "vision=npu,language=cpu",
    )
    where.add_argument("--chip", metavar="NAME", help="which one to emulate (SA8295P), or to be on")
    where.add_argument(
        "--require-npu",
        action="store_true",
        help="fail unless every graph runs whole on an NPU (implies --device npu)",
    )


def add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        choices=("cpu", "qdq", "float"),
        help="graphs of the bundle: default cpu; the NPU and its emulator take qdq",
    )
    add_device(parser)


def add_speculate(parser: argparse.ArgumentParser) -> None:
    speed = parser.add_argument_group("speed (docs/runtime.md)")
    speed.add_argument(
        "--speculate",
        choices=("off", "forced", "lookup", "lookahead"),
        default="off",
        help="several tokens per step: what a schema forces, or guesses too (default off)",
    )
    speed.add_argument(
        "--exact",
        action="store_true",
        help="run every step alike, so that not one bit depends on --speculate",
    )


def positive(text: str) -> int:
    return _whole(text, 1)


def at_least_two(text: str) -> int:
    return _whole(text, 2)


def natural(text: str) -> int:
    return _whole(text, 0)


def above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return value


def thread_count(text: str) -> int:
    value = _whole(text, 1)
    if value > _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text} is more than {_MOST_THREADS} threads")
    return value


def _whole(text: str, least: int) -> int:
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII) or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} to 10^18")
    return int(text)
