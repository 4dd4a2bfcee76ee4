"""Folders of others as checkpoints: the same numbers, and the same names at the released sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import Lfm2Config, Lfm2ForCausalLM

from autoneural.checkpoint import load_checkpoint, load_config, load_recipe
from autoneural.config import TextConfig
from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError
from autoneural.hub import importers
from autoneural.hub.importers import import_folder
from autoneural.hub.lfm2 import intermediate_size, text_config
from autoneural.hub.reading import Fields
from autoneural.model.language_model import LanguageModel
from autoneural.model.state import DecoderState
from autoneural.model.vision_encoder import MobileNetV5
from autoneural.model.vlm import num_parameters
from autoneural.parts import PartConfig
from autoneural.show import facts

HERE = Path("config.json")
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": 'What is "red" & <fast>?\n  Ünïcode'},
    {"role": "assistant", "content": "A car."},
    {"role": "user", "content": "Why?"},
]
TOOLS = [{"name": "open_door", "parameters": {"side": "left ü"}}]


def parts(messages: list[dict]) -> list[dict]:
    return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]


def imported(folder: Path, out: Path) -> LanguageModel:
    import_folder(str(folder), out)
    config = load_config(out)
    assert isinstance(config, PartConfig)
    assert isinstance(config.config, TextConfig)
    model = LanguageModel(config.config).eval()
    tensors = load_file(out / "model.safetensors")
    model.load_state_dict({k.removeprefix("language_model."): v for k, v in tensors.items()})
    return model


@pytest.fixture(scope="module")
def language(lfm2: SimpleNamespace, tmp_path_factory) -> SimpleNamespace:
    out = tmp_path_factory.mktemp("imported") / "lfm2"
    return SimpleNamespace(model=imported(lfm2.folder, out), folder=out)


@torch.no_grad()
def test_logits_equal_transformers(lfm2: SimpleNamespace, language: SimpleNamespace) -> None:
    ids = torch.randint(0, 330, (2, 24), generator=torch.Generator().manual_seed(1))
    expected = lfm2.model(ids).logits
    actual = language.model.lm_head(language.model(language.model.model.embed_tokens(ids)))
    assert float((actual - expected).norm() / expected.norm()) < 1e-4


@torch.no_grad()
def test_greedy_tokens_equal_transformers(lfm2: SimpleNamespace, language: SimpleNamespace) -> None:
    ids = torch.tensor([[1, 6, 40, 41, 42, 43]])
    generated = lfm2.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=20,
        eos_token_id=-1,
    )
    model, tokens = language.model, ids[0].tolist()
    state = DecoderState.zeros(model.config, 1, 64)
    hidden = model.extend(model.model.embed_tokens(ids), state, 0, ids.shape[1])
    for position in range(ids.shape[1], ids.shape[1] + 20):
        tokens.append(int(model.lm_head(hidden[:, -1]).argmax()))
        hidden = model.extend(
            model.model.embed_tokens(torch.tensor([tokens[-1:]])), state, position, 1
        )
    assert tokens == generated[0].tolist()
    assert len(set(tokens[6:])) > 3  # not one token over and over


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
@pytest.mark.parametrize("prompt", [False, True])
def test_chat_template_gives_the_same_text(lfm2, language, prompt: bool, tools) -> None:
    ours = Tokenizer.load(language.folder)
    expected = lfm2.tokenizer.apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=prompt, tools=tools
    )
    text = ours.apply_chat_template(parts(MESSAGES), add_generation_prompt=prompt, tools=tools)
    assert text == expected
    assert ours.encode(text) == lfm2.tokenizer.encode(expected, add_special_tokens=False)


def test_image_tokens_take_reserved_places(lfm2, language) -> None:
    ours, theirs = Tokenizer.load(language.folder), lfm2.tokenizer
    assert [ours.image_id, ours.image_start, ours.image_end] == [14, 15, 16]
    assert theirs.convert_ids_to_tokens(14) == "<|reserved_4|>"
    assert ours.encode("<image>") == [14]
    assert ours.vocab_size == len(theirs)
    text = "a red car <|im_end|> <|reserved_7|>"
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)


def test_shards_and_one_file_make_the_same_checkpoint(lfm2, language, tmp_path: Path) -> None:
    assert len(list(lfm2.folder.glob("model-*.safetensors"))) > 2
    import_folder(str(lfm2.single), tmp_path / "one")
    ours, one = (load_file(f / "model.safetensors") for f in (language.folder, tmp_path / "one"))
    expected = lfm2.model.state_dict()
    assert all(
        torch.equal(one[f"language_model.{k}"], v)
        for k, v in expected.items()
        if k != "lm_head.weight"
    )
    assert ours.keys() == one.keys()
    assert all(torch.equal(ours[key], one[key]) for key in one)


def test_a_part_is_shown_and_is_no_model(language) -> None:
    found = facts(str(language.folder))
    assert found["kind"] == "part: language_model"
    assert found["licences"] == {"weights": "lfm1.0"}
    assert found["vocabulary"] == 330
    recipe = load_recipe(language.folder)
    assert recipe["source"]["name"] == "sharded"
    assert all(len(digest) == 64 for digest in recipe["source"]["weights"].values())
    with pytest.raises(
        UserError, match="holds the language_model alone; see `autoneural assemble`"
    ):
        load_checkpoint(language.folder)


@torch.no_grad()
def test_features_equal_timm(timm_encoder: SimpleNamespace, tmp_path: Path) -> None:
    recipe = import_folder(str(timm_encoder.folder), tmp_path / "out")
    config = load_config(tmp_path / "out")
    assert config == PartConfig(name="timm", config=timm_encoder.config)
    assert recipe["licences"] == {"weights": "gemma"}
    model = MobileNetV5(timm_encoder.config).eval()
    tensors = load_file(tmp_path / "out/model.safetensors")
    model.load_state_dict({k.removeprefix("vision_encoder."): v for k, v in tensors.items()})
    pixels = torch.rand(1, 3, 64, 64)
    expected = timm_encoder.model.forward_features(pixels).flatten(2).transpose(1, 2)
    assert float((model(pixels) - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({"block_ff_dim": 12_288}, 8192),
        ({"intermediate_size": 8192, "block_ff_dim": 12_288}, 8192),
        ({"block_ff_dim": 6656}, 4608),
        ({"block_ff_dim": 10_240}, 6912),
        ({"block_ff_dim": 10_752, "block_auto_adjust_ff_dim": False}, 10_752),
        ({"intermediate_size": 10_752, "block_auto_adjust_ff_dim": False}, 10_752),
        ({"block_ff_dim": 1000, "block_ffn_dim_multiplier": 1.3, "block_multiple_of": 10}, 870),
    ],
)
def test_intermediate_size_is_adjusted_as_transformers_does(settings: dict, width: int) -> None:
    assert intermediate_size(Fields(settings, HERE)) == width
    with torch.device("meta"):
        small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        theirs = Lfm2ForCausalLM(
            Lfm2Config(**settings, **small, num_key_value_heads=1, vocab_size=8)
        )
    assert theirs.state_dict()["model.layers.0.feed_forward.w1.weight"].shape[0] == width


_SIXTEEN = {"num_hidden_layers": 16, "full_attn_idxs": [2, 5, 8, 10, 12, 14]}
# config.json of LiquidAI/<name>: what differs between the sizes.
RELEASED = {
    "LFM2-350M": (
        {"hidden_size": 1024, "block_ff_dim": 6656, "num_attention_heads": 16, **_SIXTEEN},
        354_483_968,
    ),
    "LFM2-700M": (
        {"hidden_size": 1536, "block_ff_dim": 10_240, "num_attention_heads": 24, **_SIXTEEN},
        742_489_344,
    ),
    "LFM2-1.2B": (
        {"hidden_size": 2048, "block_ff_dim": 12_288, "num_attention_heads": 32, **_SIXTEEN},
        1_170_340_608,
    ),
    "LFM2-2.6B": (
        {
            "hidden_size": 2048,
            "block_ff_dim": 10_752,
            "block_auto_adjust_ff_dim": False,
            "num_attention_heads": 32,
            "num_hidden_layers": 30,
            "full_attn_idxs": [2, 5, 9, 13, 17, 21, 24, 27],
        },
        2_569_272_320,
    ),
}
COMMON = {
    "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 256,
    "block_norm_eps": 1e-5,
    "conv_L_cache": 3,
    "conv_bias": False,
    "eos_token_id": 7,
    "max_position_embeddings": 128_000,
    "norm_eps": 1e-5,
    "num_key_value_heads": 8,
    "rope_theta": 1_000_000.0,
    "vocab_size": 65_536,
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes_have_transformers_names_shapes_and_counts(name: str) -> None:
    settings, parameters = RELEASED[name]
    with torch.device("meta"):
        ours = LanguageModel(text_config(Fields(COMMON | settings, HERE)))
        theirs = Lfm2ForCausalLM(Lfm2Config(**(COMMON | settings)))
    expected = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    del expected["lm_head.weight"]
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == expected
    assert num_parameters(ours) == parameters


def test_released_settings_mean_the_same_in_transformers_own_spelling(tmp_path: Path) -> None:
    settings, _ = RELEASED["LFM2-2.6B"]
    Lfm2Config(**(COMMON | settings)).save_pretrained(tmp_path)
    rewritten = json.loads((tmp_path / "config.json").read_text())
    assert "rope_parameters" in rewritten
    assert text_config(Fields(rewritten, HERE)) == text_config(Fields(COMMON | settings, HERE))


MEMORY = """
import pathlib, re, sys, threading
from autoneural.hub.importers import import_folder
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1])
small, big, out = map(pathlib.Path, sys.argv[1:])
import_folder(str(small), out / "small")  # what is imported and compiled on first use
before, peak, done = anonymous(), 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())
thread = threading.Thread(target=watch); thread.start()
import_folder(str(big), out / "big")
done.set(); thread.join()
print(peak - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_anonymous_memory_does_not_grow_with_the_weights(copy, lfm2, tmp_path: Path) -> None:
    folder = copy(lfm2.single)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 1024, "vocab_size": 32_768, "head_dim": 8}
    (folder / "config.json").write_text(json.dumps(config))
    write_random(folder)
    size = (folder / "model.safetensors").stat().st_size
    assert size > 150e6
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, str(lfm2.single), str(folder), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) * 1024 < size / 10


def write_random(folder: Path) -> None:
    """Weights for the folder's config.json."""
    from autoneural.checkpoint import save_tensors

    fields = Fields(json.loads((folder / "config.json").read_text()), HERE)
    model = LanguageModel(text_config(fields))
    save_tensors(folder / "model.safetensors", model.state_dict())


def test_the_table_of_importers_is_open(copy, lfm2, tmp_path, monkeypatch) -> None:
    folder = copy(lfm2.single)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "my-lfm"}))
    monkeypatch.setitem(importers.IMPORTERS, "my_lfm", importers.IMPORTERS["lfm2"])
    import_folder(str(folder), tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").is_file()
