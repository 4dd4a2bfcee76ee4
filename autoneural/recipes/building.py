"""`autoneural build`: checkpoint -> quantise -> export -> compile, in bounded memory.

    OUT-run/quantised/  quantised.json     integers and ranges, and what they took
    OUT-run/exporting/                     graphs that are whole (export/finished.py)
    OUT-run/exported/   exported.json      the integer graphs that a chip's compiler reads
    .OUT.compile/                          binaries that are finished (npu/compile.py)
    OUT/                built.json in OUT-run

Each step runs in a process of its own. What is finished is known again by the hash of all that
decided it: the same command goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autoneural import __version__
from autoneural.bundle import Bundle, refuse_foreign
from autoneural.checkpoint import find_checkpoint, load_checkpoint, weights_hash
from autoneural.compress.derive import open_float
from autoneural.compress.precision import PRECISIONS, Precision
from autoneural.compress.rounding import Rounding
from autoneural.compress.streaming import quantize_streamed
from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.export.bundle import ExportOptions, build_bundle
from autoneural.export.source import check_sizes
from autoneural.files import refuse_current, sha256, writable_folder, write_text
from autoneural.manifest import MANIFEST
from autoneural.npu.compile import CompileOptions, check_place, compile_bundle
from autoneural.npu.worker import peak_rss_gb
from autoneural.recipes.child import Done, Tell, run_child
from autoneural.recipes.quantizing import calibration_samples, example_samples
from autoneural.target.chips import Chip

Say = Callable[[str], None]
AFFORDABLE = 100_000_000
"""Parameters up to which rounding is compensated unless told: minutes, not hours, on two cores."""
_CONTEXT = 4096
_TOOK = "took.json"


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """`chip` None: the target `cpu`. None elsewhere: the model's own, or what is affordable.

    `data`: rows to calibrate on, None for the pictures that come with the package; as many
    `samples` at each of `image_sizes`, of which () is the model's own. `fast`, `kv8`, for `cpu`
    alone: see `ExportOptions`.
    """

    chip: Chip | None = None
    precision: Precision = PRECISIONS["w4a16kv8"]
    rounding: Rounding | None = None
    data: Path | None = None
    samples: int = 4
    context: int | None = None
    image_sizes: tuple[int, ...] = ()
    max_part_mb: int = CompileOptions.max_part_mb
    fast: bool = False
    kv8: bool = False

    @property
    def image_size(self) -> int | None:
        """What pictures have unless told; None for the model's own."""
        return self.image_sizes[0] if self.image_sizes else None

    @property
    def target(self) -> str:
        """The bundle's target that is exported."""
        return "cpu" if self.chip is None else "qdq"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A step, or one binary: GiB of memory of its process; `nodes_off_npu` None where none is
    compiled."""

    name: str
    seconds: float
    peak_rss_gb: float
    bytes: int
    nodes_off_npu: int | None = None


@dataclass(frozen=True, kw_only=True)
class Built:
    """What `build` made: the parts in order, `calibration` in words.

    `seconds` are of whole steps, those of earlier runs of the command included.
    """

    bundle: Bundle
    target: str
    calibration: str
    parts: tuple[Part, ...]
    seconds: float
    own_peak_rss_gb: float

    @property
    def peak_rss_gb(self) -> float:
        """At most, at one time: this process and its largest child."""
        return self.own_peak_rss_gb + max(part.peak_rss_gb for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class _Record:
    """A step that is whole: from what (`identity`), and the sha256 of the file that proves it."""

    identity: str
    proof: str
    seconds: float
    parts: tuple[Part, ...]

    def save(self, path: Path) -> None:
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")


def build(
    checkpoint: str | Path,
    out: Path,
    options: BuildOptions,
    *,
    tell: Tell = lambda what, done, total: None,
    say: Say = lambda line: None,
) -> Built:
    """Make the bundle `out` of a float (or quantised) checkpoint.

    `tell` gets (what, done, total), `say` a line before and after each step. Raises UserError, one
    line, as the stages do; finished steps stay in `<out>-run`.
    """
    source = find_checkpoint(checkpoint)
    options = _resolved(source, out, options)
    run = writable_folder(out.with_name(f"{out.name}-run"), out)
    records: list[_Record] = []
    if load_checkpoint(source).encodings is None:
        calibration = _calibration(options)
        say(f"quantise: {options.precision.name}, {options.rounding} rounding, {calibration}")
        records.append(_quantised(run, source, options, tell, say))
        source = run / "quantised"
    else:
        calibration = "ranges of the quantised checkpoint"
    exported = out if options.chip is None else run / "exported"
    records.append(_exported(run, source, exported, options, tell, say))
    if options.chip is not None:
        records.append(_compiled(run, exported, out, options, options.chip, tell, say))
    target = "cpu" if options.chip is None else options.chip.target
    return Built(
        bundle=Bundle.load(out),
        target=target,
        calibration=calibration,
        parts=tuple(part for record in records for part in record.parts),
        seconds=sum(record.seconds for record in records),
        own_peak_rss_gb=peak_rss_gb(),
    )


def _resolved(source: Path, out: Path, options: BuildOptions) -> BuildOptions:
    """The options with nothing left open; UserError for what cannot be built."""
    refuse_current(out)
    refuse_foreign(out)
    if options.fast and options.chip is not None:
        raise UserError(f"--fast is of --chip cpu: {options.chip.name} computes in integers anyway")
    if options.kv8 and options.chip is not None:
        raise UserError("--kv8 is of --chip cpu: an NPU's cache is as wide as --precision says")
    config = load_checkpoint(source).config
    if load_checkpoint(source).encodings is None:
        opened = open_float(source, options.image_size)
        config = opened.config
        size = sum(tensor.numel() for tensor in opened.state_dict.values())
        rounding = options.rounding or ("compensated" if size <= AFFORDABLE else "nearest")
        options = replace(options, rounding=rounding)
    elif options.rounding or options.data:
        raise UserError(f"{source}: is quantised already: --rounding and --data mean nothing")
    check_sizes(config, options.image_sizes)
    if options.chip is not None:
        check_place(out, CompileOptions(max_part_mb=options.max_part_mb))
    return replace(options, context=_context(config, options.context))


def _context(config: ModelConfig, asked: int | None) -> int:
    limit = config.text.max_position_embeddings
    context = min(_CONTEXT, limit) if asked is None else asked
    if not 0 < context <= limit:
        raise UserError(f"--context {context}: {config.name} has {limit} positions")
    return context


def _calibration(options: BuildOptions) -> str:
    sizes = f" at each of {_several(options.image_sizes)} px" if options.image_sizes[1:] else ""
    if options.data is not None:
        return f"calibrated on {options.samples} rows of {options.data}{sizes}"
    return f"calibrated on {options.samples} drawn example pictures{sizes}, not on your data"


def _several(sizes: Iterable[int]) -> str:
    return " ".join(map(str, sizes))


def _quantised(run: Path, source: Path, options: BuildOptions, tell: Tell, say: Say) -> _Record:
    facts = {
        "weights": weights_hash(source),
        "precision": options.precision.to_dict(),
        "rounding": options.rounding,
        "data": options.data and str(options.data.resolve()),
        "samples": options.samples,
        "image_sizes": options.image_sizes,
    }

    def make(folder: Path) -> list[Part]:
        done = run_child(quantise_step, (source, folder, options), tell)
        return [_part("quantise", done, folder)]

    proof = run / "quantised" / "model.safetensors"
    return _step(run / "quantised.json", facts, proof, make, say)


def quantise_step(tell: Tell, source: Path, out: Path, options: BuildOptions) -> None:
    """In a child: `source` to the quantised checkpoint `out`."""
    data, count = options.data, options.samples
    samples = [
        sample
        for size in options.image_sizes or (None,)
        for sample in (
            example_samples(source, count, size)
            if data is None
            else calibration_samples(source, data, count, size)
        )
    ]
    quantize_streamed(
        open_float(source, options.image_size),
        samples,
        out,
        precision=options.precision,
        rounding=options.rounding or "nearest",
        facts={"calibration": _calibration(options)},
        progress=tell,
    )


def _exported(
    run: Path, source: Path, out: Path, options: BuildOptions, tell: Tell, say: Say
) -> _Record:
    say(f"export: target {options.target}, context {options.context}")
    facts = {
        "weights": weights_hash(source),
        "target": options.target,
        "context": options.context,
        "image_sizes": options.image_sizes,
        "fast": options.fast,
        "kv8": options.kv8,
        "past_block": ExportOptions.past_block,
        "out": str(out.resolve()),
    }
    exporting = run / "exporting"
    keep = exporting / _identity(facts)

    def make(folder: Path) -> list[Part]:
        for other in exporting.glob("*"):
            if other != keep:
                shutil.rmtree(other, ignore_errors=True)
        keep.mkdir(parents=True, exist_ok=True)
        done = run_child(export_step, (source, folder, options, keep), tell)
        seconds, peak = _took(keep)
        shutil.rmtree(exporting, ignore_errors=True)
        part = _part("export", done, folder)
        return [replace(part, seconds=round(seconds, 1), peak_rss_gb=round(peak, 2))]

    return _step(run / "exported.json", facts, out / MANIFEST, make, say)


def export_step(tell: Tell, source: Path, out: Path, options: BuildOptions, keep: Path) -> None:
    """In a child: the quantised checkpoint `source` to the bundle `out`.

    Graphs that are whole wait in `keep`, and with them what they have taken in all runs so far.
    """
    assert options.context is not None
    export = ExportOptions.within(options.context)
    export = replace(
        export,
        image_sizes=options.image_sizes,
        fast=options.fast,
        kv8=options.kv8,
        verify=False,
    )
    lines, start = iter(range(1, 100)), time.perf_counter()
    earlier, peak = _took(keep)
    total = len(options.image_sizes or (None,)) + 7

    def told(line: str) -> None:
        took = (earlier + time.perf_counter() - start, max(peak, peak_rss_gb()))
        write_text(keep / _TOOK, json.dumps(took))
        tell(line, next(lines), total)

    build_bundle(source, out, [options.target], export, progress=told, keep=keep)


def _took(keep: Path) -> tuple[float, float]:
    """Seconds of all runs, and GiB of memory at most."""
    try:
        seconds, peak = json.loads((keep / _TOOK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0, 0.0
    return float(seconds), float(peak)


def _compiled(
    run: Path,
    source: Path,
    out: Path,
    options: BuildOptions,
    chip: Chip,
    tell: Tell,
    say: Say,
) -> _Record:
    say(f"compile: {chip.name}")
    compiling = CompileOptions(max_part_mb=options.max_part_mb)
    facts = {
        "manifest": sha256(source / MANIFEST),
        "chip": chip.name,
        "compiler": check_place(out, compiling).compiler,
        "max_part_mb": options.max_part_mb,
    }

    def make(folder: Path) -> list[Part]:
        [report] = compile_bundle(Bundle.load(source), [chip], folder, compiling, progress=tell)
        return [_binary(row) for row in report.parts]

    return _step(run / "built.json", facts, out / MANIFEST, make, say)


def _binary(row: Any) -> Part:
    name = row["role"] if row["layers"] is None else f"{row['role']} {row['part']}"
    graphs = [f"AR-{width}" for width in row["widths"] if row["role"] == "language"]
    if len(sizes := row.get("image_sizes", ())) > 1:  # a part of an earlier version says none
        graphs = [f"{_several(sizes)} px"]
    return Part(
        name=" ".join((name, *graphs)),
        seconds=row["seconds"],
        peak_rss_gb=row["peak_rss_gb"],
        bytes=row["binary_bytes"],
        nodes_off_npu=row["nodes_total"] - row["nodes_npu"],
    )


def _step(
    path: Path,
    facts: dict[str, Any],
    proof: Path,
    make: Callable[[Path], list[Part]],
    say: Say,
) -> _Record:
    """Make the folder of `proof` unless it is there, made from the same `facts`."""
    identity, record = _identity(facts), _load(path)
    if record and record.identity == identity and proof.is_file() and sha256(proof) == record.proof:
        say(f"{path.stem}: there already")
        return record
    path.unlink(missing_ok=True)
    start = time.perf_counter()
    parts = make(proof.parent)
    # A step that was killed once took what its parts took, in all runs.
    seconds = max(time.perf_counter() - start, sum(part.seconds for part in parts))
    seconds = round(seconds, 1)
    record = _Record(identity=identity, proof=sha256(proof), seconds=seconds, parts=tuple(parts))
    record.save(path)
    say(f"{path.stem}: {seconds:.0f} s")
    return record


def _identity(facts: dict[str, Any]) -> str:
    made_by = json.dumps({"program": __version__, **facts}, sort_keys=True)
    return hashlib.sha256(made_by.encode()).hexdigest()


def _load(path: Path) -> _Record | None:
    """None where there is none that can be read: the step is made anew."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        parts = tuple(Part(**part) for part in found["parts"])
        return _Record(**{**found, "parts": parts})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _part(name: str, done: Done, folder: Path) -> Part:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Part(
        name=name,
        seconds=round(done.seconds, 1),
        peak_rss_gb=round(done.peak_rss_gb, 2),
        bytes=size,
    )
