"""What the decoder and the encoder become in ONNX: whole operations, low rank, the same numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from autoneural.config import preset
from autoneural.model.language_model import causal_mask, rotary_tables
from autoneural.model.state import DecoderState
from autoneural.model.vlm import VLM

CONTEXT = 32
DATA_MOVEMENT = {"Reshape", "Transpose", "Slice", "Split", "Resize"}
ARITHMETIC = {"Conv", "MatMul", "RMSNormalization", "Gelu", "Add", "Mul", "Sigmoid", "Softmax"}


class Decode(nn.Module):
    """Flat inputs and outputs around the decoder core."""

    def __init__(self, model: VLM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, embeds: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        state = DecoderState.from_tensors(self.model.config.text, past)
        hidden, new = self.model.language_model.decode(embeds, cos, sin, mask, state)
        return hidden, *new.tensors()


class Vision(nn.Module):
    """Pixels to visual tokens."""

    def __init__(self, model: VLM) -> None:
        super().__init__()
        self.vision_encoder, self.projector = model.vision_encoder, model.projector

    def forward(self, pixels: Tensor) -> Tensor:
        return self.projector(self.vision_encoder(pixels))


def graph_and_arguments(role: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    model = VLM(preset("cockpit-tiny")).eval()
    if role == "vision":
        return Vision(model).eval(), (torch.rand(1, 3, 256, 256),)
    text, width = model.config.text, {"prefill": 8, "decode": 1}[role]
    state = DecoderState.zeros(text, 1, CONTEXT)
    return Decode(model).eval(), (
        torch.randn(1, width, text.hidden_size),
        *rotary_tables(text, torch.arange(5, 5 + width)),
        causal_mask(width, 5, CONTEXT),
        *(torch.randn_like(tensor) for tensor in state.tensors()),
    )


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning")
@pytest.mark.parametrize("role", ["prefill", "decode", "vision"])
def test_export_keeps_operations_whole_and_numbers_equal(role: str) -> None:
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
