"""`bench twins`: two untrained encoders, every precision, two generations of chips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from autoneural import recipes
from autoneural.bench import held_out, perplexity
from autoneural.bench.twins import PRECISION, load_encoder, measure_twins, print_twins
from autoneural.checkpoint import save_checkpoint
from autoneural.cli import main
from autoneural.compress.quantize import Sample
from autoneural.config import ModelConfig, ViTConfig
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.target.chips import find_chip
from tests.conftest import TinyCheckpoint

CHIPS = [find_chip("SA8295P"), find_chip("SA8775P")]


def sample(seed: int, pictures: int = 1) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (pictures, 3, 64, 64), generator=generator).to(torch.uint8)
    ids = torch.ones(1, 8, dtype=torch.long)
    return Sample(input_ids_BT=ids, pixels_BCHW=pixels if pictures else None, image_token_id=3)


@pytest.fixture(scope="module")
def vit(
    tiny_config: ModelConfig,
    tiny_checkpoint: TinyCheckpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A ViT of random weights in place of the tiny CNN."""
    torch.manual_seed(0)
    vision = ViTConfig(
        image_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    config = replace(tiny_config, vision=vision)
    folder = tmp_path_factory.mktemp("vit")
    tiny_checkpoint.tokenizer.save(folder / "tokenizer")
    save_checkpoint(folder / "vit", VLM(config), config, folder / "tokenizer", {"seed": 0})
    return folder / "vit"


@pytest.fixture(scope="module")
def report(tiny_checkpoint: TinyCheckpoint, vit: Path) -> dict[str, Any]:
    both = ([sample(0), sample(1, 2)], [sample(2), sample(3)])
    folders = {"CNN": tiny_checkpoint.folder, "ViT": vit}
    encoders = {name: load_encoder(folder, *both) for name, folder in folders.items()}
    return measure_twins(encoders, CHIPS)


def figure(report: dict[str, Any], encoder: str, precision: str, chip: str | None = None) -> Any:
    wanted = (encoder, precision, chip)
    (row,) = (r for r in report["rows"] if (r["encoder"], r["precision"], r["chip"]) == wanted)
    return row


def test_the_more_bits_the_less_error(report: dict[str, Any]) -> None:
    for encoder in ("CNN", "ViT"):
        ceiling, wide, weights, narrow = (
            figure(report, encoder, name)["sqnr_db"]
            for name in (next(iter(PRECISION)), "W8A16", "W4A16", "W8A8")
        )
        assert ceiling + 0.5 > wide > max(weights, narrow)
        assert ceiling < 80


def test_old_chips_lose_more_than_new_ones(report: dict[str, Any]) -> None:
    for encoder in ("CNN", "ViT"):
        plain = figure(report, encoder, "W8A16")["sqnr_db"]
        old, new = (figure(report, encoder, "W8A16", c.name)["sqnr_db"] for c in CHIPS)
        assert old <= new + 0.1 <= plain + 0.2


def test_a_chip_whose_arithmetic_is_not_known_says_so(report: dict[str, Any]) -> None:
    row = figure(report, "CNN", "W8A8", "SA8295P")
    assert row["sqnr_db"] is row["rms_error"] is None
    assert "8-bit input; how chips compute is not known" in row["why"]


def test_layers_are_named_and_tables_print(report: dict[str, Any]) -> None:
    worst = figure(report, "ViT", "W8A16")["worst"]
    assert len(worst) == 3
    assert worst[0]["lost_db"] >= worst[1]["lost_db"]
    assert worst[0]["layer"].startswith(("vision_encoder.", "projector."))
    console = Console(width=160)
    with console.capture() as captured:
        print_twins(report, console)
    text = captured.get()
    assert "ratio of RMS" in text
    assert f"ViT, W8A16, ONNX: most is lost in {worst[0]['layer']}" in text
    assert "2 held-out pictures" in text


def test_the_command_prints_json(
    tiny_checkpoint: TinyCheckpoint,
    vit: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(held_out, "held_out_rows", lambda *_: [])
    monkeypatch.setattr(perplexity, "row_samples", lambda *_: [sample(2)])
    monkeypatch.setattr(recipes, "calibration_samples", lambda *_: [sample(0)])
    command = ["bench", "twins", str(tiny_checkpoint.folder), str(vit), "--data", "x"]
    command += ["--chips", "sa8295p", "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rounding"] == "compensated"
    assert main([*command, "--rounding", "sequential"]) == 0
    best = json.loads(capsys.readouterr().out)
    wide, better = (figure(found, "CNN", "W4A16"), figure(best, "CNN", "W4A16"))
    assert better["sqnr_db"] != wide["sqnr_db"]
    assert {row["chip"] for row in found["rows"]} == {None, "SA8295P"}
    assert found["encoders"]["ViT"] == str(vit)


def test_samples_without_a_picture_are_refused(tiny_checkpoint: TinyCheckpoint) -> None:
    with pytest.raises(UserError, match="no picture among the samples"):
        load_encoder(tiny_checkpoint.folder, [sample(0)], [sample(1, 0)])
