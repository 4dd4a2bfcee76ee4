"""Bundle: the read-only folder a runtime loads: graphs per target, `manifest.json`, tokenizer.

    manifest.json   format version, graphs with their keys, shapes, encodings, state, sha256 of all
    cpu/*.onnx      one file per graph; `embedding.bin` rows [V, H] for the host's lookup
    tokenizer.json, chat_template.jinja

A bundle comes from outside, so nothing in it is believed before it is checked: sizes and hashes of
every file, no file that is not listed, no path that leaves the folder, neither in the manifest nor
among the external-data locations inside the ONNX files. No pickle, no code. Torch-free.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from autoneural.bundle_graphs import check_graphs
from autoneural.config import ModelConfig, Resize
from autoneural.errors import UserError
from autoneural.files import expand, sha256
from autoneural.manifest import (
    DTYPE_BYTES,
    FORMAT_VERSION,
    MANIFEST,
    Fields,
    LayerState,
    ProcessorSpec,
    TargetSpec,
    parse_state,
    parse_target,
    read_manifest,
)
from autoneural.onnx_external import external_locations

EMBEDDED = Path(__file__).parent / "bundles"
DEFAULT_BUNDLE = "cockpit-tiny"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A verified bundle. `manifest` is the plain dict it was read from."""

    folder: Path
    name: str
    model: ModelConfig
    processor: ProcessorSpec
    context: int
    targets: Mapping[str, TargetSpec]
    state: tuple[LayerState, ...]
    tokenizer_file: str
    chat_template_file: str
    manifest: Mapping[str, Any] = field(repr=False)

    @classmethod
    def load(cls, path_or_name: str | Path) -> Bundle:
        """Read and verify a bundle, by folder or by the name of an embedded one.

        Raises UserError, one line, at the first thing that is wrong.
        """
        folder = find_bundle(path_or_name)
        try:
            manifest = read_manifest(folder)
            bundle = _parse(folder, manifest)
            _verify_files(folder, manifest["files"])
            _verify_references(bundle)
        except (ArithmeticError, LookupError, OSError, TypeError, ValueError) as error:
            # What no check names: a scale of 1e400, a file name of 300 letters, a file unreadable.
            raise UserError(f"{folder}: not a usable bundle ({error!r})") from error
        return bundle

    def path(self, file: str) -> Path:
        """Where a file named by the manifest lies on disk."""
        return self.folder / file

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """Sides in pixels of the pictures that it has a vision graph for, its usual one first."""
        usual = self.processor.image_size
        graphs = (graph for target in self.targets.values() for graph in target.graphs)
        sizes = {graph.image_size for graph in graphs if graph.role == "vision"}
        return tuple(sorted(sizes, key=lambda size: (size != usual, size)))

    def at_size(self, image_size: int) -> Bundle:
        """The same bundle for pictures of that size. UserError listing those that it has."""
        graphs = [graph for target in self.targets.values() for graph in target.graphs]
        vision = [g for g in graphs if g.role == "vision" and g.image_size == image_size]
        if not vision:
            held = ", ".join(map(str, self.image_sizes))
            asked = f"no vision graph for pictures of {image_size} px"
            raise UserError(f"bundle {self.name}: {asked}; it has {held}")
        tokens = vision[0].outputs[0].shape[1]
        changed = replace(self.processor, image_size=image_size, tokens_per_image=tokens)
        return replace(self, processor=changed)

    def target(self, name: str) -> TargetSpec:
        """The named target. Raises UserError listing those that the bundle holds."""
        if name not in self.targets:
            held = ", ".join(self.targets)
            raise UserError(f"bundle {self.name}: no target {name!r}; it holds {held}")
        return self.targets[name]


def find_bundle(path_or_name: str | Path) -> Path:
    """The folder of a bundle given by path, or by the name of one embedded in the package."""
    folder = expand(path_or_name)
    if (folder / MANIFEST).is_file():
        return folder
    embedded = EMBEDDED / folder.name
    if str(path_or_name) == folder.name and (embedded / MANIFEST).is_file():
        return embedded
    if folder.is_dir():
        raise UserError(f"{folder}: not a bundle, it has no {MANIFEST}")
    names = sorted(p.parent.name for p in EMBEDDED.glob(f"*/{MANIFEST}"))
    known = f"embedded bundles: {', '.join(names)}" if names else "no bundle is embedded"
    raise UserError(f"{path_or_name}: no such bundle folder ({known})")


def write_bundle(folder: Path, manifest: Mapping[str, Any]) -> Bundle:
    """Hash every file in `folder`, write `manifest.json` over them, and load the result back.

    `manifest` comes without "files" (and may leave "format_version" out). Raises UserError where
    the result would be refused.
    """
    files = {
        name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
        for name in sorted(_files_in(folder))
        if name != MANIFEST
    }
    complete = {"format_version": FORMAT_VERSION, **manifest, "files": files}
    text = json.dumps(complete, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return Bundle.load(folder)


def refuse_foreign(folder: Path) -> None:
    """UserError where `folder` holds anything but a bundle: it must not be replaced by one.

    A `manifest.json` alone proves nothing: web apps and browser extensions have one too.
    """
    if folder.is_file():
        raise UserError(f"{folder}: is a file, a bundle needs a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        files = Fields(read_manifest(folder), str(folder / MANIFEST)).get("files", dict)
    except (UserError, OSError) as error:
        raise UserError(f"{folder}: holds no bundle, so it is not replaced ({error})") from error
    foreign = sorted(set(_files_in(folder)) - set(files) - {MANIFEST})
    if foreign:
        raise UserError(f"{folder}: holds {foreign[0]} beside a bundle; choose another folder")


def _parse(folder: Path, manifest: dict[str, Any]) -> Bundle:
    top = Fields(manifest, str(folder / MANIFEST))
    try:
        model = ModelConfig.from_dict(top.get("model", dict))
    except (ValueError, AttributeError) as error:
        raise UserError(f"{top.where}: {error}") from error
    processor, tokenizer = top.child("processor"), top.child("tokenizer")
    targets = top.child("targets")
    top.get("files", dict)
    return Bundle(
        folder=folder,
        name=top.get("name", str),
        model=model,
        processor=ProcessorSpec(
            image_size=processor.natural("image_size"),
            tokens_per_image=processor.natural("tokens_per_image"),
            resize=processor.choice("resize", get_args(Resize)),
        ),
        context=top.natural("context"),
        targets={name: parse_target(name, targets.child(name)) for name in targets.data},
        state=tuple(parse_state(item) for item in top.objects("state")),
        tokenizer_file=tokenizer.choice("file", ("tokenizer.json",)),
        chat_template_file=tokenizer.choice("chat_template", ("chat_template.jinja",)),
        manifest=manifest,
    )


def _files_in(folder: Path) -> Iterator[str]:
    """Names of all files below `folder`, with forward slashes; links to folders count as files."""
    for here, folders, names in os.walk(folder):
        links = [name for name in folders if Path(here, name).is_symlink()]
        for name in (*names, *links):
            yield Path(here, name).relative_to(folder).as_posix()


def _inside(folder: Path, name: str) -> bool:
    """Whether `name` is a plain relative path that stays in `folder`, links followed."""
    parts = PurePosixPath(name).parts
    plain = bool(parts) and parts[0] != "/" and ".." not in parts
    if not plain or "\\" in name or ":" in name or "\0" in name:
        return False
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _verify_files(folder: Path, files: object) -> None:
    listed = Fields(files, f"{folder / MANIFEST}.files")
    for name in listed.data:
        if not _inside(folder, name):
            raise UserError(f"{listed.where}: {name!r} leaves the bundle folder")
        if not (folder / name).is_file():
            raise UserError(f"{folder}: {name} is missing")
    unlisted = sorted(set(_files_in(folder)) - set(listed.data) - {MANIFEST})
    if unlisted:
        raise UserError(f"{folder}: {unlisted[0]} is not listed in {MANIFEST}; refusing the bundle")
    for name in listed.data:
        entry, path = listed.child(name), folder / name
        size, expected = path.stat().st_size, entry.natural("bytes")
        if size != expected:
            raise UserError(f"{path}: {size} bytes, {MANIFEST} says {expected}; damaged or cut off")
        if sha256(path) != entry.get("sha256", str):
            raise UserError(f"{path}: sha256 differs from {MANIFEST}; damaged or altered")


def _verify_references(bundle: Bundle) -> None:
    """Every file the manifest or a graph refers to is a hashed one; every graph fits the model."""
    _require_listed(bundle, bundle.tokenizer_file)
    _require_listed(bundle, bundle.chat_template_file)
    for target in bundle.targets.values():
        table = target.embedding
        _require_listed(bundle, table.file)
        size = bundle.path(table.file).stat().st_size
        if size != prod(table.shape) * DTYPE_BYTES[table.dtype]:
            wanted = f"{table.dtype} {list(table.shape)}"
            raise UserError(f"{bundle.path(table.file)}: {size} bytes do not hold {wanted}")
        for graph in target.graphs:
            _require_listed(bundle, graph.file)
            # ONNX Runtime reads a graph whatever its name, so its name decides nothing here.
            _verify_external_data(bundle, graph.file)
        check_graphs(target.graphs, bundle.model, bundle.state)


def _require_listed(bundle: Bundle, name: str) -> None:
    if name not in bundle.manifest["files"]:
        raise UserError(f"{bundle.folder / MANIFEST}: {name!r} is used but not among its files")


def _verify_external_data(bundle: Bundle, name: str) -> None:
    for location in external_locations(bundle.path(name)):
        where = f"{bundle.path(name)}: external data at {location!r}"
        if not _inside(bundle.folder, location):
            raise UserError(f"{where} leaves the bundle folder")
        if (PurePosixPath(name).parent / location).as_posix() not in bundle.manifest["files"]:
            raise UserError(f"{where} is not listed in {MANIFEST}")
