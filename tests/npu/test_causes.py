"""Causes, judged from made-up differences on a real layer of the embedded decode graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from autoneural.bundle import DEFAULT_BUNDLE, EMBEDDED
from autoneural.npu.causes import likely_cause
from autoneural.npu.certificate import LayerCheck
from autoneural.npu.simulate import EngineNode, engine_nodes
from autoneural.npu.taps import Layer, layers_of

DECODE = EMBEDDED / DEFAULT_BUNDLE / "qdq" / "decode.onnx"
NAME = "language_model.model.layers.0.conv.in_proj"
RNG = np.random.default_rng(0)
OFFSET = np.broadcast_to(RNG.integers(-15, 16, 64), (2, 1, 32, 64))
NOISE = RNG.integers(-3, 4, (2, 1, 32, 64))


@pytest.fixture
def linear() -> tuple[Layer, EngineNode]:
    graph = ir.load(DECODE).graph
    layer = next(layer for layer in layers_of(graph) if layer.name == NAME)
    return layer, next(item for item in engine_nodes(graph) if item.layer == NAME)


def check(fill: float = 0.5, sqnr_qdq_db: float = 40.0) -> LayerCheck:
    return LayerCheck(
        graph="decode",
        depth=0,
        name=NAME,
        op="MatMul",
        precision="w4a16",
        sqnr_float_db=60.0,
        sqnr_qdq_db=sqnr_qdq_db,
        predicted_db=80.0,
        rms_float=0.001,
        rms_qdq=0.01,
        rms_lsb=8.0,
        max_lsb=15,
        fill=fill,
    )


def unsnap(engine: EngineNode) -> None:
    """Weight scales that need more bits than v68 keeps."""
    assert engine.weight is not None
    value = engine.weight.inputs[1]
    assert value is not None
    scale = ir.convenience.get_const_tensor(value)
    assert scale is not None
    value.const_value = ir.tensor(scale.numpy() * np.float32(1.0003))


def test_an_offset_per_channel_is_the_multiplier_of_v68(linear: tuple[Layer, EngineNode]) -> None:
    layer, engine = linear
    unsnap(engine)
    cause = likely_cause(check(), layer, OFFSET, engine=engine, htp=68)
    assert "v68 rounds the multiplier to 11 bits" in str(cause)


def test_not_where_the_scales_are_snapped_nor_on_v73(linear: tuple[Layer, EngineNode]) -> None:
    layer, engine = linear
    assert "lower byte" in str(likely_cause(check(), layer, OFFSET, engine=engine, htp=68))
    unsnap(engine)
    assert "lower byte" in str(likely_cause(check(), layer, OFFSET, engine=engine, htp=73))


def test_an_outlier_channel_is_named(linear: tuple[Layer, EngineNode]) -> None:
    layer, engine = linear
    steps = NOISE.copy()
    steps[..., 17] *= 40
    assert "channel 17" in str(likely_cause(check(), layer, steps, engine=engine, htp=73))


def test_an_empty_range_is_said(linear: tuple[Layer, EngineNode]) -> None:
    layer, engine = linear
    cause = likely_cause(check(fill=0.01), layer, NOISE, engine=engine, htp=73)
    assert "output range not filled (1.0% of it)" in str(cause)


def test_agreement_needs_no_cause(linear: tuple[Layer, EngineNode]) -> None:
    layer, engine = linear
    near = check(sqnr_qdq_db=70.0)
    assert likely_cause(near, layer, NOISE, engine=engine, htp=68) is None
    assert likely_cause(check(), layer, np.zeros_like(NOISE), engine=engine, htp=68) is None


def test_large_differences_hint_at_a_layout(linear: tuple[Layer, EngineNode]) -> None:
    layer, _ = linear
    cause = likely_cause(check(), layer, NOISE * 4000, engine=None, htp=68)
    assert "layout" in str(cause)
