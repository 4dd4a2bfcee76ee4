"""Every figure of one checkpoint, so that steps of compression are compared by the same questions.

    exam = draw_exam(tasks, questions=1000, rows=200)
    before, after = (measure(name, exam, reference=...) for name in (...))
    compare_measures(before, after)        differences with 95 % intervals, question by question

Nothing here computes a figure of its own: accuracy is `quality`'s, perplexity `perplexity`'s, SQNR
that of compression's report, and the size on a chip is that of `autoneural compile`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from autoneural.bench.answer_checkpoint import load_answerer, load_model
from autoneural.bench.held_out import held_out, held_out_rows
from autoneural.bench.perplexity import (
    RowLoss,
    paired_increase,
    perplexity,
    row_losses,
    row_samples,
)
from autoneural.bench.quality import Item, Record, evaluate, paired_difference
from autoneural.checkpoint import load_checkpoint
from autoneural.compress.cost import cost
from autoneural.compress.fake_quant import RANGE_MODULES
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import Sample
from autoneural.compress.report import compare
from autoneural.data.cockpit import Row, Split
from autoneural.errors import UserError
from autoneural.export.bundle import ExportOptions, build_bundle
from autoneural.model.vlm import VLM, num_parameters
from autoneural.npu.compile import compile_bundle
from autoneural.runtime.qnn import require_wheel
from autoneural.target.chips import Chip

Progress = Callable[[str, int, int], None]
_SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class Exam:
    """What every checkpoint is asked alike: questions per task, and whole conversations."""

    tasks: Mapping[str, Sequence[Item]]
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """The figures of one checkpoint.

    `weight_bytes`: its tensors as stored, two 4-bit integers to a byte. Multiply-accumulates are
    those of one picture and of one token at a full context. `sqnr_db`: of each module's
    output against the reference's, infinite where equal; empty without a reference.
    `compiled_bytes`: of the context binaries; None where there are none, and `not_compiled` says
    why. `records` and `losses` are what two checkpoints are compared by.
    """

    name: str
    parameters: int
    weight_bytes: int
    encode_macs: int
    decode_macs: int
    perplexity: float
    accuracy: Mapping[str, float]
    sqnr_db: Mapping[str, float]
    compiled_bytes: int | None
    not_compiled: str
    records: tuple[Record, ...]
    losses: tuple[RowLoss, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without records and losses; an infinite SQNR is null."""
        return {
            "name": self.name,
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes,
            "encode_macs": self.encode_macs,
            "decode_macs": self.decode_macs,
            "perplexity": self.perplexity,
            "accuracy": dict(self.accuracy),
            "sqnr_db": {p: db if math.isfinite(db) else None for p, db in self.sqnr_db.items()},
            "compiled_bytes": self.compiled_bytes,
            "not_compiled": self.not_compiled,
        }

    @property
    def mean_accuracy(self) -> float | None:
        """Of all questions; None where none was asked."""
        right = [bool(record["correct"]) for record in self.records]
        return sum(right) / len(right) if right else None

    def state(self) -> dict[str, Any]:
        """JSON-ready and whole: `from_state` makes the same of it."""
        return {
            **self.to_dict(),
            "records": list(self.records),
            "losses": [asdict(loss) for loss in self.losses],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Measures:
        """Inverse of `state`. KeyError or TypeError where something is missing."""
        sqnr = {p: math.inf if db is None else db for p, db in state["sqnr_db"].items()}
        losses = tuple(RowLoss(**loss) for loss in state["losses"])
        whole = {**state, "sqnr_db": sqnr, "records": tuple(state["records"]), "losses": losses}
        return cls(**whole)


def draw_exam(
    tasks: Sequence[str] | None,
    *,
    questions: int,
    rows: int,
    seed: int = 0,
    split: Split = "test",
) -> Exam:
    """`questions` per cockpit task (None: all tasks), and `rows` conversations in all.

    The same arguments give the same exam everywhere. Raises UserError for an unknown task.
    """
    return Exam(
        tasks=held_out(tasks, questions, seed, split),
        rows=held_out_rows(tasks, rows, seed, split),
    )


def measure(
    checkpoint: str | Path,
    exam: Exam,
    *,
    reference: str | Path | None = None,
    chip: Chip | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Measures:
    """The figures of `checkpoint`, a float one or a quantised one.

    `reference` is the float checkpoint whose modules SQNR is measured against, over the exam's
    first conversations. With `chip` the quantised graphs are exported and compiled for it, which
    takes minutes. `progress` is called with (what, done, total). Raises UserError where a
    checkpoint is not usable.
    """
    name = str(checkpoint)
    answerer, model = load_answerer(name), load_model(name)
    samples = row_samples(checkpoint, model.config, exam.rows)
    losses = row_losses(model, exam.rows, samples, _each(progress, "perplexity", len(exam.rows)))
    asked = sum(map(len, exam.tasks.values()))
    report, records = evaluate(
        answerer, exam.tasks, blind=False, on_answer=_each(progress, "questions", asked)
    )
    sqnr = {} if reference is None else module_sqnr(str(reference), model, samples[:_SAMPLES])
    price = cost(model.config)
    size, why = (None, "no chip was named") if chip is None else compiled_size(checkpoint, chip)
    return Measures(
        name=name,
        parameters=num_parameters(model),
        encode_macs=price.encode_macs,
        decode_macs=price.decode_macs,
        weight_bytes=sum(t.nbytes for t in load_checkpoint(name).state_dict.values()),
        perplexity=perplexity(losses),
        accuracy={task: found["accuracy"] for task, found in report["tasks"].items()},
        sqnr_db=sqnr,
        compiled_bytes=size,
        not_compiled=why,
        records=tuple(records),
        losses=tuple(losses),
    )


def compare_measures(before: Measures, after: Measures) -> dict[str, Any]:
    """What became of each figure: {"perplexity", "accuracy"}, with 95 % intervals.

    As `paired_increase` and `quality.paired_difference` give them. Raises UserError where the two
    sat different exams.
    """
    return {
        "perplexity": paired_increase(before.losses, after.losses),
        "accuracy": paired_difference(before.records, after.records),
    }


def module_sqnr(reference: str, model: VLM, samples: Sequence[Sample]) -> dict[str, float]:
    """SQNR in dB of every module that both models have, its output of one shape in both.

    Masks are left out: the models stand for minus infinity by different numbers.
    """
    plain = load_model(reference)
    own = {path for path, module in model.named_modules() if isinstance(module, RANGE_MODULES)}
    mask = PRECISIONS["w4a16"].mask
    hidden = () if mask is None else (mask.mask, mask.masked)
    paths = [
        path
        for path, module in plain.named_modules()
        if path in own
        and isinstance(module, RANGE_MODULES)
        and not any(fnmatchcase(path, pattern) for pattern in hidden)
    ]
    return {path: sqnr for path, (sqnr, _) in compare(plain, model, paths, samples).items()}


def compiled_size(
    checkpoint: str | Path, chip: Chip, context: int | None = None
) -> tuple[int | None, str]:
    """(bytes of the context binaries for `chip`, "") or (None, why there are none).

    `context`: tokens; None for as many as the model has positions, 1024 at most.
    """
    positions = load_checkpoint(checkpoint).config.text.max_position_embeddings
    context = context or min(ExportOptions.context, positions)
    options = replace(ExportOptions.within(context), verify=False)
    with TemporaryDirectory(prefix="autoneural-measure-") as folder:
        try:
            require_wheel()
            source, out = Path(folder) / "qdq", Path(folder) / "htp"
            bundle = build_bundle(checkpoint, source, ["qdq"], options, progress=lambda _: None)
            (report,) = compile_bundle(bundle, [chip], out)
        except UserError as error:
            return None, str(error)
    return sum(part["binary_bytes"] for part in report.parts), ""


def _each(progress: Progress, what: str, total: int) -> Callable[[], None]:
    done = count(1)
    return lambda: progress(what, next(done), total)
