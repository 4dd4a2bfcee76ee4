"""The sub-commands for models of full size, declared: random ones, checkpoint to bundle, costs."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoneural import commands_build, commands_show
from autoneural.cli_arguments import command, natural, positive


def add_init(verbs: argparse._SubParsersAction) -> None:
    text = "a checkpoint of a preset's shape with random weights, to see what it will cost"
    add = command(verbs, "init", commands_build.init, text)
    add.add_argument(
        "--preset", required=True, metavar="NAME", help="autoneural-1.5b, lfm2-vl-450m, ..."
    )
    add.add_argument("-o", "--output", type=Path, required=True, metavar="CHECKPOINT")
    add.add_argument("--layers", type=positive, metavar="N", help="only the first N of the decoder")
    add.add_argument("--seed", type=natural, default=0, help="which weights (default 0)")
    add.add_argument(
        "--outliers",
        type=natural,
        default=0,
        metavar="N",
        help="channels per norm 64 times as large, the function unchanged (default 0)",
    )


def add_build(verbs: argparse._SubParsersAction) -> None:
    text = "quantise, export and compile a model of any size; goes on where it stopped"
    add = command(verbs, "build", commands_build.build, text)
    add.add_argument("checkpoint", metavar="CHECKPOINT", help="a float one, or a quantised one")
    add.add_argument("--chip", required=True, metavar="NAME|cpu", help="SA8295P, ..., or cpu")
    add.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE")
    sizes = add.add_argument_group("sizes")
    sizes.add_argument("--context", type=positive, metavar="TOKENS", help="default: up to 4096")
    sizes.add_argument(
        "--image-size",
        nargs="+",
        type=positive,
        metavar="PX",
        help="default: the model's; of several the first is used unless `infer` is told",
    )
    sizes.add_argument(
        "--max-part-mb", type=positive, default=512, metavar="MB", help="of one binary (512)"
    )
    how = add.add_argument_group("quantisation of a float checkpoint")
    how.add_argument("--precision", default="w4a16kv8", metavar="NAME|FILE", help="%(default)s")
    how.add_argument(
        "--rounding",
        choices=("nearest", "compensated"),
        help="default: compensated up to 100 million parameters, nearest beyond (minutes, not "
        "hours; rounds 4-bit weights less well)",
    )
    how.add_argument(
        "--data", type=Path, metavar="DIR", help="rows to calibrate on (default: example pictures)"
    )
    how.add_argument("--samples", type=positive, default=4, help="conversations (default 4)")
    add.add_argument(
        "--fast",
        action="store_true",
        help="--chip cpu: activations rounded to bytes (see `export`)",
    )
    add.add_argument(
        "--kv8", action="store_true", help="--chip cpu: keys and values in bytes (see `export`)"
    )
    add.add_argument("--results", type=Path, metavar="JSON", help="write what it took there")


def add_show(verbs: argparse._SubParsersAction) -> None:
    text = "what a checkpoint or a bundle is and holds, or would take in memory"
    add = command(verbs, "show", commands_show.show, text)
    add.add_argument("path", metavar="CHECKPOINT|BUNDLE", help="folder or name")
    add.add_argument("--json", action="store_true", help="print the facts as JSON")
    plan = add.add_argument_group("memory, planned from shapes: nothing is built")
    plan.add_argument(
        "--memory",
        action="store_true",
        help="weights, state, activations of each graph and of all; also of a preset",
    )
    plan.add_argument("--chip", metavar="NAME", help="default SA8295P")
    plan.add_argument("--context", type=positive, metavar="TOKENS", help="default: up to 4096")
    plan.add_argument(
        "--image-size", nargs="+", type=positive, metavar="PX", help="default: the model's"
    )
    plan.add_argument(
        "--precision", metavar="NAME|FILE", help="of what is not quantised (default w4a16kv8)"
    )
