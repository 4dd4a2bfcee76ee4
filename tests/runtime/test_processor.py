"""What the processor is, and how bytes are kept from being cut off on one without VNNI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from autoneural.runtime import processor as module
from autoneural.runtime.backend import cpu_options
from autoneural.runtime.processor import adds_bytes_in_16_bits, processor
from autoneural.target import rows

INTEL = "processor : 0\nmodel name : Some CPU\nflags : fpu {flags}\n"


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    processor.cache_clear()
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    yield monkeypatch
    processor.cache_clear()


def tells(system: pytest.MonkeyPatch, text: str | None) -> None:
    def read_text(self: Path, **how: str) -> str:
        if text is None:
            raise FileNotFoundError(self)
        return text

    system.setattr(module.Path, "read_text", read_text)


@pytest.mark.parametrize(
    ("flags", "cut"),
    [("avx2", True), ("avx2 avx512f", True), ("avx2 avx_vnni", False), ("amx_int8", False)],
)
def test_vnni_sums_in_32_bits(system: pytest.MonkeyPatch, flags: str, cut: bool) -> None:
    tells(system, INTEL.format(flags=flags))
    assert processor() == ("Some CPU", tuple(flags.split()))
    assert adds_bytes_in_16_bits() is cut


def test_a_system_that_tells_nothing_is_not_trusted(system: pytest.MonkeyPatch) -> None:
    tells(system, None)
    assert processor()[1] == ()
    assert adds_bytes_in_16_bits()


def test_arm_needs_nothing(system: pytest.MonkeyPatch) -> None:
    tells(system, "processor : 0\nFeatures : fp asimd\n")
    system.setattr("platform.machine", lambda: "aarch64")
    assert processor() == ("aarch64", ())
    assert not adds_bytes_in_16_bits()


@pytest.mark.parametrize(("cut", "most"), [(False, 127), (True, 63)])
def test_the_engine_opens_graphs_with_the_bits_that_fit(
    monkeypatch: pytest.MonkeyPatch, cut: bool, most: int
) -> None:
    monkeypatch.setattr("autoneural.runtime.backend.adds_bytes_in_16_bits", lambda: cut)
    data = graph_of_constants().SerializeToString()
    session = ort.InferenceSession(data, cpu_options("cpu", 1), providers=["CPUExecutionProvider"])
    share, middle = session.run(None, {"x": np.ones(1, np.float32)})
    assert share == np.float32(1 / most)
    assert middle == 1 + most + 1


def graph_of_constants() -> onnx.ModelProto:
    names = (rows.share(8), rows.ONE, rows.middle(8))
    constants = [onnx.numpy_helper.from_array(rows.constants(8)[name], name) for name in names]
    nodes = [
        helper.make_node("Mul", ["x", names[0]], ["share"]),
        helper.make_node("QuantizeLinear", ["x", *names[1:]], ["counted"]),
    ]
    kinds = {"x": TensorProto.FLOAT, "share": TensorProto.FLOAT, "counted": TensorProto.UINT8}
    x, *outputs = (helper.make_tensor_value_info(n, kind, [1]) for n, kind in kinds.items())
    graph = helper.make_graph(nodes, "constants", [x], outputs, constants)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 23)])
