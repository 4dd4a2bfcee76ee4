"""Which device a bundle runs on: the choice with faked machines, and answers from the emulator."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from autoneural import cli
from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.runtime import devices, qnn
from autoneural.runtime.devices import Placement, find_npu, machine_chip, place
from autoneural.runtime.engine import Engine
from autoneural.runtime.generation import Timings
from autoneural.target.chips import find_chip
from tests.runtime.helpers import CONVERSATIONS, answer, picture

ROOT = Path(__file__).resolve().parents[2]
WHEEL = qnn.Wheel(version="9.9", sdk="2.99", library=Path("libqnn.so"), backend=Path("libHtp.so"))


def with_targets(bundle: Bundle, *names: str) -> Bundle:
    target = bundle.target("float")
    targets = {name: dataclasses.replace(target, name=name) for name in names}
    return dataclasses.replace(bundle, targets=targets)


@pytest.fixture
def npu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Makes this machine one with an NPU, of the chip named."""

    def fake(chip: str | None) -> None:
        monkeypatch.setattr(devices, "find_npu", lambda: (True, "an NPU"))
        monkeypatch.setattr(devices, "machine_chip", lambda: find_chip(chip) if chip else None)

    return fake


@pytest.fixture
def no_npu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_npu", lambda: (False, "no such thing"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes `find_npu` see another system, with or without the wheel and its devices."""

    def fake(kind: str, *, system: str = "linux", wheel: bool = True, types: str = "") -> None:
        found = [getattr(ort.OrtHardwareDeviceType, name) for name in types.split()]
        offered = [SimpleNamespace(device=SimpleNamespace(type=t)) for t in found]
        monkeypatch.setattr(devices, "emulates", lambda: kind == "x86_64")
        monkeypatch.setattr(devices.platform, "machine", lambda: kind)
        monkeypatch.setattr(devices.sys, "platform", system)
        monkeypatch.setattr(devices, "find_wheel", lambda: WHEEL if wheel else None)
        monkeypatch.setattr(devices, "provider_devices", lambda wheel: offered)

    return fake


@pytest.mark.parametrize(
    ("chip", "targets", "wanted"),
    [
        ("SA8775P", ("cpu", "qdq"), "qdq"),
        ("SA8775P", ("cpu", "qdq", "htp/SA8775P"), "htp/SA8775P"),
        ("SA8775P", ("cpu", "qdq", "htp/SA8255P"), "htp/SA8255P"),  # one soc_model, one binary
        ("SA8775P", ("cpu", "qdq", "htp/SA8295P"), "qdq"),
        ("X Elite", ("htp/X-Elite",), "htp/X-Elite"),
        (None, ("qdq", "htp/SA8295P"), "qdq"),
    ],
)
@pytest.mark.parametrize("device", ["npu", "auto"])
def test_an_npu_runs_its_chips_binaries_or_the_integer_graphs(
    npu, tiny_bundle: Bundle, chip: str | None, targets: tuple[str, ...], wanted: str, device: str
) -> None:
    npu(chip)
    found = place(with_targets(tiny_bundle, *targets), device=device)
    assert (found.device, found.target, found.whole) == ("npu", wanted, False)
    assert found.chip == (find_chip(chip) if chip else None)


def test_the_chip_named_counts_more_than_the_one_found(npu, tiny_bundle: Bundle) -> None:
    npu("SM8650")
    bundle = with_targets(tiny_bundle, "qdq", "htp/SM8650", "htp/SM8750")
    assert place(bundle, device="npu", chip="sm8750").target == "htp/SM8750"


def test_the_integer_graphs_are_compiled_there_when_asked_for(npu, tiny_bundle: Bundle) -> None:
    npu("SM8650")
    bundle = with_targets(tiny_bundle, "qdq", "htp/SM8650")
    assert place(bundle, "qdq", "npu").target == "qdq"


def test_binaries_named_are_taken(npu, tiny_bundle: Bundle) -> None:
    npu(None)
    bundle = with_targets(tiny_bundle, "qdq", "htp/SM8650")
    assert place(bundle, "htp/SM8650", "npu").target == "htp/SM8650"


def test_required_means_whole(npu, tiny_bundle: Bundle) -> None:
    npu("SM8650")
    assert place(with_targets(tiny_bundle, "qdq"), device="auto", require_npu=True).whole


@pytest.mark.parametrize(
    ("target", "wanted"), [(None, "cpu"), ("qdq", "qdq"), ("float", "float"), ("cpu", "cpu")]
)
def test_auto_without_an_npu_is_the_cpu_and_says_why(
    no_npu, tiny_bundle: Bundle, target: str | None, wanted: str
) -> None:
    found = place(tiny_bundle, target, "auto")
    assert (found.device, found.target) == ("cpu", wanted)
    assert target in ("float", "cpu") or "no such thing" in found.why


def test_auto_leaves_to_the_cpu_what_only_the_cpu_runs(npu, tiny_bundle: Bundle) -> None:
    npu("SA8295P")
    assert place(tiny_bundle, "float", "auto").device == "cpu"
    found = place(tiny_bundle, None, "auto")  # nothing in it for an NPU
    assert (found.device, found.target) == ("cpu", "cpu")
    assert "neither binaries for SA8295P nor the target qdq" in found.why


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"device": "gpu"}, "no device called 'gpu'; one of cpu, htp-emulator, npu, cuda, auto"),
        ({"chip": "SA8295P"}, r"a chip \(SA8295P\) goes with the devices"),
        ({"device": "auto", "chip": "SA1"}, "no chip called 'SA1'; one of SA8295P"),
        ({"device": "npu"}, "no NPU to run on: no such thing .*doctor"),
        ({"device": "auto", "require_npu": True}, "no NPU to run on: no such thing"),
        ({"device": "htp-emulator", "require_npu": True}, "htp-emulator is none"),
        ({"require_npu": True}, "an NPU is required, and cpu is none"),
        ({"device": "htp-emulator", "target": "cpu"}, "does not run the target cpu; it takes qdq"),
        ({"device": "npu", "target": "float"}, "npu does not run the target float"),
        ({"device": "htp-emulator", "target": "htp/SM8650"}, "does not run the target htp/SM8650"),
        ({"device": "auto", "target": "htp/SM8650"}, "no NPU to run on: no such thing"),
    ],
    ids=str,
)
def test_what_cannot_be_had_is_one_line(
    no_npu, tiny_bundle: Bundle, options: dict, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        place(tiny_bundle, **options)
    assert "\n" not in str(caught.value)


def test_an_emulator_elsewhere_is_refused(machine, tiny_bundle: Bundle) -> None:
    machine("arm64", system="darwin")
    with pytest.raises(UserError, match="Linux x86-64 only, and this is darwin arm64"):
        place(tiny_bundle, device="htp-emulator")


def test_an_emulator_without_the_wheel_says_how_to_get_it(
    monkeypatch, machine, tiny_bundle: Bundle
) -> None:
    machine("x86_64")
    monkeypatch.setattr(qnn, "find_wheel", lambda: None)
    with pytest.raises(UserError, match=r"needs onnxruntime-qnn.*autoneural\[npu\]"):
        place(with_targets(tiny_bundle, "qdq"), device="htp-emulator")


def test_an_emulator_needs_the_integer_graphs(monkeypatch, machine, tiny_bundle: Bundle) -> None:
    machine("x86_64")
    monkeypatch.setattr(devices, "require_wheel", lambda: WHEEL)
    with pytest.raises(UserError, match="no target qdq, which the emulator.* holds float"):
        place(tiny_bundle, device="htp-emulator")


@pytest.mark.parametrize(
    ("held", "taken"), [(("qdq",), "qdq"), (("qdq", "cpu"), "cpu"), (("float",), "cpu")]
)
def test_a_cpu_takes_its_own_graphs_or_the_integer_ones(
    tiny_bundle: Bundle, held: tuple[str, ...], taken: str
) -> None:
    assert place(with_targets(tiny_bundle, *held)).target == taken


@pytest.mark.parametrize(
    ("options", "found", "why"),
    [
        ({"kind": "x86_64", "types": "NPU"}, False, "an emulator"),
        ({"kind": "AMD64", "system": "win32", "types": "NPU"}, False, "win32 AMD64"),
        ({"kind": "aarch64", "wheel": False}, False, "not installed"),
        ({"kind": "aarch64", "types": "CPU"}, False, "/dev/fastrpc-cdsp"),
        ({"kind": "aarch64"}, False, "/dev/fastrpc-cdsp"),
        ({"kind": "ARM64", "system": "win32", "types": "CPU"}, False, "finds no NPU"),
        ({"kind": "aarch64", "types": "NPU CPU"}, True, "9.9 offers an NPU"),
        ({"kind": "ARM64", "system": "win32", "types": "NPU"}, True, "9.9 offers an NPU"),
    ],
    ids=str,
)
def test_finding_an_npu(machine, options: dict, found: bool, why: str) -> None:
    machine(**options)
    answered = find_npu()
    assert answered[0] is found
    assert why in answered[1]


def test_a_library_that_does_not_load_is_a_reason(monkeypatch, machine) -> None:
    def fails(wheel: qnn.Wheel) -> list:
        raise UserError("libqnn.so: cannot be loaded (no libcdsprpc.so)")

    machine("aarch64")
    monkeypatch.setattr(devices, "provider_devices", fails)
    assert find_npu() == (False, "libqnn.so: cannot be loaded (no libcdsprpc.so)")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SA8295P\n", "SA8295P"),
        ("qcom,sa8775p-ride\0qcom,sa8775p\0", "SA8775P"),
        ("Snapdragon(R) X Elite - X1E80100 - Qualcomm(R) Oryon(TM) CPU", "X Elite"),
        ("Raspberry Pi 5", None),
    ],
)
def test_a_machine_says_which_chip_it_is(
    monkeypatch, tmp_path: Path, text: str, name: str | None
) -> None:
    told = tmp_path / "compatible"
    told.write_text(text)
    monkeypatch.setattr(devices, "_IDENTITY", (str(tmp_path / "not there"), str(told)))
    chip = machine_chip()
    assert (chip.name if chip else None) == name


@pytest.mark.parametrize("chip", [None, "sa8775p"])
def test_the_emulator_answers_as_the_integer_graphs_do(
    qnn_wheel: qnn.Wheel, exported: Bundle, chip: str | None
) -> None:
    emulated = Engine(exported, device="htp-emulator", chip=chip)
    reference = Engine(exported, "qdq", threads=1)
    name = chip.upper() if chip else "SA8295P"
    assert emulated.placement.label == f"qdq, emulated {name}"
    tokens = [answer(e, CONVERSATIONS[0], max_tokens=3).token_ids for e in (emulated, reference)]
    assert tokens[0] == tokens[1]
    assert len(tokens[0]) == 3
    found, wanted = (logits(engine) for engine in (emulated, reference))
    noise = np.square(found - wanted).mean()
    assert noise > 0  # computed elsewhere, by other arithmetic
    assert 10 * np.log10(np.square(wanted).mean() / noise) > 15


def logits(engine: Engine) -> np.ndarray:
    engine.reset()
    return engine._prefill(engine.generate(CONVERSATIONS[0])._prompt, Timings())


def test_every_node_is_emulated_and_the_report_says_so(
    qnn_wheel: qnn.Wheel, exported: Bundle
) -> None:
    report = Engine(exported, device="htp-emulator").provider_report()
    assert [row["role"] for row in report] == ["vision", "decode", "verify", "prefill", "head"]
    assert {row["device"] for row in report} == {"emulated"}
    assert all(list(row["nodes"]) == [qnn.PROVIDER] for row in report)


def test_the_encoder_runs_apart_and_its_features_are_encoded_anew(
    qnn_wheel: qnn.Wheel, exported: Bundle
) -> None:
    apart = Engine(exported, device="vision=htp-emulator,language=cpu", threads=1)
    assert apart.placement.label == "cpu; vision: qdq, emulated SA8295P"
    devices = {row["role"]: row["device"] for row in apart.provider_report()}
    assert devices == {role: "emulated" if role == "vision" else "cpu" for role in devices}
    found, wanted = (logits(engine) for engine in (apart, Engine(exported, "cpu", threads=1)))
    noise = np.square(found - wanted).mean()
    assert noise > 0
    assert 10 * np.log10(np.square(wanted).mean() / noise) > 15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "vision=npu"}, "expected one, or vision=ONE,language=ANOTHER"),
        ({"device": "vision=cpu,vision=cpu,language=cpu"}, "expected one, or vision=ONE"),
        ({"device": "vision=cpu,head=cpu"}, "expected one, or vision=ONE"),
        ({"device": "vision=cpu,language=tpu"}, "no device called 'tpu'"),
        ({"device": "vision=npu,language=cpu"}, "no NPU to run on"),
        ({"device": "vision=cpu,language=cpu", "chip": "SA8295P"}, "goes with the devices"),
        ({"device": "vision=cpu,language=auto", "target": "qdq"}, "each device takes its own"),
        ({"device": "vision=cpu,language=npu", "require_npu": True}, "an NPU is required"),
    ],
)
def test_devices_apart_that_cannot_be_are_refused(
    no_npu, tiny_bundle: Bundle, options: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        place(with_targets(tiny_bundle, "cpu", "qdq"), **options)


def test_apart_each_device_takes_its_own_target(npu, tiny_bundle: Bundle) -> None:
    npu("SM8650")
    bundle = with_targets(tiny_bundle, "cpu", "qdq", "htp/SM8650")
    found = place(bundle, device="vision=npu,language=cpu", chip="SM8650")
    assert (found.device, found.target) == ("cpu", "cpu")
    assert found.vision is not None
    assert (found.vision.device, found.vision.target) == ("npu", "htp/SM8650")


def test_nodes_beside_an_npu_are_counted(monkeypatch, exported: Bundle) -> None:
    engine = Engine(exported, "qdq", threads=1)
    assert engine.nodes_beside_npu() == 0
    on_npu = Placement(device="npu", target="qdq", why="")
    monkeypatch.setattr(
        engine, "_sessions", dataclasses.replace(engine._sessions, placement=on_npu)
    )
    counts = [sum(row["nodes"].values()) for row in engine.provider_report()]
    assert engine.nodes_beside_npu() == sum(counts) > 0


def test_stdout_holds_the_answer_alone(
    qnn_wheel: qnn.Wheel, exported: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    picture(1).save(tmp_path / "a.png")
    where = ["infer", str(exported.folder), "--device", "htp-emulator"]
    asked = ["--image", str(tmp_path / "a.png"), "-p", "what?", "--max-tokens", "2"]
    assert cli.main([*where, *asked, "--json"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)["usage"]["completion_tokens"] == 2
    assert captured.err == ""


def test_auto_says_on_stderr_what_it_chose(
    no_npu, exported: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = ["infer", str(exported.folder), "-p", "hi", "--max-tokens", "1", "--json"]
    assert cli.main([*asked, "--device", "auto"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)["text"] is not None
    assert captured.err.startswith("device cpu: no NPU to run on: no such thing")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("command", ["infer", "demo", "eval"])
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--require-npu", "no NPU to run on: no such thing"),
        ("--device npu", "no NPU to run on"),
        ("--device htp-emulator --chip SA1", "no chip called 'SA1'"),
        ("--device htp-emulator --require-npu", "htp-emulator is none"),
    ],
)
def test_a_device_that_is_not_there_is_one_line_and_2(
    no_npu, exported: Bundle, capsys, command: str, words: str, complaint: str
) -> None:
    prompt = ["-p", "hi"] if command == "infer" else []
    assert cli.main([command, str(exported.folder), *prompt, *words.split()]) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.err.count("\n") == 1


def test_a_checkpoint_has_no_device(tiny_checkpoint, capsys) -> None:
    assert cli.main(["eval", str(tiny_checkpoint.folder), "--device", "htp-emulator"]) == 2
    assert "needs a bundle" in capsys.readouterr().err


LONG_STEP = """
import sys
from autoneural import cli
from autoneural.runtime.session import GraphSession
run = GraphSession._run
def forever(self, feeds):
    print("running", file=sys.stderr, flush=True)
    while True:
        run(self, feeds)
GraphSession._run = forever
sys.exit(cli.main(sys.argv[1:]))
"""


def test_ctrl_c_in_an_emulated_step_ends_with_130(qnn_wheel: qnn.Wheel, exported: Bundle) -> None:
    asked = ["infer", str(exported.folder), "--device", "htp-emulator", "-p", "what?"]
    child = subprocess.Popen(
        [sys.executable, "-c", LONG_STEP, *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    assert child.stderr is not None
    assert child.stderr.readline() == "running\n"
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (130, "", "")


class OnCuda:
    """A session that says it runs on CUDA."""

    def __init__(self, path: Path, options: ort.SessionOptions, providers: list[str]) -> None:
        assert providers == ["CUDAExecutionProvider", "CPUExecutionProvider"]
        self._session = SESSION(path, options, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


SESSION = ort.InferenceSession


def test_cuda_is_a_provider_like_the_others(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = answer(Engine(tiny_bundle, "float", threads=1), CONVERSATIONS[0])
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: offered)
    monkeypatch.setattr(ort, "InferenceSession", OnCuda)
    engine = Engine(tiny_bundle, device="cuda", threads=1)
    assert (engine.placement.device, engine.target) == ("cuda", "float")
    assert engine.placement.label == "float on CUDA"
    assert answer(engine, CONVERSATIONS[0]).token_ids == plain.token_ids
    assert {row["device"] for row in engine.provider_report()} == {"cuda"}


def test_cuda_that_is_not_there_or_does_not_start_is_one_line(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="offers .*; install onnxruntime-gpu in its place"):
        Engine(tiny_bundle, device="cuda")
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: offered)
    # So does ONNX Runtime where CUDA's libraries are missing.
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda path, options, providers: SESSION(path, options, providers=providers[1:]),
    )
    with pytest.raises(UserError, match="float on CUDA .its CUDA provider does not start"):
        Engine(tiny_bundle, device="cuda")


def test_what_does_not_go_with_cuda(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="an NPU is required, and cuda is none"):
        place(tiny_bundle, device="cuda", require_npu=True)
    with pytest.raises(UserError, match="a chip .SA8295P. goes with"):
        place(tiny_bundle, device="cuda", chip="SA8295P")
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    both = with_targets(tiny_bundle, "qdq", "cpu")
    found = place(both, device="vision=cuda,language=cpu")
    assert (found.device, found.target) == ("cpu", "cpu")
    assert found.vision is not None
    assert (found.vision.device, found.vision.target) == ("cuda", "cpu")
    assert place(both, "qdq", device="cuda").target == "qdq"
