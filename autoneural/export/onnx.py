"""PyTorch graph -> ONNX (opset 23) whose nodes still know the module they came from.

export_graph(graph) -> ir.Model      every node carries metadata "module" = "language_model....w1"
WeightFile("language.data")         one external file that several graphs share, by content
save_model(model, path, weights)    checked, weights outside, nothing but names and shapes inside
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from autoneural.export.graphs import TorchGraph
from autoneural.export.passes.fold_pad_into_conv import FoldPadIntoConv
from autoneural.export.passes.matmul_add_to_gemm import MatMulAddToGemm

OPSET = 23
MODULE = "module"

_SCOPES = "pkg.torch.onnx.name_scopes"
_SMALL_BYTES = 64
_ALIGNMENT = 64


def export_graph(graph: TorchGraph) -> ir.Model:
    """Trace one static graph. Pads are folded into convolutions, biased linears are Gemm.

    Values keep the contract's input and output names; each node's metadata names its module.
    """
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.module,
            tuple(graph.inputs.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"{graph.key.name}: torch.onnx.export returned nothing")
    model = program.model
    model.graph.name = graph.key.name
    _record_modules(model)
    ir.passes.Sequential(FoldPadIntoConv(), MatMulAddToGemm(), RemoveUnusedNodesPass())(model)
    return model


def module_of(node: ir.Node) -> str:
    """Path of the module that made this node ('' for a node the optimiser made)."""
    return node.metadata_props.get(MODULE, "")


class WeightFile:
    """An external-data file written once and pointed into by several models.

    Equal bytes are stored once, so prefill and decode share every weight. `location` is the
    file's name beside the models: never absolute, never with `..`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[bytes, tuple[int, int]] = {}
        self._end = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    def store(self, tensor: ir.TensorProtocol, name: str) -> ir.ExternalTensor:
        """Write the tensor unless its bytes are there already; return the pointer to them."""
        data = tensor.tobytes()
        digest = hashlib.sha256(data).digest()
        if digest not in self._offsets:
            self._offsets[digest] = (self._append(data), len(data))
        offset, length = self._offsets[digest]
        return ir.ExternalTensor(
            self.path.name,
            offset,
            length,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
            base_dir=self.path.parent,
        )

    def _append(self, data: bytes) -> int:
        offset = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        self._end = offset + len(data)
        return offset


def save_model(model: ir.Model, path: Path, weights: WeightFile) -> None:
    """Write `path` with its weights in `weights` (same folder), and run the ONNX checker on it."""
    if weights.path.parent != path.parent:
        raise ValueError(f"{weights.path} is not beside {path}")
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _SMALL_BYTES:
            value.const_value = weights.store(tensor, name)
    _strip(model)
    ir.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)


def model_bytes(model: ir.Model) -> bytes:
    """The whole model, weights inside: for sessions in tests and probes (below 2 GB)."""
    return ir.to_proto(model).SerializeToString()


def _record_modules(model: ir.Model) -> None:
    """Keep of the exporter's metadata the one fact the quantiser needs: the module path."""
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "['', '']"))
        node.metadata_props.clear()
        node.metadata_props[MODULE] = scopes[-2] if len(scopes) > 1 else ""


def _strip(model: ir.Model) -> None:
    """Drop what belongs to the machine that exported: stack traces, value notes, file names."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.doc_string = None
    model.producer_name, model.producer_version = "autoneural", None
    for node in model.graph:
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and warns about itself whatever `verbose` says."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
