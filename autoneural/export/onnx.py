"""PyTorch graph -> ONNX (opset 23) whose nodes still know the module they came from.

export_graph(graph) -> ir.Model      every node carries metadata "module" = "language_model....w1"
WeightFile, save_model               how it gets to disk (autoneural.onnx_save)
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import nn

from autoneural.export.graphs import TorchGraph
from autoneural.export.passes.fold_pad_into_conv import FoldPadIntoConv
from autoneural.export.passes.matmul_add_to_gemm import MatMulAddToGemm
from autoneural.export.passes.max_rank import MaxRank
from autoneural.export.passes.whole_norms import WholeNorms
from autoneural.model.layers import RMSNorm
from autoneural.onnx_save import WeightFile, save_model

__all__ = [
    "MODULE",
    "OPSET",
    "WeightFile",
    "export_graph",
    "model_bytes",
    "module_of",
    "save_model",
]

OPSET = 23
MODULE = "module"

_SCOPES = "pkg.torch.onnx.name_scopes"


def export_graph(graph: TorchGraph) -> ir.Model:
    """Trace one static graph. Pads are folded into convolutions, biased linears are Gemm.

    Values keep the contract's input and output names; each node's metadata names its module.
    Raises UserError naming the layer that no NPU would take: a norm in pieces, a rank above 5.
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
    # On their own: a sequence of passes would wrap what they say in words about itself.
    for check in (WholeNorms(_norms(graph.module)), MaxRank()):
        check(model)
    return model


def module_of(node: ir.Node) -> str:
    """Path of the module that made this node ('' for a node the optimiser made)."""
    return node.metadata_props.get(MODULE, "")


def model_bytes(model: ir.Model) -> bytes:
    """The whole model, weights inside: for sessions in tests and probes (below 2 GB)."""
    return ir.to_proto(model).SerializeToString()


def _norms(module: nn.Module) -> dict[str, str]:
    """Path of each norm -> the operator it must become."""
    return {
        path: "RMSNormalization" if isinstance(child, RMSNorm) else "LayerNormalization"
        for path, child in module.named_modules()
        if isinstance(child, RMSNorm | nn.LayerNorm)
    }


def _record_modules(model: ir.Model) -> None:
    """Keep of the exporter's metadata the one fact the quantiser needs: the module path."""
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "['', '']"))
        node.metadata_props.clear()
        node.metadata_props[MODULE] = scopes[-2] if len(scopes) > 1 else ""


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
