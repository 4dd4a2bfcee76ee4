"""The legality table: what ships, how it is asked, and a table of one's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autoneural.cli import main
from autoneural.errors import UserError
from autoneural.target.chips import CHIPS, find_chip
from autoneural.target.legality import OpUse, choices, headlines, legal, problems
from autoneural.target.legality_table import (
    SHIPPED,
    Probe,
    Table,
    load_table,
    read_tables,
    user_file,
    write_tables,
)

OLD, NEW = find_chip("SA8295P"), find_chip("SA8775P")
MATMUL = Probe(op="MatMul", variant="", rank=3, precision="w8a16")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def small_table(soc_model: int = 39, **answers: str) -> Table:
    """MatMul in W8A16, answered with `w8a16`, and in W4A16, accepted."""
    asked = {MATMUL: answers.get("w8a16", ""), replace(MATMUL, precision="w4a16"): ""}
    return Table(
        soc_model=soc_model, compiler="QNN 0", date="2026-01-01", source=SHIPPED, answers=asked
    )


def test_every_chip_was_asked_the_same_by_one_compiler() -> None:
    tables = read_tables(SHIPPED)
    assert set(tables) == {chip.soc_model for chip in CHIPS}
    assert len({table.compiler for table in tables.values()}) == 1
    assert len({frozenset(table.answers) for table in tables.values()}) == 1


def test_every_refusal_has_a_reason_and_no_probe_was_lost() -> None:
    for table in read_tables(SHIPPED).values():
        refused = [reason for reason in table.answers.values() if reason]
        assert 0 < len(refused) < len(table.answers)
        assert not [reason for reason in refused if "no answer after" in reason]


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_sixteen_bit_weights_need_v73(chip) -> None:
    assert legal(chip, "MatMul", "w16a16").accepted is (chip.htp >= 73)
    assert legal(chip, "Conv", "w16a16", variant="1x1", rank=4).accepted is (chip.htp >= 73)


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
@pytest.mark.parametrize("precision", ["w4a16", "w8a16", "w8a8", "w4a8"])
def test_per_channel_weights_are_legal_everywhere(chip, precision: str) -> None:
    assert legal(chip, "MatMul", precision, rank=3).accepted is True
    assert legal(chip, "Conv", precision, variant="depthwise", rank=4).accepted is True
    assert precision in headlines(chip)


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_what_no_chip_takes(chip) -> None:
    assert legal(chip, "Erf", "a16").accepted is False
    assert legal(chip, "Transpose", "a16", rank=6).accepted is False
    assert legal(chip, "Transpose", "a16", rank=5).accepted is True
    assert legal(chip, "Gelu", "a16", variant="tanh", rank=3).accepted is True


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
def test_a_signed_constant_beside_unsigned_activations_is_computed_in_float(op: str) -> None:
    assert legal(OLD, op, "u16a16", variant="vector", rank=4).accepted is True
    verdict = legal(OLD, op, "w16a16", variant="vector", rank=4)
    assert verdict.accepted is False
    assert "floating point" in verdict.reason


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_what_compiles_and_computes_something_else_is_refused(chip) -> None:
    for op in ("Sigmoid", "Tanh"):
        assert legal(chip, op, "a16", variant="", rank=3).accepted is True
        other = legal(chip, op, "a16", variant="other range", rank=3)
        assert other.accepted is False
        assert "something else" in other.reason
    assert legal(chip, "MatMul", "a16xa8", rank=4).accepted is True
    assert legal(chip, "MatMul", "a16xa8", rank=5).accepted is False


def test_a_reason_is_the_compilers_own() -> None:
    assert "68, expected >= 73" in legal(OLD, "MatMul", "w16a16").reason
    assert legal(NEW, "MatMul", "w16a16").reason == ""


def test_what_was_never_asked_is_neither_legal_nor_a_problem() -> None:
    assert legal(OLD, "Quux", "a16").accepted is None
    assert legal(OLD, "MatMul", "w3a16").accepted is None
    assert choices(OLD, "Quux") == ()
    assert problems(OLD, [OpUse(layer="x", op="Quux", precision="a16", rank=3)]) == []


def test_choices_are_those_of_the_form_asked_for() -> None:
    assert "w16a16" not in choices(OLD, "MatMul", rank=3)
    assert {"w4a16", "w8a16", "a16xa16"} <= set(choices(OLD, "MatMul", rank=3))
    assert "a16xa16" not in choices(OLD, "MatMul", variant="wide")
    assert "u16a16" in choices(OLD, "RMSNormalization", rank=4)
    assert choices(OLD, "RMSNormalization", rank=5) == ()


def test_a_problem_names_the_layer_the_reason_and_the_choices() -> None:
    uses = [
        OpUse(layer="layers.0.in_proj", op="MatMul", precision="w16a16", rank=3),
        OpUse(layer="layers.0.out_proj", op="MatMul", precision="w4a16", rank=3),
    ]
    (problem,) = problems(OLD, uses)
    assert problem.layer == "layers.0.in_proj"
    assert problem.choices == ("w4a8", "w4a16", "w8a8", "w8a16")
    line = str(problem)
    assert line.startswith("layers.0.in_proj: MatMul in w16a16 is refused on SA8295P (")
    assert line.endswith("legal there: w4a8, w4a16, w8a8, w8a16")
    assert problems(NEW, uses) == []


def test_blocks_with_free_scales_are_refused_and_those_of_sixteenths_offered() -> None:
    for chip in (OLD, NEW):
        use = OpUse(layer="x", op="MatMul", precision="w4a16/block64", rank=3)
        (problem,) = problems(chip, [use])
        assert {"w4a16", "w4a16/lpbq64"} <= set(problem.choices)
        assert "w4a16/tensor" not in problem.choices


def test_a_problem_without_a_way_out_says_so() -> None:
    (problem,) = problems(OLD, [OpUse(layer="x", op="Erf", precision="a16", rank=3)])
    assert "none: write it with other operators" in str(problem)


def test_tables_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_tables(path, [small_table(52), small_table(39, w8a16="no such thing")])
    tables = read_tables(path)
    assert list(tables) == [39, 52]
    assert tables[39].answers == small_table(39, w8a16="no such thing").answers
    assert tables[52].answers == small_table().answers
    assert sum("MatMul" in line for line in path.read_text().splitlines()) == 2


def test_ones_own_table_comes_before_the_shipped_one(cache: Path) -> None:
    write_tables(user_file(39), [small_table(w8a16="not any more")])
    assert user_file(39).is_relative_to(cache)
    assert legal(OLD, "MatMul", "w8a16").reason == "not any more"
    assert legal(NEW, "MatMul", "w8a16").accepted is True
    user_file(39).unlink()
    assert legal(OLD, "MatMul", "w8a16").accepted is True


@pytest.mark.parametrize("text", ["", "[]", '{"format": 0}', '{"format": 1, "compilers": {}}'])
def test_a_damaged_table_is_one_line(text: str) -> None:
    user_file(39).parent.mkdir(parents=True)
    user_file(39).write_text(text)
    with pytest.raises(UserError, match=r"legality-39.json: not a legality table"):
        load_table(39)


def test_a_chip_that_the_table_lacks_is_one_line() -> None:
    write_tables(user_file(39), [small_table(52)])
    with pytest.raises(UserError, match="nothing about soc_model 39"):
        load_table(39)


def test_oracle_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["oracle", "--chip", "sm8750", "--op", "erf", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["chip"], found["soc_model"]) == ("SM8750", 69)
    assert found["compiler"].startswith("QNN 2.")
    assert {probe["op"] for probe in found["probes"]} == {"Erf"}
    assert {probe["accepted"] for probe in found["probes"]} == {False}
    assert all("Erf" in probe["reason"] for probe in found["probes"])


def test_oracle_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["oracle", "--op", "MatMul"]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    precisions = lines[1].split()[1:]
    row = next(line for line in lines if line.startswith("MatMul r2,3,4")).split()[2:]
    cells = dict(zip(precisions, " ".join(row).replace("no ", "no").split(), strict=True))
    assert (cells["w4a16"], cells["w16a16"][:2]) == ("yes", "no")
    assert "expected >= 73" in printed
    assert "SA8295P (v68, soc_model 39)" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--op", "Quux"], "--op Quux: not in the table; one of Abs, "),
        (["--output", "x.json"], "--output goes with --refresh"),
    ],
)
def test_oracle_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["oracle", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_refresh_without_the_wheel_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoneural.runtime.qnn.find_wheel", lambda: None)
    assert main(["oracle", "--refresh"]) == 2
    error = capsys.readouterr().err
    assert "this needs onnxruntime-qnn" in error
    assert error.count("\n") == 1
