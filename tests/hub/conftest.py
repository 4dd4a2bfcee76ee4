"""Folders as the hub has them: LFM2 written by transformers, MobileNetV5 by timm; random, small."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.mobilenetv5 import MobileNetV5Encoder
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Lfm2Config, Lfm2ForCausalLM, PreTrainedTokenizerFast

from autoneural.hub import mobilenetv5
from tests.hub.fake_hub import FakeHub
from tests.model.test_vision_encoder import ARCH, randomize, small_config

VOCAB = 330
# The tokens of a text-only LFM2, in its order; the reserved ones follow.
LFM2_TOKENS = [
    *("<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|fim_pre|>", "<|fim_mid|>", "<|fim_suf|>"),
    *("<|im_start|>", "<|im_end|>", "<|tool_list_start|>", "<|tool_list_end|>"),
    *("<|tool_call_start|>", "<|tool_call_end|>"),
    *("<|tool_response_start|>", "<|tool_response_end|>"),
]
RESERVED = [f"<|reserved_{n}|>" for n in range(4, 9)]
# With what LFM2.5's template asks of a renderer: macros, namespaces, a date, `generation`.
TEMPLATE = """{{- bos_token -}}
{%- macro plain(content) -%}
    {%- if content is string -%}{{- content -}}{%- else -%}{{- content | tojson -}}{%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(system="") -%}
{%- if messages[0].role == "system" -%}
    {%- set ns.system = plain(messages[0].content) -%}
    {%- set messages = messages[1:] -%}
{%- endif -%}
{%- if tools -%}
    {%- set ns.system = ns.system + ("\\n" if ns.system else "") + strftime_now("%Y") -%}
    {%- set ns.system = ns.system + " tools: " + (tools | tojson) -%}
{%- endif -%}
{%- if ns.system -%}{{- "<|im_start|>system\\n" + ns.system + "<|im_end|>\\n" -}}{%- endif -%}
{%- for message in messages -%}
    {{- "<|im_start|>" + message.role + "\\n" -}}
    {%- if message.role == "assistant" -%}
        {%- generation -%}
        {%- set said = plain(message.content) -%}
        {{- said + "<|im_end|>\\n" -}}
        {%- endgeneration -%}
    {%- else -%}
        {{- plain(message.content) + "<|im_end|>\\n" -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|im_start|>assistant\\n" -}}{%- endif -%}
"""
CARD = "---\nlibrary_name: transformers\nlicense: other\nlicense_name: lfm1.0\n---\n# LFM2\n"


def small_lfm2(**changes: object) -> Lfm2Config:
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "block_ff_dim": 100,  # two thirds of it, x 1.5, up to a multiple of 8: 104
        "block_ffn_dim_multiplier": 1.5,
        "block_multiple_of": 8,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "layer_types": ["conv", "full_attention", "conv", "full_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
        "eos_token_id": 7,
    }
    return Lfm2Config(**(settings | changes))


def small_tokenizer(tokens: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["what is on the road? a red car."] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|startoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        chat_template=TEMPLATE,
    )


def write_lfm2(folder: Path, *, tokens: list[str], shard: str = "5GB", **changes: object):
    torch.manual_seed(0)
    model = Lfm2ForCausalLM(small_lfm2(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 2.0)
            else:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5)
    model.save_pretrained(folder, max_shard_size=shard)
    words = small_tokenizer(tokens)
    words.save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return model, words


@pytest.fixture(scope="session")
def lfm2(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`folder` in several shards, `single` in one file, the `model` and its `tokenizer`."""
    base = tmp_path_factory.mktemp("lfm2")
    tokens = [*LFM2_TOKENS, *RESERVED]
    model, words = write_lfm2(base / "sharded", tokens=tokens, shard="40KB")
    write_lfm2(base / "single", tokens=tokens)
    return SimpleNamespace(
        folder=base / "sharded", single=base / "single", model=model, tokenizer=words
    )


@pytest.fixture
def timm_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A small encoder of timm under a name that stands for its architecture."""
    config = small_config(4)
    monkeypatch.setitem(mobilenetv5.ENCODERS, "mobilenetv5_300m", config)
    torch.manual_seed(0)
    model = MobileNetV5Encoder(
        decode_arch_def(ARCH),
        stem_size=8,
        fix_stem=True,
        pad_type="same",
        msfa_output_resolution=4,
        layer_scale_init_value=1.0,
    ).eval()
    randomize(model)
    folder = tmp_path / "timm"
    write_timm(folder, model)
    return SimpleNamespace(folder=folder, model=model, config=replace(config, image_size=64))


def write_timm(folder: Path, model: torch.nn.Module) -> None:
    folder.mkdir()
    pretrained = {
        "tag": "gemma3n",
        "input_size": [3, 64, 64],
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "license": "gemma",
    }
    config = {
        "architecture": "mobilenetv5_300m",
        "num_classes": 0,
        "num_features": 2048,
        "pretrained_cfg": pretrained,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(model.state_dict()), folder / "model.safetensors")


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a folder, to be damaged."""
    return lambda folder: shutil.copytree(folder, tmp_path / "model")


@pytest.fixture
def hub(lfm2: SimpleNamespace):
    """A hub at 127.0.0.1 that has `acme/lfm2-small`."""
    with FakeHub() as served:
        served.add("acme/lfm2-small", lfm2.folder, licence="lfm1.0")
        yield served
