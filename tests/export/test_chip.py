"""The model that computes as a chip does, against the emulator of that chip, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from autoneural.compress.chip import compute_as
from autoneural.compress.quantize import Sample
from autoneural.compress.snap import snap_scales
from autoneural.compress.wiring import Wiring, trace
from autoneural.export.graphs import build_graph
from autoneural.export.onnx import export_graph
from autoneural.export.parity import on_grid, run_torch
from autoneural.export.qdq import quantize_graph
from autoneural.model import layers
from autoneural.model.vlm import VLM
from autoneural.npu.simulate import EngineNode, encoding_of, engine_nodes
from autoneural.npu.taps import tapped
from autoneural.npu.worker import run_job
from autoneural.runtime.qnn import Wheel
from autoneural.target.chips import Chip, find_chip
from autoneural.target.numerics import (
    Encoding,
    dequantize_affine,
    quantize_affine,
    sqnr_db,
)
from tests.export.conftest import (
    CONFIG,
    KEYS,
    Quantised,
    collect,
    random_inputs,
    without_rounding,
)

V68, V73 = find_chip("SA8295P"), find_chip("SA8775P")
CHIPS = pytest.mark.parametrize("chip", [V68, V73], ids=lambda chip: chip.generation)
ROLES = pytest.mark.parametrize("role", ["vision", "prefill", "head"])


def wiring(model: VLM) -> Wiring:
    """What every engine module reads."""
    ids = torch.tensor([[1] * CONFIG.vision.num_tokens + [2, 3]])
    pixels = torch.zeros(1, 3, CONFIG.vision.image_size, CONFIG.vision.image_size)
    return trace(model, [Sample(input_ids_BT=ids, pixels_BCHW=pixels, image_token_id=1)])


@pytest.fixture(scope="module")
def snapped(quantised: Quantised) -> Quantised:
    """The same integers with scales that an old chip can hold."""
    model = copy.deepcopy(quantised.model)
    moved = snap_scales(model, wiring(model))
    encodings = copy.deepcopy(quantised.encodings)
    for path, encoding in moved.items():
        encodings["activations"][path]["scale"] = encoding.scale
    return replace(
        quantised,
        model=model,
        frozen_model=without_rounding(model),
        encodings=encodings,
        quantization=collect(model, encodings),
    )


@contextmanager
def computing_as(model: VLM, htp: int) -> Iterator[VLM]:
    compute_as(model, htp, wiring(model))
    yield model
    compute_as(model, None)


@dataclass(frozen=True)
class Emulated:
    """One run of a graph in the emulator: all integers in it, by name, and the graph."""

    graph: ir.Graph
    integers: dict[str, NDArray]
    inputs: dict[str, Tensor]
    encodings: dict[str, Encoding]


def emulate(quantised: Quantised, role: str, soc_model: int, folder: Path) -> Emulated:
    graph = build_graph(quantised.frozen_model, KEYS[role])
    model = export_graph(graph)
    encodings = quantize_graph(model, quantised.quantization)
    inputs = on_grid(random_inputs(graph, seed=5), encodings)
    file, feeds, outputs = (folder / name for name in ("graph.onnx", "feeds.npz", "outputs.npz"))
    ir.save(model, file)
    model = tapped(file)
    ir.save(model, file)
    integers = {n: quantize_affine(x.numpy(), encodings[n]) for n, x in inputs.items()}
    np.savez(feeds, **integers)
    item = {"name": role, "file": str(file), "feeds": str(feeds), "outputs": str(outputs)}
    run_job({"do": "run", "soc_model": soc_model, "graphs": [item]})
    with np.load(outputs) as made:
        return Emulated(model.graph, {**integers, **made}, inputs, encodings)


def inputs_of(node: EngineNode, module: nn.Module, emulated: Emulated) -> list[Tensor]:
    """What the emulator's layer has read, as the module reads it."""
    x = dequantize_affine(emulated.integers[str(node.x.name)], node.x_encoding)
    inputs = [torch.from_numpy(x)]
    pads = node.node.attributes.get("pads")
    if isinstance(module, nn.Conv2d) and module.padding == (0, 0) and pads is not None:
        top, left, bottom, right = pads.as_ints()
        inputs = [F.pad(inputs[0], (left, right, top, bottom))]
    if isinstance(module, layers.MatMul):
        value = node.node.inputs[1]
        assert value is not None
        dequantize = value.producer()
        assert dequantize is not None
        encoding = encoding_of(dequantize)
        second = dequantize_affine(emulated.integers[str(node.second.name)], encoding)
        inputs.append(torch.from_numpy(second))
    return inputs


def layer_outputs(model: VLM, emulated: Emulated) -> dict[str, tuple[NDArray, NDArray]]:
    """By layer: what the emulator made of its inputs, what `model` makes of the same, in steps."""
    found = {}
    for node in engine_nodes(emulated.graph):
        module = model.get_submodule(node.layer)
        with torch.no_grad():
            y = module(*inputs_of(node, module, emulated)).numpy()
        expected = emulated.integers[str(node.quantize.outputs[0].name)].astype(np.int64)
        found[node.layer] = (
            expected - node.y_encoding.zero_point,
            quantize_affine(y, node.y_encoding).astype(np.int64) - node.y_encoding.zero_point,
        )
    assert len(found) > 0
    return found


def decibels(outputs: dict[str, tuple[NDArray, NDArray]]) -> dict[str, float]:
    return {path: sqnr_db(*pair) for path, pair in outputs.items()}


def steps_off(outputs: dict[str, tuple[NDArray, NDArray]]) -> list[float]:
    """RMS error in steps of the output, of the layers with constant weights."""
    pairs = [pair for path, pair in outputs.items() if not path.endswith((".scores", ".mix"))]
    return [float(np.sqrt(np.square(a - b).mean())) for a, b in pairs]


@CHIPS
@ROLES
def test_every_layer_computes_what_the_chip_does(
    chip: Chip, role: str, quantised: Quantised, qnn_wheel: Wheel, tmp_path: Path
) -> None:
    emulated = emulate(quantised, role, chip.soc_model, tmp_path)
    plain = decibels(layer_outputs(quantised.model, emulated))
    with computing_as(quantised.model, chip.htp) as model:
        as_chip = decibels(layer_outputs(model, emulated))
    assert min(as_chip.values()) >= 65, as_chip
    assert np.median(list(as_chip.values())) > np.median(list(plain.values())) + 15
    if role != "head":
        assert min(plain.values()) < 45


@CHIPS
def test_an_8_bit_second_operand_is_seen_without_the_chip(
    chip: Chip, quantised: Quantised, quantised_kv8: Quantised, qnn_wheel: Wheel, tmp_path: Path
) -> None:
    """Keys and values of the vision encoder: the chip narrows them, so the recipe may as well."""
    found = []
    for q in (quantised, quantised_kv8):
        outputs = decibels(layer_outputs(q.model, emulate(q, "vision", chip.soc_model, tmp_path)))
        found.append([db for path, db in outputs.items() if path.endswith((".scores", ".mix"))])
    assert max(found[0]) < 55
    assert min(found[1]) > 55


def test_snapped_scales_leave_v68_without_offsets(
    quantised: Quantised, snapped: Quantised, qnn_wheel: Wheel, tmp_path: Path
) -> None:
    before, after = (
        steps_off(layer_outputs(q.model, emulate(q, "vision", V68.soc_model, tmp_path)))
        for q in (quantised, snapped)
    )
    assert np.median(before) > 5
    assert max(after) < 3


@CHIPS
def test_a_whole_step_is_predicted(
    chip: Chip, quantised: Quantised, qnn_wheel: Wheel, tmp_path: Path
) -> None:
    """What is left are the norms, activations and sums, which the chip computes in its own way."""
    emulated = emulate(quantised, "prefill", chip.soc_model, tmp_path)
    graph = build_graph(quantised.model, KEYS["prefill"])
    plain = run_torch(graph, emulated.inputs)
    with computing_as(quantised.model, chip.htp):
        as_chip = run_torch(graph, emulated.inputs)
    for name in ("hidden_states", "conv_window.0", "present.1.key", "present.1.value"):
        real = dequantize_affine(emulated.integers[name], emulated.encodings[name])
        assert sqnr_db(real, as_chip[name]) > sqnr_db(real, plain[name]), name
