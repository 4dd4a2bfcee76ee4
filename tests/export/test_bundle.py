import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoneural.bundle import Bundle
from autoneural.checkpoint import save_checkpoint, weights_hash
from autoneural.compress.quantize import frozen_tensors
from autoneural.errors import UserError
from autoneural.export.bundle import ExportOptions, build_bundle
from autoneural.export.finished import Finished
from autoneural.export.graphs import GraphKey, build_graph
from autoneural.export.parity import compare_float, run_float, run_torch, sample_inputs, worst
from tests.export.conftest import CONFIG, CONTEXT, WIDTH, Quantised


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


@pytest.fixture(scope="module")
def checkpoint(
    quantised: Quantised, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tensors = frozen_tensors(quantised.model)
    recipe = {"name": "test", "metrics": {"mean": 0.5}}
    return save_checkpoint(folder, tensors, CONFIG, tokenizer, recipe, quantised.encodings)


def build(checkpoint: Path, out: Path, *targets: str, **options: Any) -> tuple[Bundle, list[str]]:
    lines: list[str] = []
    chosen = ExportOptions(
        **{"context": CONTEXT, "prefill_width": WIDTH, "verify_width": 4, **options}
    )
    return build_bundle(checkpoint, out, targets, chosen, progress=lines.append), lines


@pytest.fixture(scope="module")
def built(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, list[str]]:
    return build(checkpoint, tmp_path_factory.mktemp("bundles") / "out", "cpu", "qdq", "float")


@pytest.fixture(scope="module")
def bundle(built: tuple[Bundle, list[str]]) -> Bundle:
    return built[0]


def test_without_verification_no_weights_are_needed_and_the_files_are_the_same(
    bundle: Bundle, checkpoint: Path, tmp_path: Path
):
    hollow, lines = build(checkpoint, tmp_path / "out", "cpu", "qdq", verify=False)
    assert not any("SQNR" in line for line in lines)
    files = bundle.manifest["files"]
    assert hollow.manifest["files"] == {
        name: entry for name, entry in files.items() if not name.startswith("float/")
    }


def test_all_targets_in_one_verified_bundle(built: tuple[Bundle, list[str]]):
    bundle, lines = built
    assert list(bundle.targets) == ["cpu", "qdq", "float"]
    roles = [(g.role, g.width) for g in bundle.target("qdq").graphs]
    assert roles == [("vision", 0), ("prefill", 8), ("verify", 4), ("decode", 1), ("head", 1)]
    assert bundle.target("qdq").precision == {
        "vision": "w8a16",
        "language": "w4a16",
        "head": "w8a16",
    }
    assert bundle.target("cpu").precision["language"] == "w4a32"
    assert bundle.target("cpu").mask_value == -1e4
    assert -1e4 < bundle.target("qdq").mask_value < 0
    assert [(s.kind, s.past, s.present) for s in bundle.state] == [
        ("conv", "past_conv.0", "conv_window.0"),
        ("attention", "past_key_values.1", "present.1"),
    ]
    assert sum(line.count("SQNR") for line in lines) == 15
    assert [p.name for p in bundle.folder.parent.iterdir()] == ["out"]


def test_integer_ends_carry_their_encodings(bundle: Bundle):
    ends = [t for g in bundle.target("qdq").graphs for t in (*g.inputs, *g.outputs)]
    assert {t.dtype for t in ends} == {"uint16"}
    assert all(t.scale for t in ends)
    pixels = bundle.target("qdq").graphs[0].inputs[0]
    assert (pixels.scale, pixels.zero_point) == (pytest.approx(1 / 65535), 0)
    table = bundle.target("qdq").embedding
    embeds = next(t for t in ends if t.name == "inputs_embeds")
    assert (table.scale, table.zero_point) == (embeds.scale, embeds.zero_point)


def test_embedding_tables_are_one_table(bundle: Bundle, quantised: Quantised):
    expected = quantised.frozen_model.language_model.model.embed_tokens.weight.detach().numpy()
    real = np.fromfile(bundle.path(bundle.target("float").embedding.file), "<f4")
    np.testing.assert_array_equal(real.reshape(expected.shape), expected)
    table = bundle.target("qdq").embedding
    integers = np.fromfile(bundle.path(table.file), "<u2").reshape(table.shape)
    assert table.scale is not None
    back = (integers.astype(np.float32) - table.zero_point) * table.scale
    assert np.abs(back - expected).max() <= table.scale


def test_the_bundle_says_what_made_it(bundle: Bundle, checkpoint: Path):
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    assert manifest["metrics"] == {"mean": 0.5}
    made_by = manifest["recipe"]
    assert made_by["parent_recipe"] == {"name": "test", "metrics": {"mean": 0.5}}
    assert made_by["context"] == CONTEXT
    assert made_by["parent"] == weights_hash(checkpoint)
    assert manifest["created_by"].startswith("autoneural ")


def test_building_again_gives_the_same_bytes(checkpoint: Path, bundle: Bundle, tmp_path: Path):
    earlier, _ = build(checkpoint, tmp_path / "out", "float")
    again, _ = build(checkpoint, earlier.folder, "qdq")
    assert os.listdir(tmp_path) == ["out"]
    assert list(again.targets) == ["qdq"]
    files = {k: v for k, v in bundle.manifest["files"].items() if k in again.manifest["files"]}
    assert files == again.manifest["files"]


def test_a_float_checkpoint_makes_float_graphs_only(
    quantised: Quantised, tokenizer: Path, tmp_path: Path
):
    folder = save_checkpoint(tmp_path / "ckpt", quantised.float_model, CONFIG, tokenizer, {})
    bundle, _ = build(folder, tmp_path / "out", "float")
    assert list(bundle.targets) == ["float"]
    with pytest.raises(UserError, match="cpu needs a quantised checkpoint"):
        build(folder, tmp_path / "other", "cpu")


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (("htp",), {}, "choose from float, cpu, qdq"),
        ((), {}, "choose from"),
        (("qdq",), {"context": 128}, "<= 64, the model's positions"),
        (("qdq",), {"prefill_width": 32}, "need 0 < width <= context"),
        (("qdq",), {"verify_width": 0}, "need 0 < width <= context"),
        (("cpu",), {"past_block": -1}, "past_block -1: not a number of rows, nor 0"),
    ],
)
def test_bad_requests_are_one_line(
    targets: tuple[str, ...],
    options: dict[str, int],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
):
    with pytest.raises(UserError, match=message):
        build(checkpoint, tmp_path / "out", *targets, **options)
    assert not list(tmp_path.iterdir())


def test_the_past_of_cpu_decoders_grows_and_no_other(
    checkpoint: Path, bundle: Bundle, quantised: Quantised, tmp_path: Path
):
    """At every length, what PyTorch computes over a past of that length."""
    grown, _ = build(checkpoint, tmp_path / "out", "cpu", "float", past_block=4)
    others = [g for name, t in bundle.targets.items() if name != "cpu" for g in t.graphs]
    assert not any(graph.past_block or graph.any_width for graph in others)
    # The graph takes any past: how long a block is, the manifest says alone.
    assert grown.manifest["files"].items() <= bundle.manifest["files"].items()
    for graph, before in zip(grown.target("cpu").graphs, bundle.target("cpu").graphs, strict=True):
        if before.context:
            assert before.past_block == CONTEXT
            assert graph == replace(before, past_block=4)
            assert graph.any_width
            assert graph.file == "cpu/decoder.onnx"
        else:
            assert graph == before
    model = quantised.frozen_model
    for graph in grown.target("cpu").graphs[1:-1]:
        for past in (1, 4, 7, 8, CONTEXT, 40):
            key = GraphKey(role=graph.role, width=graph.width, context=past)
            traced = build_graph(model, key)
            inputs = sample_inputs(traced, model.language_model.model.embed_tokens.weight)
            found = run_float(grown.path(graph.file), inputs)
            assert worst(compare_float(run_torch(traced, inputs), found)).sqnr_db > 90


def test_no_block_is_longer_than_the_context(checkpoint: Path, bundle: Bundle, tmp_path: Path):
    whole, _ = build(checkpoint, tmp_path / "out", "cpu", past_block=10 * CONTEXT, verify=False)
    assert whole.targets["cpu"] == bundle.targets["cpu"]
    assert whole.manifest["files"].items() <= bundle.manifest["files"].items()


def test_pictures_of_another_size(checkpoint: Path, bundle: Bundle, tmp_path: Path):
    larger, _ = build(checkpoint, tmp_path / "large", "qdq", image_sizes=(128,))
    assert larger.processor.image_size == larger.model.vision.image_size == 128
    assert larger.processor.tokens_per_image == bundle.processor.tokens_per_image
    vision = next(g for g in larger.target("qdq").graphs if g.role == "vision")
    assert (vision.image_size, vision.inputs[0].shape) == (128, (1, 3, 128, 128))
    weights = [b.manifest["files"]["qdq/language.data"] for b in (larger, bundle)]
    assert weights[0] == weights[1]
    with pytest.raises(UserError, match="image size 100: not a multiple of 32"):
        build(checkpoint, tmp_path / "odd", "qdq", image_sizes=(100,))


def test_two_sizes_share_their_weights(checkpoint: Path, bundle: Bundle, tmp_path: Path):
    both, _ = build(checkpoint, tmp_path / "both", "qdq", image_sizes=(64, 128), verify=False)
    vision = [g for g in both.target("qdq").graphs if g.role == "vision"]
    assert [(g.file, g.image_size, g.inputs[0].shape) for g in vision] == [
        ("qdq/vision.onnx", 64, (1, 3, 64, 64)),
        ("qdq/vision-128.onnx", 128, (1, 3, 128, 128)),
    ]
    assert both.image_sizes == (64, 128)
    assert both.processor == bundle.processor
    files, alone = (
        {k: v for k, v in b.manifest["files"].items() if k.startswith("qdq/")}
        for b in (both, bundle)
    )
    assert files.pop("qdq/vision-128.onnx")
    # The larger one adds no matrix; only constants that its own shapes need.
    weights, before = (found.pop("qdq/vision.data")["bytes"] for found in (files, alone))
    assert before <= weights < before + 1024
    assert files == alone
    larger = both.at_size(128)
    assert (larger.processor.image_size, larger.image_sizes) == (128, (128, 64))
    with pytest.raises(UserError, match="no vision graph for pictures of 96 px; it has 64, 128"):
        both.at_size(96)
    with pytest.raises(UserError, match="image sizes 64 64: name each once"):
        build(checkpoint, tmp_path / "odd", "qdq", image_sizes=(64, 64))


class Killed(BaseException):
    """What no code of ours catches."""


def go_on(checkpoint: Path, out: Path, keep: Path, progress: Any) -> Bundle:
    options = ExportOptions(context=CONTEXT, prefill_width=WIDTH, verify_width=4, verify=False)
    return build_bundle(checkpoint, out, ["qdq"], options, progress=progress, keep=keep)


@pytest.fixture(scope="module")
def stopped(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an export kept that was stopped after two graphs of five."""
    folder, lines = tmp_path_factory.mktemp("stopped"), []

    def progress(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            raise Killed

    with pytest.raises(Killed):
        go_on(checkpoint, folder / "out", folder / "keep", progress)
    assert [path.name for path in folder.iterdir()] == ["keep"]
    return folder / "keep"


def test_stopped_in_the_third_graph_it_keeps_two(
    checkpoint: Path, bundle: Bundle, stopped: Path, tmp_path: Path
):
    out, keep = tmp_path / "out", tmp_path / "keep"
    shutil.copytree(stopped, keep)
    # The third was under way: half a graph, and weights that no graph points into yet.
    (keep / "bundle/qdq/verify.onnx").write_bytes(b"half")
    with (keep / "bundle/qdq/language.data").open("ab") as file:
        file.write(b"more")
    lines: list[str] = []
    again = go_on(checkpoint, out, keep, lines.append)
    assert [line for line in lines if "there already" in line] == [
        "qdq/vision: there already",
        "qdq/prefill: there already",
    ]
    assert lines[2].startswith("qdq/verify: ")
    files = bundle.manifest["files"]
    assert again.manifest["files"] == {
        name: entry for name, entry in files.items() if not name.startswith(("float/", "cpu/"))
    }
    assert again.targets["qdq"] == bundle.targets["qdq"]


@pytest.mark.parametrize("name", ["qdq/vision.onnx", "qdq/language.data"])
def test_what_is_damaged_is_not_believed(stopped: Path, tmp_path: Path, name: str):
    keep = tmp_path / "keep"
    shutil.copytree(stopped, keep)
    assert Finished(keep, keep / "bundle").entries("qdq/prefill.onnx")
    file = keep / "bundle" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    found = Finished(keep, keep / "bundle")
    assert found.entries("qdq/prefill.onnx") is None
    assert found.weights("qdq/language.data").stored == {}
    assert (keep / "bundle/qdq/language.data").stat().st_size == 0


def test_a_record_that_cannot_be_read_is_none(stopped: Path, tmp_path: Path):
    keep = tmp_path / "keep"
    shutil.copytree(stopped, keep)
    for text in ("[]", "{", '{"weights": {}, "graphs": {"qdq/x.onnx": {"sha256": 1}}}'):
        (keep / "finished.json").write_text(text)
        assert Finished(keep, keep / "bundle").entries("qdq/vision.onnx") is None


def test_a_folder_with_something_else_is_not_replaced(checkpoint: Path, tmp_path: Path):
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no bundle"):
        build(checkpoint, tmp_path, "qdq")
    (tmp_path / "manifest.json").write_text('{"version": 3, "name": "a browser extension"}')
    with pytest.raises(UserError, match="holds no bundle"):
        build(checkpoint, tmp_path, "qdq")
    assert (tmp_path / "letters.txt").read_text() == "mine"


def test_a_bundle_with_something_beside_it_is_not_replaced(checkpoint: Path, tmp_path: Path):
    bundle, _ = build(checkpoint, tmp_path / "out", "float")
    (bundle.folder / "letters.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds letters\.txt beside a bundle"):
        build(checkpoint, bundle.folder, "qdq")


def test_the_current_folder_is_not_replaced(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is the folder you are in"):
        build(checkpoint, Path("."), "qdq")
