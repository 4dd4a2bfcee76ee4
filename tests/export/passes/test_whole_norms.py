import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from autoneural.errors import UserError
from autoneural.export.graphs import GraphKey, TorchGraph
from autoneural.export.onnx import export_graph
from autoneural.export.passes.whole_norms import WholeNorms
from autoneural.model.layers import RMSNorm

MODEL = """
<ir_version: 10, opset_import: ["" : 23]>
step (float[1,2,4] x) => (float[1,4,2] y)
<float[4] w = {1,1,1,1}>
{
  a = RMSNormalization (x, w)
  y = Transpose <perm = [0,2,1]> (a)
}
"""
NORMS = {"layers.0.norm": "RMSNormalization", "layers.9.unused": "RMSNormalization"}


def parse(text: str = MODEL) -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(text))
    for node in model.graph:
        node.metadata_props["module"] = "layers.0.norm"
    return model


def test_one_node_and_what_moves_its_data_pass():
    assert not WholeNorms(NORMS)(parse()).modified


@pytest.mark.parametrize(
    ("old", "new", "became"),
    [
        ("RMSNormalization (x, w)", "Mul (x, w)", "Mul"),
        ("Transpose <perm = [0,2,1]> (a)", "Cast <to = 10> (a)", "RMSNormalization, Cast"),
    ],
)
def test_any_other_arithmetic_of_a_norm_is_an_error(old: str, new: str, became: str):
    message = rf"step: layers\.0\.norm: became {became}, not one RMSNormalization"
    with pytest.raises(UserError, match=message):
        WholeNorms(NORMS)(parse(MODEL.replace(old, new)))


class WrittenOut(RMSNorm):
    """As it is trained in bf16; with a mean of squares the exporter would put it together again."""

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * torch.rsqrt(norm.square() / x.shape[-1] + self.eps) * self.weight


class Head(nn.Module):
    """A norm and something after it."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.norm(hidden_states) + 1


def head(norm: RMSNorm) -> TorchGraph:
    inputs = {"hidden_states": torch.randn(1, 2, 4)}
    key = GraphKey(role="head", width=1)
    return TorchGraph(key=key, module=Head(norm).eval(), inputs=inputs, outputs=("logits",))


def test_the_exporter_keeps_a_norm_whole():
    operators = [node.op_type for node in export_graph(head(RMSNorm(4, 1e-5))).graph]
    assert operators == ["RMSNormalization", "Add"]


def test_the_exporter_refuses_a_norm_in_pieces():
    with pytest.raises(UserError, match=r"head: norm: became .*Mul.*, not one RMSNormalization"):
        export_graph(head(WrittenOut(4, 1e-5)))
