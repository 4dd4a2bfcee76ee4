"""The sub-command that answers in the terminal: infer."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoneural import commands_infer
from autoneural.cli_arguments import (
    above_zero,
    add_bundle,
    add_speculate,
    add_target,
    command,
    natural,
    positive,
)


def add_infer(verbs: argparse._SubParsersAction) -> None:
    """`autoneural infer`."""
    text = "answer one prompt or a file of them, or chat when there is neither"
    add = command(verbs, "infer", commands_infer.infer, text)
    verbs.choices["run"] = add  # a second name, without a line of its own in the help
    add_bundle(add)
    add.add_argument("--image", action="append", default=[], metavar="FILE", help="repeatable")
    add.add_argument(
        "--video",
        action="append",
        default=[],
        metavar="FILE",
        help="repeatable: frames of a clip, in order, after the pictures; an animated GIF, WebP or "
        "PNG, or a video (extra [video])",
    )
    add.add_argument(
        "--fps", type=above_zero, metavar="N", help="frames per second of the clip (default 1)"
    )
    add.add_argument("-p", "--prompt", help="the question; without it, a chat")
    add.add_argument(
        "--prompts",
        type=Path,
        metavar="JSONL",
        help='rows of {"prompt", "images"} or {"messages"}, each answered by itself (with --json)',
    )
    add.add_argument("--system", help="system message")
    add.add_argument(
        "--save", metavar="FILE", help="keep a chat there, pictures included, after every answer"
    )
    add.add_argument("--resume", metavar="FILE", help="go on with a chat that was saved")
    add.add_argument(
        "--json", action="store_true", help="print text, tokens, usage and timings as JSON"
    )
    add.add_argument(
        "--json-schema", type=Path, metavar="FILE", help="answers are JSON that this schema allows"
    )
    add_target(add)
    add_speculate(add)
    _add_sampling(add)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    sampling = parser.add_argument_group("sampling (greedy unless told)")
    sampling.add_argument("--max-tokens", type=positive, default=256, help="default 256")
    sampling.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    sampling.add_argument("--top-k", type=int, default=0, help="0 is off (default)")
    sampling.add_argument("--top-p", type=float, default=1.0, help="1 is off (default)")
    sampling.add_argument("--min-p", type=float, default=0.0, help="0 is off (default)")
    sampling.add_argument("--repetition-penalty", type=float, default=1.0, help="1 is off")
    for name, text in (("presence", "said already"), ("frequency", "each time it was said")):
        sampling.add_argument(
            f"--{name}-penalty",
            type=float,
            default=0.0,
            metavar="-2..2",
            help=f"off the score of a token of the answer, {text} (0 is off)",
        )
    sampling.add_argument("--seed", type=natural, help="the same answer every time")
    sampling.add_argument(
        "--beams",
        type=positive,
        default=1,
        metavar="N",
        help="the likeliest answer as a whole, of N followed side by side (1 is off)",
    )
    sampling.add_argument("--stop", action="append", default=[], metavar="TEXT", help="repeatable")
