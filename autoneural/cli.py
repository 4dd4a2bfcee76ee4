"""The command line: one thin sub-command per stage; what it calls is imported when it runs.

    data -> tokenizer -> train -> compress -> export -> eval, demo; show, compare, version
    compile -> verify -> package; bench, doctor (cli_npu.py)
    pull -> import -> assemble; list, rm, clean (cli_hub.py)
    init -> build (cli_build.py): full-size models in bounded memory
    tune (cli_bench.py); infer (cli_infer.py); serve (cli_serve.py)

Exit codes: 0 done, 1 `verify` found something outside its threshold, 2 bad input (one line on
stderr), 3 stopped before the end (the same command goes on), 130 interrupted, 141 the reader went
away.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from autoneural import (
    __version__,
    cli_bench,
    cli_build,
    cli_hub,
    cli_infer,
    cli_npu,
    cli_serve,
    commands,
    commands_npu,
)
from autoneural.cli_arguments import (
    above_zero,
    add_bundle,
    add_device,
    add_target,
    at_least_two,
    command,
    natural,
    positive,
)
from autoneural.errors import UserError

PROG = "autoneural"

# The package that was not found -> the extra that brings it; commands of the NPU chain come without
# torch, so they look in their own extra first.
_EXTRAS = {
    "data": ("resvg_py", "font_", "fonts"),
    "train": (
        "torch",
        "safetensors",
        "pyarrow",
        "tensorboard",
        "onnx",
        "onnxscript",
        "onnx_ir",
    ),
    "npu": ("onnxruntime_qnn", "onnx", "onnx_ir"),
    "hub": ("huggingface_hub",),
    "lora": ("peft",),
    "video": ("av",),
    "serve": ("fastapi", "starlette", "uvicorn", "pydantic", "prometheus_client"),
}


class _Parser(argparse.ArgumentParser):
    """Errors are one line, like every other error of ours."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What a command does not know is its error: the hint names it, not all of autoneural."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; errors of the user are printed, not raised."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a letter of an answer should not end the answer.
        sys.stdout.reconfigure(errors="backslashreplace")
    run = None
    try:
        args = build_parser().parse_args(argv)
        run = args.run
        code = run(args) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        extra = _extra_of(error.name or "", run)
        if extra is None:
            raise
        install = f"pip install '{PROG}[{extra}]', or `make setup` in a clone"
        return _fail(f"this command needs {error.name}, of the extra [{extra}]: {install}")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has left (`| head`): point stdout elsewhere so that the exit flush is silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # A full disk, a folder that may not be read: whatever no command foresaw.
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")


def build_parser() -> argparse.ArgumentParser:
    """The parser with every sub-command; `docs/make_cli.py` prints its help into docs/cli.md."""
    parser = _Parser(
        prog=PROG,
        description="A vision-language model made for NPUs: data, training, integer quantisation, "
        "export, answers.",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    cli_hub.add_pull(verbs)
    cli_hub.add_cache(verbs)
    cli_hub.add_import(verbs)
    cli_hub.add_assemble(verbs)
    cli_build.add_init(verbs)
    cli_build.add_build(verbs)
    _add_data(verbs)
    _add_tokenizer(verbs)
    _add_train(verbs)
    _add_compress(verbs)
    _add_export(verbs)
    cli_npu.add_chips(verbs)
    cli_npu.add_oracle(verbs)
    cli_npu.add_compile(verbs)
    cli_npu.add_verify(verbs)
    cli_npu.add_simulate(verbs)
    cli_bench.add_tune(verbs)
    cli_infer.add_infer(verbs)
    cli_serve.add_serve(verbs)
    _add_eval(verbs)
    _add_compare(verbs)
    cli_npu.add_package(verbs)
    cli_npu.add_bench(verbs)
    demo = command(verbs, "demo", commands.demo, "questions about the example pictures, answered")
    add_bundle(demo)
    add_target(demo)
    cli_build.add_show(verbs)
    cli_npu.add_doctor(verbs)
    command(verbs, "version", commands.version, "versions of what answers depend on")
    return parser


def _add_data(verbs: argparse._SubParsersAction) -> None:
    data = verbs.add_parser("data", help="make training data", description="Make training data.")
    kinds = data.add_subparsers(title="data sets", metavar="WHAT", required=True)
    add = command(kinds, "cockpit", commands.data_cockpit, "draw cockpit scenes with questions")
    add.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder to write")
    _add_tasks(add)
    add.add_argument(
        "--drills", action="store_true", help="also pages of plates: for training, never asked"
    )
    add.add_argument("--n", type=positive, default=1000, help="rows in all (default 1000)")
    add.add_argument("--seed", type=natural, default=0, help="which scenes (default 0)")
    add.add_argument("--split", choices=("train", "val", "test"), default="train")
    add.add_argument(
        "--format", choices=("messages", "llava", "parquet", "webdataset"), default="messages"
    )
    add.add_argument(
        "--sheet", type=Path, metavar="PICTURE", help="also draw a contact sheet (.png, .jpg)"
    )


def _add_tokenizer(verbs: argparse._SubParsersAction) -> None:
    add = command(verbs, "tokenizer", commands.tokenizer, "train a byte-level BPE tokenizer")
    add.add_argument("data", nargs="+", type=Path, metavar="DIR|JSONL", help="rows to learn from")
    add.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    add.add_argument("--vocab-size", type=positive, default=1024, help="default 1024")


def _add_train(verbs: argparse._SubParsersAction) -> None:
    add = command(
        verbs, "train", commands.train, "run a recipe's training stages; goes on where it stopped"
    )
    add.add_argument("--recipe", required=True, metavar="NAME", help="tiny, tiny-vit, connector")
    add.add_argument("--data", type=Path, required=True, metavar="DIR", help="rows to train on")
    add.add_argument("-o", "--output", type=Path, required=True, metavar="CHECKPOINT")
    add.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="default: tokenizer/ in --data, or --start's"
    )
    add.add_argument(
        "--run", type=Path, metavar="DIR", dest="run_dir", help="state and logs (CHECKPOINT-run)"
    )
    add.add_argument("--start", metavar="CHECKPOINT", help="weights to begin from, not random ones")
    add.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="keep there what a frozen encoder sees (recipe connector: CHECKPOINT-features)",
    )
    add.add_argument(
        "--lora", type=positive, metavar="RANK", help="low-rank adapters in the language model"
    )
    _add_training(add)
    add.add_argument(
        "--parallel",
        choices=("ddp", "fsdp"),
        help="under torchrun: whole copies (default) or weights spread over the processes",
    )
    add.add_argument("--smoke", action="store_true", help="a few steps per stage, to see it run")
    add.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override")


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda")
    parser.add_argument(
        "--compile", action="store_true", help="fuse kernels (needs a C++ compiler)"
    )
    parser.add_argument(
        "--minutes", type=above_zero, help="stop after these, to be resumed (exit code 3)"
    )


def _add_compress(verbs: argparse._SubParsersAction) -> None:
    add = command(
        verbs,
        "compress",
        commands.compress,
        "make a checkpoint smaller in steps and report what each cost; goes on where it stopped",
    )
    add.add_argument("checkpoint", metavar="CHECKPOINT", help="a float one")
    add.add_argument(
        "--recipe",
        default="ptq",
        metavar="NAME|FILE.py",
        help="ptq (default), ptq-best, qat, mixed, prune, low-rank, distil, everything",
    )
    add.add_argument("--precision", metavar="NAME|FILE", help="instead of the recipe's own")
    add.add_argument("--data", type=Path, required=True, metavar="DIR", help="training rows")
    add.add_argument("--samples", type=positive, default=128, help="to calibrate on (default 128)")
    add.add_argument(
        "--questions", type=positive, default=25, help="per task, to measure by (default 25)"
    )
    add.add_argument("--texts", type=at_least_two, default=64, help="for perplexity (default 64)")
    add.add_argument(
        "--chip", metavar="NAME", help="stay within what it takes; what it makes of the result"
    )
    add.add_argument(
        "--table",
        action="store_true",
        help="instead of a recipe: original, int8, int4 on SA8295P, SA8775P and SA8255P",
    )
    _add_training(add)
    add.add_argument("-o", "--output", type=Path, required=True, metavar="CHECKPOINT")


def _add_export(verbs: argparse._SubParsersAction) -> None:
    add = command(verbs, "export", commands.export, "turn a quantised checkpoint into a bundle")
    add.add_argument("checkpoint", metavar="CHECKPOINT")
    add.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE")
    add.add_argument(
        "--targets", nargs="+", choices=("cpu", "qdq", "float"), default=["cpu", "qdq"]
    )
    add.add_argument("--context", type=positive, default=1024, help="tokens (default 1024)")
    add.add_argument(
        "--fast",
        action="store_true",
        help="target cpu: activations rounded to bytes, ranged at run time; weights of prompts and "
        "pictures a byte each",
    )
    add.add_argument(
        "--kv8",
        action="store_true",
        help="target cpu: keys and values in bytes between steps, as on an NPU: a quarter of the "
        "memory that a long conversation takes, slower",
    )


def _add_eval(verbs: argparse._SubParsersAction) -> None:
    add = command(verbs, "eval", commands.evaluate, "exact match on the held-out cockpit split")
    add_bundle(add, "BUNDLE|CHECKPOINT")
    add.add_argument(
        "--target",
        choices=("cpu", "qdq", "float", "torch"),
        help="graphs of a bundle (default cpu), or torch: the checkpoint itself in PyTorch",
    )
    add_device(add)
    add.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help="default: those the model was trained on, or all; also pairs, clips (of pictures)",
    )
    add.add_argument("--n", type=positive, default=1000, help="questions per task (default 1000)")
    add.add_argument("--seed", type=natural, default=0, help="which questions (default 0)")
    add.add_argument(
        "--split",
        choices=("val", "test"),
        default="test",
        help="val: as training saw; test: with looks that training never saw (default)",
    )
    add.add_argument("--no-blind", action="store_true", help="skip the pass with shuffled pictures")
    add.add_argument("--json", action="store_true", help="print the report as JSON")
    add.add_argument("--records", type=Path, metavar="JSONL", help="write one line per question")


def _add_compare(verbs: argparse._SubParsersAction) -> None:
    add = command(
        verbs, "compare", commands.compare, "paired difference of two `eval --records` files"
    )
    add.add_argument("a", type=Path, metavar="A.jsonl")
    add.add_argument("b", type=Path, metavar="B.jsonl")
    add.add_argument("--json", action="store_true")


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="default: all tasks")


def _extra_of(module: str, run: object) -> str | None:
    top = module.split(".")[0]
    npu = getattr(run, "__module__", "") == commands_npu.__name__
    for extra, names in sorted(_EXTRAS.items(), key=lambda item: npu and item[0] != "npu"):
        if top in names or any(n.endswith("_") and top.startswith(n) for n in names):
            return extra
    return None


def _fail(message: str) -> int:
    print(f"{PROG}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
