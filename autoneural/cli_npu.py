"""The sub-commands of the NPU chain, declared."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoneural import commands_npu
from autoneural.cli_arguments import add_bundle, command, natural, positive
from autoneural.cli_bench import add_comparisons


def add_chips(verbs: argparse._SubParsersAction) -> None:
    add = command(verbs, "chips", commands_npu.chips, "the chips we know and what is legal on them")
    add.add_argument("--json", action="store_true", help="print a JSON list of the chips")


def add_oracle(verbs: argparse._SubParsersAction) -> None:
    text = "which operators the compiler accepts on a chip, in which precision, and why not"
    add = command(verbs, "oracle", commands_npu.oracle, text)
    add.add_argument("--chip", default="SA8295P", metavar="NAME", help="default %(default)s")
    add.add_argument("--op", metavar="NAME", help="this operator only (Conv, MatMul, silu, ...)")
    add.add_argument(
        "--refresh",
        action="store_true",
        help="ask the installed compiler anew; kept in your cache, where it precedes what ships",
    )
    add.add_argument(
        "--output", type=Path, metavar="JSON", help="with --refresh: write into this table instead"
    )
    add.add_argument("--json", action="store_true", help="print the answers as JSON")


def add_compile(verbs: argparse._SubParsersAction) -> None:
    add = command(
        verbs, "compile", commands_npu.compile_for, "context binaries for an NPU, proved integer"
    )
    add.add_argument("source", metavar="CHECKPOINT|BUNDLE", help="folder or name")
    add.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE")
    add.add_argument(
        "--chip", action="append", metavar="NAME", help="repeatable (default SA8295P; see `chips`)"
    )
    sizes = add.add_argument_group("of a checkpoint; a bundle has them already")
    sizes.add_argument("--context", type=positive, metavar="TOKENS", help="default 1024")
    sizes.add_argument("--image-size", type=positive, metavar="PX", help="default: the model's")
    add.add_argument(
        "--max-part-mb", type=positive, default=512, metavar="MB", help="of one binary (512)"
    )
    add.add_argument(
        "--allow-cpu",
        action="append",
        default=[],
        metavar="PATTERN",
        help="nodes or layers (a glob) that may run on the CPU, repeatable",
    )
    add.add_argument("--json", action="store_true", help="print a JSON object per chip")


def add_verify(verbs: argparse._SubParsersAction) -> None:
    text = "the certificate: every layer, binary and answer of a compiled bundle, emulated"
    add = command(verbs, "verify", commands_npu.verify, text)
    add.add_argument("bundle", metavar="BUNDLE", help="folder or name; compiled for the chip")
    add.add_argument("--chip", default="SA8295P", metavar="NAME", help="default %(default)s")
    add.add_argument(
        "--samples", type=natural, default=10, metavar="N", help="questions answered (10)"
    )
    add.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="write certificate.json and .html there"
    )
    add.add_argument("--json", action="store_true", help="print the certificate as JSON")
    limits = add.add_argument_group("what it takes to pass; exit code 1 where something does not")
    limits.add_argument("--layer-db", type=float, metavar="DB", help="every layer against QDQ")
    limits.add_argument("--predicted-db", type=float, metavar="DB", help="against the prediction")
    limits.add_argument("--tokens", type=float, metavar="SHARE", help="answers equal throughout")


def add_simulate(verbs: argparse._SubParsersAction) -> None:
    text = "a copy of a bundle that computes as a chip does, on any CPU, without the compiler"
    add = command(verbs, "simulate", commands_npu.simulate, text)
    add.add_argument("bundle", metavar="BUNDLE", help="folder or name")
    add.add_argument("--chip", default="SA8295P", metavar="NAME", help="default %(default)s")
    add.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE")


def add_package(verbs: argparse._SubParsersAction) -> None:
    text = "a compiled bundle as a kit for integrators: binaries, ONNX, I/O, golden vectors"
    add = command(verbs, "package", commands_npu.package, text)
    add.add_argument("bundle", metavar="BUNDLE", help="folder or name; compiled for the chip")
    add.add_argument("--chip", required=True, metavar="NAME", help="SA8295P, ...")
    add.add_argument("-o", "--output", type=Path, required=True, metavar="KIT")
    add.add_argument(
        "--no-emulator",
        action="store_true",
        help="golden outputs of the CPU only, without the HTP emulator's beside them",
    )


def add_bench(verbs: argparse._SubParsersAction) -> None:
    text = "measure what a part of a model costs"
    bench = verbs.add_parser("bench", help=text, description=f"{text.capitalize()}.")
    kinds = bench.add_subparsers(title="measurements", metavar="WHAT", required=True)
    add = command(
        kinds,
        "compile",
        commands_npu.bench_compile,
        "size, time and memory of compiling a preset's part for a chip (random weights)",
    )
    add.add_argument("--preset", default="autoneural-1.5b", metavar="NAME", help="%(default)s, ...")
    add.add_argument("--part", choices=("vision", "decoder"), required=True)
    add.add_argument("--chip", default="SA8295P", metavar="NAME", help="default %(default)s")
    add.add_argument("--image-size", type=positive, metavar="PX", help="vision; default: preset's")
    add.add_argument("--layers", type=positive, metavar="N", help="decoder: the first N (4)")
    add.add_argument("--context", type=positive, metavar="TOKENS", help="decoder; default 4096")
    add.add_argument(
        "--widths", nargs="+", type=positive, metavar="N", help="decoder: tokens a step (128 1)"
    )
    add.add_argument("--no-share", action="store_true", help="one binary per width")
    add.add_argument("--json", action="store_true", help="print the figures as JSON")
    text = "whether the error of the emulated decoder's state grows from token to token"
    add = command(kinds, "drift", commands_npu.bench_drift, text)
    add_bundle(add)
    add.add_argument("--chip", default="SA8295P", metavar="NAME", help="default %(default)s")
    add.add_argument("--tokens", type=positive, default=1000, help="to decode (default 1000)")
    add.add_argument("--seed", type=natural, default=0, help="which tokens (default 0)")
    add.add_argument(
        "--every", type=positive, default=10, metavar="N", help="one step alone too, every N (10)"
    )
    add.add_argument("--json", action="store_true", help="print the figures as JSON")
    _add_bench_answer(kinds)
    text = "what a chip's arithmetic costs a checkpoint, and what each counter-measure buys back"
    add = command(kinds, "numerics", commands_npu.bench_numerics, text)
    add.add_argument("checkpoint", metavar="CHECKPOINT", help="a float one: folder or name")
    add.add_argument("--data", type=Path, required=True, metavar="DIR", help="calibration rows")
    add.add_argument("--samples", type=positive, default=16, help="how many rows (default 16)")
    add.add_argument(
        "--chip", action="append", metavar="NAME", help="repeatable (default SA8295P and SA8775P)"
    )
    add.add_argument("--json", action="store_true", help="print the figures as JSON")
    add_bench_perplexity(kinds)
    add_comparisons(kinds)


def _add_bench_answer(kinds: argparse._SubParsersAction) -> None:
    text = "a whole compiled model answers one picture question in the emulator, part by part"
    add = command(kinds, "answer", commands_npu.bench_answer, text)
    add.add_argument("bundle", metavar="BUNDLE", help="folder or name; compiled for the chip")
    add.add_argument("--chip", default="SA8295P", metavar="NAME", help="default %(default)s")
    add.add_argument("--image", type=Path, metavar="FILE", help="default: an example that ships")
    add.add_argument(
        "-p", "--prompt", metavar="TEXT", help="the question (default: of the example)"
    )
    add.add_argument(
        "--steps", type=positive, default=8, metavar="N", help="tokens behind the prompt (8)"
    )
    add.add_argument(
        "--image-size", type=positive, metavar="PX", help="where the bundle has several"
    )
    add.add_argument("--results", type=Path, metavar="JSON", help="write the figures there")
    add.add_argument("--json", action="store_true", help="print the figures as JSON")


def add_bench_perplexity(kinds: argparse._SubParsersAction) -> None:
    text = "how surprised checkpoints are by held-out answers, and what compressing them cost"
    add = command(kinds, "perplexity", commands_npu.bench_perplexity, text)
    add.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="the first is what others are compared to",
    )
    add.add_argument("--n", type=positive, default=200, metavar="ROWS", help="in all (200)")
    add.add_argument("--tasks", nargs="+", metavar="TASK", help="default: as the first was trained")
    add.add_argument("--seed", type=natural, default=0, help="which rows (default 0)")
    add.add_argument("--split", choices=("val", "test"), default="test", help="default test")
    add.add_argument("--json", action="store_true", help="print the figures as JSON")


def add_doctor(verbs: argparse._SubParsersAction) -> None:
    add = command(
        verbs, "doctor", commands_npu.doctor, "what can run here, what runs where, and why not"
    )
    add_bundle(add)
    add.add_argument("--chip", metavar="NAME", help="which one to emulate (default SA8295P)")
    add.add_argument("--json", action="store_true", help="print the report as JSON")
