"""PyTorch against ONNX Runtime, graph by graph: how many dB apart, how many integers differ.

    float     the float graph must compute what the module computes
    integer   the QDQ graph must compute what fake-quant computes: the same integers, but for
              values that fall on the boundary between two (one LSB)

ONNX Runtime must run such graphs as they are written: `exact_session`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoneural.export.graphs import TorchGraph
from autoneural.target.numerics import (
    Encoding,
    dequantize_affine,
    quantize_affine,
    sqnr_db,
)

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """One output. `lsb` is the largest difference in steps, `moved` the share that moved at all."""

    output: str
    sqnr_db: float
    lsb: int = 0
    moved: float = 0.0


def exact_session(model: bytes | Path, threads: int = 1) -> ort.InferenceSession:
    """A CPU session that computes a QDQ graph node by node, as written.

    ONNX Runtime's optimiser may replace DequantizeLinear + MatMul by a kernel that rounds the
    activations to int8, and folded weights are summed in another order, which moves single steps.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def sample_inputs(graph: TorchGraph, embedding_VD: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Noise for pixels, hidden states and the decoder's past, random tokens; places as they are."""
    rng = torch.Generator().manual_seed(seed)
    inputs = dict(graph.inputs)
    for name, example in inputs.items():
        if name == "pixel_values":
            inputs[name] = torch.randint(0, 256, example.shape, generator=rng) / 255
        elif name == "inputs_embeds":
            ids = torch.randint(0, len(embedding_VD), example.shape[:2], generator=rng)
            inputs[name] = embedding_VD[ids].detach()
        elif name not in ("cos", "sin", "mask"):
            inputs[name] = torch.randn(example.shape, generator=rng)
    return inputs


def on_grid(inputs: Mapping[str, Tensor], encodings: Mapping[str, Encoding]) -> dict[str, Tensor]:
    """The same inputs, those that have an encoding rounded to what the graph will be given."""
    return {
        name: torch.from_numpy(
            dequantize_affine(quantize_affine(x.numpy(), encodings[name]), encodings[name])
        )
        if name in encodings
        else x
        for name, x in inputs.items()
    }


def run_torch(graph: TorchGraph, inputs: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Outputs of the PyTorch side by name."""
    with torch.no_grad():
        result = graph.module(*(inputs[name] for name in graph.inputs))
    tensors = result if isinstance(result, tuple) else (result,)
    return {n: t.float().numpy() for n, t in zip(graph.outputs, tensors, strict=True)}


def run_float(
    model: bytes | Path,
    inputs: Mapping[str, Tensor],
    encodings: Mapping[str, Encoding] = MappingProxyType({}),
) -> dict[str, NDArray[Any]]:
    """Outputs of a float graph by name, with ONNX Runtime's own optimisations.

    What has an encoding comes and goes as integers, and is real again in the result.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    source = model if isinstance(model, bytes) else str(model)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feeds = {
        name: quantize_affine(x.numpy(), encodings[name]) if name in encodings else x.numpy()
        for name, x in inputs.items()
    }
    arrays = map(np.asarray, session.run(names, feeds))
    return {
        name: dequantize_affine(array, encodings[name]) if name in encodings else array
        for name, array in zip(names, arrays, strict=True)
    }


def run_integer(
    session: ort.InferenceSession,
    inputs: Mapping[str, Tensor],
    encodings: Mapping[str, Encoding],
) -> dict[str, NDArray[Any]]:
    """Outputs of an integer graph by name, still integers; the inputs are quantised for it."""
    feeds = {n: quantize_affine(t.numpy(), encodings[n]) for n, t in inputs.items()}
    names = [output.name for output in session.get_outputs()]
    arrays = session.run(names, feeds)
    return {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}


def compare_float(expected: Arrays, got: Arrays) -> list[Parity]:
    """SQNR of each output."""
    return [Parity(output=name, sqnr_db=sqnr_db(expected[name], got[name])) for name in expected]


def compare_integer(
    expected: Arrays, got: Arrays, encodings: Mapping[str, Encoding]
) -> list[Parity]:
    """`expected` real (on the integer grid), `got` integers."""
    report = []
    for name, real in expected.items():
        steps = quantize_affine(real, encodings[name]).astype(np.int64) - got[name]
        report.append(
            Parity(
                output=name,
                sqnr_db=sqnr_db(real, dequantize_affine(got[name], encodings[name])),
                lsb=int(np.abs(steps).max(initial=0)),
                moved=float((steps != 0).mean()),
            )
        )
    return report


def worst(report: Sequence[Parity]) -> Parity:
    """The output that is farthest off; one that is not a number is farther than any."""
    return min(report, key=lambda p: -np.inf if np.isnan(p.sqnr_db) else p.sqnr_db)
