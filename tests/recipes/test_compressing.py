"""Compression recipes from end to end, on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoneural.bench.compression import CompressionReport
from autoneural.bench.measure import Exam, draw_exam
from autoneural.checkpoint import load_checkpoint
from autoneural.cli import main
from autoneural.errors import UserError
from autoneural.recipes.compressing import compress
from autoneural.recipes.compressions import COMPRESSIONS, find_compression
from autoneural.recipes.steps import (
    Compression,
    Distil,
    LowRank,
    Mixed,
    Prune,
    Qat,
    Quantize,
    Rewrite,
    Sparsify,
    Step,
    Stopped,
    Workbench,
)
from autoneural.train.trainer import RunOptions
from tests.conftest import TinyCheckpoint

EXAM_OF = {"questions": 2, "rows": 2}
QUICK = RunOptions(device="cpu")


@pytest.fixture(scope="module")
def exam() -> Exam:
    return draw_exam(["fatigue"], **EXAM_OF)


class _Run:
    """`compress` with the same arguments again and again; `said` are the lines of the last time."""

    def __init__(self, checkpoint: Path, data: Path, out: Path, exam: Exam) -> None:
        rows = data / "train.jsonl"
        self.bench = Workbench(original=checkpoint, data=rows, run=out, samples=3, options=QUICK)
        self.out, self.exam, self.said = out, exam, list[str]()

    def __call__(self, *steps: Step, **changes: Any) -> CompressionReport:
        self.said = []
        return compress(
            Compression(name="test", steps=steps),
            self.out,
            workbench=replace(self.bench, **changes),
            exam=self.exam,
            exam_of=EXAM_OF,
            say=self.said.append,
        )


@pytest.fixture
def run(tiny_checkpoint: TinyCheckpoint, cockpit: Path, tmp_path: Path, exam: Exam) -> _Run:
    return _Run(tiny_checkpoint.folder, cockpit, tmp_path / "out", exam)


def test_steps_follow_each_other_and_are_reported(run: _Run) -> None:
    report = run(Rewrite(), LowRank(energy=0.5), Sparsify(), Quantize(precision="w4a16"))
    names = ["original", "rewrite", "low-rank", "sparsify", "quantize"]
    assert [step.name for step in report.steps] == names
    assert load_checkpoint(run.out).encodings is not None
    saved = json.loads((run.out / "report.json").read_text())
    assert [step["name"] for step in saved["steps"]] == names
    first, last = saved["steps"][0], saved["steps"][-1]
    assert first["difference"] is None
    assert len(last["difference"]) == 3
    assert last["measures"]["weight_bytes"] < first["measures"]["weight_bytes"]
    assert last["measures"]["parameters"] == report.steps[2].measures.parameters
    page = (run.out / "report.html").read_text()
    assert all(name in page for name in names)
    assert page.count("<svg") == 4
    assert "<script" not in page


def test_the_function_stays_through_a_rewrite(run: _Run) -> None:
    report = run(Rewrite(ways=("fold", "equalize", "smooth")))
    assert report.steps[1].measures.perplexity == pytest.approx(
        report.steps[0].measures.perplexity, rel=1e-4
    )
    assert report.steps[1].perplexity is not None
    assert abs(report.steps[1].perplexity[1]) < 0.05


def test_what_is_there_is_not_made_again(run: _Run) -> None:
    first = run(Sparsify(), Quantize())
    again = run(Sparsify(), Quantize())
    assert run.said == ["1-sparsify: there already", "2-quantize: there already"]
    assert [s.measures for s in again.steps] == [s.measures for s in first.steps]
    run(Sparsify(), Quantize(precision="w8a16"))
    assert [line.split(":")[0] for line in run.said] == ["1-sparsify", "2-quantize", "2-quantize"]
    assert run.said[0].endswith("there already")
    assert "w8a16" in run.said[1]


def test_a_change_at_the_start_reaches_the_end(run: _Run) -> None:
    run(Sparsify(), Quantize())
    run(Sparsify(ratio=0.9), Quantize())
    assert not [line for line in run.said if "there already" in line]


def test_a_damaged_record_is_made_anew(run: _Run) -> None:
    run(Sparsify())
    (run.out.with_name("out-run") / "1-sparsify.json").write_text('{"identity": 1}')
    run(Sparsify())
    assert run.said[0].startswith("1-sparsify: 50 %")


def test_the_precision_asked_for_replaces_the_steps_own(run: _Run) -> None:
    report = run(Quantize(precision="w4a16"), precision="w8a16")
    assert load_checkpoint(run.out).recipe["precision"]["name"] == "w8a16"
    assert report.steps[-1].words == "w8a16, compensated rounding"
    assert "1-quantize: w8a16, compensated rounding" in run.said


def test_training_steps_learn_and_stop(run: _Run) -> None:
    steps = (Prune(parts=("projector",), ratio=0.5, tile=8), Distil(steps=3, batch_size=2))
    with pytest.raises(Stopped):
        run(*steps, options=replace(QUICK, minutes=1e-9))
    assert not run.out.exists()
    report = run(*steps)
    assert run.said[0] == "1-prune: there already"
    assert report.steps[2].notes[0].startswith("distil: loss ")
    teacher, student = (load_checkpoint(f).config for f in (run.bench.original, run.out))
    assert student.projector.hidden_size < teacher.projector.hidden_size


def test_qat_and_mixed_precision_end_in_integers(run: _Run) -> None:
    run(Qat(steps=1, batch_size=2))
    assert load_checkpoint(run.out).encodings is not None
    run(Mixed(nats=10.0))
    assert (run.out.with_name("out-run")).is_dir()
    assert load_checkpoint(run.out).recipe["stage"] == "quantize"


def test_the_float_checkpoint_is_not_overwritten(run: _Run) -> None:
    run.out = run.bench.original
    before = (run.out / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="is the float checkpoint itself"):
        run(Quantize())
    assert (run.out / "model.safetensors").read_bytes() == before


def test_what_a_recipe_refuses(run: _Run) -> None:
    with pytest.raises(UserError, match="rewrite 'polish': expected one of fold"):
        run(Rewrite(ways=("polish",)))
    with pytest.raises(UserError, match="precision 'w2'"):
        run(Quantize(), precision="w2")
    with pytest.raises(UserError, match="is quantised already"):
        run(Quantize(), Quantize())
    assert not run.out.exists()


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_named_recipes_say_what_they_do(name: str) -> None:
    recipe = find_compression(name)
    bench = Workbench(original=Path(), data=Path(), run=Path())
    assert all(step.words(bench) for step in recipe.steps)
    assert json.loads(json.dumps(recipe.to_dict())) == recipe.to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "mine.py: no such file"),
        ("recipe = 1", "holds no `recipe`"),
        ("import nothing_such", "mine.py: ModuleNotFoundError"),
        ("def", "mine.py: SyntaxError"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        find_compression(str(path))


def test_from_the_command_line(
    tiny_checkpoint: TinyCheckpoint,
    cockpit: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from autoneural.recipes.steps import Compression, Quantize\n"
        'recipe = Compression(name="mine", steps=(Quantize(rounding="nearest"),))\n'
    )
    out = tmp_path / "out"
    command = ["compress", str(tiny_checkpoint.folder), "--recipe", str(recipe)]
    command += ["--data", str(cockpit), "--samples", "2", "--questions", "1", "--texts", "2"]
    assert main([*command, "-o", str(out)]) == 0
    assert "nearest rounding" in capsys.readouterr().out
    assert json.loads((out / "report.json").read_text())["recipe"] == "mine"
    command[3] = "best"
    assert main([*command, "-o", str(tmp_path / "other")]) == 2
    assert "expected one of ptq" in capsys.readouterr().err
