"""What the compiler accepts on a chip, found by compiling every probe.

Each answer is on disk before the next probe is asked. So a crash of the compiler costs the probe
that caused it, which counts as refused; and a refresh that was interrupted goes on where it was,
if the compiler is still the same.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import IO

import onnx_ir as ir

from autoneural import __version__
from autoneural.errors import UserError
from autoneural.files import write_text
from autoneural.npu.probes import Form, forms
from autoneural.npu.worker import last_word, write_job
from autoneural.runtime.qnn import require_wheel
from autoneural.target.chips import Chip
from autoneural.target.legality_table import Probe, Table, read_tables, user_file, write_tables
from autoneural.target.precision import FLOATS

Asked = Mapping[Probe, Form]
Progress = Callable[[int, int], None]

_BATCH = 200  # probes per process: each leaves some megabytes behind
_PATIENCE_S = 120.0
_POLL_S = 0.2
_CRASHES = 20  # in a row: then it is not the probes


def all_probes() -> dict[Probe, Form]:
    """Every question there is, in the order of the table."""
    return {
        Probe(op=form.op, variant=form.variant, rank=form.rank, precision=precision): form
        for form in forms()
        for precision in form.precisions
    }


def refresh(chip: Chip, progress: Progress, asked: Asked | None = None) -> Table:
    """Ask the installed compiler about every probe (or those of `asked`) on this chip.

    `progress` hears how many are answered, of how many. Interrupted, the answers so far are kept
    and the next call goes on from them. Raises UserError where the wheel is missing or broken.
    """
    wheel = require_wheel()
    asked = all_probes() if asked is None else asked
    journal = _Journal(user_file(chip.soc_model, ".jsonl"), wheel.compiler)

    def tick() -> None:
        progress(len(asked) - len(journal.unanswered(asked)), len(asked))

    crashes = 0
    while todo := journal.unanswered(asked):
        batch = todo[:_BATCH]
        failure = _ask(chip.soc_model, {probe: asked[probe] for probe in batch}, journal, tick)
        left = journal.unanswered(batch)
        if left:
            crashes = crashes + 1 if len(left) == len(batch) else 1
            if crashes > _CRASHES:
                raise UserError(f"{wheel.compiler}: {failure}, {crashes} times in a row")
            journal.add(left[0], failure)
    return Table(
        soc_model=chip.soc_model,
        compiler=wheel.compiler,
        date=date.today().isoformat(),
        source=journal.path,
        answers={probe: journal.answers[probe] for probe in asked},
    )


def require_writable(output: Path) -> None:
    """UserError or OSError now, not after minutes, where `save` could not write to `output`."""
    if output.is_file():
        read_tables(output)
    elif not output.parent.is_dir():
        raise UserError(f"{output}: there is no folder {output.parent}")
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise UserError(f"{output}: cannot be written")


def save(table: Table, output: Path | None = None) -> Path:
    """Write a table to the user's cache, or into the file `output` beside those of other chips.

    The answers that `refresh` kept are no longer needed, and removed.
    """
    path = user_file(table.soc_model) if output is None else output
    others = read_tables(path) if output is not None and path.is_file() else {}
    write_tables(path, {**others, table.soc_model: table}.values())
    user_file(table.soc_model, ".jsonl").unlink(missing_ok=True)
    return path


class _Journal:
    """The answers so far: a line that says whose they are, then a line per probe."""

    def __init__(self, path: Path, compiler: str) -> None:
        self.path = path
        self._head = json.dumps({"compiler": compiler, "autoneural": __version__})
        self.answers: dict[Probe, str] = {}
        self.reload()
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [_line(probe, reason) for probe, reason in self.answers.items()]
        write_text(path, "".join([f"{self._head}\n", *lines]))  # whole lines only

    def reload(self) -> None:
        """Read what a worker has added. A line cut short by an interruption counts for nothing."""
        if not self.path.is_file():
            return
        head, *lines = self.path.read_text(encoding="utf-8").split("\n")
        if head != self._head:
            return
        for line in lines:
            with suppress(ValueError):
                found = json.loads(line)
                op, variant, rank, precision = found["probe"]
                probe = Probe(op=op, variant=variant, rank=rank, precision=precision)
                self.answers[probe] = found["reason"]

    def unanswered(self, asked: Sequence[Probe] | Asked) -> list[Probe]:
        return [probe for probe in asked if probe not in self.answers]

    def add(self, probe: Probe, reason: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(probe, reason))
        self.answers[probe] = reason


def _ask(soc_model: int, batch: Asked, journal: _Journal, tick: Callable[[], None]) -> str:
    """One process for a batch. Returns why it ended early, "" where it did not."""
    with tempfile.TemporaryDirectory(prefix="autoneural-oracle-") as name:
        folder = Path(name)
        graphs = [_graph(folder / f"{i}.onnx", *item) for i, item in enumerate(batch.items())]
        job = {"do": "probe", "soc_model": soc_model, "graphs": graphs}
        _, command, environment = write_job({**job, "answers": str(journal.path)}, folder)
        with (folder / "errors").open("w+", encoding="utf-8", errors="replace") as errors:
            with _process(command, environment, errors) as process:
                hung = _watch(process, journal, tick)
            errors.seek(0)
            said = last_word(process.returncode, errors.read())
    if hung:
        return f"no answer after {_PATIENCE_S:.0f} s"
    if process.returncode > 0:
        raise UserError(f"oracle: {said}")
    return said if process.returncode else ""


def _graph(file: Path, probe: Probe, form: Form) -> dict[str, object]:
    ir.save(form.model(probe.precision), file)
    key = [probe.op, probe.variant, probe.rank, probe.precision]
    # Scales that are no 16ths would be made so, silently: such weights are asked for as they are.
    free = {"enable_block_quant_weight_optimization": "0"} if "/block" in probe.precision else {}
    integer = probe.precision not in FLOATS
    return {"probe": key, "file": str(file), "integer": integer, "options": free}


def _watch(process: subprocess.Popen[bytes], journal: _Journal, tick: Callable[[], None]) -> bool:
    """Wait for the end; True where it had to be killed because no answer came."""
    heard = time.monotonic()
    while True:
        ended = process.poll() is not None
        before = len(journal.answers)
        journal.reload()
        tick()
        if ended:
            return False
        if len(journal.answers) > before:
            heard = time.monotonic()
        elif time.monotonic() - heard > _PATIENCE_S:
            return True
        time.sleep(_POLL_S)


@contextmanager
def _process(
    command: list[str], environment: dict[str, str], errors: IO[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, none of which outlives the block."""
    silent = subprocess.DEVNULL
    process = subprocess.Popen(
        command, env=environment, stdout=silent, stderr=errors, start_new_session=True
    )
    try:
        yield process
    finally:
        if sys.platform == "win32":
            process.kill()
        else:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _line(probe: Probe, reason: str) -> str:
    key = [probe.op, probe.variant, probe.rank, probe.precision]
    return f"{json.dumps({'probe': key, 'reason': reason})}\n"
