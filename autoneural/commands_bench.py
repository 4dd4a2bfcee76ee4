"""What the comparisons of `bench` call. Stages are imported when their command runs."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from autoneural.commands import EMBEDDED_BUNDLE, rows_file, stages
from autoneural.errors import UserError
from autoneural.files import writable_folder, write_text


def bench_aimet(args: argparse.Namespace) -> None:
    """Our quantisation and AIMET's on one graph."""
    from rich.console import Console

    from autoneural.bench.aimet import DEFAULT, compare_tools, print_comparison

    report = compare_tools(
        args.checkpoint,
        args.data,
        part=args.part,
        samples=args.samples,
        methods=args.methods or DEFAULT,
        python=args.aimet_python,
        progress=_say,
    )
    if args.json:
        print(json.dumps(report))
    else:
        print_comparison(report, Console())


def bench_methods(args: argparse.Namespace) -> None:
    """Every compression method alone."""
    from rich.console import Console

    from autoneural.bench.held_out import trained_tasks
    from autoneural.bench.measure import draw_exam
    from autoneural.bench.method_table import print_methods
    from autoneural.checkpoint import find_checkpoint, load_recipe
    from autoneural.compress.derive import open_float
    from autoneural.recipes.compressing import Gauge
    from autoneural.recipes.methods import METHODS, method_table
    from autoneural.recipes.steps import Workbench

    open_float(args.checkpoint)
    added = dict(map(_named_folder, args.add))
    run = args.output.with_name(f"{args.output.stem}-run")
    writable_folder(run, args.output)
    original = find_checkpoint(args.checkpoint)
    asked = {"questions": args.questions, "rows": args.texts}
    with stages() as progress:
        workbench = Workbench(
            original=original,
            data=rows_file(args.data),
            run=run,
            samples=args.samples,
            chip=args.chip,
            progress=progress,
        )
        exam = draw_exam(trained_tasks(load_recipe(args.checkpoint)), **asked)
        gauge = Gauge(
            original=original, exam=exam, of={**asked, "chip": args.chip}, workbench=workbench
        )
        rows = method_table(
            args.methods or METHODS,
            added,
            gauge=gauge,
            run=run,
            repeats=args.repeats,
            say=_say,
            progress=progress,
        )
    facts = {
        "checkpoint": args.checkpoint,
        "chip": args.chip,
        "questions": sum(map(len, exam.tasks.values())),
        "texts": args.texts,
        "repeats": args.repeats,
    }
    table = {**facts, "rows": [row.to_dict() for row in rows]}
    write_text(args.output, json.dumps(table, indent=1) + "\n")
    print_methods(rows, facts, Console())
    print(f"wrote {args.output}")


def bench_twins(args: argparse.Namespace) -> None:
    """Two vision encoders, quantised alike."""
    from rich.console import Console

    from autoneural.bench.held_out import held_out_rows, trained_tasks
    from autoneural.bench.perplexity import row_samples
    from autoneural.bench.twins import load_encoder, measure_twins, print_twins
    from autoneural.checkpoint import load_checkpoint, load_recipe
    from autoneural.recipes import calibration_samples
    from autoneural.target.chips import find_chip

    chips = [find_chip(name) for name in args.chips]
    rows = held_out_rows(trained_tasks(load_recipe(args.cnn)), args.samples)
    encoders = {}
    for name, checkpoint in (("CNN", args.cnn), ("ViT", args.vit)):
        held_out = row_samples(checkpoint, load_checkpoint(checkpoint).config, rows)
        samples = calibration_samples(checkpoint, args.data, args.samples)
        encoders[name] = load_encoder(checkpoint, samples, held_out)
    report = measure_twins(encoders, chips, rounding=args.rounding, progress=_say)
    if args.json:
        print(json.dumps(report))
    else:
        print_twins(report, Console())


def bench_speculation(args: argparse.Namespace) -> None:
    """Ways of decoding, the same questions."""
    from rich.console import Console

    from autoneural.bench.held_out import held_out, trained_tasks
    from autoneural.bench.speculation import measure_speculation, print_speculation
    from autoneural.bundle import Bundle

    bundle = Bundle.load(args.bundle or EMBEDDED_BUNDLE)
    names = args.tasks or trained_tasks(bundle.manifest.get("recipe", {}))
    drawn = held_out(names, args.n, args.seed)
    turns = [item for items in zip(*drawn.values(), strict=True) for item in items]
    items = [item for item in turns if not args.kinds or item.kind in args.kinds]
    with stages() as progress:
        report = measure_speculation(bundle, args.target, items, progress, schema=args.schema)
    if args.json:
        print(json.dumps(report))
    else:
        print_speculation(report, Console())


def bench_serving(args: argparse.Namespace) -> int:
    """A server under load; 1 where something happened that must not."""
    from rich.console import Console

    from autoneural.bench.serving import faults, measure_serving, print_serving
    from autoneural.bench.serving_load import Plan
    from autoneural.bundle import Bundle

    plan = Plan(clients=args.clients, seconds=args.seconds, leave=args.leave, seed=args.seed)
    with stages() as progress:
        report = measure_serving(
            Bundle.load(args.bundle or EMBEDDED_BUNDLE),
            args.target,
            plan,
            threads=args.threads,
            rounds=args.rounds,
            progress=progress,
        )
    found = faults(report)
    if args.json:
        print(json.dumps({**report, "faults": found}))
    else:
        print_serving(report, Console())
    for line in found:
        _say(f"autoneural: {line}")
    return 1 if found else 0


def bench_speed(args: argparse.Namespace) -> None:
    """Speed of one bundle on this CPU."""
    from rich.console import Console

    from autoneural.bench.machine import require_idle
    from autoneural.bench.speed import Protocol, measure_speed
    from autoneural.bench.speed_report import print_speed
    from autoneural.bundle import Bundle

    bundle = Bundle.load(args.bundle or EMBEDDED_BUNDLE)
    if not args.busy:
        require_idle()
    protocol = Protocol(
        prompt=args.prompt,
        answer=args.answer,
        repeats=args.repeats,
        image=args.image,
        depths=tuple(args.depth),
        threads=args.threads,
        peers=tuple(args.peers),
    )
    with stages() as progress:
        report = measure_speed(bundle, args.target, protocol, progress)
    if args.json:
        print(json.dumps(report))
    else:
        print_speed(report, Console(), profile=args.profile)


def tune(args: argparse.Namespace) -> None:
    """Threads of each graph, measured and kept for later."""
    from rich.console import Console

    from autoneural.bench.machine import require_idle
    from autoneural.bench.tuning import print_tuning
    from autoneural.bench.tuning import tune as measure
    from autoneural.bundle import Bundle

    bundle = Bundle.load(args.bundle or EMBEDDED_BUNDLE)
    if not args.busy:
        require_idle()
    with stages() as progress:
        tuning = measure(bundle, args.target, progress)
    if args.json:
        print(json.dumps({**asdict(tuning), "kept": str(tuning.kept)}))
    else:
        print_tuning(tuning, Console())


def _named_folder(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise UserError(f"--add {text}: expected NAME=FOLDER")
    return name, folder


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
