"""Probing the compiler: what it says, and answers that survive crashes and interruptions."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from autoneural.cli import main
from autoneural.errors import UserError
from autoneural.npu import oracle
from autoneural.npu.oracle import all_probes, refresh, save
from autoneural.npu.probe_log import refusal
from autoneural.runtime.qnn import Wheel
from autoneural.target.chips import find_chip
from autoneural.target.legality_table import SHIPPED, Probe, load_table, read_tables, user_file

OLD, NEW = find_chip("SA8295P"), find_chip("SA8775P")
ASKED = all_probes()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def silent(done: int, total: int) -> None:
    pass


def matmul(precision: str) -> Probe:
    return Probe(op="MatMul", variant="", rank=3, precision=precision)


FEW = {
    probe: ASKED[probe]
    for probe in (
        *map(matmul, ("w4a16", "w16a16", "a16xa8", "a8xa16")),
        Probe(op="Erf", variant="", rank=3, precision="a16"),
        Probe(op="Sigmoid", variant="", rank=3, precision="a16"),
        Probe(op="Sigmoid", variant="other range", rank=3, precision="a16"),
        Probe(op="MatMul", variant="", rank=3, precision="w4a16/lpbq64"),
    )
}


@pytest.mark.parametrize("chip", [OLD, NEW], ids=lambda chip: chip.name)
def test_the_compiler_answers(chip, qnn_wheel: Wheel) -> None:
    table = refresh(chip, silent, FEW)
    said = {(probe.op, probe.precision): reason for probe, reason in table.answers.items()}
    sigmoid = {p.variant: reason for p, reason in table.answers.items() if p.op == "Sigmoid"}
    assert table.compiler == qnn_wheel.compiler
    assert said["MatMul", "w4a16"] == ""
    assert said["MatMul", "w4a16/lpbq64"] == ""
    assert said["MatMul", "a16xa8"] == ""
    assert said["MatMul", "a8xa16"] == "computed in floating point, not in integers"
    assert "`Erf` are not supported" in said["Erf", "a16"]
    assert bool(said["MatMul", "w16a16"]) is (chip.htp < 73)
    assert sigmoid[""] == ""
    assert "computes something else" in sigmoid["other range"]


def test_the_shipped_answers_are_those_of_this_compiler(qnn_wheel: Wheel) -> None:
    shipped = read_tables(SHIPPED)[OLD.soc_model]
    if shipped.compiler != qnn_wheel.compiler:
        pytest.skip(f"installed is {qnn_wheel.compiler}, shipped are answers of {shipped.compiler}")
    choose = random.Random(0)
    refused = [probe for probe, reason in shipped.answers.items() if reason]
    accepted = [probe for probe, reason in shipped.answers.items() if not reason]
    some = [*choose.sample(refused, 10), *choose.sample(accepted, 10)]
    table = refresh(OLD, silent, {probe: ASKED[probe] for probe in some})
    assert table.answers == {probe: shipped.answers[probe] for probe in some}


def test_the_shipped_table_answers_every_probe_of_this_version() -> None:
    assert set(read_tables(SHIPPED)[OLD.soc_model].answers) == set(ASKED)


# What the worker does is played by a script that does to each probe what `deeds` says.
WORKER = """
import json, os, sys, time
job, deeds = json.loads(open(sys.argv[1]).read()), json.loads(sys.argv[2])
for graph in job["graphs"]:
    deed = deeds.get(graph["probe"][0], "")
    if deed == "crash":
        os.abort()
    if deed == "hang":
        time.sleep(60)
    if deed == "fail":
        sys.exit("the library is broken")
    with open(job["answers"], "a") as file:
        file.write(json.dumps({"probe": graph["probe"], "reason": deed}) + "\\n")
"""
Play = Callable[..., None]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Replace the worker; its deeds are given by operator, "" is to accept."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    wheel = Wheel(version="0", sdk="0", library=tmp_path, backend=tmp_path)
    monkeypatch.setattr(oracle, "require_wheel", lambda: wheel)
    real = oracle.write_job

    def act(**deeds: str) -> None:
        def write_job(job, folder):
            file, _, environment = real(job, folder)
            return file, [sys.executable, str(script), str(file), json.dumps(deeds)], environment

        monkeypatch.setattr(oracle, "write_job", write_job)

    return act


FOUR = {
    probe: ASKED[probe]
    for probe in (Probe(op=o, variant="", rank=3, precision="a16") for o in ("Relu", "Erf", "Abs"))
} | {matmul("w8a16"): ASKED[matmul("w8a16")]}


def by_op(answers) -> dict[str, str]:
    return {probe.op: reason for probe, reason in answers.items()}


def test_a_crash_costs_one_probe(play: Play) -> None:
    play(Erf="crash", Abs="no such operator")
    heard: list[tuple[int, int]] = []
    table = refresh(OLD, lambda done, total: heard.append((done, total)), FOUR)
    assert by_op(table.answers) == {
        "Relu": "",
        "Erf": "the compiler crashed (signal 6)",
        "Abs": "no such operator",
        "MatMul": "",
    }
    assert heard[-1] == (4, 4)
    assert heard == sorted(heard)


def test_a_probe_without_an_answer_costs_only_itself(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle, "_PATIENCE_S", 1.0)
    play(Erf="hang")
    answers = by_op(refresh(OLD, silent, FOUR).answers)
    assert answers["Erf"] == "no answer after 1 s"
    assert answers["MatMul"] == answers["Abs"] == ""


def test_a_broken_library_is_no_refusal(play: Play) -> None:
    play(Relu="fail")
    with pytest.raises(UserError, match="oracle: the library is broken"):
        refresh(OLD, silent, FOUR)


def test_a_compiler_that_only_crashes_is_given_up(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle, "_CRASHES", 2)
    play(Relu="crash", Erf="crash", Abs="crash", MatMul="crash")
    with pytest.raises(UserError, match="crashed .* 3 times in a row"):
        refresh(OLD, silent, FOUR)


def interrupt(done: int, total: int) -> None:
    if done:
        raise KeyboardInterrupt


def test_an_interrupted_refresh_goes_on(play: Play) -> None:
    play(Relu="said the first time", Erf="hang")
    with pytest.raises(KeyboardInterrupt):
        refresh(OLD, interrupt, FOUR)
    play(Relu="said the second time")
    assert by_op(refresh(OLD, silent, FOUR).answers)["Relu"] == "said the first time"


def test_answers_of_another_compiler_are_asked_again(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    play(Relu="said by the old one")
    refresh(OLD, silent, FOUR)
    newer = Wheel(version="1", sdk="1", library=tmp_path, backend=tmp_path)
    monkeypatch.setattr(oracle, "require_wheel", lambda: newer)
    play(Relu="said by the new one")
    assert by_op(refresh(OLD, silent, FOUR).answers)["Relu"] == "said by the new one"


def test_a_line_cut_short_is_asked_again(play: Play) -> None:
    play()
    refresh(OLD, silent, FOUR)
    journal = user_file(OLD.soc_model, ".jsonl")
    journal.write_text(journal.read_text()[:-9])
    play(MatMul="asked again")
    assert by_op(refresh(OLD, silent, FOUR).answers)["MatMul"] == "asked again"


def test_a_saved_table_is_the_users_and_leaves_no_journal(play: Play, cache: Path) -> None:
    play(Erf="no")
    table = refresh(OLD, silent, FOUR)
    path = save(table)
    assert [file.name for file in (cache / "autoneural").iterdir()] == [path.name]
    assert load_table(OLD.soc_model).answers == table.answers


def test_a_table_joins_those_of_other_chips(play: Play, tmp_path: Path) -> None:
    play()
    output = tmp_path / "tables.json"
    for chip in (OLD, NEW):
        save(refresh(chip, silent, FOUR), output)
    assert set(read_tables(output)) == {OLD.soc_model, NEW.soc_model}
    assert not user_file(OLD.soc_model).exists()


@pytest.mark.parametrize("place", ["none/table.json", "damaged.json", "."])
def test_an_output_that_cannot_be_written_is_told_before_the_work(
    place: str, tmp_path: Path, qnn_wheel: Wheel, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "damaged.json").write_text("{}")
    arguments = ["oracle", "--refresh", "--output", str(tmp_path / place)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error
    assert error.count("\n") == 1
    assert not user_file(OLD.soc_model, ".jsonl").exists()


LOG = """
[V] Validating Op Config Gelu.0.
[V] <E> [1] trying something first.
[V] Validation PASSED for 1 nodes in OrtNodeUnit (Gelu) :
[V] Validating Op Config MatMul.2.
[V] <E> [4294967295] has incorrect Value 68, expected >= 73.
[V] <E> QnnBackend_validateOpConfig failed 3110
[W] QNN.backendValidateOpConfig() failed for node `MatMul.2` of type `FullyConnected` with 3110
[V] Validation FAILED for 4 nodes in OrtNodeUnit (MatMul) :
    REASON : Failed to add fused Matmul node.
"""
TYPES = """
[V] <E> Unsupported input/output datatypes requested for the HTP Op 'LayerNorm' in the node 'L.3'. \
There is a mismatch for the combination of inputs and outputs.
[V] <E> Requested I/O datatype set:
   in[0]:QNN_DATATYPE_UFIXED_POINT_8
   in[1]:QNN_DATATYPE_SFIXED_POINT_8
   in[2]: (optional)
   out[0]:QNN_DATATYPE_UFIXED_POINT_8
[V] <E> Supported I/O datatype sets for the configuration: FP16
   in[0]:QNN_DATATYPE_FLOAT_16
[W] failed for node `L.3` of type `LayerNorm` with error code 3110
    REASON : Failed to add node.
"""


def test_the_first_complaint_about_a_refused_node_is_its_reason() -> None:
    assert refusal(LOG) == (
        "FullyConnected: has incorrect Value 68, expected >= 73 (the HTP version)"
    )


def test_types_that_do_not_go_together_are_listed() -> None:
    assert refusal(TYPES) == (
        "Unsupported input/output datatypes requested for the HTP Op 'LayerNorm': "
        "UFIXED_POINT_8, SFIXED_POINT_8 -> UFIXED_POINT_8"
    )


def test_without_a_complaint_the_provider_has_the_word() -> None:
    log = "REASON : Operators of type `Erf` are not supported by QNN EP.Erf node `Erf.1` will not "
    assert refusal(f"{log}be assigned to QNN EP.") == (
        "Operators of type `Erf` are not supported by QNN EP."
    )
    assert refusal("[V] Validation PASSED for 1 nodes") == ""


def test_probes_are_all_different() -> None:
    total = sum(len(form.precisions) for form in oracle.forms())
    assert len(ASKED) == total
    assert replace(matmul("w8a16"), precision="w16a16") in ASKED
