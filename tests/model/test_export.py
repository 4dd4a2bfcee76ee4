"""What the decoder and the encoder become in ONNX: whole operations, low rank, the same numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from autoneural.config import preset
from autoneural.export.graphs import GraphKey, build_graph
from autoneural.export.parity import sample_inputs
from autoneural.manifest import Role
from autoneural.model.vlm import VLM

CONTEXT = 32
DATA_MOVEMENT = {"Reshape", "Transpose", "Slice", "Split", "Resize"}
ARITHMETIC = {"Conv", "MatMul", "RMSNormalization", "Gelu", "Add", "Mul", "Sigmoid", "Softmax"}


def graph_and_arguments(role: Role) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    model = VLM(preset("cockpit-tiny")).eval()
    width = {"prefill": 8, "decode": 1, "vision": 0}[role]
    graph = build_graph(model, GraphKey(role=role, width=width, context=CONTEXT, image_size=256))
    inputs = sample_inputs(graph, model.language_model.model.embed_tokens.weight)
    return graph.module, tuple(inputs.values())


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning")
@pytest.mark.parametrize("role", ["prefill", "decode", "vision"])
def test_export_keeps_operations_whole_and_numbers_equal(role: Role) -> None:
    module, arguments = graph_and_arguments(role)
    with torch.no_grad():
        outputs = module(*arguments)
        program = torch.onnx.export(module, arguments, dynamo=True, opset_version=23, verbose=False)
    assert program is not None
    model = program.model_proto
    kinds = Counter(node.op_type for node in model.graph.node)
    assert set(kinds) <= DATA_MOVEMENT | ARITHMETIC | {"Concat", "Pad", "AveragePool"}
    names = Counter(type(child).__name__ for child in module.modules())
    if role == "vision":
        assert kinds["RMSNormalization"] == names["RMSNorm2d"]
        assert kinds["Gelu"] == names["Gelu"]
    else:
        used = names["RMSNorm"]  # the graph's modules and nothing else
        assert kinds["RMSNormalization"] == used
    assert max(len(v.type.tensor_type.shape.dim) for v in model.graph.value_info) <= 5

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {i.name: a.numpy() for i, a in zip(session.get_inputs(), arguments, strict=True)}
    expected = outputs if isinstance(outputs, tuple) else (outputs,)
    for actual, wanted in zip(session.run(None, feeds), expected, strict=True):
        error = np.linalg.norm(np.asarray(actual) - wanted.numpy())
        assert error < 1e-5 * np.linalg.norm(wanted.numpy())
