"""A bundle round-trips, and a damaged or malicious one is refused with one clear line."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from autoneural import bundle as bundle_module
from autoneural.bundle import Bundle, find_bundle, write_bundle
from autoneural.errors import UserError
from autoneural.onnx_external import external_locations


@pytest.fixture
def folder(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_bundle.folder, tmp_path / "copy"))


def refusal(folder: Path) -> str:
    """The complaint about a bundle, checked to be one line."""
    with pytest.raises(UserError) as caught:
        Bundle.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the manifest, without any hashing."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def rehash(folder: Path) -> dict:
    """The manifest that an attacker writes, who can hash as well as we do."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]
    (folder / "manifest.json").unlink()
    return manifest


def test_round_trip(tiny_bundle: Bundle, folder: Path) -> None:
    again = Bundle.load(folder)
    assert again.manifest == tiny_bundle.manifest
    assert again.model == tiny_bundle.model
    assert again.targets == tiny_bundle.targets
    roles = [(g.role, g.width) for g in again.target("float").graphs]
    assert sorted(roles) == [
        *(("decode", 1), ("head", 1), ("prefill", 8), ("prefill", 32), ("vision", 0))
    ]
    assert [layer.kind for layer in again.state] == ["conv", "attention"] * 2


def test_flipped_byte_in_every_file(folder: Path) -> None:
    for name in Bundle.load(folder).manifest["files"]:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        assert f"{name}: sha256 differs" in refusal(folder)
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
    Bundle.load(folder)


def test_truncated_file(folder: Path) -> None:
    path = folder / "float" / "weights.data"
    path.write_bytes(path.read_bytes()[:-1])
    assert "damaged or cut off" in refusal(folder)


def test_missing_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert refusal(folder).endswith("tokenizer.json is missing")


def test_unlisted_file(folder: Path) -> None:
    (folder / "float" / "extra.so").write_bytes(b"x")
    assert "float/extra.so is not listed" in refusal(folder)


def test_newer_format(folder: Path) -> None:
    edit(folder, lambda m: m.update(format_version=4))
    assert "format 4 is newer than 3" in refusal(folder)
    assert "upgrade" in refusal(folder)


def test_manifest_that_is_no_json(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format_version": 1,')
    assert "not valid JSON" in refusal(folder)


def _graph(manifest: dict) -> dict:
    return manifest["targets"]["float"]["graphs"][0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.pop("context"), "the key 'context' is missing"),
        (lambda m: m.update(context="1024"), "context: expected int, found str"),
        (lambda m: m.update(context=True), "context: expected int, found bool"),
        (lambda m: m.update(context=-1), "context: -1 is negative"),
        (lambda m: m.update(targets=[]), "targets: expected dict, found list"),
        (lambda m: m["model"]["text"].pop("layer_types"), "model config: 'layer_types'"),
        (lambda m: m["model"].update(text=3), "model"),
        (lambda m: m["state"].append(7), "state[4]: expected an object, found int"),
        (lambda m: _graph(m).update(role="encoder"), "graphs[0].role: unknown 'encoder'"),
        (lambda m: _graph(m)["inputs"][0].update(shape=[1, "S"]), "not a static shape"),
        (lambda m: _graph(m)["inputs"][0].update(dtype="string"), "dtype: unknown 'string'"),
        (lambda m: _graph(m)["inputs"][0].update(scale=0), "scale: 0.0 is not a positive"),
        (lambda m: m["targets"].update(gpu={}), "targets.gpu: unknown target"),
        (lambda m: m["targets"]["float"]["embedding"].update(shape=[9]), "expected [V, H]"),
        (lambda m: m["targets"]["float"]["embedding"].update(shape=[9, 9]), "do not hold float32"),
        (lambda m: _graph(m).update(file="float/x.onnx"), "'float/x.onnx' is used but not among"),
        (lambda m: m["files"].update({"../x": {}}), "'../x' leaves the bundle folder"),
        (lambda m: m["files"].update({"/etc/passwd": {}}), "leaves the bundle folder"),
        (lambda m: m["files"].update({"a\\..\\x": {}}), "leaves the bundle folder"),
        (lambda m: m["files"].update({"C:x": {}}), "leaves the bundle folder"),
        (lambda m: m["files"].update({"": {}}), "leaves the bundle folder"),
        (lambda m: m["files"]["tokenizer.json"].pop("sha256"), "the key 'sha256' is missing"),
        (lambda m: m["files"].update({"a" * 300: {}}), "not a usable bundle"),
        (lambda m: m["files"].update({"\ud800": {}}), "not a usable bundle"),
        (lambda m: _graph(m)["inputs"][0].update(scale=10**400), "not a usable bundle"),
        (lambda m: m["model"]["text"].update(num_key_value_heads=0), "num_key_value_heads: 0"),
        (lambda m: m["tokenizer"].update(file="other.json"), "file: unknown 'other.json'"),
    ],
)
def test_malformed_manifest(folder: Path, change: Callable[[dict], object], complaint: str) -> None:
    edit(folder, change)
    assert complaint in refusal(folder)


def _decoder(manifest: dict) -> dict:
    graphs = manifest["targets"]["float"]["graphs"]
    return next(graph for graph in graphs if graph["role"] == "decode")


def _set_past_blocks(manifest: dict, rows: int) -> None:
    for graph in manifest["targets"]["float"]["graphs"]:
        graph["past_block"] = rows if graph["context"] else 0


def test_an_older_format_is_read_as_static(folder: Path) -> None:
    edit(folder, lambda m: m.update(format_version=1))
    graphs = Bundle.load(folder).target("float").graphs
    assert {graph.past_block for graph in graphs} == {0}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: _decoder(m)["inputs"].pop(1), "input cos is missing"),
        (
            lambda m: _decoder(m)["inputs"][0].update(name="tokens"),
            "input inputs_embeds is missing",
        ),
        (lambda m: _decoder(m)["inputs"][0].update(shape=[1, 1, 7]), "inputs_embeds is [1, 1, 7]"),
        (lambda m: _decoder(m)["outputs"].pop(), "output present.3.value is missing"),
        (lambda m: _decoder(m).update(width=0), "width 0 is not between 1 and the context"),
        (lambda m: m["state"].pop(), "is unknown"),
        (lambda m: _set_past_blocks(m, 129), "past_block 129 exceeds the context, 128"),
        (lambda m: _set_past_blocks(m, -1), "past_block: -1 is negative"),
        (lambda m: _decoder(m).update(past_block=16), "the decoders of a target share their past"),
    ],
)
def test_a_graph_must_fit_the_model(
    folder: Path, change: Callable[[dict], object], complaint: str
) -> None:
    edit(folder, change)
    assert complaint in refusal(folder)


def _in_parts(manifest: dict) -> list[dict]:
    """Split the entry of the decode graph in two: layers 0 and 1, layers 2 and 3."""
    graphs = manifest["targets"]["float"]["graphs"]
    whole = graphs.pop(graphs.index(_decoder(manifest)))
    stream = {"name": "hidden.1", "dtype": "float32", "shape": [1, 1, 32]}
    parts = [
        {
            **whole,
            "part": 0,
            "inputs": [whole["inputs"][0], *_of_layers(whole["inputs"], "01")],
            "outputs": [stream, *_of_layers(whole["outputs"], "01")],
        },
        {
            **whole,
            "part": 1,
            "inputs": [stream, *_of_layers(whole["inputs"], "23")],
            "outputs": [whole["outputs"][0], *_of_layers(whole["outputs"], "23")],
        },
    ]
    parts = json.loads(json.dumps(parts))  # no tensor is shared: a test changes one of them
    graphs += parts[::-1]
    return parts


def _of_layers(tensors: list[dict], layers: str) -> list[dict]:
    """Tables and mask, and the state of some layers: `past_conv.0`, `present.1.key`."""
    return [
        tensor
        for tensor in tensors
        if tensor["name"] in ("cos", "sin", "mask")
        or any(f".{layer}" in tensor["name"] for layer in layers)
    ]


def test_parts_of_a_graph_make_up_the_whole(folder: Path) -> None:
    edit(folder, _in_parts)
    parts = [g for g in Bundle.load(folder).target("float").graphs if g.role == "decode"]
    assert {graph.part for graph in parts} == {0, 1}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda parts: parts[1].update(part=2), "its parts are [0, 2], not 0 to 1"),
        (lambda parts: parts[0].update(part=1), "its parts are [1, 1], not 0 to 1"),
        (lambda parts: parts[1]["inputs"].pop(0), "takes no residual stream, is given hidden.1"),
        (lambda parts: parts[1]["inputs"][0].update(name="hidden.2"), "takes hidden.2"),
        (lambda parts: parts[0]["outputs"].pop(0), "is given no residual stream"),
        (lambda parts: parts[1]["outputs"].insert(0, parts[0]["outputs"][0]), "no part follows"),
        (lambda parts: parts[1]["outputs"].append(parts[0]["outputs"][1]), "of an earlier part"),
        (lambda parts: parts[1]["outputs"].pop(), "output present.3.value is missing"),
        (lambda parts: parts[0]["inputs"].pop(), "input past_key_values.1.value is missing"),
        (lambda parts: parts[1]["inputs"].append({**parts[0]["inputs"][1], "shape": [1]}), "cos"),
    ],
)
def test_parts_that_do_not_fit_together(
    folder: Path, change: Callable[[list[dict]], object], complaint: str
) -> None:
    edit(folder, lambda m: change(_in_parts(m)))
    assert complaint in refusal(folder)


def test_link_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    shutil.move(folder / "tokenizer.json", outside)
    (folder / "tokenizer.json").symlink_to(outside)
    assert "'tokenizer.json' leaves the bundle folder" in refusal(folder)


def test_linked_sub_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "more").symlink_to(tmp_path)
    assert "more is not listed" in refusal(folder)


def external(location: str, dims: int = 4) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[dims])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def model_with(location: str, place: str) -> onnx.ModelProto:
    """An ONNX model with an external tensor in one of the places where one can be."""
    constant = helper.make_node("Constant", [], ["w"], value=external(location))
    out = helper.make_tensor_value_info("w", TensorProto.FLOAT, [4])
    inner = helper.make_graph([constant], "inner", [], [out])
    graph = helper.make_graph([constant], "main", [], [out])
    functions = []
    if place == "initializer":
        graph = helper.make_graph([], "main", [], [out], initializer=[external(location)])
    elif place == "sub-graph":
        node = helper.make_node("If", ["c"], ["w"], then_branch=inner, else_branch=inner)
        graph = helper.make_graph([node], "main", [], [out])
    elif place == "function":
        opset = [helper.make_opsetid("", 20)]
        functions = [helper.make_function("ours", "f", [], ["w"], [constant], opset)]
        graph = helper.make_graph([helper.make_node("f", [], ["w"], domain="ours")], "m", [], [out])
    elif place == "sparse":
        indices = TensorProto(data_type=TensorProto.INT64, dims=[1], int64_data=[0])
        sparse = helper.make_sparse_tensor(external(location, 1), indices, [4])
        graph = helper.make_graph([], "main", [], [out], sparse_initializer=[sparse])
    return helper.make_model(graph, functions=functions)


def wrapper(location: bytes, **attributes: int) -> onnx.ModelProto:
    """A graph around a context binary, as Qualcomm's provider writes it."""
    node = helper.make_node("EPContext", [], ["w"], domain="com.microsoft", **attributes)
    node.attribute.append(helper.make_attribute("ep_cache_context", location))
    out = helper.make_tensor_value_info("w", TensorProto.FLOAT, [4])
    return helper.make_model(helper.make_graph([node], "main", [], [out]))


def test_context_binaries_are_external_files(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for attributes, found in (
        ({"embed_mode": 0}, {"here.bin"}),
        ({}, {"here.bin"}),
        ({"embed_mode": 1}, set()),
    ):
        path.write_bytes(wrapper(b"here.bin", main_context=1, **attributes).SerializeToString())
        assert external_locations(path) == found


def test_two_embed_modes_do_not_hide_a_file(tmp_path: Path) -> None:
    model = wrapper(b"here.bin", embed_mode=1)
    model.graph.node[0].attribute.append(helper.make_attribute("embed_mode", 0))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert external_locations(tmp_path / "m.onnx") == {"here.bin"}


def test_an_embedded_binary_is_not_read_as_a_name(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(wrapper(b"\xff\xfe" * 9, embed_mode=1).SerializeToString())
    assert external_locations(path) == set()
    path.write_bytes(wrapper(b"\xff\xfe" * 9, embed_mode=0).SerializeToString())
    with pytest.raises(UserError, match="not a well-formed ONNX model"):
        external_locations(path)


PLACES = ["initializer", "attribute", "sub-graph", "function", "sparse"]


@pytest.mark.parametrize("place", PLACES)
def test_external_locations_are_found_everywhere(tmp_path: Path, place: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model_with("here.bin", place).SerializeToString())
    assert external_locations(path) == {"here.bin"}


@pytest.mark.parametrize("name", ["float/head-1.onnx", "float/head-1.bin"])
def test_external_data_is_checked_whatever_the_graph_is_called(folder: Path, name: str) -> None:
    manifest = rehash(folder)
    (folder / "float" / "head-1.onnx").unlink()
    (folder / name).write_bytes(model_with("../../secret", "initializer").SerializeToString())
    for graph in manifest["targets"]["float"]["graphs"]:
        graph["file"] = name if graph["file"] == "float/head-1.onnx" else graph["file"]
    with pytest.raises(UserError, match="external data at .* leaves the"):
        write_bundle(folder, manifest)


@pytest.mark.parametrize(
    "location",
    ["../../secret", "/etc/passwd", "a/../../../x", "..\\x", "C:\\x", "*/_ORT_MEM_ADDR_/*", ""],
)
@pytest.mark.parametrize("place", PLACES)
def test_external_data_outside_is_refused(folder: Path, location: str, place: str) -> None:
    manifest = rehash(folder)
    data = model_with(location, place).SerializeToString()
    (folder / "float" / "head-1.onnx").write_bytes(data)
    with pytest.raises(UserError, match="external data at .* (leaves the|is not listed)"):
        write_bundle(folder, manifest)


@pytest.mark.parametrize(
    "location", ["../../secret", "/etc/passwd", "..\\x", "C:\\x", "gone.bin", ""]
)
@pytest.mark.parametrize("nested", [False, True])
def test_context_binary_outside_is_refused(folder: Path, location: str, nested: bool) -> None:
    manifest = rehash(folder)
    model = wrapper(location.encode(), embed_mode=0)
    if nested:
        inner = model.graph
        branch = helper.make_node("If", ["c"], ["w"], then_branch=inner, else_branch=inner)
        model = helper.make_model(helper.make_graph([branch], "main", [], list(inner.output)))
    (folder / "float" / "head-1.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="external data at .* (leaves the|is not listed)"):
        write_bundle(folder, manifest)


def test_external_data_beside_the_graph_must_be_listed(folder: Path) -> None:
    manifest = rehash(folder)
    data = model_with("tokenizer.json", "initializer").SerializeToString()
    (folder / "float" / "head-1.onnx").write_bytes(data)
    with pytest.raises(UserError, match="external data at 'tokenizer.json' is not listed"):
        write_bundle(folder, manifest)


@pytest.mark.parametrize("seed", range(50))
def test_walker_survives_random_damage(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(model_with("here.bin", "sub-graph").SerializeToString())
    for at in rng.integers(0, len(data), 4):
        data[at] = rng.integers(0, 256)
    path = tmp_path / "m.onnx"
    path.write_bytes(data[: rng.integers(1, len(data) + 1)])
    with contextlib.suppress(UserError):  # any other exception is the failure
        external_locations(path)


def test_empty_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    with pytest.raises(UserError, match="empty, not an ONNX model"):
        external_locations(tmp_path / "m.onnx")


def test_find_by_path_and_by_embedded_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "EMBEDDED", tmp_path)
    assert find_bundle(folder) == folder
    assert find_bundle("copy") == folder
    with pytest.raises(UserError, match="no such bundle folder .embedded bundles: copy"):
        find_bundle("nothing")
    with pytest.raises(UserError, match="no such bundle folder"):
        find_bundle("float/../copy/x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a bundle, it has no manifest.json"):
        find_bundle(tmp_path / "empty")
