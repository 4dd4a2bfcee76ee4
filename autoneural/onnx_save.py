"""ONNX graphs on disk that share one file of weights.

WeightFile("language.data")         external data that several graphs point into, by content
save_model(model, path, weights)    checked, weights outside, nothing but names and shapes inside
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

_SMALL_BYTES = 64
_ALIGNMENT = 64


class WeightFile:
    """An external-data file written once and pointed into by several models.

    Equal bytes are stored once, so prefill and decode share every weight. `location` is the
    file's name beside the models: never absolute, never with `..`.

    `stored`: sha256 -> (offset, length) of what the file holds. Given what it was in an earlier
    run, the file goes on from there, and what lies behind is cut off.
    """

    def __init__(self, path: Path, stored: Mapping[str, tuple[int, int]] | None = None) -> None:
        self.path = path
        self.stored = dict(stored or {})
        self._end = max((offset + length for offset, length in self.stored.values()), default=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, self._end)

    def store(self, tensor: ir.TensorProtocol, name: str) -> ir.ExternalTensor:
        """Write the tensor unless its bytes are there already; return the pointer to them."""
        data = tensor.tobytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.stored:
            self.stored[digest] = (self._append(data), len(data))
        offset, length = self.stored[digest]
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
