from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autoneural.data.dataset import Mixture
from autoneural.data.importers import open_source
from autoneural.data.loader import Batch, BatchStream
from autoneural.data.processor import Processor
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.train.curriculum import Stage
from autoneural.train.engine import accumulate
from autoneural.train.features import FeatureCache, check_frozen
from autoneural.train.objectives import LanguageObjective

ALIGN = Stage(
    name="align",
    train=("projector",),
    mixture={"demo": 1.0},
    steps=2,
    batch_size=4,
    lr={"projector": 1e-3},
)


@pytest.fixture
def batch(processor: Processor, rows_folder: Path) -> Batch:
    mixture = Mixture.of([(open_source(rows_folder / "train.jsonl"), 1.0)])
    return BatchStream(mixture=mixture, processor=processor, batch_size=4).batch(0)


@pytest.fixture
def looks(model: VLM) -> list[int]:
    """Pictures given to the encoder, call by call."""
    counts: list[int] = []
    model.vision_encoder.register_forward_pre_hook(lambda _, args: counts.append(len(args[0])))
    return counts


def tokens_of(folder: Path, model: VLM, batch: Batch, tell: object = None) -> Tensor:
    return FeatureCache(folder, model, tell).see(batch.pixel_values).tokens_BNC


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_loss_and_gradient_are_those_without_it(
    model: VLM, processor: Processor, batch: Batch, tmp_path: Path, precision: str
) -> None:
    model.vision_encoder.requires_grad_(False)
    found: list[tuple[float, Tensor]] = []
    for see in (None, FeatureCache(tmp_path, model).see, FeatureCache(tmp_path, model).see):
        model.zero_grad()
        objective = LanguageObjective(processor.tokenizer.image_id, see)
        loss = accumulate(model, objective, [batch], precision)
        found.append((loss, model.projector.linear_1.weight.grad.clone()))
    plain, wanted = found[0]
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(plain, rel=1e-6 if precision == "fp32" else 1e-2)
        off = (gradient - wanted).norm() / wanted.norm()
        assert off < (1e-5 if precision == "fp32" else 0.05)
    assert found[1][0] == found[2][0]


def test_a_picture_is_looked_at_once(
    model: VLM, batch: Batch, looks: list[int], tmp_path: Path
) -> None:
    first = tokens_of(tmp_path, model, batch)
    assert looks == [4]
    assert torch.equal(tokens_of(tmp_path, model, batch), first)
    assert looks == [4]
    batch.pixel_values[1, 0, 0, 0] += 1
    tokens_of(tmp_path, model, batch)
    assert looks == [4, 1]


def test_other_weights_or_arithmetic_have_files_of_their_own(
    model: VLM, batch: Batch, looks: list[int], tmp_path: Path
) -> None:
    before = tokens_of(tmp_path, model, batch)
    with torch.no_grad():
        next(model.vision_encoder.parameters()).mul_(1.5)
    assert not torch.equal(tokens_of(tmp_path, model, batch), before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens_of(tmp_path, model, batch)
    assert looks == [4, 4, 4]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_is_made_again_with_one_line(
    model: VLM, batch: Batch, looks: list[int], tmp_path: Path, damage: str
) -> None:
    whole = tokens_of(tmp_path, model, batch)
    path = sorted(tmp_path.rglob("*.safetensors"))[0]
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    path.write_bytes({"cut": data[:-5], "flipped": data, "empty": b""}[damage])
    told: list[str] = []
    again = tokens_of(tmp_path, model, batch, told.append)
    assert told == [f"features: {path}: damaged, made again"]
    assert looks == [4, 1]
    assert torch.equal(tokens_of(tmp_path, model, batch, told.append), again)
    assert len(told) == 1
    # One picture by itself and one of four may differ in their last bits.
    other = FeatureCache(tmp_path / "one by one", model)
    alone = torch.cat([other.see(one[None]).tokens_BNC for one in batch.pixel_values])
    changed = [not torch.equal(a, b) for a, b in zip(again, whole, strict=True)]
    assert sum(changed) <= 1
    for row, is_new in enumerate(changed):
        assert torch.equal(again[row], (alone if is_new else whole)[row])


def test_a_folder_that_cannot_be_written_is_refused(model: VLM, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.*: cannot be written"):
        FeatureCache(tmp_path / "file" / "features", model)


def test_stages_that_change_what_is_seen_are_refused() -> None:
    check_frozen(ALIGN)
    with pytest.raises(UserError, match="stage align trains the vision encoder"):
        check_frozen(replace(ALIGN, train=("projector", "vision_encoder.msfa")))
    with pytest.raises(UserError, match=r"every picture; --set stages\.align\.jitter=0"):
        check_frozen(replace(ALIGN, jitter=0.1))
