"""A kit: what an integrator on QNX or Android takes from a compiled bundle, without Python.

What is in it:
    README.md  io.json  io.schema.json  sbom.cdx.json  SHA256SUMS  LICENSES/
    binaries/         context binaries of the chip, with their ONNX Runtime wrappers
    onnx/qdq/         the integer graphs that were compiled
    onnx/float/       the same in float, with AIMET encodings: for another QAIRT SDK
    host/             embedding rows, rotary tables, tokenizer
    golden/           one real run, step by step, as raw files
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from shlex import quote
from typing import Any

from autoneural import __version__
from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.files import refuse_current, replace_folder, sha256
from autoneural.manifest import MANIFEST, Fields
from autoneural.npu import kit_check
from autoneural.npu.kit_emulator import add_emulator
from autoneural.npu.kit_files import Graphs, Stage, files_in, qdq_sources, write_host
from autoneural.npu.kit_golden import PICTURE, QUESTION, Prompt, write_golden
from autoneural.npu.kit_io import FORMAT, IO_FILE, TokenIds, describe
from autoneural.npu.kit_text import licence_files, minimum_runtime, readme, run_script
from autoneural.npu.sbom import Contents, bill_of_materials
from autoneural.npu.worker import JobFailed
from autoneural.runtime.prompt import Processor, load_processor
from autoneural.runtime.qnn import emulates, find_wheel
from autoneural.target.chips import Chip, find_chip

SUMS = "SHA256SUMS"
SBOM = "sbom.cdx.json"
SCHEMA = "io.schema.json"
_TOOLS = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-qnn")

Progress = Callable[[str], None]


def package(
    bundle: Bundle | str | Path,
    chip: str,
    out: str | Path,
    *,
    emulator: bool = True,
    progress: Progress = print,
) -> Path:
    """Write the kit of `bundle` for `chip` to the folder `out`, whole or not at all.

    `emulator` adds the HTP emulator's outputs to the golden vectors, where Qualcomm's wheel is
    installed. Raises UserError, one line, when the bundle is not compiled for the chip, has no
    `qdq` target, or `out` holds something other than a kit.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    out, known = Path(out), find_chip(chip)
    target = _compiled_target(bundle, known)
    if "qdq" not in bundle.targets:
        held = ", ".join(bundle.targets)
        raise UserError(
            f"bundle {bundle.name}: no target qdq, the source of a kit's ONNX and golden vectors; "
            f"it holds {held}"
        )
    refuse_current(out)
    refuse_foreign_kit(out)
    with replace_folder(out) as folder:
        _Packager(bundle, known, target, Stage(folder), progress).write(emulator)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    progress(f"{out}: {size / 2**20:.2f} MiB")
    return out


def refuse_foreign_kit(folder: Path) -> None:
    """UserError where `folder` holds anything but a kit: it must not be replaced by one."""
    if folder.is_file():
        raise UserError(f"{folder}: is a file, a kit needs a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        is_kit = json.loads((folder / IO_FILE).read_text(encoding="utf-8"))["format"] == FORMAT
        listed = {line[66:] for line in (folder / SUMS).read_text(encoding="utf-8").splitlines()}
    except (OSError, ValueError, LookupError, TypeError):
        is_kit, listed = False, set()
    if not is_kit:
        raise UserError(f"{folder}: holds no kit, so it is not replaced; choose another folder")
    foreign = sorted(set(files_in(folder)) - listed - {SUMS})
    if foreign:
        raise UserError(f"{folder}: holds {foreign[0]} beside a kit; choose another folder")


def _compiled_target(bundle: Bundle, chip: Chip) -> str:
    """The target with binaries for `chip`: its own, or that of a chip with the same soc_model."""
    compiled = {n: t for n, t in bundle.manifest["targets"].items() if n.startswith("htp/")}
    if chip.target in compiled:
        return chip.target
    for name, entry in compiled.items():
        if entry.get("soc_model") == chip.soc_model:
            return name
    chips = ", ".join(str(entry.get("chip", name)) for name, entry in compiled.items())
    state = f"compiled for {chips}, not for {chip.name}" if chips else "not compiled for any chip"
    raise UserError(
        f"bundle {bundle.name}: {state}; compile it first: "
        f"autoneural compile {bundle.folder} --chip {quote(chip.name)} -o BUNDLE"
    )


class _Packager:
    """One kit on its way into `stage`."""

    def __init__(
        self, bundle: Bundle, chip: Chip, target: str, stage: Stage, progress: Progress
    ) -> None:
        self._bundle, self._chip, self._stage, self._progress = bundle, chip, stage, progress
        self._target = bundle.targets[target]
        self._entry = Fields(bundle.manifest["targets"][target], f"bundle {bundle.name}: {target}")

    def write(self, emulator: bool) -> None:
        """All files, in the order in which later ones need earlier ones."""
        io = self._io()
        golden = write_golden(self._stage.folder, io, self._prompt())
        golden["answer"] = self._processor.tokenizer.decode(golden["tokens"])
        self._progress(f"golden: {len(golden['steps'])} steps, {golden['answer']!r} ...")
        if emulator:
            self._emulate(io, golden)
        self._stage.json("golden/golden.json", golden)
        self._texts(io, golden)
        self._close(io)

    def _io(self) -> dict[str, Any]:
        compiler = self._entry.get("compiler", str)
        minimum_runtime(compiler)
        graphs = []
        with tempfile.TemporaryDirectory(prefix="autoneural-kit-") as scratch:
            sources = qdq_sources(self._bundle, self._entry.data, Path(scratch))
            self._graphs = Graphs(self._bundle, sources, self._stage)
            for spec in self._target.graphs:
                graph = self._graphs.add(spec)
                self._progress(f"{graph.name}: {graph.binary}, {graph.qdq}, {graph.float_onnx}")
                graphs.append(graph)
        host = write_host(self._bundle, self._target, self._stage)
        io = describe(self._bundle, self._chip, graphs, host, self._tokens(), compiler)
        self._stage.json(IO_FILE, io)
        schema = resources.files("autoneural.npu").joinpath("kit_io.schema.json")
        self._stage.text(SCHEMA, schema.read_text(encoding="utf-8"))
        return io

    @cached_property
    def _processor(self) -> Processor:
        return load_processor(self._bundle)

    def _tokens(self) -> TokenIds:
        words = self._processor.tokenizer
        return TokenIds(
            bos=words.bos_id,
            eos=words.eos_id,
            pad=words.pad_id,
            image=words.image_id,
            image_start=words.image_start,
            image_end=words.image_end,
        )

    def _prompt(self) -> Prompt:
        parts = [{"type": "image", "image": PICTURE}, {"type": "text", "text": QUESTION}]
        inputs = self._processor([{"role": "user", "content": parts}])
        return Prompt(
            text=QUESTION,
            picture=PICTURE,
            input_ids=inputs.input_ids,
            pixel_values=inputs.pixel_values,
        )

    def _emulate(self, io: Mapping[str, Any], golden: dict[str, Any]) -> None:
        if find_wheel() is None or not emulates():
            self._progress("emulator: onnxruntime-qnn is not installed here; golden/ goes without")
            return
        try:
            add_emulator(self._stage.folder, io, golden)
        except JobFailed as error:
            raise UserError(f"emulator: {error}; --no-emulator packages without it") from error
        self._progress(f"emulator: {golden['emulator']}")

    def _texts(self, io: Mapping[str, Any], golden: Mapping[str, Any]) -> None:
        parts = [part.data for part in self._entry.objects("parts")]
        graphs, stage = self._graphs, self._stage
        text = readme(io, golden, parts, __version__, sorted(graphs.operators), graphs.opset)
        stage.text("README.md", text)
        stage.text("golden/run.sh", run_script(io, golden))
        stage.copy(Path(kit_check.__file__), "golden/check.py")
        texts = licence_files(self._bundle.name, self._licences(), io["compiler"])
        for name, text in texts.items():
            stage.text(f"LICENSES/{name}", text)

    def _licences(self) -> dict[str, str]:
        stated = self._bundle.manifest.get("licences")
        return {str(k): str(v) for k, v in stated.items()} if isinstance(stated, dict) else {}

    def _close(self, io: Mapping[str, Any]) -> None:
        """The bill of materials over all files, then the checksums over all and the bill."""
        stage = self._stage
        hashes = {name: sha256(stage.folder / name) for name in stage.files()}
        contents = Contents(
            name=self._bundle.name,
            chip=self._chip.name,
            runtime=minimum_runtime(io["compiler"]),
            model_hash=sha256(self._bundle.path(MANIFEST)),
            weights_licence=self._licences().get("weights", ""),
            inputs=_names(io, "inputs"),
            outputs=_names(io, "outputs"),
            tools={"autoneural": __version__, "QNN compiler": io["compiler"], **_versions()},
            files=hashes,
        )
        stage.json(SBOM, bill_of_materials(contents))
        hashes[SBOM] = sha256(stage.folder / SBOM)
        stage.text(SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items())))


def _names(io: Mapping[str, Any], ends: str) -> list[str]:
    return sorted({tensor["name"] for graph in io["graphs"] for tensor in graph[ends]})


def _versions() -> dict[str, str]:
    found = {}
    for name in _TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
