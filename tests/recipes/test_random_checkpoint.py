"""Random checkpoints of a preset: whole, cut, and with outliers that change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autoneural.checkpoint import load_checkpoint, load_recipe
from autoneural.compress.derive import open_float
from autoneural.config import preset
from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError
from autoneural.recipes.random_checkpoint import GAIN, random_checkpoint

NORM = "language_model.model.layers.{}.{}.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first three layers (two convolutions, one attention), plain and with outliers."""
    folder = tmp_path_factory.mktemp("random")
    for name, outliers in (("plain", 0), ("loud", 2)):
        random_checkpoint("cockpit-tiny", folder / name, layers=3, outliers=outliers)
    return folder


def test_it_is_a_checkpoint_of_the_preset_cut(folder: Path) -> None:
    checkpoint = load_checkpoint(folder / "plain")
    whole = preset("cockpit-tiny")
    assert checkpoint.config.vision == whole.vision
    assert checkpoint.config.text.layer_types == whole.text.layer_types[:3]
    assert load_recipe(folder / "plain")["made_by"] == "autoneural init"
    assert Tokenizer.load(folder / "plain").vocab_size <= whole.text.vocab_size
    gains = checkpoint.state_dict[NORM.format(0, "ffn_norm")].float()
    assert 0.05 < gains.std() < 0.2  # equal ones would be merged


def test_outliers_are_there_and_change_nothing(folder: Path) -> None:
    plain, loud = (open_float(folder / name) for name in ("plain", "loud"))
    for layer in range(3):
        for norm in ("operator_norm", "ffn_norm"):
            name = NORM.format(layer, norm)
            ratio = loud.state_dict[name].float() / plain.state_dict[name].float()
            assert sorted(ratio.unique().tolist()) == [1.0, GAIN]
            assert int((ratio == GAIN).sum()) == 2
    ids = torch.arange(100, 120)[None]
    with torch.no_grad():
        expected, got = (source.model()(ids, None, 1) for source in (plain, loud))
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "gpt"}, "no preset 'gpt'; one of autoneural-1.5b"),
        ({"name": "cockpit-tiny", "layers": 99}, "--layers 99: cockpit-tiny has 6"),
        ({"name": "cockpit-tiny", "outliers": 257}, "--outliers 257: cockpit-tiny has 256"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        random_checkpoint(out=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
