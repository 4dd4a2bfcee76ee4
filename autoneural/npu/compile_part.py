"""One part of a model to one context binary, with the proof that all of it runs on integers.

A finished part lies in a folder named by everything that decided it (graphs, weights, chip,
compiler, options), so that a run that was interrupted finds it again:

    <key>/NAME.onnx ... NAME_qnn.bin report.json
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import onnx_ir as ir

from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.files import replace_folder, sha256
from autoneural.manifest import GraphSpec
from autoneural.npu.compiled_graph import CompiledGraph, read_dumps
from autoneural.npu.layer_names import LayerNames
from autoneural.npu.partition import Part, write_part
from autoneural.npu.worker import COMPILE_OPTIONS, JobFailed, run_job
from autoneural.onnx_external import external_locations
from autoneural.runtime.qnn import PROVIDER, Wheel
from autoneural.target.chips import Chip
from autoneural.target.legality import choices

REPORT = "report.json"
_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class CompiledPart:
    """A part on disk: `files` below `folder`, and what the compiler said of it."""

    part: Part
    folder: Path
    files: tuple[str, ...]
    report: Mapping[str, Any]


class PartCompiler:
    """Compiles parts of one bundle; finished ones are kept in `cache` and found again."""

    def __init__(self, bundle: Bundle, wheel: Wheel, cache: Path, allow_cpu: Sequence[str]) -> None:
        self._bundle = bundle
        self._wheel = wheel
        self._cache = cache.resolve()  # the worker changes its folder
        self._allow_cpu = tuple(allow_cpu)

    def compile(self, part: Part, chip: Chip) -> CompiledPart:
        """The part's context binary for `chip`.

        Raises UserError naming the layer where a node would run elsewhere or in floating point.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="work.", dir=self._cache) as name:
            work = Path(name)
            folder, files = write_part(self._bundle, part, work / "cut")
            job = part_job(part, chip, folder, files, self._allow_cpu)
            done = self._cache / self._key(job)
            if not (done / REPORT).is_file():
                with replace_folder(done) as out:
                    report = self._run(part, chip, {**job, "out": str(out)}, work / "dumps")
                    (out / REPORT).write_text(json.dumps(report), encoding="utf-8")
        return _load(part, done)

    def _key(self, job: Mapping[str, Any]) -> str:
        folder = Path(job["folder"])
        contents = {
            name: sha256(folder / name)
            for graph in job["graphs"]
            for name in (graph["file"], *_beside(folder, graph["file"]))
        }
        decided = {k: v for k, v in job.items() if k != "folder"}
        decided |= {"contents": contents, "compiler": self._wheel.compiler}
        decided |= {"options": COMPILE_OPTIONS, "patterns": self._allow_cpu}
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()[:32]

    def _run(self, part: Part, chip: Chip, job: Mapping[str, Any], dumps: Path) -> dict[str, Any]:
        """Compile to job["out"], and the report of it."""
        where = f"{chip.name}, {part.name}"
        try:
            result = run_job({**job, "dump": str(dumps)})
        except JobFailed as error:
            refused = _refused(job, chip)
            raise UserError(f"{where}: {refused or f'the compiler failed: {error}'}") from error
        rows = []
        for graph, given, answer in zip(part.graphs, job["graphs"], result["graphs"], strict=True):
            names = LayerNames(ir.load(Path(job["folder"], given["file"])).graph)
            cpu = _on_cpu(answer["nodes"])
            if strangers := not_allowed(cpu, names, self._allow_cpu):
                refused = _refused(job, chip) or f"no NPU takes {_several(strangers, names)}"
                raise UserError(f"{where}: {refused}")
            compiled = read_dumps(dumps / graph.name, names)
            _require_integers(f"{where}, {graph.name}", compiled)
            rows.append(_graph_row(graph.spec, answer, cpu, compiled))
        return _part_row(part, rows, result, job)


def part_job(
    part: Part, chip: Chip, folder: Path, files: Sequence[str], allow_cpu: Sequence[str]
) -> dict[str, Any]:
    """The worker's job, less "out" and "dump", for what `write_part` wrote.

    The same part gives the same binary, byte for byte, wherever `folder` is.
    """
    return {
        "do": "compile",
        "soc_model": chip.soc_model,
        "share": len(files) > 1,
        "allow_cpu": bool(allow_cpu),
        "folder": str(folder.resolve()),
        "graphs": [
            {"name": graph.name, "file": file}
            for graph, file in zip(part.graphs, files, strict=True)
        ],
    }


def not_allowed(cpu: Iterable[str], names: LayerNames, patterns: Sequence[str]) -> list[str]:
    """Nodes on the CPU that no pattern lets run there.

    Quantise and dequantise nodes go where their neighbour goes.
    """
    cpu = set(cpu)
    allowed = {name for name in cpu if names.matches(name, patterns)}
    allowed |= {
        name for name in cpu if names.is_plumbing(name) and names.neighbours(name) & allowed
    }
    return sorted(cpu - allowed)


def _refused(job: Mapping[str, Any], chip: Chip) -> str:
    """The nodes that the compiler leaves to the CPU, its reason, and what it would take.

    '' where it takes all, or is not able to say.
    """
    for graph in job["graphs"]:
        try:
            explained = run_job({**job, "do": "explain", "graphs": [graph]})
        except JobFailed:
            return ""
        cpu = _on_cpu(explained["nodes"][graph["name"]])
        # Also complained about: nodes that it takes after all, in another layout.
        rows = [row for row in explained["refused"] if row["node"] in cpu]
        if rows:
            names = LayerNames(ir.load(Path(job["folder"], graph["file"])).graph)
            nodes = _several([row["node"] for row in rows], names)
            legal = ", ".join(choices(chip, rows[0]["op"]))
            offer = f"; legal there: {legal}" if legal else ""
            return f"the compiler refuses {nodes}: {rows[0]['reason']}{offer}"
    return ""


def _on_cpu(nodes: Mapping[str, Sequence[str]]) -> list[str]:
    return sorted(name for provider, ns in nodes.items() if provider != PROVIDER for name in ns)


def _several(nodes: Sequence[str], names: LayerNames) -> str:
    return _listed([names.describe(node) for node in nodes])


def _listed(texts: Iterable[str]) -> str:
    """A few of them; the number of the others."""
    different = list(dict.fromkeys(texts))
    shown, rest = ", ".join(different[:_MOST_NAMED]), len(different) - _MOST_NAMED
    return f"{shown} and {rest} more" if rest > 0 else shown


def _require_integers(where: str, compiled: CompiledGraph) -> None:
    if compiled.float_tensors == 0:
        return
    layers = _listed(sorted(compiled.float_layers))
    raise UserError(
        f"{where}: {compiled.float_tensors} tensors of the compiled graph are floating point, at "
        f"{layers}; give both sides of the operator one integer type"
    )


def _graph_row(
    spec: GraphSpec, answer: Mapping[str, Any], cpu: Sequence[str], compiled: CompiledGraph
) -> dict[str, Any]:
    npu = len(answer["nodes"].get(PROVIDER, ()))
    return {
        "role": spec.role,
        "width": spec.width,
        "image_size": spec.image_size,
        "nodes_npu": npu,
        "nodes_total": npu + len(cpu),
        "npu_partitions": compiled.partitions,
        "cpu_nodes": list(cpu),
        "float_tensors": compiled.float_tensors,
        "seconds": round(answer["seconds"], 3),
    }


def _part_row(
    part: Part, graphs: Sequence[dict[str, Any]], result: Mapping[str, Any], job: Mapping[str, Any]
) -> dict[str, Any]:
    first = ir.load(Path(job["folder"], job["graphs"][0]["file"])).graph
    binaries = Path(job["out"]).glob("*.bin")
    return {
        "role": part.role,
        "part": part.index,
        "layers": part.layers,
        "widths": [graph.spec.width for graph in part.graphs if graph.spec.width],
        "image_sizes": [g.spec.image_size for g in part.graphs if g.spec.image_size],
        **{
            key: sum(row[key] for row in graphs)
            for key in ("nodes_npu", "nodes_total", "float_tensors")
        },
        "precision": precision(first),
        "binary_bytes": sum(path.stat().st_size for path in binaries),
        "seconds": round(sum(row["seconds"] for row in graphs), 3),
        "peak_rss_gb": round(result["peak_rss_gb"], 3),
        "graphs": graphs,
    }


def precision(graph: ir.Graph) -> str:
    """Bits of most weights and of most activations: `w4a16`."""
    weights: Counter[int] = Counter()
    activations: Counter[int] = Counter()
    for node in graph:
        value = node.inputs[0] if node.inputs else None
        if node.op_type == "QuantizeLinear":
            activations[_bits(node.outputs[0])] += 1
        elif node.op_type == "DequantizeLinear" and value is not None and value.is_initializer():
            assert value.const_value is not None
            weights[_bits(value)] += value.const_value.size
    most = [
        max(counts, key=lambda bits: counts[bits], default=0) for counts in (weights, activations)
    ]
    return f"w{most[0]}a{most[1]}"


def _bits(value: ir.Value) -> int:
    return value.dtype.bitwidth if value.dtype is not None else 0


def _beside(folder: Path, file: str) -> Iterator[str]:
    """External files of a graph, as names below `folder`."""
    for location in sorted(external_locations(folder / file)):
        yield (PurePosixPath(file).parent / location).as_posix()


def _load(part: Part, folder: Path) -> CompiledPart:
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    files = tuple(sorted(path.name for path in folder.iterdir() if path.name != REPORT))
    return CompiledPart(part=part, folder=folder, files=files, report=report)
