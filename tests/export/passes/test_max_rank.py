import onnx
import onnx_ir as ir
import pytest

from autoneural.errors import UserError
from autoneural.export.passes.max_rank import MaxRank

MODEL = """
<ir_version: 10, opset_import: ["" : 23]>
windows (float[1,2,2,2,2] x) => (float[1,4,4] y)
<int64[6] six = {1,2,2,1,2,2}, int64[3] three = {1,4,4}>
{
  a = Reshape (x, SHAPE)
  y = Reshape (a, three)
}
"""


def parse(shape: str) -> ir.Model:
    proto = onnx.parser.parse_model(MODEL.replace("SHAPE", shape))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    model.graph[0].metadata_props["module"] = "vision_encoder.blocks.3.windows"
    return model


def test_five_dimensions_pass_and_nothing_changes():
    model = parse("three")
    assert not MaxRank()(model).modified
    assert [node.op_type for node in model.graph] == ["Reshape", "Reshape"]


def test_a_sixth_dimension_is_an_error_that_names_the_layer():
    with pytest.raises(
        UserError, match=r"windows: vision_encoder\.blocks\.3\.windows: Reshape .* has 6 dimensions"
    ):
        MaxRank()(parse("six"))


def test_an_input_of_six_dimensions_is_named():
    model = parse("three")
    model.graph.inputs[0].shape = ir.Shape((1, 1, 2, 2, 2, 2))
    with pytest.raises(UserError, match="the input x has 6 dimensions"):
        MaxRank()(model)
