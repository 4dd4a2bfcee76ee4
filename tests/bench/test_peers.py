"""Peers on the same shapes: each in its own process, and named where it is missing or fails."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from autoneural.bench import peers
from autoneural.bench.peers import PEERS, PeerEncoder, PeerRun, PeerTask, measure_peers
from autoneural.config import ModelConfig, ProjectorConfig, TextConfig, preset
from autoneural.config_vision import ViTConfig

TASK = PeerTask(prompt=9, answer=3, depth=5, repeats=2, threads=1, image=300)
ENCODER = PeerEncoder(
    vision=ViTConfig(
        num_patches=25,
        hidden_size=64,
        intermediate_size=72,
        num_hidden_layers=2,
        num_attention_heads=2,
    ),
    projector=ProjectorConfig(hidden_size=96, hidden_act="gelu", layer_norm=True),
)


@pytest.fixture
def one_format(monkeypatch: pytest.MonkeyPatch) -> None:
    only = replace(peers._PEERS["transformers"], formats=("bfloat16",))
    monkeypatch.setitem(peers._PEERS, "transformers", only)


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch, tiny_config: ModelConfig) -> None:
    """A small one for the small decoders."""
    for text in (tiny_config.text, small()):
        monkeypatch.setitem(peers._ENCODERS, text.hidden_size, ENCODER)


def ours(kind: str) -> dict[str, float]:
    return {"picture": 7.0} if kind == "picture" else {"prompt": 3.0, "decode": 5.0}


def check_ran(row: PeerRun, name: str, *, pictures: bool) -> None:
    assert row.missing is None
    assert row.peer == name
    own = {**ours("text"), **(ours("picture") if pictures else {})}
    assert row.ours == {test: [value] * TASK.repeats for test, value in own.items()}
    assert row.theirs.keys() == row.ours.keys()
    for values in row.theirs.values():
        assert len(values) == TASK.repeats
        assert min(values) > 0


@pytest.mark.usefixtures("one_format", "encoders")
def test_transformers_runs_in_a_process_of_its_own(tiny_config: ModelConfig) -> None:
    seen: list[tuple[str, int, int]] = []
    text, watch = tiny_config.text, lambda *a: seen.append(a)
    (row,) = measure_peers(["transformers"], text, TASK, ours, watch)
    check_ran(row, "transformers bfloat16", pictures=True)
    assert seen == [("transformers", 1, 1)]


@pytest.mark.usefixtures("one_format")
def test_without_an_encoder_of_its_width_there_is_no_picture(tiny_config: ModelConfig) -> None:
    (row,) = measure_peers(["transformers"], tiny_config.text, TASK, ours)
    check_ran(row, "transformers bfloat16", pictures=False)


@pytest.mark.usefixtures("one_format", "encoders")
def test_a_picture_that_fails_leaves_the_other_figures(
    tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(ENCODER, vision=replace(ENCODER.vision, num_patches=0))
    monkeypatch.setitem(peers._ENCODERS, tiny_config.text.hidden_size, wrong)
    (row,) = measure_peers(["transformers"], tiny_config.text, TASK, ours)
    assert row.theirs.keys() == {"prompt", "decode"}
    assert len(row.theirs["prompt"]) == TASK.repeats
    assert row.missing is not None
    assert row.missing.startswith("picture: ")


@pytest.mark.usefixtures("encoders")
def test_onnxruntime_genai_runs_its_own_graph() -> None:
    (row,) = measure_peers(["ort-genai"], small(), TASK, ours)
    check_ran(row, "ort-genai int4", pictures=False)


@pytest.mark.usefixtures("encoders")
def test_llama_cpp_runs() -> None:
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed (extra [peers])")
    (row,) = measure_peers(["llama.cpp"], small(), TASK, ours)
    check_ran(row, "llama.cpp Q4_0", pictures=True)


def small() -> TextConfig:
    """Both kinds of layers, in the shapes that quantised kernels want."""
    text = preset("cockpit-tiny").text
    return replace(text, layer_types=("conv", "full_attention"))


def test_a_gguf_has_every_tensor_of_the_model(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from autoneural.bench.peer_gguf import write_random

    text = preset("cockpit-tiny").text
    write_random(tmp_path / "m.gguf", text, gguf.GGMLQuantizationType.Q4_0)
    read = gguf.GGUFReader(tmp_path / "m.gguf")
    shapes = {tensor.name: tuple(tensor.shape) for tensor in read.tensors}
    weights = sum(int(tensor.n_elements) for tensor in read.tensors)
    # Every number of the model, the tied head once.
    assert weights == text_parameters(text)
    assert shapes["token_embd.weight"] == (text.hidden_size, text.vocab_size)
    heads = read.fields["lfm2.attention.head_count_kv"].contents()
    wanted = [text.num_key_value_heads * (k == "full_attention") for k in text.layer_types]
    assert heads == wanted


def test_an_encoders_gguf_has_every_tensor_of_the_model(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from autoneural.bench.peer_mmproj import write_random_encoder

    write_random_encoder(tmp_path / "m.gguf", ENCODER, 64)
    read = gguf.GGUFReader(tmp_path / "m.gguf")
    shapes = {tensor.name: tuple(tensor.shape) for tensor in read.tensors}
    assert sum(int(tensor.n_elements) for tensor in read.tensors) == encoder_parameters()
    assert shapes["v.blk.1.ffn_down.weight"] == (72, 64)
    assert shapes["mm.2.weight"] == (96, 64)
    assert read.fields["clip.projector_type"].contents() == "lfm2"


def encoder_parameters() -> int:
    import torch

    from autoneural.bench.peer_transformers import random_model, seeing

    with torch.device("meta"):
        decoder = random_model(replace(small(), hidden_size=64), "float32")
        model = seeing(decoder, ENCODER)
    total = sum(weight.numel() for weight in model.parameters())
    return total - sum(weight.numel() for weight in decoder.parameters())


@pytest.mark.parametrize(
    ("pixels", "side", "tokens"), [(96, 256, 64), (300, 288, 81), (900, 512, 256)]
)
def test_a_peer_sees_one_view(pixels: int, side: int, tokens: int) -> None:
    assert (ENCODER.side(pixels), ENCODER.tokens(pixels)) == (side, tokens)


def test_encoders_are_those_of_lfm2_vl_by_width() -> None:
    wide = {name: preset(name).text.hidden_size for name in ("autoneural-0.6b", "autoneural-1.5b")}
    assert [peers._ENCODERS[width].vision.hidden_size for width in wide.values()] == [768, 1152]
    assert preset("cockpit-tiny").text.hidden_size not in peers._ENCODERS


def text_parameters(text: TextConfig) -> int:
    import torch

    from autoneural.bench.peer_transformers import random_model

    with torch.device("meta"):
        model = random_model(text, "float32")
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.usefixtures("one_format")
def test_what_fails_says_why(tiny_config: ModelConfig) -> None:
    text = replace(tiny_config.text, intermediate_sizes=(64, 64, 32, 64))
    (row,) = measure_peers(["transformers"], text, TASK, ours)
    wanted = "ValueError: LFM2 elsewhere has no layers of unequal width"
    assert row == PeerRun(peer="transformers bfloat16", missing=wanted)


def test_what_is_not_installed_is_named(
    tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = replace(peers._PEERS["llama.cpp"], needs=("torch", "no_such_peer"))
    monkeypatch.setitem(peers._PEERS, "llama.cpp", lacking)
    rows = measure_peers(["llama.cpp"], tiny_config.text, TASK, ours)
    assert rows == [PeerRun(peer="llama.cpp", missing="not installed: no_such_peer")]


def test_every_peer_has_its_module() -> None:
    for name in PEERS:
        module = f"autoneural.bench.{peers._PEERS[name].module}"
        assert importlib.util.find_spec(module) is not None
