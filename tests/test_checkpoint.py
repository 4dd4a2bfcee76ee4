import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from autoneural.checkpoint import (
    find_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    weights_hash,
)
from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from tests.conftest import TinyCheckpoint


@pytest.fixture
def saved(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> Path:
    model = tiny_checkpoint.model
    recipe = {"seed": 4, "parent": None}
    return save_checkpoint(tmp_path / "made", model, model.config, tiny_checkpoint.folder, recipe)


def test_round_trip_keeps_everything_and_stores_bf16(
    tiny_checkpoint: TinyCheckpoint, saved: Path
) -> None:
    config, state, recipe, encodings = load_checkpoint(saved)
    assert config == tiny_checkpoint.model.config
    assert recipe == {"seed": 4, "parent": None}
    assert encodings is None
    expected = tiny_checkpoint.model.state_dict()
    assert all(torch.equal(state[name], expected[name].bfloat16()) for name in state)
    model = VLM(config)
    load_weights(model, state, saved)
    again = model.state_dict()
    assert all(torch.equal(again[n], expected[n].bfloat16().float()) for n in expected)
    assert sorted(p.name for p in saved.parent.iterdir()) == ["made"]


def test_quantised_tensors_keep_their_types(tiny_config: ModelConfig, saved: Path) -> None:
    tensors = {"a.weight": torch.ones(2, dtype=torch.int8), "a.weight_scale": torch.ones(2) / 3}
    folder = save_checkpoint(saved, tensors, tiny_config, saved, {}, {"version": 1})
    loaded = load_checkpoint(folder)
    assert loaded.encodings == {"version": 1}
    assert loaded.state_dict["a.weight"].dtype == torch.int8
    assert torch.equal(loaded.state_dict["a.weight_scale"], tensors["a.weight_scale"])


def test_failed_save_keeps_the_old_checkpoint(
    tiny_checkpoint: TinyCheckpoint, saved: Path, tmp_path: Path
) -> None:
    before = weights_hash(saved)
    with pytest.raises(UserError, match=r"tokenizer\.json is missing"):
        save_checkpoint(saved, {}, tiny_checkpoint.model.config, tmp_path / "none", {})
    assert weights_hash(saved) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made"]


def test_foreign_folder_is_not_overwritten(tiny_config: ModelConfig, saved: Path) -> None:
    (saved / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds thesis\.tex"):
        save_checkpoint(saved, {}, tiny_config, saved, {})
    assert (saved / "thesis.tex").exists()


def _flip_header(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[20] ^= 0xFF
    (folder / "model.safetensors").write_bytes(data)


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _newer_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text"]["experts"] = 8
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip_header, r"model\.safetensors: damaged"),
        (_truncate, r"model\.safetensors: damaged"),
        (_newer_config, r"config\.json: model config: .*experts"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json: damaged"),
        (lambda f: (f / "recipe.json").write_text("[]"), r"recipe\.json: damaged"),
        (lambda f: (f / "config.json").unlink(), r"not a checkpoint, config\.json is missing"),
        (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
    ],
)
def test_damaged_checkpoint_is_refused_in_one_line(
    saved: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(saved)
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)
    assert str(saved) in str(caught.value)


def test_missing_checkpoint_names_both_places() -> None:
    with pytest.raises(UserError, match="nowhere: no such checkpoint folder"):
        find_checkpoint("nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("projector.linear_1.bias"), r"missing tensors: projector\.linear_1\.bias"),
        (lambda s: s.update(extra=torch.ones(1)), "unknown tensors: extra"),
        (
            lambda s: s.update({"projector.linear_1.bias": torch.ones(7)}),
            r"wrong shapes: projector\.linear_1\.bias is \[7\], not \[32\]",
        ),
    ],
)
def test_wrong_tensors_are_named(
    saved: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    checkpoint = load_checkpoint(saved)
    change(checkpoint.state_dict)
    with pytest.raises(UserError, match=message):
        load_weights(VLM(checkpoint.config), checkpoint.state_dict, saved)


def test_parent_hash_follows_the_weights(saved: Path) -> None:
    before = weights_hash(saved)
    path = saved / "model.safetensors"
    tensors = load_file(path)
    tensors["projector.linear_1.bias"] += 1
    save_file(tensors, path)
    assert weights_hash(saved) != before
