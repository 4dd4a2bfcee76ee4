"""The chips we know: how they are found, and what `autoneural chips` says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoneural.cli import main
from autoneural.errors import UserError
from autoneural.target.chips import CHIPS, DEFAULT_CHIP, find_chip

SIX = ("SA8295P", "SA8255P", "SA8775P", "SM8650", "SM8750", "X Elite")


@pytest.fixture(autouse=True)
def no_tables_of_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("name", ["SA8295P", "sa8295p", " SA-8295 P"])
def test_a_name_is_found_however_it_is_written(name: str) -> None:
    assert find_chip(name).soc_model == 39


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(UserError, match=r"no chip called 'SA8295'; one of SA8295P, .*X2 Elite"):
        find_chip("SA8295")


def test_names_and_keys_are_told_apart() -> None:
    assert len({chip.key for chip in CHIPS}) == len(CHIPS)
    assert find_chip("X Elite").target == "htp/X-Elite"
    assert find_chip(DEFAULT_CHIP).generation == "v68"


def test_chips_of_one_soc_model_share_a_binary() -> None:
    shared = {name: find_chip(name) for name in ("SA8255P", "SA8775P", "SA8650P")}
    assert {chip.soc_model for chip in shared.values()} == {52}
    assert {chip.htp for chip in shared.values()} == {73}


def test_chips_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chips", "--json"]) == 0
    chips = {chip["name"]: chip for chip in json.loads(capsys.readouterr().out)}
    assert set(SIX) <= set(chips)
    old, new = chips["SA8295P"], chips["SA8775P"]
    assert (old["htp"], old["soc_model"], old["vtcm_mb"]) == ("v68", 39, 8)
    assert {"w4a16", "w8a16", "w8a8"} <= set(old["precisions"])
    assert "w16a16" not in old["precisions"]
    assert "w16a16" in new["precisions"]
    assert all(chip["source"] for chip in chips.values())


def test_chips_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chips"]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("SA8295P"))
    assert row.split()[:4] == ["SA8295P", "v68", "39", "8"]
    assert "W4A16 W8A16 W8A8" in row
    assert "QNN 2." in printed
    assert "qai-hub-models" in printed


@pytest.mark.parametrize("verb", ["oracle", "compile"])
def test_a_wrong_chip_is_one_line(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["cockpit-tiny", "-o", "x"] if verb == "compile" else []
    assert main([verb, *arguments, "--chip", "SA9999"]) == 2
    error = capsys.readouterr().err
    assert "no chip called 'SA9999'" in error
    assert error.count("\n") == 1
