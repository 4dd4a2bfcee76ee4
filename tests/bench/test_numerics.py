"""`bench numerics` on a model of a few layers: what it measures, and its two ways of printing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from autoneural import recipes
from autoneural.bench.numerics import ENDS, MEASURES, measure_numerics, print_numerics
from autoneural.cli import main
from autoneural.compress.quantize import Sample, post_training_quantize
from autoneural.errors import UserError
from autoneural.target.chips import find_chip
from tests.conftest import TinyCheckpoint

CHIPS = [find_chip("SA8295P"), find_chip("SA8775P")]
FIGURES = {"worst", "median", *ENDS}


def sample(seed: int) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.cat((torch.full((4,), 3), torch.randint(10, 300, (8,), generator=generator)))
    pixels = torch.randint(0, 256, (1, 3, 64, 64), generator=generator)
    return Sample(input_ids_BT=ids[None], pixels_BCHW=pixels.to(torch.uint8), image_token_id=3)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [sample(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def report(tiny_checkpoint: TinyCheckpoint, samples: list[Sample]) -> dict:
    return measure_numerics(tiny_checkpoint.folder, samples, CHIPS, progress=lambda line: None)


def figures(report: dict, measure: str, chip: str | None, against: str = "qdq") -> dict:
    (row,) = (r for r in report["rows"] if (r["measure"], r["chip"]) == (measure, chip))
    return row[against]


def test_there_is_a_row_per_measure_and_chip(report: dict) -> None:
    names = [chip.name for chip in CHIPS]
    expected = [(m.name, chip) for m in MEASURES for chip in (None, *names)]
    assert [(row["measure"], row["chip"]) for row in report["rows"]] == expected
    assert report["samples"] == report["compared"] == 3
    for row in report["rows"]:
        assert row["float"].keys() == FIGURES
        assert (row["qdq"] is None) == (row["chip"] is None)
        assert row["float"]["worst"] <= row["float"]["median"]


def test_counter_measures_bring_the_chip_closer(report: dict) -> None:
    for chip, least in zip(CHIPS, (1.0, -1.0), strict=True):  # v73 has next to no offset to cancel
        plain = figures(report, "none", chip.name)
        for how in ("by a bias", "by an Add"):
            cancelled = figures(report, f"offset cancelled {how}", chip.name)
            assert cancelled["median"] > plain["median"] + least
    old, new = (figures(report, "none", chip.name) for chip in CHIPS)
    assert old["median"] < new["median"]
    snapped = figures(report, "scales snapped", CHIPS[0].name)
    assert snapped["image_features"] > old["image_features"]


def test_snapping_costs_nothing_where_it_is_not_needed(report: dict) -> None:
    plain, snapped = (figures(report, m, None, "float") for m in ("none", "scales snapped"))
    assert abs(plain["median"] - snapped["median"]) < 0.2


def test_tables_and_json(report: dict) -> None:
    console = Console(width=200)
    with console.capture() as captured:
        print_numerics(report, console)
    text = captured.get()
    for title in ("as ONNX defines it", "as SA8295P (v68) computes it", "as SA8775P (v73)"):
        assert title in text
    assert all(measure.name in text for measure in MEASURES)
    assert json.loads(json.dumps(report)) == report


def test_the_command_prints_json(
    tiny_checkpoint: TinyCheckpoint,
    samples: list[Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recipes, "calibration_samples", lambda *_: samples[:1])
    command = ["bench", "numerics", str(tiny_checkpoint.folder), "--data", str(tmp_path)]
    assert main([*command, "--chip", "sa8295p", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["chip"] for row in rows} == {None, "SA8295P"}


def test_a_quantised_checkpoint_is_refused(
    tiny_checkpoint: TinyCheckpoint, samples: list[Sample], tmp_path: Path
) -> None:
    post_training_quantize(tiny_checkpoint.folder, samples[:1], tmp_path / "int", compared=1)
    with pytest.raises(UserError, match="is quantised already"):
        measure_numerics(tmp_path / "int", samples, CHIPS, progress=lambda line: None)
