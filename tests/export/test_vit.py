"""SigLIP2 as a static graph: float and integer parity at one grid, with both kinds of connector."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import pytest
import torch
from torch import nn

from autoneural.checkpoint import Checkpoint
from autoneural.compress.fake_quant import Calibration, freeze, quantize
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import frozen_tensors
from autoneural.compress.wiring import engine_modules, trace
from autoneural.config import ModelConfig, ProjectorConfig, ViTConfig
from autoneural.errors import UserError
from autoneural.export.graphs import GraphKey, build_graph
from autoneural.export.onnx import export_graph, model_bytes
from autoneural.export.parity import (
    compare_float,
    compare_integer,
    exact_session,
    on_grid,
    run_float,
    run_integer,
    run_torch,
    worst,
)
from autoneural.export.qdq import load_quantization, quantize_graph
from autoneural.model.vlm import VLM, fix_image_size
from autoneural.target.numerics import Encoding
from tests.export.conftest import CONFIG as CONVOLUTIONAL
from tests.export.conftest import random_inputs

KEY = GraphKey(role="vision", image_size=32)
CONFIG = replace(
    CONVOLUTIONAL,
    vision=ViTConfig(
        image_size=32,
        patch_size=4,
        num_patches=9,
        hidden_size=16,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=2,
    ),
    projector=ProjectorConfig(hidden_size=24, hidden_act="gelu", layer_norm=True),
)
NORM_FREE = replace(CONFIG, projector=ProjectorConfig(hidden_size=24, bias=False))


def fixed(config: ModelConfig) -> VLM:
    """A random model with vectors away from zero and one, its positions fixed at 32 px."""
    torch.manual_seed(0)
    model = VLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    found, state = fix_image_size(config, model.state_dict(), 32)
    made = VLM(found).eval().requires_grad_(False)
    made.load_state_dict(state)
    return made


@pytest.fixture(params=[CONFIG, NORM_FREE], ids=["layer-norm", "norm-free"])
def model(request: pytest.FixtureRequest) -> VLM:
    return fixed(request.param)


def test_float_graph_computes_what_pytorch_does(model: VLM) -> None:
    graph = build_graph(model, KEY)
    exported = export_graph(graph)
    inputs = random_inputs(graph, seed=5)
    got = run_float(model_bytes(exported), inputs)
    assert worst(compare_float(run_torch(graph, inputs), got)).sqnr_db > 100
    kinds = [node.op_type for node in exported.graph]
    norms = sum(isinstance(m, nn.LayerNorm) for m in graph.module.modules())
    assert kinds.count("LayerNormalization") == norms == 5 + model.config.projector.layer_norm
    assert kinds.count("Gelu") == 3
    assert not {"Resize", "Erf", "Sqrt", "Tanh", "Einsum"} & set(kinds)


@pytest.mark.parametrize("precision", ["w8a16", "w4a16kv8"])
def test_integer_graph_computes_what_fake_quantisation_does(model: VLM, precision: str) -> None:
    exported, ends = integer_graph(model, precision)
    graph = build_graph(model, KEY)
    inputs = on_grid(random_inputs(graph, seed=9), ends)
    expected = run_torch(graph, inputs)
    got = run_integer(exact_session(model_bytes(exported)), inputs, ends)
    assert worst(compare_integer(expected, got, ends)).sqnr_db > 60


def integer_graph(model: VLM, precision: str) -> tuple[ir.Model, dict[str, Encoding]]:
    """The vision graph of `model`, which is quantised in place, and the encodings of its ends."""
    config, plain = model.config, VLM(model.config).eval()
    quantize(model, PRECISIONS[precision])
    keys = (
        KEY,
        GraphKey(role="decode", width=1, context=16),
        GraphKey(role="prefill", width=8, context=16),
        GraphKey(role="head", width=1),
    )
    with Calibration(model):
        for seed in range(4):
            for graph in (build_graph(model, key) for key in keys):
                run_torch(graph, random_inputs(graph, seed))
    encodings = freeze(model, PRECISIONS[precision])
    quantization = load_quantization(Checkpoint(config, frozen_tensors(model), {}, encodings))
    table = quantization.weights["vision_encoder.embeddings.position_embedding.weight"]
    assert (table.bits, table.values.shape) == (16, (64, 16))
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k in plain.state_dict()})
    exported = export_graph(build_graph(plain, KEY))
    return exported, quantize_graph(exported, quantization)


def test_every_engine_module_reads_a_range(model: VLM) -> None:
    quantize(model, PRECISIONS["w8a16"])
    graph = build_graph(model, KEY)
    with torch.no_grad():
        wiring = trace(graph.module, [lambda m: m(*random_inputs(graph).values())])
    assert set(wiring) == set(engine_modules(graph.module))
    assert wiring["vision_encoder.encoder.layers.0.self_attn.q_proj"] == (
        "vision_encoder.encoder.layers.0.layer_norm1",
    )


def test_a_graph_needs_one_grid() -> None:
    with pytest.raises(UserError, match="vision: positions follow the picture, a graph has one"):
        build_graph(VLM(CONFIG), KEY)


def test_a_layer_norm_has_the_constants_that_every_chip_takes(model: VLM) -> None:
    """HTP before v73 computes it in integers with a gamma of uint8 and a beta of int32 alone."""
    exported, _ = integer_graph(model, "w8a16")
    norms = [node for node in exported.graph if node.op_type == "LayerNormalization"]
    assert norms
    for norm in norms:
        for value, kind in zip(norm.inputs[1:], ("UINT8", "INT32"), strict=True):
            dequantize = value.producer()
            assert dequantize.op_type == "DequantizeLinear"
            assert dequantize.inputs[0].dtype.name == kind
