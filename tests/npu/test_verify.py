"""The embedded bundle, compiled, emulated and certified for v68 and v73."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from autoneural.bundle import DEFAULT_BUNDLE, EMBEDDED, Bundle, write_bundle
from autoneural.chat import user_message
from autoneural.cli import main
from autoneural.demo import EXAMPLES
from autoneural.errors import UserError
from autoneural.npu.certificate import Certificate, GraphCheck, Thresholds, TokenCheck
from autoneural.npu.compile import compile_bundle
from autoneural.npu.token_checks import Question
from autoneural.npu.verify import VerifyOptions, failures, require_compiled, verify
from autoneural.runtime.qnn import Wheel
from autoneural.target.chips import find_chip

CHIPS = {name: find_chip(name) for name in ("SA8295P", "SA8775P")}
QUESTION = Question(
    id="demo",
    messages=[user_message("What state is the driver in?", [EXAMPLES / "driver.jpg"])],
)


@pytest.fixture(scope="module")
def bundle(qnn_wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Compiled for both chips."""
    out = tmp_path_factory.mktemp("compiled") / "bundle"
    compile_bundle(Bundle.load(DEFAULT_BUNDLE), list(CHIPS.values()), out)
    return Bundle.load(out)


@pytest.fixture(scope="module", params=CHIPS)
def certificate(request: pytest.FixtureRequest, bundle: Bundle) -> Certificate:
    pictures = [EXAMPLES / "driver.jpg", EXAMPLES / "door.jpg"]
    conversation = [
        user_message("Describe the second picture. Is the first one brighter?", pictures)
    ]
    return verify(bundle, CHIPS[request.param], [conversation], [QUESTION])


def test_every_graph_is_looked_at_layer_by_layer(certificate: Certificate) -> None:
    roles = {layer.graph for layer in certificate.layers}
    assert roles == {"vision", "prefill", "verify", "decode", "head"}
    assert len(certificate.layers) > 500
    assert all(layer.sqnr_qdq_db is not None for layer in certificate.layers)


def test_what_is_predicted_is_what_is_emulated(certificate: Certificate) -> None:
    engine = [
        layer
        for layer in certificate.layers
        if layer.op in ("MatMul", "Gemm", "Conv") and layer.precision.startswith("w")
    ]
    predicted = [layer.predicted_db or 0.0 for layer in engine]
    assert min(predicted) >= 49
    near = sum(figure >= 60 for figure in predicted) / len(predicted)
    assert near > 0.9
    # The prediction is worth something: the plain reference is farther off.
    plain = sorted(layer.sqnr_qdq_db or 0.0 for layer in engine)
    assert plain[len(plain) // 2] < sorted(predicted)[len(predicted) // 2] - 10


def test_the_binaries_are_what_was_looked_at(certificate: Certificate, bundle: Bundle) -> None:
    assert all(check.identical for check in certificate.graphs)
    assert {check.graph for check in certificate.graphs if check.reloaded} == {"vision", "head"}
    for check in certificate.graphs:
        assert (bundle.folder / check.binary).is_file()
        assert check.outputs


def test_answers_are_compared_token_for_token(certificate: Certificate) -> None:
    tokens = certificate.tokens
    assert tokens is not None
    assert tokens.compared == 1
    assert tokens.equal + len(tokens.differences) == 1


def test_a_layer_off_has_a_cause(certificate: Certificate) -> None:
    far = [layer for layer in certificate.layers if (layer.sqnr_qdq_db or 0.0) < 50]
    assert far
    assert all(layer.cause for layer in far)
    # The scales of the embedded model are snapped: v68 has no multiplier left to round.
    assert not any("11 bits" in (layer.cause or "") for layer in far)


def test_the_certificate_survives_json(certificate: Certificate) -> None:
    text = json.dumps(certificate.to_dict(), allow_nan=False)
    again = Certificate.from_dict(json.loads(text))
    assert len(again.layers) == len(certificate.layers)
    assert again.passed == certificate.passed


def test_another_binary_is_found_out(bundle: Bundle, tmp_path: Path) -> None:
    """The head of another chip, well-formed and listed, but not what its graph compiles to."""
    folder = tmp_path / "swapped"
    shutil.copytree(bundle.folder, folder)
    for name in ("head.onnx", "head_qnn.bin"):
        shutil.copyfile(folder / "htp/SA8775P" / name, folder / "htp/SA8295P" / name)
    language = next((folder / "htp/SA8775P").glob("prefill*.bin"))
    shutil.copyfile(language, folder / "htp/SA8295P" / language.name)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]
    (folder / "manifest.json").unlink()
    swapped = write_bundle(folder, manifest)
    picture = [[user_message("What is this?", [EXAMPLES / "driver.jpg"])]]
    found = verify(swapped, CHIPS["SA8295P"], picture, [], VerifyOptions(samples=0))
    wrong = {check.graph for check in found.graphs if not check.identical}
    assert wrong == {"prefill", "verify", "decode", "head"}
    assert not found.passed


def test_thresholds_decide(certificate: Certificate) -> None:
    strict = Thresholds(layer_db=200.0, predicted_db=0.0, tokens=0.0)
    found = failures(certificate.layers, certificate.graphs, certificate.tokens, strict)
    finite = [layer for layer in certificate.layers if layer.sqnr_qdq_db != float("inf")]
    assert len(found) == len(finite)
    assert all("200" in sentence for sentence in found)


def test_too_few_equal_answers_and_a_foreign_binary_are_failures() -> None:
    limits = Thresholds(layer_db=0.0, predicted_db=0.0, tokens=0.96)
    tokens = TokenCheck(compared=50, equal=47, answers_equal=47)
    graph = GraphCheck(
        graph="head", part=0, file="head.onnx", binary="head.bin", binary_sha256="0",
        reloaded=True, identical=False,
    )  # fmt: skip
    assert len(failures([], [graph], tokens, limits)) == 2
    assert not failures([], [], TokenCheck(compared=50, equal=48, answers_equal=48), limits)


def test_a_bundle_without_binaries_is_one_line() -> None:
    embedded = Bundle.load(DEFAULT_BUNDLE)
    with pytest.raises(UserError, match="no binaries for SA8295P .*compile it first"):
        require_compiled(embedded, CHIPS["SA8295P"])


def test_a_bundle_for_another_chip_says_which(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="it holds SA8295P, SA8775P"):
        require_compiled(bundle, find_chip("SM8650"))


def test_the_command_writes_both_files_and_fails_by_exit_code(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "certificate"
    arguments = ["verify", str(bundle.folder), "--samples", "0", "-o", str(out), "--json"]
    assert main([*arguments, "--layer-db", "99"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["chip"] == "SA8295P"
    assert printed["tokens"] is None
    assert {"graph", "name", "sqnr_float_db", "sqnr_qdq_db", "predicted_db"} <= set(
        printed["layers"][0]
    )
    assert json.loads((out / "certificate.json").read_text()) == printed
    assert "SA8295P" in (out / "certificate.html").read_text()


def test_the_command_refuses_what_it_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(EMBEDDED / DEFAULT_BUNDLE), "--chip", "SA9999"]) == 2
    assert main(["verify", str(EMBEDDED / DEFAULT_BUNDLE)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert "no chip called 'SA9999'" in lines[0]
    assert "compile it first" in lines[1]
