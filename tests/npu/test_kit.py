"""Kits: whole, checkable, and enough to run the model without a line of the package."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from autoneural.bundle import Bundle, write_bundle
from autoneural.cli import main
from autoneural.errors import UserError
from autoneural.npu.compile import compile_bundle
from autoneural.npu.kit import package
from autoneural.npu.kit_check import main as check
from autoneural.npu.kit_golden import PICTURE, QUESTION
from autoneural.runtime import Engine
from autoneural.runtime.qnn import Wheel
from autoneural.target.chips import find_chip
from tests.npu.kit_helpers import (
    Integrator,
    Schema,
    add_target,
    compiled_bundle,
    copy_bundle,
    read,
    reference_session,
)


def files(kit: Path) -> set[str]:
    return {p.relative_to(kit).as_posix() for p in kit.rglob("*") if p.is_file()}


def sums(kit: Path) -> dict[str, str]:
    lines = (kit / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("  ", 1) for line in lines]
    return {name: digest for digest, name in pairs}


def test_checksums_cover_every_file(kit: Path) -> None:
    listed = sums(kit)
    assert listed.keys() == files(kit) - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((kit / name).read_bytes()).hexdigest() == digest, name


def test_io_fits_its_schema_and_the_schema_can_refuse(kit: Path) -> None:
    io, schema = read(kit, "io.json"), Schema(read(kit, "io.schema.json"))
    assert schema.errors(io) == []
    del io["graphs"][0]["inputs"][0]["scale"]
    io["host"]["mask"]["open"] = "65535"
    io["steps"][0]["name"] = "think"
    io["graphs"][1]["inputs"][0]["source"] = {"kind": "guess"}
    assert len(schema.errors(io)) == 4


def test_io_names_files_of_the_kit(kit: Path) -> None:
    io, held = read(kit, "io.json"), files(kit)
    host = io["host"]
    named = {g[k] for g in io["graphs"] for k in ("binary", "ort_wrapper", "qdq_onnx")}
    named |= {g[k] for g in io["graphs"] for k in ("float_onnx", "encodings")}
    named |= {host["rows"]["file"], host["tokenizer"]["file"], host["tokenizer"]["chat_template"]}
    named |= {host["rotary"][table]["file"] for table in ("cos", "sin")}
    assert named <= held
    assert {g["name"] for g in io["graphs"]} == {n for s in io["steps"] for n in s["graphs"]}
    assert {g["qnn_graph"] for g in io["graphs"]} == {f"net_{g['name']}" for g in io["graphs"]}


def test_an_integrator_decodes_the_tokens_of_the_engine(kit: Path, compiled: Bundle) -> None:
    golden = read(kit, "golden/golden.json")
    host = Integrator(kit)
    step = next(step for step in golden["steps"] if step["graph"] == "vision")
    raw = np.fromfile(kit / "golden" / step["name"] / "inputs" / "pixel_values.raw", "<u2")
    pixels = raw.reshape(host.graphs["vision"]["inputs"][0]["shape"])
    engine = Engine(compiled, "qdq")
    parts = [{"type": "image", "image": PICTURE}, {"type": "text", "text": QUESTION}]
    answer = engine.generate([{"role": "user", "content": parts}], max_tokens=4)
    for _ in answer:
        pass
    said = host.answer(golden["input_ids"], pixels, 4)
    assert said == list(answer.result.token_ids)
    assert said == golden["tokens"]
    assert answer.result.usage.prompt_tokens == len(golden["input_ids"])
    assert answer.result.text == golden["answer"]


def test_a_model_in_parts_gives_the_same_tokens(kit: Path, tmp_path: Path) -> None:
    bundle = compiled_bundle(tmp_path / "bundle", max_part_mb=2)
    cut = package(bundle, "SA8295P", tmp_path / "cut", emulator=False, progress=lambda line: None)
    io, golden = read(cut, "io.json"), read(cut, "golden/golden.json")
    assert Schema(read(cut, "io.schema.json")).errors(io) == []
    decode = next(step for step in io["steps"] if step["name"] == "decode")
    assert decode["graphs"][:2] == ["decode", "decode-1"]
    graphs = {graph["name"]: graph for graph in io["graphs"]}
    link = graphs["decode-1"]["inputs"][0]
    assert link["source"] == {"kind": "graph", "graph": "decode", "output": link["name"]}
    assert graphs["decode"]["binary"] == graphs["prefill"]["binary"] == "binaries/language-0.bin"
    assert graphs["decode-1"]["binary"] == "binaries/language-1.bin"
    pixels = np.fromfile(cut / "golden" / "00-vision" / "inputs" / "pixel_values.raw", "<u2")
    shape = graphs["vision"]["inputs"][0]["shape"]
    said = Integrator(cut).answer(golden["input_ids"], pixels.reshape(shape), 4)
    assert said == golden["tokens"] == read(kit, "golden/golden.json")["tokens"]


def test_pixels_of_the_golden_run_are_those_of_its_picture(kit: Path, compiled: Bundle) -> None:
    golden, engine = read(kit, "golden/golden.json"), Engine(compiled, "qdq")
    bytes_CHW = np.asarray(engine.processor.load(kit / golden["picture"])).transpose(2, 0, 1)
    raw = np.fromfile(kit / "golden" / "00-vision" / "inputs" / "pixel_values.raw", "<u2")
    np.testing.assert_array_equal(raw, 257 * bytes_CHW.astype(np.uint16).ravel())


def test_golden_files_run_again_give_the_golden_outputs(kit: Path) -> None:
    io, golden = read(kit, "io.json"), read(kit, "golden/golden.json")
    graphs = {graph["name"]: graph for graph in io["graphs"]}
    names = [step["graph"] for step in golden["steps"]]
    assert names == ["vision", "prefill", "head", *["decode", "head"] * 3, "verify"]
    for step in golden["steps"]:
        graph, place = graphs[step["graph"]], kit / "golden" / step["name"]
        feeds = {}
        for entry in (place / "input_list.txt").read_text(encoding="utf-8").split():
            name, file = entry.split(":=")
            tensor = next(t for t in graph["inputs"] if t["name"] == name)
            raw = np.fromfile(kit / file, np.dtype(tensor["dtype"]).newbyteorder("<"))
            feeds[name] = raw.reshape(tensor["shape"])
        session = reference_session(kit / graph["qdq_onnx"])
        outputs = [output["name"] for output in step["outputs"]]
        results = map(np.asarray, session.run(outputs, feeds))
        for name, found in zip(outputs, results, strict=True):
            expected = np.fromfile(place / "expected" / f"{name}.raw", found.dtype)
            np.testing.assert_array_equal(found.ravel(), expected, err_msg=f"{step['name']} {name}")


def test_golden_state_moves_on(kit: Path) -> None:
    golden = read(kit, "golden/golden.json")
    steps = {step["name"]: step for step in golden["steps"]}
    prompt = len(golden["input_ids"])
    places = [(s["position"], s["count"]) for s in golden["steps"] if s["graph"] == "decode"]
    assert places == [(prompt, 1), (prompt + 1, 1), (prompt + 2, 1)]
    assert (steps["09-verify"]["position"], steps["09-verify"]["count"]) == (prompt, 3)
    output = next(o for o in steps["01-prefill"]["outputs"] if o["name"] == "present.1.key")
    assert (output["axis"], output["rows"]) == (2, prompt)
    window = next(o for o in steps["01-prefill"]["outputs"] if o["name"] == "conv_window.0")
    assert (window["axis"], window["rows"]) == (2, prompt + 2)


def test_encodings_name_every_float_tensor(kit: Path) -> None:
    for graph in read(kit, "io.json")["graphs"]:
        model = onnx.load(kit / graph["float_onnx"], load_external_data=False).graph
        content = read(kit, graph["encodings"])
        named = {e["name"] for e in content["activation_encodings"]}
        made = {name for node in model.node for name in node.output}
        assert named == made | {value.name for value in model.input}
        floats = {i.name for i in model.initializer if i.data_type == onnx.TensorProto.FLOAT}
        assert {e["name"] for e in content["param_encodings"]} == floats


def test_readme_speaks_of_this_kit(kit: Path) -> None:
    text = (kit / "README.md").read_text(encoding="utf-8")
    assert "**2.51.0 or newer**" in text
    assert "libQnnHtpV68Skel.so" in text
    assert "Nothing here was run on a board" in text
    for graph in read(kit, "io.json")["graphs"]:
        assert f"| {graph['name']} | `{graph['binary']}` | `{graph['qnn_graph']}` |" in text
    for name in re.findall(r"`((?:golden|onnx|host|binaries)/[\w./-]+\.\w+)`", text):
        assert (kit / name).is_file(), name


def test_licences_of_all_that_is_inside(kit: Path) -> None:
    texts = {p.name: p.read_text(encoding="utf-8") for p in (kit / "LICENSES").iterdir()}
    assert "Apache License" in texts["Apache-2.0.txt"]
    assert "weights: Apache-2.0" in texts["WEIGHTS.md"]
    assert "no library of Qualcomm" in texts["QUALCOMM.md"]
    assert not [name for name in files(kit) if name.endswith((".so", ".dll"))]


def test_bill_of_materials(kit: Path) -> None:
    bill = read(kit, "sbom.cdx.json")
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    uuid = r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    assert re.fullmatch(uuid, bill["serialNumber"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", bill["metadata"]["timestamp"])
    tools = {tool["name"]: tool["version"] for tool in bill["metadata"]["tools"]["components"]}
    assert tools["QNN compiler"].startswith("QNN 2.51.0")
    assert {"autoneural", "onnxruntime"} <= tools.keys()
    components = bill["components"]
    for component in components:
        assert component["type"] in ("file", "machine-learning-model", "library")
        assert component["name"]
        for digest in component.get("hashes", ()):
            assert digest["alg"] == "SHA-256"
            assert re.fullmatch("[0-9a-f]{64}", digest["content"])
    model = next(c for c in components if c["type"] == "machine-learning-model")
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert model["modelCard"]["modelParameters"]["inputs"]
    hashes = {c["name"]: c["hashes"][0]["content"] for c in components if c["type"] == "file"}
    assert hashes == {n: d for n, d in sums(kit).items() if n != "sbom.cdx.json"}
    refs = [c["bom-ref"] for c in components] + [bill["metadata"]["component"]["bom-ref"]]
    assert len(set(refs)) == len(refs)
    for entry in bill["dependencies"]:
        assert {entry["ref"], *entry["dependsOn"]} <= set(refs)


def test_the_same_kit_again(kit: Path, compiled: Bundle, tmp_path: Path) -> None:
    again = tmp_path / "again"
    for _ in range(2):  # the second replaces the first
        package(compiled, "sa8295p", again, emulator=False, progress=lambda line: None)
    dated = {"sbom.cdx.json"}
    assert {n: d for n, d in sums(again).items() if n not in dated} == {
        n: d for n, d in sums(kit).items() if n not in dated
    }
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_a_chip_of_the_same_kind_takes_the_same_binaries(tmp_path: Path) -> None:
    assert find_chip("SA8775P").soc_model == find_chip("SA8255P").soc_model
    bundle = compiled_bundle(tmp_path / "bundle", "SA8255P")
    kit = package(bundle, "SA8775P", tmp_path / "kit", emulator=False, progress=lambda line: None)
    assert read(kit, "io.json")["chip"] == {"name": "SA8775P", "htp": 73, "soc_model": 52}


def refused(bundle: Bundle, chip: str, out: Path) -> str:
    with pytest.raises(UserError) as caught:
        package(bundle, chip, out, emulator=False, progress=lambda line: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refuses_a_bundle_of_another_chip(compiled: Bundle, tmp_path: Path) -> None:
    text = refused(compiled, "X Elite", tmp_path / "kit")
    assert "compiled for SA8295P, not for X Elite; compile it first: autoneural compile" in text
    assert "--chip 'X Elite'" in text
    assert "not compiled for any chip" in refused(Bundle.load("cockpit-tiny"), "SM8650", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_bundle_without_its_reference(compiled: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(compiled.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["files"], manifest["targets"]["qdq"]
    text = refused(write_bundle(folder, manifest), "SA8295P", tmp_path / "kit")
    assert "no target qdq" in text
    assert "it holds cpu, htp/SA8295P" in text


def test_refuses_a_graph_that_is_not_one_binary(tmp_path: Path) -> None:
    manifest = copy_bundle(tmp_path / "bundle")
    graphs = manifest["targets"]["qdq"]["graphs"]
    place = tmp_path / "bundle" / add_target(manifest, graphs, "SM8650")
    shutil.copytree(tmp_path / "bundle" / "qdq", place)
    text = refused(write_bundle(tmp_path / "bundle", manifest), "SM8650", tmp_path / "kit")
    assert "is not one context binary as a whole" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


@pytest.mark.parametrize("foreign", ["notes.txt", "io.json"])
def test_refuses_to_replace_what_is_no_kit(compiled: Bundle, tmp_path: Path, foreign: str) -> None:
    (tmp_path / foreign).write_text("{}", encoding="utf-8")
    assert "holds no kit, so it is not replaced" in refused(compiled, "SA8295P", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [foreign]


def test_refuses_to_replace_a_kit_with_something_beside_it(
    compiled: Bundle, kit: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "kit"
    shutil.copytree(kit, folder)
    (folder / "host" / "mine.bin").write_bytes(b"x")
    assert "holds host/mine.bin beside a kit" in refused(compiled, "SA8295P", folder)
    assert (folder / "host" / "mine.bin").is_file()


def test_the_command(compiled: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "kit"
    command = ["package", str(compiled.folder), "-o", str(out), "--no-emulator", "--chip"]
    assert main([*command, "SM8650"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main([*command, "SA8295P"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{out}: ")
    assert (out / "io.json").is_file()


def test_emulated_outputs_of_a_compiled_bundle(
    qnn_wheel: Wheel, kit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compile_bundle(Bundle.load("cockpit-tiny"), [find_chip("SA8295P")], tmp_path / "bundle")
    lines: list[str] = []
    made = package(tmp_path / "bundle", "SA8295P", tmp_path / "kit", progress=lines.append)
    golden = read(made, "golden/golden.json")
    assert golden["emulator"] == f"{qnn_wheel.compiler}, HTP emulator of SA8295P on x86-64"
    assert golden["tokens"] == read(kit, "golden/golden.json")["tokens"]
    for step in golden["steps"]:
        place = made / "golden" / step["name"]
        for output in step["outputs"]:
            name, known = f"{output['name']}.raw", output["emulator"]
            sizes = [(place / kind / name).stat().st_size for kind in ("expected", "emulator")]
            assert sizes[0] == sizes[1]
            assert known["sqnr_db"] is None or known["sqnr_db"] > 20
        shutil.copytree(place / "emulator", tmp_path / "out" / step["name"] / "Result_0")
    # The checker agrees with what was recorded, and finds the emulator as good as itself.
    assert check([str(tmp_path / "out"), "--golden", str(made / "golden")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert all(row[3] == row[4] for row in rows)
    assert "2.51" in (made / "README.md").read_text(encoding="utf-8")
