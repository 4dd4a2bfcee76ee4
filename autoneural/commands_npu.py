"""What the sub-commands of the NPU chain call. Stages are imported when their command runs."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from autoneural.bundle import DEFAULT_BUNDLE, EMBEDDED, Bundle
from autoneural.errors import UserError
from autoneural.files import expand, writable_folder
from autoneural.show import is_checkpoint

if TYPE_CHECKING:
    from autoneural.data.messages import Message
    from autoneural.npu.token_checks import Question
    from autoneural.target.chips import Chip
    from autoneural.target.legality_table import Table


def bench_compile(args: argparse.Namespace) -> None:
    """Size, time and memory of compiling a part of a preset."""
    from rich.console import Console

    from autoneural.bench.compile_size import measure_compile, print_compile
    from autoneural.bench.piece import plan_piece
    from autoneural.target.chips import find_chip

    chip = find_chip(args.chip)
    piece = plan_piece(
        args.preset, args.part, args.image_size, args.layers, args.context, args.widths
    )
    figures = measure_compile(
        piece, chip, share=not args.no_share, progress=lambda line: print(line, file=sys.stderr)
    )
    if args.json:
        print(json.dumps(figures))
    else:
        print_compile(figures, Console())


def bench_drift(args: argparse.Namespace) -> None:
    """Error of the emulated state, token by token."""
    from rich.console import Console

    from autoneural.bench.drift import measure_drift
    from autoneural.bench.drift_errors import print_drift
    from autoneural.target.chips import find_chip

    chip, bundle = find_chip(args.chip), Bundle.load(args.bundle or EMBEDDED / DEFAULT_BUNDLE)
    with progress_bar() as progress:
        report = measure_drift(
            bundle, chip, args.tokens, seed=args.seed, every=args.every, progress=progress
        )
    if args.json:
        print(json.dumps(report))
    else:
        print_drift(report, Console())


def bench_answer(args: argparse.Namespace) -> None:
    """A whole answer in the emulator, beside that of the integer graphs."""
    from rich.console import Console

    from autoneural.bench.emulated_answer import measure_answer, print_answer
    from autoneural.chat import user_message
    from autoneural.demo import EXAMPLES
    from autoneural.recipes.build_report import save_results
    from autoneural.target.chips import find_chip

    if args.results is not None and args.results.is_dir():
        raise UserError(f"--results {args.results}: is a folder, name a JSON file")
    chip, bundle = find_chip(args.chip), Bundle.load(args.bundle)
    if args.image_size is not None:
        bundle = bundle.at_size(args.image_size)
    image = EXAMPLES / "driver.jpg" if args.image is None else expand(args.image)
    question = "What state is the driver in?" if args.prompt is None else args.prompt
    messages = [user_message(question, [image])]
    say = partial(print, file=sys.stderr, flush=True)
    with progress_bar() as tell:
        report = measure_answer(bundle, chip, messages, args.steps, tell=tell, say=say)
    asked = {"command": shlex.join(["autoneural", *sys.argv[1:]])}
    report = {**report, **asked, "image": str(image), "question": question}
    if args.results is not None:
        save_results(expand(args.results), report)
    if args.json:
        print(json.dumps(report))
    else:
        print_answer(report, Console())


def bench_numerics(args: argparse.Namespace) -> None:
    """The chip's arithmetic and what helps against it."""
    from rich.console import Console

    from autoneural.bench.numerics import measure_numerics, print_numerics
    from autoneural.recipes import calibration_samples
    from autoneural.target.chips import find_chip

    chips = [find_chip(name) for name in args.chip or ("SA8295P", "SA8775P")]
    samples = calibration_samples(args.checkpoint, args.data, args.samples)
    report = measure_numerics(
        args.checkpoint, samples, chips, progress=lambda line: print(line, file=sys.stderr)
    )
    if args.json:
        print(json.dumps(report))
    else:
        print_numerics(report, Console())


def bench_perplexity(args: argparse.Namespace) -> None:
    """Perplexity of checkpoints on the same held-out conversations."""
    from rich.console import Console

    from autoneural.bench.held_out import held_out_rows, trained_tasks
    from autoneural.bench.perplexity import measure_perplexity, print_perplexity
    from autoneural.checkpoint import load_recipe

    tasks = args.tasks or trained_tasks(load_recipe(args.checkpoints[0]))
    with progress_bar() as progress:
        total = len(args.checkpoints) * args.n
        rows = held_out_rows(
            tasks, args.n, args.seed, args.split, _counter(progress, "rows", args.n)
        )
        report = measure_perplexity(args.checkpoints, rows, _counter(progress, "perplexity", total))
    if args.json:
        print(json.dumps(report))
    else:
        print_perplexity(report, Console())


def chips(args: argparse.Namespace) -> None:
    """The chips we know, and what may be compiled for them."""
    from rich.console import Console

    from autoneural.target.chips import CHIPS
    from autoneural.target.text import chip_facts, print_chips

    if args.json:
        print(json.dumps([chip_facts(chip) for chip in CHIPS]))
    else:
        print_chips(Console())


def oracle(args: argparse.Namespace) -> None:
    """What the compiler accepts on a chip: as shipped, as found here before, or asked anew."""
    from rich.console import Console

    from autoneural.target.chips import find_chip
    from autoneural.target.legality_table import load_table
    from autoneural.target.text import find_probes, print_table, table_facts

    chip = find_chip(args.chip)
    if args.output is not None and not args.refresh:
        raise UserError("--output goes with --refresh: what ships is only written when it is new")
    table = _ask_compiler(chip, args.output) if args.refresh else load_table(chip.soc_model)
    probes = find_probes(table, args.op)
    if args.json:
        print(json.dumps(table_facts(chip, table, probes)))
    else:
        print_table(chip, table, probes, Console())


def _ask_compiler(chip: Chip, output: Path | None) -> Table:
    from autoneural.runtime.qnn import require_wheel

    require_wheel()  # says what is missing; its companions would only name themselves
    from autoneural.npu.oracle import refresh, require_writable, save

    out = None if output is None else expand(output)
    if out is not None:
        require_writable(out)
    try:
        with progress_bar() as progress:
            table = refresh(chip, partial(progress, "probes"))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        raise
    path = save(table, out)
    print(f"wrote {path}", file=sys.stderr)
    return replace(table, source=path)


def doctor(args: argparse.Namespace) -> None:
    """What can run here, what runs where, and why not."""
    from rich.console import Console

    from autoneural.npu.doctor import examine, print_report

    report = examine(Bundle.load(args.bundle or EMBEDDED / DEFAULT_BUNDLE), args.chip)
    if args.json:
        print(json.dumps(report))
    else:
        print_report(report, Console())


def package(args: argparse.Namespace) -> None:
    """The kit of a compiled bundle."""
    from autoneural.npu.kit import package

    package(args.bundle, args.chip, expand(args.output), emulator=not args.no_emulator)


def compile_for(args: argparse.Namespace) -> None:
    """Context binaries for one or more chips, added to a bundle."""
    from rich.console import Console

    from autoneural.npu.compile import CompileOptions, check_place, compile_bundle
    from autoneural.npu.compile_text import print_report, show_progress
    from autoneural.target.chips import DEFAULT_CHIP, find_chip

    chips = list(dict.fromkeys(find_chip(name) for name in args.chip or [DEFAULT_CHIP]))
    out = expand(args.output)
    options = CompileOptions(max_part_mb=args.max_part_mb, allow_cpu=tuple(args.allow_cpu))
    check_place(out, options)
    with _compile_source(args, out) as source, show_progress() as progress:
        reports = compile_bundle(source, chips, out, options, progress=progress)
    for report in reports:
        if args.json:
            print(json.dumps(report.to_dict()))
        else:
            print_report(report, Console())
    if not args.json:
        print(f"wrote {out}")


def verify(args: argparse.Namespace) -> int:
    """The certificate of a compiled bundle; 1 where something is outside its threshold."""
    from rich.console import Console

    from autoneural.bench.scoring import normalise
    from autoneural.npu.certificate_page import write_page
    from autoneural.npu.certificate_text import print_certificate
    from autoneural.npu.verify import THRESHOLDS, VerifyOptions, require_compiled
    from autoneural.npu.verify import verify as certify
    from autoneural.target.chips import find_chip

    chip, bundle = find_chip(args.chip), Bundle.load(args.bundle)
    require_compiled(bundle, chip)
    out = None if args.output is None else expand(args.output)
    if out is not None:
        writable_folder(out, out)
    chosen = {"layer_db": args.layer_db, "predicted_db": args.predicted_db, "tokens": args.tokens}
    limits = replace(THRESHOLDS, **{k: v for k, v in chosen.items() if v is not None})
    with progress_bar() as progress:
        certificate = certify(
            bundle,
            chip,
            _example_conversations(),
            _held_out_questions(bundle, args.samples),
            VerifyOptions(samples=args.samples, thresholds=limits),
            correct=lambda answer, expected: normalise(answer) == normalise(expected),
            progress=progress,
        )
    found = certificate.to_dict()
    if out is not None:
        certificate.save(out / "certificate.json")
        write_page(found, out / "certificate.html")
    if args.json:
        print(json.dumps(found, allow_nan=False))
    else:
        print_certificate(found, Console())
        if out is not None:
            print(f"wrote {out / 'certificate.html'}")
    return 0 if certificate.passed else 1


def _example_conversations() -> list[list[Message]]:
    """One about two of the pictures that ship: real inputs for every layer of any model."""
    from autoneural.chat import user_message
    from autoneural.demo import EXAMPLES

    pictures = [EXAMPLES / name for name in ("driver.jpg", "door.jpg")]
    question = "Describe the second picture. What is the difference between the two of them?"
    return [[user_message(question, pictures)]]


def _held_out_questions(bundle: Bundle, count: int) -> list[Question]:
    """`count` held-out cockpit questions of the tasks that the model knows, in turn."""
    from autoneural.bench.held_out import held_out, trained_tasks
    from autoneural.data.cockpit import TASKS
    from autoneural.npu.token_checks import Question

    if not count:
        return []
    names = trained_tasks(bundle.manifest.get("recipe", {})) or list(TASKS)
    tasks = held_out(names, -(-count // len(names)))
    rows = [item for items in zip(*tasks.values(), strict=True) for item in items]
    return [Question(id=r.id, messages=r.messages, expected=r.expected) for r in rows[:count]]


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr; gives the function that takes (what, done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task("tracing", total=None)
        yield lambda what, done, total: bars.update(
            task, description=what, completed=done, total=total
        )


def _counter(
    progress: Callable[[str, int, int], None], what: str, total: int
) -> Callable[[], None]:
    """What to call after each of `total` steps."""
    done = count(1)
    return lambda: progress(what, next(done), total)


def simulate(args: argparse.Namespace) -> None:
    """A copy of a bundle that computes as a chip does."""
    from autoneural.npu.simulate_bundle import simulate_bundle
    from autoneural.target.chips import find_chip

    chip, source = find_chip(args.chip), Bundle.load(args.bundle)
    out = simulate_bundle(source, chip, expand(args.output)).folder
    print(f"wrote {out}: its target qdq computes as {chip.name} ({chip.generation})")


@contextmanager
def _compile_source(args: argparse.Namespace, out: Path) -> Iterator[Bundle]:
    """The bundle to compile; a checkpoint is exported first, to a folder that goes away again."""
    if not is_checkpoint(args.source):
        yield _as_exported(Bundle.load(args.source), args.context, args.image_size)
        return
    from autoneural.export.bundle import ExportOptions, build_bundle

    context = args.context or ExportOptions.context
    sizes = () if args.image_size is None else (args.image_size,)
    options = replace(ExportOptions.within(context), image_sizes=sizes, verify=False)
    with TemporaryDirectory(prefix=f".{out.name}.export.", dir=out.parent) as folder:
        say = partial(print, file=sys.stderr)
        yield build_bundle(args.source, Path(folder) / "bundle", ["qdq"], options, progress=say)


def _as_exported(bundle: Bundle, context: int | None, image_size: int | None) -> Bundle:
    """The bundle, when it was exported with what is asked for."""
    for flag, asked, has in (
        ("--context", context, bundle.context),
        ("--image-size", image_size, bundle.processor.image_size),
    ):
        if asked not in (None, has):
            raise UserError(
                f"{flag} {asked}: bundle {bundle.name} was exported with {has}; for another one "
                "compile from the checkpoint"
            )
    return bundle
