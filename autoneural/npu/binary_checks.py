"""The binary that ships computes what its twin computes, which is what all other checks looked at.

The twin is the same graph, compiled in memory from the qdq target. A binary of one graph is
reloaded from the bundle in a new process. One that several graphs share is refused by the x86
emulator, so it is compiled once more: the same bytes must come out, and the sessions of that very
compilation must compute the twin's integers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.files import sha256
from autoneural.manifest import GraphSpec
from autoneural.npu.certificate import GraphCheck
from autoneural.npu.compile_part import part_job
from autoneural.npu.layer_checks import reference_session
from autoneural.npu.partition import Part, plan_parts, write_part
from autoneural.npu.traces import Trace
from autoneural.npu.worker import run_job
from autoneural.onnx_external import external_locations
from autoneural.target.chips import Chip

Arrays = dict[str, NDArray]
_SHARED = "shares weights: recompiled to the same bytes and run there, the emulator loads none such"


def check_binaries(bundle: Bundle, chip: Chip, traces: Sequence[Trace]) -> list[GraphCheck]:
    """One check per graph of the chip's target, on the first trace of each role.

    Raises UserError when the bundle holds no binaries for the chip, JobFailed when one fails.
    """
    target = bundle.target(chip.target)
    options = bundle.manifest["targets"][chip.target]["options"]
    parts = plan_parts(bundle, "qdq", options["max_part_mb"] << 20)
    shipped = {PurePosixPath(graph.file).stem: graph for graph in target.graphs}
    feeds: dict[str, Arrays] = {}
    for trace in traces:
        feeds.setdefault(trace.graph, dict(trace.feeds))
    checks = []
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="autoneural-binary-") as scratch:
            check = _PartCheck(bundle, chip, part, feeds, Path(scratch), options)
            checks += check.run(shipped)
    return checks


class _PartCheck:
    """One binary: its graphs, their inputs, and a folder for what passes between processes."""

    def __init__(
        self,
        bundle: Bundle,
        chip: Chip,
        part: Part,
        feeds: Mapping[str, Arrays],
        scratch: Path,
        options: Mapping[str, Any],
    ) -> None:
        self._bundle, self._chip, self._part, self._scratch = bundle, chip, part, scratch
        self._options = options
        self._folder, self._files = write_part(bundle, part, scratch / "cut")
        self._inputs = {}
        for graph, file in zip(part.graphs, self._files, strict=True):
            known = feeds[PurePosixPath(graph.spec.file).stem]
            source = scratch / f"{graph.name}.feeds.npz"
            chosen = {tensor.name: known[tensor.name] for tensor in graph.spec.inputs}
            np.savez(source, **chosen)  # pyright: ignore[reportArgumentType]
            self._inputs[graph.name] = source
            self._hand_on(self._folder / file, chosen, known)

    def run(self, shipped: Mapping[str, GraphSpec]) -> list[GraphCheck]:
        names = [graph.name for graph in self._part.graphs]
        missing = [name for name in names if name not in shipped]
        if missing:
            raise UserError(f"{self._bundle.folder}: {self._chip.target} has no graph {missing[0]}")
        files = [self._folder / file for file in self._files]
        twins = self._run(dict(zip(names, files, strict=True)), "twin")
        binaries = [self._binary(shipped[name]) for name in names]
        if len(names) == 1:
            path = self._bundle.path(shipped[names[0]].file)
            same, found = True, self._run({names[0]: path}, "shipped")
        else:
            found, made = self._recompile()
            same = sha256(made) == sha256(binaries[0])
        note = "" if len(names) == 1 else _SHARED
        if not same:
            note = "the shipped binary is not what its graphs compile to: compile the bundle again"
        return [
            GraphCheck(
                graph=name,
                part=self._part.index,
                file=shipped[name].file,
                binary=binary.relative_to(self._bundle.folder).as_posix(),
                binary_sha256=sha256(binary),
                reloaded=len(names) == 1,
                identical=same and _equal(twins[name], found[name]),
                note=note,
            )
            for name, binary in zip(names, binaries, strict=True)
        ]

    def _hand_on(self, file: Path, chosen: Arrays, known: Arrays) -> None:
        """What the next part of this graph will read, as the reference computes it."""
        session = reference_session(file)
        names = [output.name for output in session.get_outputs()]
        links = [name for name in names if name.startswith("hidden.")]
        if links:
            values = session.run(links, chosen)
            known.update({n: np.asarray(v) for n, v in zip(links, values, strict=True)})

    def _run(self, files: Mapping[str, Path], side: str) -> dict[str, Arrays]:
        """Each file in one new process, alone: shared binaries would not load."""
        found = {}
        for name, file in files.items():
            job = self._entry(name, file, side)
            run_job({"do": "run", "soc_model": self._chip.soc_model, "graphs": [job]})
            found[name] = _load(job["outputs"])
        return found

    def _recompile(self) -> tuple[dict[str, Arrays], Path]:
        job = part_job(
            self._part, self._chip, self._folder, self._files, self._options["allow_cpu"]
        )
        out = self._scratch / "again"
        out.mkdir()
        for graph in job["graphs"]:
            graph |= {"feeds": str(self._inputs[graph["name"]])}
            graph |= {"outputs": str(self._scratch / f"{graph['name']}.again.npz")}
        run_job({**job, "out": str(out), "dump": str(self._scratch / "dump")})
        found = {graph["name"]: _load(graph["outputs"]) for graph in job["graphs"]}
        return found, next(out.glob("*.bin"))

    def _entry(self, name: str, file: Path, side: str) -> dict[str, str]:
        outputs = self._scratch / f"{name}.{side}.npz"
        return {
            "name": name,
            "file": str(file.resolve()),
            "feeds": str(self._inputs[name]),
            "outputs": str(outputs),
        }

    def _binary(self, spec: GraphSpec) -> Path:
        wrapper = self._bundle.path(spec.file)
        return wrapper.parent / next(iter(external_locations(wrapper)))


def _load(file: str) -> Arrays:
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _equal(a: Arrays, b: Arrays) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
