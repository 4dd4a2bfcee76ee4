import pytest
import torch

from autoneural.model.vlm import VLM
from autoneural.train.curriculum import PARTS, Stage, select_trainable

pytest.importorskip("peft")

from autoneural.train.adapters import adaptable, add_adapters, merged

STAGE = Stage(
    name="s",
    train=PARTS,
    mixture={"demo": 1.0},
    steps=1,
    batch_size=1,
    lr=dict.fromkeys(PARTS, 1e-3),
)


def test_adapters_sit_on_every_linear_of_the_layers_and_on_nothing_else(model: VLM) -> None:
    names = {name.split(".", 4)[4] for name in adaptable(model)}
    attention = {f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")}
    feed_forward = {f"feed_forward.w{n}" for n in (1, 2, 3)}
    assert names == {"conv.in_proj", "conv.out_proj"} | attention | feed_forward


def test_adapters_train_in_the_place_of_their_part(model: VLM) -> None:
    add_adapters(model, 2)
    chosen = select_trainable(model, STAGE)
    text = [name for name in chosen if name.startswith("language_model")]
    assert len(text) == 2 * len(adaptable_before(model))
    assert all(".lora_" in name for name in text)
    assert any(name.startswith("vision_encoder") for name in chosen)
    nothing = Stage(**{**vars(STAGE), "train": ("projector",), "lr": {"projector": 1e-3}})
    assert not [name for name in select_trainable(model, nothing) if ".lora_" in name]


def adaptable_before(model: VLM) -> list[str]:
    return adaptable(VLM(model.config))


def test_merged_is_the_same_function_under_the_names_of_before(model: VLM) -> None:
    names, ids = set(model.state_dict()), torch.arange(9)[None]
    before = model(ids, None, 63)
    torch.manual_seed(0)
    add_adapters(model, 2)
    assert torch.equal(model(ids, None, 63), before)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    weights = merged(model)
    assert set(weights) == names
    plain = VLM(model.config)
    plain.load_state_dict(weights)
    after = model(ids, None, 63)
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(plain(ids, None, 63), after, rtol=1e-3, atol=1e-4)
