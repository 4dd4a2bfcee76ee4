"""Checkpoint folder -> bundle folder: every graph of every target, exported one at a time.

float   fp32 graphs                              from any checkpoint
cpu     fp32 activations, packed weights         from a quantised checkpoint
qdq     integers throughout, as an NPU compiles  from a quantised checkpoint

manifest.json  tokenizer.json  chat_template.jinja
<target>/{vision,prefill,verify,decode,head}.onnx  vision.data  language.data  embedding.bin
cpu/decoder.onnx is prefill, verify and decode; with `fast` cpu/prefill.onnx is verify as well
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from autoneural import __version__
from autoneural.bundle import Bundle, refuse_foreign, write_bundle
from autoneural.bundle_graphs import growing_axes
from autoneural.checkpoint import TOKENIZER_FILES, weights_hash
from autoneural.compress.quantize import load_quantized
from autoneural.errors import UserError
from autoneural.export.cache import byte_encodings, cache_bits
from autoneural.export.finished import Finished
from autoneural.export.graphs import GraphKey, build_graph, graph_keys
from autoneural.export.onnx import WeightFile, export_graph, save_model
from autoneural.export.parity import (
    Parity,
    compare_float,
    compare_integer,
    exact_session,
    on_grid,
    run_float,
    run_integer,
    run_torch,
    sample_inputs,
    worst,
)
from autoneural.export.passes.any_past import AnyPast
from autoneural.export.passes.any_width import TRACED, AnyWidth
from autoneural.export.passes.byte_cache import ByteCache
from autoneural.export.qdq import Linears, pack_graph, quantize_graph
from autoneural.export.source import Source, at_sizes, load_source
from autoneural.files import refuse_current, replace_folder
from autoneural.manifest import DECODERS, LayerState
from autoneural.model.language_model import MASK_VALUE
from autoneural.model.state import DecoderState
from autoneural.model.vlm import VLM
from autoneural.target.numerics import Encoding, quantize_affine

_EMBEDDING = "language_model.model.embed_tokens"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Positions of the sequence; tokens per prefill step and per verify step (chains of drafts).

    `image_sizes`: pixels a side of the pictures, () for what the model was made for. Each has a
    vision graph, all on the same weights; pictures get the first size unless told.
    `accuracy_level` of MatMulNBits: 1 keeps fp32 activations, 4 lets the kernel round them to int8
    in its own way; 0 is 4 for weights of 8 bits, which have no other kernel, and 1 for those of 4.
    `fast`: target `cpu` in the quickest arithmetic: level 4 for one row; for more, and for
    pictures, bytes by bytes (`passes/quantize_rows.py`), with weights of their own.
    `past_block`: the past of `cpu` decoders grows in blocks of so many rows (`GraphSpec`); 0 for
    one block as long as the context. `kv8`: their keys and values are bytes between steps, as on an
    NPU (`passes/byte_cache.py`). `verify` runs each graph once against PyTorch for its SQNR.
    """

    context: int = 1024
    prefill_width: int = 128
    verify_width: int = 8
    image_sizes: tuple[int, ...] = ()
    accuracy_level: int = 0
    fast: bool = False
    past_block: int = 128
    kv8: bool = False
    verify: bool = True

    @property
    def rows_of_past(self) -> int:
        """Rows of a block of the past, at most the context."""
        return min(self.past_block or self.context, self.context)

    @classmethod
    def within(cls, context: int) -> ExportOptions:
        """The usual widths, or as much of them as `context` holds."""
        return cls(
            context=context,
            prefill_width=min(cls.prefill_width, context),
            verify_width=min(cls.verify_width, context),
        )


def build_bundle(
    checkpoint: str | Path,
    out: str | Path,
    targets: Sequence[str] = ("cpu", "qdq"),
    options: ExportOptions | None = None,
    *,
    progress: Callable[[str], None] = print,
    keep: Path | None = None,
) -> Bundle:
    """Export `checkpoint` to the bundle folder `out`, atomically; an earlier bundle is replaced.

    `keep`: a folder of this export alone, on the disk of `out`. Graphs wait there until all are
    whole, and a run that was stopped goes on behind them.

    `progress` gets one line per graph: size, and SQNR against PyTorch (for `qdq` against
    fake-quant) if `verify`. Raises UserError, one line, for an unknown target, a checkpoint that is
    not quantised, a context the model cannot hold, or an `out` that is something else.
    """
    out, options = Path(out), options or ExportOptions()
    refuse_current(out)
    refuse_foreign(out)
    loaded = load_source(checkpoint, targets, hollow=not options.verify)
    source = at_sizes(loaded, options.image_sizes)
    limit = source.model.config.text.max_position_embeddings
    widths = (options.prefill_width, options.verify_width)
    if not 0 < min(widths) <= max(widths) <= options.context <= limit:
        raise UserError(
            f"context {options.context}, widths {widths}: "
            f"need 0 < width <= context <= {limit}, the model's positions"
        )
    if options.past_block < 0:
        raise UserError(f"past_block {options.past_block}: not a number of rows, nor 0 for all")
    with replace_folder(out, Finished.stage_of(keep)) as stage:
        manifest, finished = _manifest(source, options), Finished(keep, stage)
        for target in targets:
            manifest["targets"][target] = _export_target(
                stage, target, source, options, finished, progress
            )
        for name in TOKENIZER_FILES:
            shutil.copyfile(source.folder / name, stage / name)
        write_bundle(stage, manifest)
    bundle = Bundle.load(out)
    total = sum(entry["bytes"] for entry in bundle.manifest["files"].values())
    progress(f"{out}: {total / 2**20:.2f} MiB")
    return bundle


def _export_target(
    stage: Path,
    target: str,
    source: Source,
    options: ExportOptions,
    finished: Finished,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    files = {role: finished.weights(f"{target}/{role}.data") for role in ("vision", "language")}
    reference = source.model
    if target == "qdq" and options.verify:
        reference = load_quantized(source.folder)
    graphs = []
    for stem, keys in _files(target, source, options).items():
        weights = files["vision" if keys[0].role == "vision" else "language"]
        file = f"{target}/{stem}.onnx"
        entries = finished.entries(file)
        if entries is None:
            encodings, entries = _export_one(stage / file, keys, target, source, options, weights)
            entries = [{**entry, "file": file} for entry in entries]
            line = f"{target}/{stem}: {(stage / file).stat().st_size / 1024:.0f} KiB"
            for key in keys if options.verify else ():
                parity = _verify(stage / file, _tried(key, target, options), reference, encodings)
                line += f", {key.role} " if keys[1:] else ", "
                line += _describe(parity)
            finished.add(file, entries, weights)
            progress(line)
        else:
            progress(f"{target}/{stem}: there already")
        graphs += entries
    for weights in files.values():
        progress(f"{target}/{weights.path.name}: {weights.path.stat().st_size / 2**20:.2f} MiB")
    return {
        "graphs": graphs,
        "embedding": _write_embedding(stage, target, source),
        "mask_value": _mask_value(target, source),
        "precision": _precision(target, source, options),
    }


def _files(target: str, source: Source, options: ExportOptions) -> dict[str, list[GraphKey]]:
    """Graphs by the stem of their file: decoders for a CPU that compute alike are one graph."""
    widths = (options.prefill_width, options.verify_width)
    keys = graph_keys(source.model, options.context, *widths, options.image_sizes)
    decoders = [key for key in keys if target == "cpu" and key.role in DECODERS]
    found: dict[str, list[GraphKey]] = {}
    for key in keys:
        stem = _stem(key, source)
        if key in decoders:
            alike = [k for k in decoders if _linears(k, options) == _linears(key, options)]
            stem = "decoder" if alike == decoders else alike[0].name
        found.setdefault(stem, []).append(key)
    return found


def _stem(key: GraphKey, source: Source) -> str:
    """File name without its end; that of an encoder for another size than the usual names it."""
    usual = key.image_size in (0, source.model.config.vision.image_size)
    return key.name if usual else f"{key.name}-{key.image_size}"


def _export_one(
    path: Path,
    keys: Sequence[GraphKey],
    target: str,
    source: Source,
    options: ExportOptions,
    weights: WeightFile,
) -> tuple[Mapping[str, Encoding], list[dict[str, Any]]]:
    """Trace, rewrite for the target, save. Returns encodings of the ends, and `keys`' entries."""
    grows = target == "cpu" and keys[0].role in DECODERS
    free = grows and any(key.width > 1 for key in keys)
    traced = replace(keys[0], width=TRACED) if free else keys[0]
    model = export_graph(build_graph(source.model, traced))
    encodings: Mapping[str, Encoding] = {}
    if target != "float":
        assert source.quantization is not None
        if target == "qdq":
            encodings = quantize_graph(model, source.quantization)
        else:
            integers = source.quantization.weights
            linears = _linears(keys[0], options)
            pack_graph(model, integers, linears, options.accuracy_level)
            if grows and options.kv8:
                encodings = byte_encodings(_layers(source.model), source.quantization)
                ByteCache(encodings)(model)
    ends = {
        "inputs": [_tensor(value, encodings) for value in model.graph.inputs],
        "outputs": [_tensor(value, encodings) for value in model.graph.outputs],
    }
    changed: dict[str, Any] = {}
    if grows:
        AnyPast(growing_axes(_layers(source.model)))(model)
        changed["past_block"] = options.rows_of_past
    entries = [{**vars(key), **ends, **changed} for key in keys]
    if free:
        kept = source.model.config.text.conv_L_cache - 1
        AnyWidth(kept)(model)
        entries = [{**entry, **_at_width(entry, kept), "any_width": True} for entry in entries]
    save_model(model, path, weights)
    return encodings, entries


def _at_width(entry: Mapping[str, Any], kept: int) -> dict[str, Any]:
    """Inputs and outputs that were traced at another width, with the sizes of the graph's own."""
    sizes = {TRACED + more: entry["width"] + more for more in (0, kept, entry["context"])}
    return {
        end: [{**one, "shape": [sizes.get(n, n) for n in one["shape"]]} for one in entry[end]]
        for end in ("inputs", "outputs")
    }


def _linears(key: GraphKey, options: ExportOptions) -> Linears:
    """The arithmetic of a `cpu` graph's linears."""
    if options.fast:
        return "blocks" if key.width == 1 else "rows"
    return "float"


def _tried(key: GraphKey, target: str, options: ExportOptions) -> GraphKey:
    """What a graph is verified at: a short past where any will do."""
    grows = target == "cpu" and key.role in DECODERS
    return replace(key, context=options.rows_of_past) if grows else key


def _tensor(value: ir.Value, encodings: Mapping[str, Encoding]) -> dict[str, Any]:
    assert value.name is not None
    assert value.shape is not None
    assert value.dtype is not None
    entry: dict[str, Any] = {
        "name": value.name,
        "dtype": "float32" if value.dtype == ir.DataType.FLOAT else value.dtype.name.lower(),
        "shape": list(value.shape.numpy()),
    }
    encoding = encodings.get(value.name)
    if encoding is not None:
        entry |= {"scale": encoding.scale, "zero_point": encoding.zero_point}
    return entry


def _verify(path: Path, key: GraphKey, reference: VLM, encodings: Mapping[str, Encoding]) -> Parity:
    graph = build_graph(reference, key)
    inputs = sample_inputs(graph, reference.language_model.model.embed_tokens.weight)
    inputs = on_grid(inputs, encodings)
    if inputs.keys() <= encodings.keys():
        got = run_integer(exact_session(path), inputs, encodings)
        return worst(compare_integer(run_torch(graph, inputs), got, encodings))
    return worst(compare_float(run_torch(graph, inputs), run_float(path, inputs, encodings)))


def _describe(parity: Parity) -> str:
    text = f"SQNR {parity.sqnr_db:.1f} dB"
    if parity.moved:
        text += f", {parity.moved:.1%} of integers moved, by {parity.lsb} at most"
    return f"{text} ({parity.output})"


def _write_embedding(stage: Path, target: str, source: Source) -> dict[str, Any]:
    table = source.model.language_model.model.embed_tokens.weight.detach().numpy()
    entry: dict[str, Any] = {"file": f"{target}/embedding.bin", "shape": list(table.shape)}
    if target == "qdq":
        assert source.quantization is not None
        encoding = source.quantization.activations[_EMBEDDING]
        data = quantize_affine(table, encoding).astype("<u2")
        entry |= {
            "dtype": "uint16",
            "scale": encoding.scale,
            "zero_point": encoding.zero_point,
        }
    else:
        data = table.astype("<f4")
        entry["dtype"] = "float32"
    (stage / entry["file"]).write_bytes(np.ascontiguousarray(data).tobytes())
    return entry


def _mask_value(target: str, source: Source) -> float:
    encodings = source.checkpoint.encodings
    if target == "qdq" and encodings is not None:
        return float(encodings["mask_value"])
    return MASK_VALUE


def _precision(target: str, source: Source, options: ExportOptions) -> dict[str, str]:
    """Bits of most weights, of activations, of a narrower cache: "w4a16kv8", "kv8/16" if mixed."""
    if target == "float" or source.quantization is None:
        return dict.fromkeys(("vision", "language", "head"), "w32a32")
    activation = 16 if target == "qdq" else 32
    prefixes = {
        "vision": "vision_encoder.",
        "language": "language_model.model.layers.",
        "head": "language_model.lm_head.",
    }
    found = {}
    for part, prefix in prefixes.items():
        sizes: dict[int, int] = {}
        for name, weight in source.quantization.weights.items():
            if name.startswith(prefix):
                sizes[weight.bits] = sizes.get(weight.bits, 0) + weight.values.size
        found[part] = f"w{max(sizes, key=lambda bits: sizes[bits])}a"
        found[part] += "8dyn" if target == "cpu" and options.fast else str(activation)
    narrow = target == "qdq" or options.kv8
    if narrow and 8 in (widths := cache_bits(source.quantization)):
        found["language"] += f"kv{'/'.join(map(str, sorted(widths)))}"
    return found


def _manifest(source: Source, options: ExportOptions) -> dict[str, Any]:
    config, recipe = source.checkpoint.config, source.checkpoint.recipe
    return {
        "name": config.name,
        "created_by": f"autoneural {__version__}",
        "model": config.to_dict(),
        "processor": {
            "image_size": config.vision.image_size,
            "tokens_per_image": config.vision.num_tokens,
            "resize": config.resize,
        },
        "context": options.context,
        "targets": {},
        "state": _state(source.model),
        "tokenizer": {"file": TOKENIZER_FILES[0], "chat_template": TOKENIZER_FILES[1]},
        "chips": [],
        "licences": recipe.get("licences", {}),
        "metrics": recipe.get("metrics", {}),
        "recipe": {
            "stage": "export",
            **asdict(options),
            "parent": weights_hash(source.folder),
            "parent_recipe": recipe,
        },
    }


def _layers(model: VLM) -> list[LayerState]:
    return [LayerState(**entry) for entry in _state(model)]


def _state(model: VLM) -> list[dict[str, Any]]:
    config = model.config.text
    stems = zip(
        *(
            dict.fromkeys(name.removesuffix(".key").removesuffix(".value") for name in names)
            for names in (DecoderState.past_names(config), DecoderState.present_names(config))
        ),
        strict=True,
    )
    kinds = ("conv" if kind == "conv" else "attention" for kind in config.layer_types)
    return [
        {"layer": layer, "kind": kind, "past": past, "present": present}
        for layer, (kind, (past, present)) in enumerate(zip(kinds, stems, strict=True))
    ]
