"""What each sub-command calls. Stages are imported when their command runs, never before."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoneural import __version__
from autoneural.bundle import DEFAULT_BUNDLE, EMBEDDED
from autoneural.errors import UserError
from autoneural.show import is_checkpoint

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from autoneural.bench.measure import Exam
    from autoneural.bench.quality import Answerer
    from autoneural.recipes.steps import Workbench
    from autoneural.runtime import Engine

STOPPED = 3
# By path: the bare name could be a folder of the one who runs the command.
EMBEDDED_BUNDLE = EMBEDDED / DEFAULT_BUNDLE
_DEPENDENCIES = ("onnxruntime", "numpy", "pillow", "tokenizers", "torch", "onnxruntime-qnn")


def version(args: argparse.Namespace) -> None:
    """Versions of ourselves and of the packages that change answers."""
    print(f"autoneural {__version__}")
    print(f"python {sys.version.split()[0]}")
    for name in _DEPENDENCIES:
        try:
            print(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"{name} -")


def data_cockpit(args: argparse.Namespace) -> None:
    """Draw cockpit rows to a folder, or a contact sheet, or both."""
    from autoneural.data.cockpit import DRILLS, check_tasks
    from autoneural.data.cockpit.export import write
    from autoneural.data.cockpit.sheet import write_sheet

    if args.output is None and args.sheet is None:
        raise UserError("data cockpit: give a folder with -o, or a picture with --sheet, or both")
    tasks = check_tasks([*check_tasks(args.tasks), *(DRILLS if args.drills else ())])
    if args.output is not None:
        drawn = write(args.output, tasks, args.n, args.seed, args.split, args.format)
        rate = drawn.pictures / drawn.core_seconds
        print(f"{args.output}: {args.n} rows of {', '.join(tasks)}")
        print(f"{drawn.pictures} pictures, {rate:.1f} a second on each core")
    if args.sheet is not None:
        write_sheet(args.sheet, tasks, args.split, args.seed)
        print(args.sheet)


def tokenizer(args: argparse.Namespace) -> None:
    """Train a tokenizer on every text of the given rows, and on what their pictures show."""
    from autoneural.data.importers import open_source
    from autoneural.data.tokenizer import train_tokenizer

    sources = [open_source(rows_file(path)) for path in args.data]
    texts = (text for source in sources for row in source.rows for text in _texts(row))
    trained = train_tokenizer(texts, args.vocab_size)
    trained.save(args.output)
    print(f"{args.output}: {trained.vocab_size} tokens from {sum(map(len, sources))} rows")


def _texts(row: dict[str, Any]) -> Iterator[str]:
    """The texts of a row, and the description that training makes of its attributes."""
    from autoneural.data.cockpit import TASKS, describe
    from autoneural.data.messages import normalise_messages

    for message in normalise_messages(row["messages"]):
        yield from (part["text"] for part in message["content"] if part["type"] == "text")
    if row.get("attributes") and row.get("task") in TASKS:
        yield describe(row)


def train(args: argparse.Namespace) -> int:
    """Run a recipe; 3 when it was stopped and the same command would go on."""
    from autoneural.checkpoint import find_checkpoint
    from autoneural.recipes import frozen_parts, recipe, run_recipe, with_overrides
    from autoneural.train.trainer import RunOptions

    chosen = with_overrides(recipe(args.recipe, smoke=args.smoke), args.set)
    words = args.tokenizer or args.data / "tokenizer"
    if args.tokenizer is None and args.start is not None and not words.is_dir():
        words = find_checkpoint(args.start)
    if args.lora is not None and args.start is None:
        raise UserError("--lora: adapters stand on a model that there is; --start says which")
    features = args.features
    if features is None and args.recipe == "connector":
        features = args.output.with_name(f"{args.output.name}-features")
    outcome = run_recipe(
        chosen,
        data=args.data,
        tokenizer=words,
        run=args.run_dir or args.output.with_name(f"{args.output.name}-run"),
        output=args.output,
        start=args.start,
        options=RunOptions(
            device=args.device,
            parallel=args.parallel,
            minutes=args.minutes,
            compile=args.compile,
        ),
        method=frozen_parts(chosen, words, features=features, lora=args.lora),
    )
    return 0 if outcome.finished else STOPPED


def compress(args: argparse.Namespace) -> int:
    """Run a compression recipe; 3 when it was stopped and the same command would go on."""
    from rich.console import Console

    from autoneural.bench.held_out import trained_tasks
    from autoneural.bench.measure import draw_exam
    from autoneural.checkpoint import load_recipe
    from autoneural.compress.derive import open_float
    from autoneural.recipes.compressing import compress as run
    from autoneural.recipes.compressions import find_compression
    from autoneural.recipes.steps import Stopped

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("compress: runs in one process; torchrun is for train")
    chosen = find_compression(args.recipe)
    open_float(args.checkpoint)
    exam_of = {"questions": args.questions, "rows": args.texts}
    with stages() as progress:
        workbench = _workbench(args, progress)
        exam = draw_exam(trained_tasks(load_recipe(args.checkpoint)), **exam_of)
        if args.table:
            _compress_table(args, workbench, exam)
            return 0
        try:
            report = run(
                chosen,
                args.output,
                workbench=workbench,
                exam=exam,
                exam_of=exam_of,
                say=lambda line: print(line, flush=True),
            )
        except Stopped:
            print("stopped; the same command goes on", file=sys.stderr)
            return STOPPED
    report.print(Console())
    print(f"wrote {args.output}, with report.html and report.json")
    return 0


def _workbench(args: argparse.Namespace, progress: Callable[[str, int, int], None]) -> Workbench:
    from autoneural.checkpoint import find_checkpoint
    from autoneural.recipes.steps import Workbench
    from autoneural.train.trainer import RunOptions

    return Workbench(
        original=find_checkpoint(args.checkpoint),
        data=rows_file(args.data),
        run=args.output,
        samples=args.samples,
        chip=args.chip,
        precision=args.precision,
        options=RunOptions(device=args.device, minutes=args.minutes, compile=args.compile),
        progress=progress,
        show=lambda report: report.print(),
    )


def _compress_table(args: argparse.Namespace, workbench: Workbench, exam: Exam) -> None:
    """Quantised checkpoints and table.json into the output folder, the table on stdout."""
    from rich.console import Console

    from autoneural.files import writable_folder, write_text
    from autoneural.recipes.tabling import CHIPS, precision_table, print_table, to_json
    from autoneural.target.chips import find_chip

    folder = writable_folder(args.output, args.output)
    chips = [find_chip(name) for name in ([args.chip] if args.chip else CHIPS)]
    rows = precision_table(workbench, exam, chips, folder, say=lambda line: print(line, flush=True))
    write_text(folder / "table.json", json.dumps(to_json(rows), indent=1) + "\n")
    print_table(rows, Console())


def export(args: argparse.Namespace) -> None:
    """Checkpoint to bundle."""
    from autoneural.export.bundle import ExportOptions, build_bundle

    if args.fast and "cpu" not in args.targets:
        raise UserError("--fast is of target cpu: NPUs take ranges that are known beforehand")
    if args.kv8 and "cpu" not in args.targets:
        raise UserError("--kv8 is of target cpu: an NPU's cache is what compression made it")
    options = replace(ExportOptions.within(args.context), fast=args.fast, kv8=args.kv8)
    build_bundle(args.checkpoint, args.output, args.targets, options)


def demo(args: argparse.Namespace) -> None:
    """The example pictures that come with the package."""
    from autoneural.demo import run_demo

    run_demo(engine_of(args))


def evaluate(args: argparse.Namespace) -> None:
    """Exact match on held-out questions."""
    from rich.console import Console

    from autoneural.bench import quality
    from autoneural.bench.held_out import held_out, trained_tasks
    from autoneural.bench.report import print_quality
    from autoneural.data.cockpit import TASKS

    if args.records and not args.records.parent.is_dir():
        # Said now, not after an hour of questions.
        raise UserError(f"--records {args.records}: there is no folder {args.records.parent}")
    answerer, recipe = _answerer(args)
    with _progress("pictures", None) as advance:
        asked = args.tasks or trained_tasks(recipe)
        tasks = held_out(asked, args.n, args.seed, args.split, advance)
    passes = 1 if args.no_blind else 2
    total = passes * sum(len(items) for items in tasks.values())
    with _progress("questions", total) as advance:
        report, records = quality.evaluate(
            answerer,
            tasks,
            seed=args.seed,
            blind=not args.no_blind,
            alarms={name: task.alarms for name, task in TASKS.items()},
            on_answer=advance,
        )
    if args.json:
        _print_json(report)
    else:
        print_quality(report, Console())
    if args.records:
        quality.save_records(args.records, records)


def compare(args: argparse.Namespace) -> None:
    """Paired difference of two record files."""
    from rich.console import Console

    from autoneural.bench.quality import load_records, paired_difference
    from autoneural.bench.report import print_difference

    result = paired_difference(load_records(args.a), load_records(args.b))
    if args.json:
        _print_json(result)
    else:
        print_difference(result, str(args.a), str(args.b), Console())


def _answerer(args: argparse.Namespace) -> tuple[Answerer, Mapping[str, Any]]:
    """The engine of a bundle, or the model of a checkpoint: by --target, else by what is named.

    And the recipe that made it.
    """
    name, target = args.bundle, args.target
    checkpoint = name is not None and is_checkpoint(name)
    if checkpoint and target not in (None, "torch"):
        raise UserError(f"{name} is a checkpoint: --target {target} needs a bundle (see export)")
    if not checkpoint and target != "torch":
        from autoneural.bench.answer_bundle import EngineAnswerer

        engine = engine_of(args)
        return EngineAnswerer(engine), engine.bundle.manifest.get("recipe", {})
    if args.device not in (None, "cpu") or args.chip or args.require_npu:
        raise UserError("a checkpoint runs in PyTorch; an NPU or its emulator needs a bundle")
    if args.image_size is not None:
        raise UserError("--image-size: a checkpoint has the size it was made for; export it")
    from autoneural.bench.answer_checkpoint import load_answerer
    from autoneural.checkpoint import load_recipe

    name = name or DEFAULT_BUNDLE
    return load_answerer(name), load_recipe(name)


def engine_of(args: argparse.Namespace, *, exact: bool = False) -> Engine:
    """The engine on the device that is asked for; what was chosen unasked is said on stderr."""
    from autoneural.runtime import Engine

    engine = Engine(
        args.bundle or EMBEDDED_BUNDLE,
        args.target,
        device=args.device or ("npu" if args.require_npu else "cpu"),
        chip=args.chip,
        require_npu=args.require_npu,
        exact=exact,
        image_size=args.image_size,
    )
    if args.device == "auto":
        print(f"device {engine.placement.device}: {engine.placement.why}", file=sys.stderr)
    if beside := engine.nodes_beside_npu():
        print(f"{beside} nodes run on the CPU beside the NPU; see `doctor`", file=sys.stderr)
    return engine


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))


def rows_file(path: Path) -> Path:
    """A data file as it is; of a data folder, its training rows."""
    return path / "train.jsonl" if path.is_dir() else path


def _bars() -> Progress:
    """Progress on stderr; silent where nobody watches."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr per stage; gives the function that takes (stage, done, total)."""
    with _bars() as bars:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total, visible=done < total)

        yield advance


@contextmanager
def _progress(text: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A bar on stderr; gives the function that moves it on by one."""
    with _bars() as progress:
        task = progress.add_task(text, total=total)
        yield lambda: progress.advance(task)
