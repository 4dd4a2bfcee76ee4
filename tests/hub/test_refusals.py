"""Damaged and hostile folders: one line each, and nothing is written."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

from autoneural import cli
from autoneural.data.tokenizer import Tokenizer, train_tokenizer

INDEX = "model.safetensors.index.json"


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Rewrite the tensors of a folder with one weight file."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def edit(file: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Rewrite one JSON file."""

    def damage(folder: Path) -> None:
        data = json.loads((folder / file).read_text())
        change(data)
        (folder / file).write_text(json.dumps(data))

    return damage


def setting(**values: object) -> Callable[[Path], None]:
    return edit("config.json", lambda config: config.update(values))


def write(file: str, content: str | bytes) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(data)


def first_shard(folder: Path) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[0]


def redirect(target: str) -> Callable[[Path], None]:
    """Let the index send one tensor elsewhere."""

    def change(index: dict) -> None:
        index["weight_map"]["model.embedding_norm.weight"] = target

    return edit(INDEX, change)


def link_out(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)


def link_config_out(folder: Path) -> None:
    (folder / "config.json").rename(folder.parent / "secret.json")
    (folder / "config.json").symlink_to("../secret.json")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def header(length: int) -> Callable[[Path], None]:
    return lambda folder: _overwrite(folder / "model.safetensors", struct.pack("<Q", length))


def _overwrite(path: Path, start: bytes) -> None:
    path.write_bytes(start + path.read_bytes()[len(start) :])


def big_header(folder: Path) -> None:
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 90_000_000))
        file.truncate(90_000_100)


def sparse_config(folder: Path) -> None:
    with (folder / "config.json").open("r+b") as file:
        file.truncate(3_000_000_000)


def without_reserved(folder: Path) -> int:
    """Give the reserved tokens other names; how many tokens there are."""
    text = (folder / "tokenizer.json").read_text().replace("<|reserved_", "<|mine_")
    (folder / "tokenizer.json").write_text(text)
    return tokenizers.Tokenizer.from_str(text).get_vocab_size()


def drop_reserved(folder: Path) -> None:
    """A tokenizer that fills every row of the embedding and has nothing reserved."""
    rows = without_reserved(folder)
    setting(vocab_size=rows)(folder)
    embedding = "model.embed_tokens.weight"
    weights(lambda t: t.update({embedding: t[embedding][:rows].clone()}))(folder)


NORM = "model.embedding_norm.weight"
SINGLE = {
    "missing tensor": (weights(lambda t: t.pop(NORM)), f"missing tensors: language_model.{NORM}"),
    "extra tensor": (
        weights(lambda t: t.update({"model.extra.weight": torch.ones(2)})),
        "tensors that its architecture has not: language_model.model.extra.weight",
    ),
    "wrong shape": (
        weights(lambda t: t.update({NORM: torch.ones(31)})),
        f"language_model.{NORM} has the shape [31], not [32]",
    ),
    "wrong type": (
        weights(lambda t: t.update({NORM: torch.ones(32, dtype=torch.int8)})),
        f"language_model.{NORM} is int8, not a float",
    ),
    "double": (weights(lambda t: t.update({NORM: torch.ones(32).double()})), "is float64"),
    "untied head": (
        weights(lambda t: t.update({"lm_head.weight": torch.ones(330, 32)})),
        "lm_head.weight differs from the embedding",
    ),
    "unknown architecture": (setting(model_type="llama"), "unknown architecture 'llama'"),
    "no architecture": (setting(model_type=None), "names no architecture"),
    "remote code only": (
        setting(model_type="evil", auto_map={"AutoConfig": "code.Evil"}),
        "unknown architecture 'evil'",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "holds no config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds neither"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "holds no tokenizer.json"),
    "pickled weights": (pickled, "pickled (pytorch_model.bin), which can run code"),
    "link out of the folder": (link_out, "model.safetensors: is a link out of its folder"),
    "config linked out": (link_config_out, "config.json: is a link out of its folder"),
    "link to nothing": (
        lambda f: (f / "tokenizer.json").unlink() or (f / "tokenizer.json").symlink_to("nowhere"),
        "tokenizer.json: is not a file",
    ),
    "folder for a file": (
        lambda f: (f / "config.json").unlink() or (f / "config.json").mkdir(),
        "config.json: is not a file",
    ),
    "truncated weights": (truncate, "model.safetensors: damaged or not safetensors"),
    "empty weights": (write("model.safetensors", b""), "ends within its header"),
    "endless header": (header(2**63), "ends within its header"),
    "huge header": (big_header, "its header is larger than 20 MB"),
    "a pickle named safetensors": (
        write("model.safetensors", b"\x80\x04\x95" + bytes(200)),
        "damaged or not safetensors",
    ),
    "config cut short": (write("config.json", '{"model_type": "lfm2"'), "config.json: damaged"),
    "config is a list": (write("config.json", "[]"), "damaged (not a JSON object)"),
    "deep json": (
        write("config.json", '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}"),
        "nested too deeply",
    ),
    "json of gigabytes": (sparse_config, "config.json: larger than 1 MB"),
    "not a number": (write("config.json", '{"norm_eps": NaN}'), "NaN is not JSON"),
    "digits without end": (
        write("config.json", '{"hidden_size": ' + "9" * 10_000 + "}"),
        "config.json: damaged",
    ),
    "not utf-8": (write("config.json", b"\xff\xfe{}"), "config.json: not UTF-8"),
    "a billion layers": (
        setting(num_hidden_layers=10**9),
        "num_hidden_layers: 1000000000 is not a whole number from 1 to 512",
    ),
    "layers do not fit": (setting(layer_types=["conv"] * 5), "layer_types: 5 of them for 4 layers"),
    "unknown layer": (
        setting(layer_types=["conv", "mamba", "conv", "conv"]),
        "layer_types: 'mamba' is not conv or full_attention",
    ),
    "heads do not fit": (setting(num_key_value_heads=3), "not a multiple of num_key_value_heads"),
    "text for a number": (setting(hidden_size="32"), "hidden_size: '32' is not a whole number"),
    "scaled rope": (
        setting(rope_parameters={"rope_type": "yarn", "rope_theta": 1e6}),
        "rope_type: 'yarn' is not supported",
    ),
    "biases": (setting(conv_bias=True), "conv_bias: True is not supported"),
    "head of its own": (setting(tie_word_embeddings=False), "tie_word_embeddings: False"),
    "quantised already": (
        setting(quantization_config={"quant_method": "gptq"}),
        "quantised already; import the original weights",
    ),
    "tokenizer is no BPE": (
        edit("tokenizer.json", lambda d: d["model"].update(type="Unigram")),
        "not a byte-level BPE",
    ),
    "tokenizer of nothing": (write("tokenizer.json", "{}"), "tokenizer.json: not a tokenizer file"),
    "no room for images": (drop_reserved, "no reserved token and no free row of"),
    "template cut short": (
        write("chat_template.jinja", "{% for m in messages %}"),
        "chat_template.jinja: Unexpected end of template",
    ),
    "template reaches out": (
        write("chat_template.jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        "chat_template.jinja: access to attribute",
    ),
}
SHARDED = {
    "missing shard": (lambda f: first_shard(f).unlink(), "named by its index, is missing"),
    "truncated shard": (
        lambda f: first_shard(f).write_bytes(first_shard(f).read_bytes()[:-1]),
        "damaged or not safetensors",
    ),
    "index without a map": (write(INDEX, "{}"), "damaged (no weight_map)"),
    "index with numbers": (redirect(3), "is in 3, which is not safetensors"),
    "index upwards": (redirect("../other.safetensors"), "'../other.safetensors', outside"),
    "index to a root": (redirect("/etc/other.safetensors"), "outside of the folder"),
    "index to backslashes": (redirect("..\\other.safetensors"), "outside of the folder"),
    "index to a pickle": (redirect("pytorch_model.bin"), "which is not safetensors"),
    "index names too much": (
        edit(INDEX, lambda d: d["weight_map"].update(ghost=d["weight_map"][NORM])),
        "lacks: ghost",
    ),
    "index names too little": (
        edit(INDEX, lambda d: d["weight_map"].pop(NORM)),
        "holds what its index lacks",
    ),
}


def check_refused(folder: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder.parent / "made/here"
    assert cli.main(["import", str(folder), "-o", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("autoneural: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert str(folder) in captured.err
    assert not out.parent.exists()


@pytest.mark.parametrize(("damage", "message"), SINGLE.values(), ids=SINGLE)
def test_a_damaged_folder_is_refused(
    lfm2: SimpleNamespace, copy, damage, message: str, capsys
) -> None:
    folder = copy(lfm2.single)
    damage(folder)
    check_refused(folder, message, capsys)


@pytest.mark.parametrize(("damage", "message"), SHARDED.values(), ids=SHARDED)
def test_damaged_shards_are_refused(
    lfm2: SimpleNamespace, copy, damage, message: str, capsys
) -> None:
    folder = copy(lfm2.folder)
    damage(folder)
    check_refused(folder, message, capsys)


TIMM = {
    "normalised pixels": (
        edit("config.json", lambda c: c["pretrained_cfg"].update(mean=[0.5] * 3)),
        "mean: [0.5, 0.5, 0.5] is not supported",
    ),
    "not square": (
        edit("config.json", lambda c: c["pretrained_cfg"].update(input_size=[3, 64, 32])),
        "input_size: [3, 64, 32] is not [3, size, size]",
    ),
    "another width": (
        setting(model_args={"channel_multiplier": 2.0}),
        "model_args.channel_multiplier: changes the architecture",
    ),
    "a classifier": (
        weights(lambda t: t.update({"classifier.weight": torch.ones(10, 2048)})),
        "tensors that its architecture has not: vision_encoder.classifier.weight",
    ),
}


@pytest.mark.parametrize(("damage", "message"), TIMM.values(), ids=TIMM)
def test_a_wrong_encoder_is_refused(timm_encoder, damage, message: str, capsys) -> None:
    damage(timm_encoder.folder)
    check_refused(timm_encoder.folder, message, capsys)


def test_what_is_no_folder_is_refused(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["import", "nowhere", "-o", "made"]) == 2
    assert capsys.readouterr().err == "autoneural: error: nowhere: no such folder\n"
    assert list(tmp_path.iterdir()) == []


def test_the_folder_itself_is_not_overwritten(lfm2, copy, capsys) -> None:
    folder = copy(lfm2.single)
    for extra in ("generation_config.json", "tokenizer_config.json"):
        (folder / extra).unlink(missing_ok=True)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())
    assert cli.main(["import", str(folder), "-o", str(folder)]) == 2
    assert "is the folder that is read" in capsys.readouterr().err
    assert sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir()) == before


def test_links_within_the_folder_are_followed(lfm2, copy, tmp_path: Path) -> None:
    folder = copy(lfm2.single)
    (folder / "model.safetensors").rename(folder / "blob")
    (folder / "model.safetensors").symlink_to("blob")
    assert cli.main(["import", str(folder), "-o", str(tmp_path / "out")]) == 0


def test_free_rows_take_the_image_tokens_where_nothing_is_reserved(lfm2, copy, tmp_path) -> None:
    folder = copy(lfm2.single)
    rows = without_reserved(folder)
    assert cli.main(["import", str(folder), "-o", str(tmp_path / "out")]) == 0
    words = Tokenizer.load(tmp_path / "out")
    assert [words.image_id, words.image_start, words.image_end] == [rows, rows + 1, rows + 2]


def test_a_tokenizer_with_image_tokens_is_copied_byte_by_byte(lfm2, copy, tmp_path) -> None:
    folder = copy(lfm2.single)
    train_tokenizer(["a red car"] * 3, 300).save(folder)
    before = (folder / "tokenizer.json").read_bytes()
    (folder / "chat_template.jinja").unlink()
    edit("tokenizer_config.json", lambda d: d.update(chat_template="{{ bos_token }}hello"))(folder)
    assert cli.main(["import", str(folder), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/tokenizer.json").read_bytes() == before
    assert (tmp_path / "out/chat_template.jinja").read_text() == "{{ bos_token }}hello"
