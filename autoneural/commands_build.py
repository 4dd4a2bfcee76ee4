"""What `init` and `build` call. Stages are imported when their command runs."""

from __future__ import annotations

import argparse
import shlex
import sys

from autoneural.errors import UserError
from autoneural.files import expand


def init(args: argparse.Namespace) -> None:
    """A checkpoint of random weights."""
    from autoneural.checkpoint import refuse_foreign
    from autoneural.recipes.random_checkpoint import random_checkpoint

    out = expand(args.output)
    refuse_foreign(out)
    random_checkpoint(args.preset, out, layers=args.layers, seed=args.seed, outliers=args.outliers)
    print(f"wrote {out}: random weights, they answer nothing sensible")


def build(args: argparse.Namespace) -> None:
    """A checkpoint of any size to a bundle."""
    from rich.console import Console

    from autoneural.commands_npu import progress_bar
    from autoneural.compress.precision import find_precision
    from autoneural.recipes.build_report import print_built, results, save_results
    from autoneural.recipes.building import BuildOptions
    from autoneural.recipes.building import build as run
    from autoneural.target.chips import find_chip

    out = expand(args.output)
    if args.results is not None and args.results.is_dir():
        raise UserError(f"--results {args.results}: is a folder, name a JSON file")
    options = BuildOptions(
        chip=None if args.chip == "cpu" else find_chip(args.chip),
        precision=find_precision(args.precision),
        rounding=args.rounding,
        data=args.data and expand(args.data),
        samples=args.samples,
        context=args.context,
        image_sizes=tuple(args.image_size or ()),
        max_part_mb=args.max_part_mb,
        fast=args.fast,
        kv8=args.kv8,
    )
    with progress_bar() as tell:
        built = run(
            args.checkpoint,
            out,
            options,
            tell=tell,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    print_built(built, Console())
    if args.results is not None:
        command = shlex.join(["autoneural", *sys.argv[1:]])
        save_results(expand(args.results), results(built, command))
    ask = "" if options.chip is None else " --target qdq"
    print(f"wrote {out}; ask it: autoneural infer {out}{ask} --image PICTURE -p QUESTION")
