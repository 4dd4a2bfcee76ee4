"""Sub-commands of `bench` about ways to compress or decode, and servers; a chip's: cli_npu.py."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from autoneural import commands_bench
from autoneural.bench.peers import PEERS
from autoneural.cli_arguments import (
    above_zero,
    add_bundle,
    at_least_two,
    command,
    natural,
    positive,
    share,
    thread_count,
)


def add_comparisons(kinds: argparse._SubParsersAction) -> None:
    _add_aimet(kinds)
    _add_methods(kinds)
    _add_twins(kinds)
    _add_speculation(kinds)
    _add_serving(kinds)
    _add_speed(kinds)


def _add_aimet(kinds: argparse._SubParsersAction) -> None:
    text = "our quantisation beside that of aimet-onnx: the same graph, samples and judge"
    add = command(kinds, "aimet", commands_bench.bench_aimet, text)
    _add_source(add)
    add.add_argument(
        "--samples", type=positive, default=16, help="to calibrate on, and held-out ones (16)"
    )
    add.add_argument(
        "--part", choices=("vision", "language"), default="vision", help="default %(default)s"
    )
    add.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="default: nearest compensated ptq-best aimet-minmax aimet-seqmse; "
        "also aimet-adaround, which is slow",
    )
    add.add_argument(
        "--aimet-python",
        default=sys.executable,
        metavar="PATH",
        help="an interpreter that has aimet-onnx (default: this one)",
    )
    add.add_argument("--json", action="store_true", help="print the figures as JSON")


def _add_methods(kinds: argparse._SubParsersAction) -> None:
    text = "what every compression method alone buys, and which do not pay; goes on where it was"
    add = command(kinds, "methods", commands_bench.bench_methods, text)
    _add_source(add)
    add.add_argument(
        "--methods", nargs="+", metavar="NAME", help="default: all; plain ptq is always there"
    )
    add.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="a checkpoint that is there already, of `compress` for one; repeatable",
    )
    add.add_argument("--samples", type=positive, default=128, help="to calibrate on (default 128)")
    add.add_argument(
        "--questions", type=positive, default=25, help="per task, to measure by (default 25)"
    )
    add.add_argument("--texts", type=at_least_two, default=64, help="for perplexity (default 64)")
    add.add_argument(
        "--repeats", type=natural, default=5, help="rounds of the CPU's speed; 0 skips it (5)"
    )
    add.add_argument("--chip", metavar="NAME", help="compile every result for it")
    add.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the table as JSON"
    )


def _add_twins(kinds: argparse._SubParsersAction) -> None:
    text = "what quantisation costs two vision encoders, a CNN and a ViT, on the same pictures"
    add = command(kinds, "twins", commands_bench.bench_twins, text)
    add.add_argument("cnn", metavar="CNN", help="a float checkpoint: folder or name")
    add.add_argument("vit", metavar="VIT", help="the other one")
    add.add_argument("--data", type=Path, required=True, metavar="DIR", help="calibration rows")
    add.add_argument(
        "--samples", type=positive, default=16, help="to calibrate on, and held-out ones (16)"
    )
    add.add_argument(
        "--chips",
        nargs="+",
        default=["SA8295P", "SA8775P"],
        metavar="NAME",
        help="whose arithmetic (default SA8295P, v68, and SA8775P, v73)",
    )
    add.add_argument(
        "--rounding",
        choices=("nearest", "compensated", "sequential"),
        default="compensated",
        help="of weights (default %(default)s, as in ptq; sequential as in the recipe ptq-best)",
    )
    add.add_argument("--json", action="store_true", help="print the figures as JSON")


def _add_speculation(kinds: argparse._SubParsersAction) -> None:
    text = "what guessing several tokens per step buys on this CPU, and whether it changes any"
    add = command(kinds, "speculation", commands_bench.bench_speculation, text)
    add_bundle(add)
    add.add_argument("--target", choices=("cpu", "qdq", "float"), help="default cpu")
    add.add_argument("--tasks", nargs="+", metavar="TASK", help="default: those it was trained on")
    add.add_argument("--n", type=positive, default=40, help="questions per task (default 40)")
    add.add_argument("--seed", type=natural, default=0, help="which questions (default 0)")
    add.add_argument("--kinds", nargs="+", metavar="KIND", help="of these only, json for one")
    add.add_argument(
        "--schema", action="store_true", help="JSON answers by a schema: keys and types are given"
    )
    add.add_argument("--json", action="store_true", help="print the figures as JSON")


def _add_serving(kinds: argparse._SubParsersAction) -> None:
    text = "a server under load: speed, right answers, leaks, and what HTTP costs; 1 if it fails"
    add = command(kinds, "serve", commands_bench.bench_serving, text)
    add_bundle(add)
    add.add_argument("--target", choices=("cpu", "qdq", "float"), help="default cpu")
    add.add_argument(
        "--threads",
        type=thread_count,
        metavar="N",
        help="of the engine (default: see `tune`)",
    )
    add.add_argument("--clients", type=positive, default=32, metavar="N", help="at once (32)")
    add.add_argument("--seconds", type=above_zero, default=300, help="of load (default 300)")
    add.add_argument(
        "--leave",
        type=share,
        default=1 / 3,
        metavar="SHARE",
        help="of the requests whose client hangs up in the middle of the answer (a third)",
    )
    add.add_argument(
        "--rounds", type=positive, default=5, metavar="N", help="over HTTP and without, in turn (5)"
    )
    add.add_argument("--seed", type=natural, default=0, help="who asks what (default 0)")
    add.add_argument("--json", action="store_true", help="print the figures as JSON")


def _add_speed(kinds: argparse._SubParsersAction) -> None:
    text = "how fast a bundle answers on this CPU, beside what the machine could do"
    add = command(kinds, "speed", commands_bench.bench_speed, text)
    add_bundle(add)
    add.add_argument("--target", choices=("cpu", "qdq", "float"), help="default cpu")
    add.add_argument("-p", "--prompt", type=positive, default=512, help="tokens (default 512)")
    add.add_argument(
        "-n", "--answer", type=at_least_two, default=128, help="tokens to decode (default 128)"
    )
    add.add_argument("-r", "--repeats", type=positive, default=5, help="of each test (default 5)")
    add.add_argument(
        "--image", type=positive, default=512, metavar="PX", help="a side of the picture (512)"
    )
    add.add_argument(
        "--depth",
        nargs="+",
        type=positive,
        default=(),
        metavar="TOKENS",
        help="to decode behind (default: 128, and all that the context holds)",
    )
    add.add_argument("--threads", type=thread_count, help="default: see `tune`")
    add.add_argument(
        "--peers",
        nargs="+",
        choices=PEERS,
        default=(),
        help="measure them too, the same shapes with random weights",
    )
    add.add_argument("--busy", action="store_true", help="measure although others use the CPU")
    add.add_argument("--profile", action="store_true", help="time per operator, work per graph")
    add.add_argument("--json", action="store_true", help="print the figures as JSON")


def add_tune(verbs: argparse._SubParsersAction) -> None:
    """`autoneural tune`."""
    text = "measure how many threads each graph of a bundle is quickest with here, and keep it"
    add = command(verbs, "tune", commands_bench.tune, text)
    add_bundle(add)
    add.add_argument("--target", choices=("cpu", "qdq", "float"), help="default cpu")
    add.add_argument("--busy", action="store_true", help="measure although others use the CPU")
    add.add_argument("--json", action="store_true", help="print the figures as JSON")


def _add_source(add: argparse.ArgumentParser) -> None:
    add.add_argument("checkpoint", metavar="CHECKPOINT", help="a float one: folder or name")
    add.add_argument("--data", type=Path, required=True, metavar="DIR", help="calibration rows")
