"""`autoneural tune`: which count is best, and that it is kept where engines look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoneural.bench import tuning
from autoneural.bench.tuning import best, counts
from autoneural.bundle import Bundle
from autoneural.cli import main
from autoneural.manifest import Role
from autoneural.runtime.threads import read_threads


def times(
    decode: tuple[float, float], prefill: tuple[float, float]
) -> dict[Role, dict[int, float]]:
    return {"decode": dict(enumerate(decode, 1)), "prefill": dict(enumerate(prefill, 1))}


@pytest.mark.parametrize(
    ("decode", "prefill", "roles", "expected"),
    [
        ((1.0, 2.0), (9.0, 5.0), ("decode",), 1),
        ((1.0, 2.0), (9.0, 5.0), ("prefill",), 2),
        ((1.0, 1.02), (9.0, 5.0), ("decode",), 2),  # within the error: as usual
        ((1.0, 2.0), (9.0, 5.0), ("prefill", "decode"), 1),  # 128 of the one, 4 of the other
        ((1.0, 1.1), (50.0, 5.0), ("prefill", "decode"), 2),
    ],
)
def test_the_least_time_of_what_shares_a_file(
    decode: tuple[float, float],
    prefill: tuple[float, float],
    roles: tuple[Role, ...],
    expected: int,
) -> None:
    assert best(times(decode, prefill), roles, 128, 2) == expected


@pytest.mark.parametrize(
    ("cores", "processors", "expected"),
    [(1, 1, [1]), (2, 2, [1, 2]), (6, 12, [1, 3, 6, 12]), (8, 8, [1, 2, 4, 8])],
)
def test_counts_are_cores_halves_of_them_and_all_processors(
    monkeypatch: pytest.MonkeyPatch, cores: int, processors: int, expected: list[int]
) -> None:
    monkeypatch.setattr(tuning, "physical_cores", lambda: cores)
    monkeypatch.setattr(tuning, "usable_processors", lambda: processors)
    assert counts() == expected


def test_the_command_measures_every_graph_and_keeps_what_it_found(
    tiny_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuning, "_SECONDS", 0.0)
    folder = str(tiny_bundle.folder)
    assert main(["tune", folder, "--target", "float", "--busy", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    roles = {graph.role for graph in tiny_bundle.target("float").graphs}
    assert report["milliseconds"].keys() == roles
    assert all(ms > 0 for row in report["milliseconds"].values() for ms in row.values())
    assert read_threads(tiny_bundle, "float") == report["threads"]
    assert report["threads"].keys() == {g.file for g in tiny_bundle.target("float").graphs}
    assert main(["tune", folder, "--target", "float", "--busy"]) == 0
    out = capsys.readouterr().out
    assert report["kept"] in out
    assert all(file in out for file in report["threads"])


def test_a_bundle_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "nowhere", "--busy"]) == 2
    assert "nowhere" in capsys.readouterr().err
