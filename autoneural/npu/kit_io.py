"""`io.json` of a kit: what every graph takes and gives, where it comes from and where it goes.

    graphs    names, types, layouts, scales, zero points; `source` of inputs, `use` of outputs
    host      embedding rows, rotary tables, mask integers, preprocessing, tokens, tokenizer
    state     what is handed from step to step, and by which rule
    steps     vision -> prefill (chunks) -> head -> decode -> head -> decode ...

An integrator needs no other description; `kit_golden` follows this one and nothing else, and so
does a test. The schema of the file is `io.schema.json` beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from autoneural.bundle import Bundle
from autoneural.bundle_graphs import state_names
from autoneural.errors import UserError
from autoneural.manifest import GraphSpec, TensorSpec
from autoneural.target.chips import Chip
from autoneural.target.numerics import Encoding, quantize_affine

FORMAT = "autoneural-kit"
FORMAT_VERSION = 1
IO_FILE = "io.json"

_LEGEND = {
    "T": "new tokens of one step, the graph's width",
    "C": "context: positions that the key/value state holds",
    "H": "hidden size",
    "N": "tokens of one picture",
    "K": "key/value heads",
    "D": "size of one head",
    "L-1": "columns that a short convolution remembers",
    "V": "vocabulary",
    "NCHW": "batch 1, channel red green blue, row from the top, column from the left",
}
_LAYOUTS = {
    "pixel_values": "NCHW",
    "image_features": "[1, N, H]",
    "inputs_embeds": "[1, T, H]",
    "cos": "[1, 1, T, D]",
    "sin": "[1, 1, T, D]",
    "mask": "[1, 1, T, C+T]",
    "hidden_states": "[1, T, H]",
    "logits": "[1, 1, V]",
}


@dataclass(frozen=True, kw_only=True)
class KitGraph:
    """A graph of the kit with its files. `qnn_name` is its name inside the context binary."""

    spec: GraphSpec
    binary: str
    wrapper: str
    qnn_name: str
    qdq: str
    float_onnx: str
    encodings: str

    @property
    def name(self) -> str:
        """Unique in the kit: `vision`, `prefill`, `prefill-1` for its second part."""
        return PurePosixPath(self.spec.file).stem


@dataclass(frozen=True, kw_only=True)
class HostFiles:
    """What the host reads: raw tables, little-endian, in the encodings of the graph inputs."""

    embedding: str
    cos: str
    sin: str
    tokenizer: str
    chat_template: str


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """The ids that mean something to the host."""

    bos: int
    eos: int
    pad: int
    image: int
    image_start: int
    image_end: int


def describe(
    bundle: Bundle,
    chip: Chip,
    graphs: Sequence[KitGraph],
    host: HostFiles,
    tokens: TokenIds,
    compiler: str,
) -> dict[str, Any]:
    """The content of io.json. Raises UserError naming a tensor that has no known meaning."""
    wiring = _Wiring(bundle, graphs)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": bundle.name,
        "chip": {"name": chip.name, "htp": chip.htp, "soc_model": chip.soc_model},
        "compiler": compiler,
        "context": wiring.context,
        "byte_order": "little",
        "quantization": "real = (integer - zero_point) * scale; integer = clip(round_half_even("
        "real / scale) + zero_point); QNN writes the same as offset = -zero_point",
        "legend": _LEGEND,
        "host": _host(bundle, wiring, host, tokens),
        "state": wiring.state(),
        "steps": _steps(graphs),
        "graphs": [wiring.graph(graph) for graph in graphs],
    }


class _Wiring:
    """Meaning of every graph input and output, by name."""

    def __init__(self, bundle: Bundle, graphs: Sequence[KitGraph]) -> None:
        self._bundle, self._graphs = bundle, graphs
        self.context = min(graph.spec.context for graph in graphs if graph.spec.context)
        self._pasts = {p: q for layer in bundle.state for p, q in state_names(layer)}
        self._presents = {q: p for p, q in self._pasts.items()}

    def input(self, name: str) -> TensorSpec:
        """The first graph input called `name`; all graphs agree on its encoding."""
        tensors = (t for g in self._graphs for t in g.spec.inputs if t.name == name)
        found = next(tensors, None)
        if found is None:
            raise UserError(f"bundle {self._bundle.name}: no graph takes {name}")
        return found

    def graph(self, graph: KitGraph) -> dict[str, Any]:
        spec = graph.spec
        return {
            "name": graph.name,
            "role": spec.role,
            "part": spec.part,
            "width": spec.width,
            "context": spec.context,
            "image_size": spec.image_size,
            "binary": graph.binary,
            "ort_wrapper": graph.wrapper,
            "qnn_graph": graph.qnn_name,
            "qdq_onnx": graph.qdq,
            "float_onnx": graph.float_onnx,
            "encodings": graph.encodings,
            "inputs": [{**self._tensor(t), "source": self._source(graph, t)} for t in spec.inputs],
            "outputs": [{**self._tensor(t), "use": self._use(graph, t)} for t in spec.outputs],
        }

    def state(self) -> list[dict[str, Any]]:
        entries = []
        for layer in self._bundle.state:
            rule = "slide" if layer.kind == "conv" else "append"
            for past, present in state_names(layer):
                tensor = self.input(past)
                start = {"initial": tensor.zero_point, "rule": rule}
                entry = {**self._tensor(tensor), "layer": layer.layer, "kind": layer.kind}
                entries.append({**entry, "present": present, **start})
        return entries

    def _tensor(self, tensor: TensorSpec) -> dict[str, Any]:
        if tensor.scale is None:
            raise UserError(f"{tensor.name}: {tensor.dtype} without a scale; a kit holds integers")
        return {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "layout": self._layout(tensor.name),
            "scale": tensor.scale,
            "zero_point": tensor.zero_point,
        }

    def _layout(self, name: str) -> str:
        past = self._presents.get(name, name)
        if past not in self._pasts:
            return _LAYOUTS.get(name, _LAYOUTS["hidden_states"])
        is_conv = not past.endswith((".key", ".value"))
        if name in self._pasts:
            return "[1, H, L-1]" if is_conv else "[1, K, C, D]"
        return "[1, H, L-1+T]" if is_conv else "[1, K, T, D]"

    def _source(self, graph: KitGraph, tensor: TensorSpec) -> dict[str, Any]:
        name = tensor.name
        if name in self._pasts:
            return {"kind": "state", "state": name}
        if graph.spec.role == "head":
            return {"kind": "hidden_row", "row": "count - 1"}
        kinds = {"pixel_values": "pixels", "inputs_embeds": "rows", "mask": "mask"}
        if name in kinds:
            return {"kind": kinds[name]}
        if name in ("cos", "sin"):
            return {"kind": "rotary", "table": name}
        for other in self._siblings(graph):
            if name in _names(other.spec.outputs):
                return {"kind": "graph", "graph": other.name, "output": name}
        raise UserError(f"{graph.spec.file}: the input {name} has no known meaning")

    def _use(self, graph: KitGraph, tensor: TensorSpec) -> dict[str, Any]:
        name = tensor.name
        if name in self._presents:
            return {"kind": "state", "state": self._presents[name]}
        kinds = {"image_features": "image_features", "logits": "logits", "hidden_states": "hidden"}
        if name in kinds:
            return {"kind": kinds[name]}
        for other in self._siblings(graph):
            if name in _names(other.spec.inputs):
                return {"kind": "graph", "graph": other.name, "input": name}
        raise UserError(f"{graph.spec.file}: the output {name} has no known meaning")

    def _siblings(self, graph: KitGraph) -> list[KitGraph]:
        """Other parts of the same cut graph."""
        return [g for g in self._graphs if g is not graph and _whole(g) == _whole(graph)]


def _names(tensors: Sequence[TensorSpec]) -> set[str]:
    return {tensor.name for tensor in tensors}


def _whole(graph: KitGraph) -> tuple[str, int, int, int]:
    spec = graph.spec
    return spec.role, spec.width, spec.context, spec.image_size


def _host(bundle: Bundle, wiring: _Wiring, files: HostFiles, tokens: TokenIds) -> dict[str, Any]:
    text, size = bundle.model.text, bundle.processor.image_size
    rows = wiring.input("inputs_embeds")
    return {
        "tokenizer": {
            "file": files.tokenizer,
            "format": "Hugging Face tokenizers",
            "chat_template": files.chat_template,
            "ids": vars(tokens),
            "tokens_per_image": bundle.processor.tokens_per_image,
            "image_block": "image_start, tokens_per_image times image, image_end",
        },
        "pixels": {
            "size": [size, size],
            "resize": bundle.processor.resize,
            "filter": "bicubic",
            "colour": "RGB",
            "real": "byte / 255",
        },
        "rows": {
            "file": files.embedding,
            "dtype": rows.dtype,
            "shape": [text.vocab_size, text.hidden_size],
            "scale": rows.scale,
            "zero_point": rows.zero_point,
            "rule": "row of a token id, copied; the rows of image_features, copied, in the places "
            "of the image tokens; zero_point where a chunk has fewer rows than the graph",
        },
        "rotary": _rotary(bundle, wiring, files),
        "mask": _mask(bundle, wiring.input("mask")),
        "rules": _RULES,
    }


_RULES = {
    "slide": "past = present[:, :, count : count + L-1]",
    "append": "past[:, :, position : position + count] = present[:, :, 0 : count]",
    "commit": "after every step of n real rows: count = n; apply the rule of each state; then "
    "position += count. Rows beyond count are padding (or rejected drafts) and never kept",
}


def _rotary(bundle: Bundle, wiring: _Wiring, files: HostFiles) -> dict[str, Any]:
    text = bundle.model.text
    tables = {}
    for name, file in (("cos", files.cos), ("sin", files.sin)):
        tensor = wiring.input(name)
        tables[name] = {
            "file": file,
            "dtype": tensor.dtype,
            "shape": [wiring.context, text.head_dim],
            "scale": tensor.scale,
            "zero_point": tensor.zero_point,
        }
    return {
        "theta": text.rope_theta,
        "head_dim": text.head_dim,
        "cos": tables["cos"],
        "sin": tables["sin"],
        "formula": "a[p, i] = p / theta^(2i / head_dim), i < head_dim/2; cos[p] = [cos a, cos a], "
        "sin[p] = [-sin a, sin a]: the sign of rotate_half is in the table",
        "rule": "row r of a step at position p is table row min(p + r, context - 1)",
    }


def _mask(bundle: Bundle, tensor: TensorSpec) -> dict[str, Any]:
    closed = bundle.target("qdq").mask_value
    if tensor.scale is None:
        raise UserError(f"{tensor.name}: {tensor.dtype} without a scale; a kit holds integers")
    bits = 16 if tensor.dtype == "uint16" else 8
    encoding = Encoding(bits=bits, scale=tensor.scale, zero_point=tensor.zero_point)
    integers = quantize_affine([0.0, closed], encoding)
    return {
        "open": int(integers[0]),
        "closed": int(integers[1]),
        "rule": "row r, column c < C: open if c < position; column C + j: open if j <= r; "
        "closed otherwise",
    }


def _steps(graphs: Sequence[KitGraph]) -> list[dict[str, Any]]:
    """In the order of a run; parts of a cut graph follow each other."""
    whens = {
        "vision": "once per picture",
        "prefill": "for each chunk of the prompt, at most `width` rows; the last may have fewer",
        "head": "after the last chunk of the prompt, and after every decode step: the next token "
        "is the largest logit",
        "decode": "for every new token until eos: its row alone",
        "verify": "instead of decode, for the last token and up to width - 1 drafts of the next "
        "ones; count = 1 + the drafts that turned out right",
    }
    steps = []
    for role, when in whens.items():
        chains: dict[tuple[str, int, int, int], list[KitGraph]] = {}
        for graph in graphs:
            if graph.spec.role == role:
                chains.setdefault(_whole(graph), []).append(graph)
        for chain in chains.values():
            chain.sort(key=lambda g: g.spec.part)
            spec = chain[0].spec
            steps.append(
                {
                    "name": role,
                    "width": spec.width,
                    "image_size": spec.image_size,
                    "when": when,
                    "graphs": [g.name for g in chain],
                }
            )
    return steps


def graph_named(io: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The entry of a graph in io.json."""
    return next(graph for graph in io["graphs"] if graph["name"] == name)
