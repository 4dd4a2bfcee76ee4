"""The files of a kit that come from its bundle: copied, or derived graph by graph.

Stage        the folder that becomes the kit; every file is written through it
qdq_sources  the integer graph that each binary was compiled from
Graphs       binaries with their wrappers, QDQ graphs, float graphs with AIMET encodings
write_host   embedding rows, rotary tables, tokenizer: what the host program reads
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.manifest import EmbeddingSpec, GraphSpec, TargetSpec, TensorSpec
from autoneural.npu.aimet import split_qdq
from autoneural.npu.kit_golden import write_raw
from autoneural.npu.kit_io import HostFiles, KitGraph
from autoneural.npu.partition import MAX_PART_MB, plan_parts, write_part
from autoneural.onnx_external import external_locations
from autoneural.onnx_save import WeightFile, save_model
from autoneural.runtime.session import decode, encode, same_encoding
from autoneural.runtime.step_inputs import rope_tables


@dataclass(frozen=True)
class Stage:
    """A kit in the making; names are relative, with forward slashes."""

    folder: Path

    def copy(self, source: Path, name: str) -> None:
        """Copy a file, once: graphs share weights and binaries."""
        place = self._place(name)
        if not place.exists():
            shutil.copyfile(source, place)

    def text(self, name: str, text: str) -> None:
        """Write text as UTF-8 with Unix line ends."""
        self._place(name).write_text(text, encoding="utf-8", newline="\n")

    def json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON document."""
        self.text(name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def files(self) -> list[str]:
        """All files written so far, sorted."""
        return files_in(self.folder)

    def _place(self, name: str) -> Path:
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


class Graphs:
    """Brings graphs of a compiled target into a kit; `operators` and `opset` are of all of them."""

    def __init__(self, bundle: Bundle, sources: Mapping[str, Path], stage: Stage) -> None:
        self.operators: set[str] = set()
        self.opset = 0
        self._bundle, self._sources, self._stage = bundle, sources, stage
        self._weights: dict[str, WeightFile] = {}

    def add(self, spec: GraphSpec) -> KitGraph:
        """All files of one graph. Raises UserError where no binary holds the whole of it."""
        name = PurePosixPath(spec.file).stem
        binary, qnn_name = self._binary(spec)
        qdq = self._qdq(spec, name)
        self._float(qdq, spec, name)
        return KitGraph(
            spec=spec,
            binary=binary,
            wrapper=f"binaries/{PurePosixPath(spec.file).name}",
            qnn_name=qnn_name,
            qdq=qdq,
            float_onnx=f"onnx/float/{name}.onnx",
            encodings=f"onnx/float/{name}.encodings",
        )

    def _binary(self, spec: GraphSpec) -> tuple[str, str]:
        """(binary in the kit, name of the graph inside it) of a wrapper, both copied."""
        wrapper = self._bundle.path(spec.file)
        nodes = onnx.load(wrapper, load_external_data=False).graph.node
        if [node.op_type for node in nodes] != ["EPContext"]:
            raise UserError(
                f"{wrapper}: is not one context binary as a whole (compiled with --allow-cpu?); "
                "without ONNX Runtime it cannot run"
            )
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in nodes[0].attribute}
        if attributes.get("embed_mode", 1) or "partition_name" not in attributes:
            raise UserError(f"{wrapper}: its context binary is not a file of its own, with a name")
        file = attributes["ep_cache_context"].decode()
        self._stage.copy(wrapper, f"binaries/{wrapper.name}")
        self._stage.copy(wrapper.parent / file, f"binaries/{PurePosixPath(file).name}")
        return f"binaries/{PurePosixPath(file).name}", attributes["partition_name"].decode()

    def _qdq(self, spec: GraphSpec, name: str) -> str:
        """The integer graph that a binary was compiled from, copied with its weights."""
        if name not in self._sources:
            held = self._bundle.name
            raise UserError(f"bundle {held}: qdq has no graph that {spec.file} was compiled from")
        source = self._sources[name]
        for location in external_locations(source):
            self._stage.copy(source.parent / location, f"onnx/qdq/{location}")
        self._stage.copy(source, f"onnx/qdq/{name}.onnx")
        return f"onnx/qdq/{name}.onnx"

    def _float(self, qdq: str, spec: GraphSpec, name: str) -> None:
        folder = self._stage.folder / "onnx" / "float"
        shared = "vision" if spec.role == "vision" else "language"
        if shared not in self._weights:
            self._weights[shared] = WeightFile(folder / f"{shared}.data")
        weights = self._weights[shared]
        model = ir.load(self._stage.folder / qdq)
        encodings = split_qdq(model, lambda n, array: weights.store(ir.tensor(array, name=n), n))
        save_model(model, folder / f"{name}.onnx", weights)
        self.operators |= {node.op_type for node in model.graph}
        self.opset = max(self.opset, model.opset_imports.get("", 0))
        self._stage.json(f"onnx/float/{name}.encodings", encodings.to_aimet())


def qdq_sources(bundle: Bundle, entry: Mapping[str, Any], scratch: Path) -> dict[str, Path]:
    """Name of every graph of a compiled target -> the integer graph that it was compiled from.

    `entry` is the target's in the manifest; graphs that were cut are cut again, into `scratch`.
    """
    options = entry.get("options")
    megabytes = options.get("max_part_mb") if isinstance(options, dict) else None
    known = megabytes if type(megabytes) is int and megabytes > 0 else MAX_PART_MB
    sources: dict[str, Path] = {}
    for part in plan_parts(bundle, "qdq", known << 20):
        folder, files = write_part(bundle, part, scratch)
        names = (graph.name for graph in part.graphs)
        sources |= {name: folder / file for name, file in zip(names, files, strict=True)}
    return sources


def write_host(bundle: Bundle, target: TargetSpec, stage: Stage) -> HostFiles:
    """Everything the host reads besides the graphs, in the encodings of the graph inputs."""
    tensors = {t.name: t for graph in target.graphs for t in graph.inputs}
    context = min(graph.context for graph in target.graphs if graph.context)
    _write_embedding(bundle, target.embedding, tensors["inputs_embeds"], stage)
    for name, table in zip(("cos", "sin"), rope_tables(bundle.model.text, context), strict=True):
        write_raw(stage.folder / "host" / f"{name}.bin", encode(table, tensors[name]))
    for file in (bundle.tokenizer_file, bundle.chat_template_file):
        stage.copy(bundle.path(file), f"host/{file}")
    return HostFiles(
        embedding="host/embedding.bin",
        cos="host/cos.bin",
        sin="host/sin.bin",
        tokenizer=f"host/{bundle.tokenizer_file}",
        chat_template=f"host/{bundle.chat_template_file}",
    )


def _write_embedding(
    bundle: Bundle, table: EmbeddingSpec, wanted: TensorSpec, stage: Stage
) -> None:
    """In the encoding of `inputs_embeds`, which the exporter's table has already."""
    source = bundle.path(table.file)
    if same_encoding(table, wanted):
        stage.copy(source, "host/embedding.bin")
        return
    dtype = np.dtype(table.dtype).newbyteorder("<")
    rows = np.memmap(source, dtype, "r", shape=table.shape)
    write_raw(stage.folder / "host" / "embedding.bin", encode(decode(rows, table), wanted))


def files_in(folder: Path) -> list[str]:
    """Names of all files below `folder`, sorted, with forward slashes."""
    files = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return sorted(path.relative_to(folder).as_posix() for path in files)
