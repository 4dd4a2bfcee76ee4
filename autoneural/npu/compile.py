"""Bundle -> the same bundle with context binaries for a chip: `targets["htp/<chip>"]`.

    check    the chip, the compiler, the place to write, the source; then every layer by the table
    compile  part by part, each in a process of its own, all widths of a part sharing its weights
    write    the bundle whole or not at all: what the source holds, and the new target

Finished parts wait in `.<name>.compile` beside the output: an interrupted run goes on from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autoneural.bundle import Bundle, refuse_foreign, write_bundle
from autoneural.errors import UserError
from autoneural.files import refuse_current, replace_folder, writable_folder
from autoneural.manifest import MANIFEST, GraphSpec
from autoneural.npu.compile_part import CompiledPart, PartCompiler
from autoneural.npu.legal import require_integer_ends, require_legal
from autoneural.npu.partition import ADDRESSABLE_MB, MAX_PART_MB, Part, plan_parts
from autoneural.runtime.qnn import Wheel, require_wheel
from autoneural.target.chips import Chip

SOURCE_TARGET = "qdq"


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """`allow_cpu`: globs of nodes or layers that may run on the CPU instead."""

    max_part_mb: int = MAX_PART_MB
    allow_cpu: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ChipReport:
    """What came out for one chip: rows as they stand in the manifest."""

    chip: Chip
    parts: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """What `compile --json` prints."""
        return {"chip": self.chip.name, "parts": [dict(part) for part in self.parts]}


PartProgress = Callable[[str, int, int], None]
"""Told before each part: what it is, how many are done, how many there are."""


def check_place(out: Path, options: CompileOptions) -> Wheel:
    """The compiler, when it is there and `out` can be written. UserError, one line, otherwise."""
    wheel = require_wheel()
    if not 0 < options.max_part_mb <= ADDRESSABLE_MB:
        raise UserError(f"--max-part-mb {options.max_part_mb}: a number from 1 to {ADDRESSABLE_MB}")
    refuse_current(out)
    refuse_foreign(out)
    with _cache(out):
        pass
    return wheel


def compile_bundle(
    source: Bundle,
    chips: Sequence[Chip],
    out: Path,
    options: CompileOptions | None = None,
    *,
    progress: PartProgress = lambda what, done, total: None,
) -> list[ChipReport]:
    """Write `source` to `out` with a target per chip; chips that `out` has already are kept.

    Raises UserError, one line, where something is not as it should be; nothing is written then.
    """
    options = options or CompileOptions()
    wheel = check_place(out, options)
    earlier = _earlier(source, out)
    parts = plan_parts(source, SOURCE_TARGET, options.max_part_mb << 20)
    require_integer_ends(parts)
    require_legal(source, parts, chips, options.allow_cpu)
    jobs = [(chip, part) for chip in chips for part in parts]
    compiled: dict[str, list[CompiledPart]] = {chip.name: [] for chip in chips}
    with _cache(out) as cache:
        compiler = PartCompiler(source, wheel, cache, options.allow_cpu)
        for index, (chip, part) in enumerate(jobs):
            progress(describe(chip, part), index, len(jobs))
            compiled[chip.name].append(compiler.compile(part, chip))
        with replace_folder(out) as stage:
            _write(stage, source, earlier, chips, compiled, wheel, options)
        shutil.rmtree(cache, ignore_errors=True)
    reports = [[part.report for part in compiled[chip.name]] for chip in chips]
    return [ChipReport(chip=c, parts=tuple(r)) for c, r in zip(chips, reports, strict=True)]


def describe(chip: Chip, part: Part) -> str:
    """What is about to be compiled, and what it may take."""
    layers = f" (layers {part.layers[0]} to {part.layers[1]})" if part.layers else ""
    size = f"about {part.weight_bytes / 2**20:.1f} MB, {part.memory_gb:.1f} GB of memory"
    free = _free_gb()
    short = f" (only {free:.1f} GB are free)" if free is not None and free < part.memory_gb else ""
    return f"{chip.name}: {part.name}{layers}, {size}{short}"


def _free_gb() -> float | None:
    """Memory that a new process could have; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith("MemAvailable:")), None)
    return None if found is None else int(found[1]) / 2**20


@contextmanager
def _cache(out: Path) -> Iterator[Path]:
    """Where finished parts wait. It stays only where there are some."""
    cache = writable_folder(out.parent / f".{out.name}.compile", out)
    try:
        yield cache
    finally:
        if cache.is_dir() and not any(cache.iterdir()):
            cache.rmdir()


def _earlier(source: Bundle, out: Path) -> Bundle | None:
    """The bundle that is at `out` already, when it is one of the same model."""
    if not (out / MANIFEST).is_file() or out.resolve() == source.folder.resolve():
        return None
    earlier = Bundle.load(out)
    if _graph_files(earlier) != _graph_files(source):
        raise UserError(
            f"{out}: holds another model ({earlier.name}, other qdq graphs); "
            "choose another folder, or remove it"
        )
    return earlier


def _graph_files(bundle: Bundle) -> dict[str, Any]:
    files = bundle.manifest["files"]
    return {name: entry for name, entry in files.items() if name.startswith(f"{SOURCE_TARGET}/")}


def _write(
    stage: Path,
    source: Bundle,
    earlier: Bundle | None,
    chips: Sequence[Chip],
    compiled: Mapping[str, Sequence[CompiledPart]],
    wheel: Wheel,
    options: CompileOptions,
) -> None:
    made = {chip.target for chip in chips}
    targets = _carry(source, stage, source.targets.keys() - made)
    for name in set(source.manifest["files"]) - _files_of(source, source.targets):
        _copy(source, name, stage)
    if earlier is not None:
        targets |= _carry(earlier, stage, earlier.targets.keys() - targets.keys() - made)
    for chip in chips:
        targets[chip.target] = _target(stage, source, chip, compiled[chip.name], wheel, options)
    manifest = {key: value for key, value in source.manifest.items() if key != "files"}
    held = sorted(entry["chip"] for entry in targets.values() if "chip" in entry)
    write_bundle(stage, {**manifest, "targets": targets, "chips": held})


def _carry(bundle: Bundle, stage: Path, names: Collection[str]) -> dict[str, Any]:
    """Copy the files of some targets of `bundle`; returns their entries of the manifest."""
    for name in _files_of(bundle, names):
        _copy(bundle, name, stage)
    return {k: v for k, v in bundle.manifest["targets"].items() if k in names}


def _files_of(bundle: Bundle, targets: Iterable[str]) -> set[str]:
    folders = tuple(f"{target}/" for target in targets)
    return {name for name in bundle.manifest["files"] if name.startswith(folders)}


def _copy(bundle: Bundle, name: str, stage: Path) -> None:
    (stage / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(bundle.path(name), stage / name)


def _target(
    stage: Path,
    source: Bundle,
    chip: Chip,
    compiled: Sequence[CompiledPart],
    wheel: Wheel,
    options: CompileOptions,
) -> dict[str, Any]:
    """Copy the binaries of one chip; returns its entry of the manifest."""
    folder = stage / chip.target
    folder.mkdir(parents=True)
    for part in compiled:
        for name in part.files:
            shutil.copyfile(part.folder / name, folder / name)
    qdq = source.manifest["targets"][SOURCE_TARGET]
    graphs = [
        replace(graph.spec, file=f"{chip.target}/{graph.name}.onnx")
        for part in compiled
        for graph in part.part.graphs
    ]
    return {
        "graphs": [_entry(graph) for graph in graphs],
        **{key: qdq[key] for key in ("embedding", "mask_value", "precision")},
        "chip": chip.name,
        "soc_model": chip.soc_model,
        "compiler": wheel.compiler,
        "options": asdict(options),
        "parts": [dict(part.report) for part in compiled],
    }


def _entry(graph: GraphSpec) -> dict[str, Any]:
    """A graph as the manifest writes it: a tensor of real numbers has no scale."""
    entry = asdict(graph)
    for tensor in (*entry["inputs"], *entry["outputs"]):
        if tensor["scale"] is None:
            del tensor["scale"], tensor["zero_point"]
    return entry
