"""A decoder of any width: what one of each width computes, and no constant left that holds one."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from autoneural.bundle_graphs import growing_axes
from autoneural.config import ModelConfig
from autoneural.export.graphs import GraphKey, build_graph
from autoneural.export.onnx import export_graph
from autoneural.export.parity import sample_inputs
from autoneural.export.passes.any_past import AnyPast
from autoneural.export.passes.any_width import TRACED, AnyWidth
from autoneural.export.passes.attend_in_place import AttendInPlace
from autoneural.manifest import LayerState
from autoneural.model.vlm import VLM


@pytest.mark.parametrize("width", [1, 2, 19, 100])
def test_it_computes_what_a_graph_of_that_width_does(
    tiny_config: ModelConfig, graph: onnx.ModelProto, width: int
) -> None:
    torch.manual_seed(0)
    vlm = VLM(tiny_config).eval()
    static = build_graph(vlm, GraphKey(role="prefill", width=width, context=128))
    inputs = sample_inputs(static, vlm.language_model.model.embed_tokens.weight)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    got = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.no_grad():
        wanted = static.module(*inputs.values())
    for name, found, expected in zip(static.outputs, got, wanted, strict=True):
        assert np.asarray(found).shape == tuple(expected.shape), name
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def graph(tiny_config: ModelConfig) -> onnx.ModelProto:
    torch.manual_seed(0)
    vlm = VLM(tiny_config).eval()
    model = export_graph(build_graph(vlm, GraphKey(role="prefill", width=TRACED, context=128)))
    AttendInPlace()(model)
    state = [
        LayerState(layer=i, kind="attention", past=f"past_key_values.{i}", present="")
        for i, kind in enumerate(tiny_config.text.layer_types)
        if kind != "conv"
    ]
    AnyPast(growing_axes(state))(model)
    AnyWidth(tiny_config.text.conv_L_cache - 1)(model)
    return ir.to_proto(model)


def test_inputs_and_outputs_say_what_is_open(graph: onnx.ModelProto) -> None:
    open_sizes = {
        value.name: [d.dim_param for d in value.type.tensor_type.shape.dim if d.dim_param]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    assert open_sizes["inputs_embeds"] == open_sizes["hidden_states"] == ["rows"]
    assert open_sizes["mask"] == ["rows", "past_and_new"]
    assert all(open_sizes[n] == ["window"] for n in open_sizes if n.startswith("conv_window"))
    assert all(open_sizes[n] == ["rows"] for n in open_sizes if n.startswith("present"))


def test_a_width_that_it_cannot_free_is_named() -> None:
    text = f"""
    <ir_version: 10, opset_import: ["" : 23]>
    agraph (float[1,{TRACED},4] inputs_embeds) => (float[1,{TRACED},4] y)
    <int64[3] shape = {{1, {TRACED}, 4}}>
    {{
      y = Expand (inputs_embeds, shape)
    }}
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    with pytest.raises(ValueError, match=f"Expand y: holds the width {TRACED}"):
        AnyWidth(2)(model)
