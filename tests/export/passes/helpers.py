"""What the tests of passes share."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass


def parse(text: str) -> ir.Model:
    """A checked model in ONNX's textual syntax, with the shapes of its values."""
    proto = onnx.parser.parse_model(text)
    onnx.checker.check_model(proto)
    model = ir.from_proto(proto)
    ShapeInferencePass()(model)
    return model
