"""One answer by two sides: the plumbing on the CPU, where nothing may differ; then the emulator."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console

from autoneural import cli
from autoneural.bench.answer_plan import Call, Plan, calls_of, plan_answer
from autoneural.bench.answer_sides import new_values
from autoneural.bench.emulated_answer import (
    compare_answers,
    compare_logits,
    measure_answer,
    print_answer,
)
from autoneural.bundle import DEFAULT_BUNDLE, Bundle
from autoneural.chat import user_message
from autoneural.demo import EXAMPLES
from autoneural.errors import UserError
from autoneural.npu.compile import CompileOptions, compile_bundle
from autoneural.npu.simulate import simulate
from autoneural.runtime import Engine
from autoneural.runtime.devices import place
from autoneural.runtime.qnn import Wheel
from autoneural.target.chips import find_chip
from tests.npu.kit_helpers import compiled_bundle

CHIP = find_chip("SA8295P")
# Two pictures: the prompt is longer than the widest graph.
PICTURES = [EXAMPLES / "driver.jpg", EXAMPLES / "door.jpg"]
QUESTION = [user_message("What is the difference between the two of them?", PICTURES)]
PARTS = ["vision", "prefill", "decode", "prefill-1", "decode-1", "head"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """In name compiled, the language model in two binaries."""
    return compiled_bundle(tmp_path_factory.mktemp("compiled") / "bundle", max_part_mb=2)


def planned(bundle: Bundle, folder: Path, steps: int = 2) -> Plan:
    """The second side on the CPU as well."""
    return plan_answer(bundle, CHIP, place(bundle, "qdq"), QUESTION, steps, folder)


@pytest.fixture(scope="module")
def plan(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned(bundle, tmp_path_factory.mktemp("answer"))


@pytest.fixture(scope="module")
def report(plan: Plan) -> dict:
    return compare_answers(plan)


def test_a_prompt_is_chunks_and_an_answer_steps():
    assert calls_of(300, 2, 128) == (
        Call(start=0, end=128, width=128),
        Call(start=128, end=256, width=128),
        Call(start=256, end=300, width=128),
        Call(start=300, end=301, width=1),
        Call(start=301, end=302, width=1),
    )
    # As the decoder does: a single row that is left takes the narrow graph.
    assert [call.width for call in calls_of(129, 1, 128)] == [128, 1, 1]


def test_what_is_compared_is_new_and_real():
    call, window = Call(start=0, end=2, width=4), np.arange(6).reshape(1, 1, 6)
    assert new_values("conv_window.0", window, call).tolist() == [[[2, 3]]]
    rows = np.arange(4).reshape(1, 1, 4, 1)
    assert new_values("present.1.key", rows, call).ravel().tolist() == [0, 1]
    assert new_values("hidden.3", rows[0], call).ravel().tolist() == [0, 1]
    assert new_values("logits", rows, call).size == 4


def test_logits_are_compared_by_their_best():
    wanted = np.arange(20.0)
    assert compare_logits(wanted, wanted) == {"sqnr_db": None, "top1_equal": True, "top10": 10}
    got = wanted.copy()
    got[[0, 1]] += 30  # two of the worst become the best
    found = compare_logits(wanted, got)
    assert (found["top1_equal"], found["top10"]) == (False, 8)
    noise, signal = 2 * 30.0**2, np.square(wanted).sum()
    assert found["sqnr_db"] == pytest.approx(10 * np.log10(signal / noise), abs=0.05)
    assert compare_logits(np.zeros(20), got)["sqnr_db"] == -99.9


def test_part_by_part_the_cpu_computes_what_it_does_at_once(report: dict):
    rows = {row["row"]: row for row in report["rows"]}
    assert list(rows) == [*PARTS, "after the prompt", "after token 1", "after token 2"]
    assert report["prompt_tokens"] > 128
    assert all(row["sqnr_db"] is None for row in rows.values())
    assert all(rows[name]["state_db"] is None for name in PARTS[1:5])
    assert all(rows[n]["top10"] == 10 for n in ("head", "after the prompt", "after token 2"))
    # Two chunks and one of the reference's; two steps and one; logits three times, and once.
    assert [rows[name]["runs"] for name in PARTS] == [2, 3, 3, 3, 3, 4]
    assert not any(rows[name]["shipped"] for name in PARTS)
    assert min(side["peak_rss_gb"] for side in report["sides"].values()) > 0
    assert json.loads(json.dumps(report)) == report


def test_the_tokens_are_those_of_the_engine(bundle: Bundle, report: dict):
    engine = Engine(bundle, "qdq")
    for count, token in enumerate(report["tokens"]):
        assert engine.logits(QUESTION, report["tokens"][:count]).argmax() == token
        engine.reset()


def test_what_one_part_gets_wrong_is_found_there_and_at_the_end(
    plan: Plan, report: dict, tmp_path: Path
):
    """The last binary computes as the chip does; what is whole already is not computed again."""
    stages = list(plan.stages)
    wrong = [replace(g, file=str(simulated(Path(g.file), tmp_path))) for g in stages[2].graphs]
    stages[2] = replace(stages[2], graphs=tuple(wrong))
    for name in ("language 1", "head"):
        (plan.folder / f"{name}.json").unlink()
    said: list[str] = []
    found = compare_answers(replace(plan, stages=tuple(stages)), say=said.append)
    rows = {row["row"]: row for row in found["rows"]}
    again = [line.split(":")[0] for line in said if line.endswith("there already")]
    assert again == ["reference", "vision", "language 0"]
    for name in ("vision", "prefill", "decode", "head"):
        assert rows[name]["sqnr_db"] is None
    for name in ("prefill-1", "decode-1", "after the prompt", "after token 1", "after token 2"):
        assert 10 < rows[name]["sqnr_db"] < 90
    assert found["tokens"] == report["tokens"]


def simulated(file: Path, folder: Path) -> Path:
    """The graph in the chip's arithmetic, in a file of the same name."""
    model = ir.load(file)
    simulate(model, CHIP.htp)
    ir.save(model, folder / file.name, external_data=f"{file.stem}.data")
    return folder / file.name


def test_another_question_has_a_folder_of_its_own(bundle: Bundle, plan: Plan, tmp_path: Path):
    same, longer = planned(bundle, tmp_path), planned(bundle, tmp_path, 3)
    assert same.folder.name == plan.folder.name != longer.folder.name


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (0, "steps: 0 is not at least 1"),
        (2000, r"tokens and 2000 steps: the context of bundle .* holds 1024"),
    ],
)
def test_steps_that_do_not_go_are_one_line(
    bundle: Bundle, tmp_path: Path, steps: int, message: str
):
    with pytest.raises(UserError, match=message):
        planned(bundle, tmp_path, steps)
    assert not list(tmp_path.iterdir())


def test_without_an_emulator_it_is_one_line(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("autoneural.runtime.devices.emulates", lambda: True)
    monkeypatch.setattr("autoneural.runtime.qnn.find_wheel", lambda: None)
    with pytest.raises(UserError, match="this needs onnxruntime-qnn"):
        measure_answer(bundle, CHIP, QUESTION)
    monkeypatch.setattr("autoneural.runtime.devices.emulates", lambda: False)
    with pytest.raises(UserError, match="it exists for Linux x86-64 only"):
        measure_answer(bundle, CHIP, QUESTION)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([DEFAULT_BUNDLE], "no binaries for SA8295P (it holds none); compile it first"),
        (["BUNDLE", "--chip", "SA8775P"], "no binaries for SA8775P (it holds SA8295P)"),
        (["BUNDLE", "--image", "nowhere.jpg"], "nowhere.jpg: no such file"),
        (["BUNDLE", "--image-size", "99"], "no vision graph for pictures of 99 px"),
        (["BUNDLE", "--steps", "0"], "0 is not a whole number from 1"),
        (["BUNDLE", "--results", "."], "--results .: is a folder"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    bundle: Bundle,
    qnn_wheel: Wheel,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    given = [str(bundle.folder) if word == "BUNDLE" else word for word in arguments]
    try:
        code = cli.main(["bench", "answer", *given])
    except SystemExit as left:
        code = left.code
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_compiled_bundle_answers_in_the_emulator(
    qnn_wheel: Wheel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out, results = tmp_path / "car", tmp_path / "car.json"
    source = Bundle.load(DEFAULT_BUNDLE)
    compile_bundle(source, [CHIP], out, CompileOptions(max_part_mb=2))
    asked = ["bench", "answer", str(out), "--steps", "1", "--results", str(results), "--json"]
    assert cli.main(asked) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(results.read_text(encoding="utf-8"))
    assert (report["model"], report["chip"], report["steps"]) == (source.name, "SA8295P", 1)
    rows = {row["row"]: row for row in report["rows"]}
    assert list(rows) == [*PARTS, "after the prompt", "after token 1"]
    assert [name for name in PARTS if rows[name]["shipped"]] == ["vision", "head"]
    for row in rows.values():
        assert 15 < row["sqnr_db"] < 120
    assert rows["after the prompt"]["top10"] >= 8
    assert {path.name for path in tmp_path.iterdir()} == {"car", "car.json"}
    console = Console(record=True, width=100)
    print_answer(report, console)
    for word in ("prefill-1", "after token 1", "reference", "emulator", "GiB", "10/10"):
        assert word in console.export_text(clear=False)
