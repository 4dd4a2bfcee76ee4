"""Tapped, severed and floating views of the embedded decode graph against the graph itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from autoneural.bundle import DEFAULT_BUNDLE, EMBEDDED
from autoneural.npu.layer_checks import input_encodings, reference_session
from autoneural.npu.taps import GIVEN, floating, layers_of, severed, tapped
from autoneural.target.numerics import dequantize_affine, sqnr_db

DECODE = EMBEDDED / DEFAULT_BUNDLE / "qdq" / "decode.onnx"


@pytest.fixture(scope="module")
def feeds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    session = reference_session(DECODE)
    made = {
        t.name: rng.integers(96, 160, t.shape).astype(np.uint8)
        if t.type == "tensor(uint8)"
        else rng.integers(24000, 42000, t.shape).astype(np.uint16)
        for t in session.get_inputs()
    }
    made["mask"][...] = 65535
    return made


def run(model: ir.Model | Path, feeds: dict[str, np.ndarray], folder: Path) -> dict:
    if isinstance(model, ir.Model):
        file = folder / "model.onnx"
        ir.save(model, file, external_data="model.data")
        model = file
    session = reference_session(model)
    names = [output.name for output in session.get_outputs()]
    wanted = {t.name: feeds[t.name] for t in session.get_inputs()}
    return dict(zip(names, session.run(names, wanted), strict=True))


def test_taps_change_nothing(feeds: dict[str, np.ndarray], tmp_path: Path) -> None:
    whole, all_of_it = run(DECODE, feeds, tmp_path), run(tapped(DECODE), feeds, tmp_path)
    assert len(all_of_it) > 5 * len(whole)
    assert all(np.array_equal(all_of_it[name], whole[name]) for name in whole)


def test_severed_layers_given_the_run_repeat_it(
    feeds: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run_of_it = run(tapped(DECODE), feeds, tmp_path)
    given = {**feeds, **{GIVEN + name: array for name, array in run_of_it.items()}}
    apart = run(severed(DECODE), given, tmp_path)
    assert apart.keys() == run_of_it.keys()
    assert all(np.array_equal(apart[name], run_of_it[name]) for name in apart)


def test_a_severed_layer_reads_what_it_is_given(
    feeds: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run_of_it = run(tapped(DECODE), feeds, tmp_path)
    layers = layers_of(ir.load(DECODE).graph)
    given = {**feeds, **{GIVEN + name: array for name, array in run_of_it.items()}}
    given[GIVEN + layers[0].tensor] = np.zeros_like(run_of_it[layers[0].tensor])
    apart = run(severed(DECODE), given, tmp_path)
    changed = {name for name in apart if not np.array_equal(apart[name], run_of_it[name])}
    assert 0 < len(changed) < 6  # its readers, and not all that comes after


def test_floating_is_near_the_integers(feeds: dict[str, np.ndarray], tmp_path: Path) -> None:
    encodings = input_encodings(ir.load(DECODE).graph)
    reals = {name: dequantize_affine(q, encodings[name]) for name, q in feeds.items()}
    real, integer = run(floating(DECODE), reals, tmp_path), run(tapped(DECODE), feeds, tmp_path)
    for layer in layers_of(ir.load(DECODE).graph):
        whole = dequantize_affine(integer[layer.tensor], layer.encoding)
        assert real[layer.tensor].dtype == np.float32
        assert sqnr_db(real[layer.tensor], whole) > 10, layer.name


def test_layers_are_named_and_carry_their_precision() -> None:
    layers = layers_of(ir.load(DECODE).graph)
    first = next(layer for layer in layers if layer.name.endswith("layers.0.conv.in_proj"))
    assert (first.op, first.precision) == ("MatMul", "w4a16")
    assert not [layer for layer in layers if not layer.name]
    assert len({layer.tensor for layer in layers}) == len(layers)
