"""GMAC/s of ONNX Runtime's kernels for a linear layer, by rows: CPU time, one thread.

    python runs/integer_linears.py [--inputs 2048] [--outputs 8192] [--rows 1 2 4 8 16 128]

float        MatMul, fp32 weights                    nbits, exact   MatMulNBits of 4 bits, fp32 rows
nbits        the same, rows rounded to bytes         rows           `passes/quantize_rows.py`, s8
rows, u8     the same with unsigned weights, which no processor's kernel cuts off
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from autoneural.compress.quantize import IntegerWeight
from autoneural.export.passes.pack_matmul_nbits import PackMatMulNBits
from autoneural.export.passes.quantize_rows import QuantizeRows
from autoneural.target import rows

ROUNDS = 8


def linear(inputs: int, outputs: int) -> ir.Model:
    """y = x W, of any number of rows."""
    weight = np.random.default_rng(0).standard_normal((inputs, outputs)).astype(np.float32)
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "rows", size])
        for name, size in (("x", inputs), ("y", outputs))
    )
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="w")
    graph = helper.make_graph([node], "linear", [x], [y], [numpy_helper.from_array(weight, "w")])
    version = helper.make_opsetid("", 23)
    model = ir.from_proto(helper.make_model(graph, ir_version=10, opset_imports=[version]))
    model.graph[0].metadata_props["module"] = "w"
    return model


def kernels(inputs: int, outputs: int) -> dict[str, onnx.ModelProto]:
    """A graph of each kernel."""
    values = np.random.default_rng(0).integers(-7, 8, (outputs, inputs), dtype=np.int8)
    weight = IntegerWeight(values=values, scale=np.full(outputs, 0.01, np.float32), bits=4)
    passes = {
        "float": None,
        "nbits, exact": PackMatMulNBits({"w.weight": weight}, 1),
        "nbits": PackMatMulNBits({"w.weight": weight}, 4),
        "rows": QuantizeRows({"w.weight": weight}),
    }
    found: dict[str, onnx.ModelProto] = {}
    for name, rewrite in passes.items():
        model = linear(inputs, outputs)
        if rewrite is not None:
            rewrite(model)
        found[name] = ir.to_proto(model)
    return found | {"rows, u8": unsigned(found["rows"])}


def unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same product with the weights around 128."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    [product] = (n for n in copy.graph.node if n.op_type == "MatMulIntegerToFloat")
    [weight] = (w for w in copy.graph.initializer if w.name == product.input[1])
    raised = (numpy_helper.to_array(weight).astype(np.int16) + 128).astype(np.uint8)
    weight.CopyFrom(numpy_helper.from_array(raised, weight.name))
    product.input.append(rows.middle(4))
    return copy


def speed(model: onnx.ModelProto, count: int, inputs: int, outputs: int) -> float:
    """GMAC/s of `count` rows: the best of some rounds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(1).standard_normal((1, count, inputs)).astype(np.float32)
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        session.run(None, {"x": x})
        taken.append(time.process_time() - start)
    return count * inputs * outputs / min(taken) / 1e9


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=2048)
    parser.add_argument("--outputs", type=int, default=8192)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 128])
    args = parser.parse_args()
    models = kernels(args.inputs, args.outputs)
    print("rows".rjust(6), *(name.rjust(14) for name in models))
    for count in args.rows:
        found = (speed(model, count, args.inputs, args.outputs) for model in models.values())
        print(f"{count:6d}", *(f"{rate:14.0f}" for rate in found), flush=True)


if __name__ == "__main__":
    main()
