"""The graphs of one target as ONNX Runtime sessions, and the encodings at their borders."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime as ort

from autoneural.bundle import Bundle
from autoneural.bundle_graphs import state_names
from autoneural.errors import UserError
from autoneural.manifest import (
    DTYPE_BYTES,
    EmbeddingSpec,
    GraphSpec,
    Role,
    TargetSpec,
    TensorSpec,
)
from autoneural.target.numerics import Encoding, dequantize_affine, quantize_affine

Arrays = dict[str, np.ndarray]
_ERRORS_ONLY = 3
_DTYPES = {f"tensor({name})": name for name in DTYPE_BYTES} | {"tensor(float)": "float32"}


def physical_cores() -> int:
    """Cores this process may use, SMT siblings counted once."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    usable = os.sched_getaffinity(0)
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        return len({Path(topology.format(cpu)).read_text() for cpu in usable})
    except OSError:
        return len(usable)


def encode(real: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Real numbers in the form a graph input wants: integers with its encoding, or floats."""
    if spec.scale is None:
        return real.astype(spec.dtype, copy=False)
    return quantize_affine(real, _encoding(spec))


def decode(values: np.ndarray, spec: TensorSpec | EmbeddingSpec) -> np.ndarray:
    """Inverse of `encode`: float32."""
    if spec.scale is None:
        return values.astype(np.float32, copy=False)
    return dequantize_affine(values, _encoding(spec))


def same_encoding(a: TensorSpec | EmbeddingSpec, b: TensorSpec | EmbeddingSpec) -> bool:
    """Whether values of one may be handed to the other unchanged."""
    return (a.dtype, a.scale, a.zero_point) == (b.dtype, b.scale, b.zero_point)


def _encoding(spec: TensorSpec | EmbeddingSpec) -> Encoding:
    bits = 8 * np.dtype(spec.dtype).itemsize
    return Encoding(bits=bits, scale=spec.scale or 1.0, zero_point=spec.zero_point)


class GraphSession:
    """One static graph, ready to run; `inputs` and `outputs` are its tensors by name."""

    def __init__(self, path: Path, spec: GraphSpec, options: ort.SessionOptions) -> None:
        self.spec = spec
        self.inputs = {tensor.name: tensor for tensor in spec.inputs}
        self.outputs = {tensor.name: tensor for tensor in spec.outputs}
        try:
            self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        # ONNX Runtime's exceptions share no base class below Exception.
        except Exception as error:
            reason = str(error).split("\n", 1)[0]
            raise UserError(f"{path}: ONNX Runtime cannot load it ({reason})") from error
        self._check_tensors(path)

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """All outputs by name."""
        values = cast(list[np.ndarray], self._session.run(list(self.outputs), feeds))
        return dict(zip(self.outputs, values, strict=True))

    def nodes_per_provider(self) -> dict[str, int]:
        """How many nodes of the optimised graph each execution provider took."""
        counts: Counter[str] = Counter()
        for part in self._session.get_provider_graph_assignment_info():
            counts[part.ep_name] += len(part.get_nodes())
        return dict(counts)

    def _check_tensors(self, path: Path) -> None:
        """The manifest speaks of this graph: the same names, types and shapes."""
        for promised, found in (
            (self.inputs, self._session.get_inputs()),
            (self.outputs, self._session.get_outputs()),
        ):
            graph = {t.name: (_DTYPES.get(t.type, t.type), tuple(t.shape)) for t in found}
            manifest = {name: (spec.dtype, spec.shape) for name, spec in promised.items()}
            for name in sorted(graph.keys() | manifest.keys()):
                if graph.get(name) != manifest.get(name):
                    raise UserError(
                        f"{path}: manifest and graph disagree on {name!r}: "
                        f"{manifest.get(name)} and {graph.get(name)}"
                    )


@dataclass(frozen=True, kw_only=True)
class TargetSessions:
    """The sessions of one target: an encoder, the head, and the decoder at several widths."""

    target: TargetSpec
    vision: GraphSession
    head: GraphSession
    decoders: tuple[GraphSession, ...]

    @classmethod
    def load(cls, bundle: Bundle, target: str, threads: int | None = None) -> TargetSessions:
        """Open every graph of `target`. `threads` defaults to the physical cores.

        Raises UserError when the bundle lacks the target or one of its roles.
        """
        spec = bundle.target(target)
        options = _session_options(target, threads or physical_cores())

        def sessions(*roles: Role) -> list[GraphSession]:
            graphs = [g for g in spec.graphs if g.role in roles]
            if roles == ("vision",):
                graphs = [g for g in graphs if g.image_size == bundle.processor.image_size]
            if not graphs or any(g.part for g in graphs):
                raise UserError(f"bundle {bundle.name}: {target} has no whole {roles[0]} graph")
            return [GraphSession(bundle.path(g.file), g, options) for g in graphs]

        decoders = sorted(sessions("decode", "prefill"), key=lambda s: s.spec.width)
        loaded = cls(
            target=spec,
            vision=sessions("vision")[0],
            head=sessions("head")[0],
            decoders=tuple(decoders),
        )
        loaded._check_shared_encodings(bundle)
        return loaded

    def decoder_for(self, tokens: int) -> GraphSession:
        """The narrowest decoder graph that takes `tokens` at once, else the widest there is."""
        wide_enough = (s for s in self.decoders if s.spec.width >= tokens)
        return next(wide_enough, self.decoders[-1])

    def provider_report(self) -> list[dict[str, object]]:
        """What ran where: one row per graph with its nodes per execution provider."""
        return [
            {
                "role": session.spec.role,
                "width": session.spec.width,
                "file": session.spec.file,
                "nodes": session.nodes_per_provider(),
            }
            for session in (self.vision, *self.decoders, self.head)
        ]

    def _check_shared_encodings(self, bundle: Bundle) -> None:
        """Integers travel from graph to graph unchanged, so all widths must read them alike."""
        first = self.decoders[0]
        for session in self.decoders:
            pairs = [(first.inputs[name], session.inputs[name]) for name in first.inputs]
            pairs.append((self.vision.outputs["image_features"], session.inputs["inputs_embeds"]))
            pairs.append((session.outputs["hidden_states"], self.head.inputs["hidden_states"]))
            for layer in bundle.state:
                pairs += [
                    (session.outputs[present], session.inputs[past])
                    for past, present in state_names(layer)
                ]
            for a, b in pairs:
                if not same_encoding(a, b):
                    where = f"bundle {bundle.name}, {session.spec.file}"
                    raise UserError(f"{where}: {a.name} and {b.name} have different encodings")


def load_embedding(bundle: Bundle, sessions: TargetSessions) -> np.ndarray:
    """The embedding table [V, H] in the encoding of `inputs_embeds`; memory-mapped if it can."""
    spec, wanted = sessions.target.embedding, sessions.decoders[0].inputs["inputs_embeds"]
    file_dtype = np.dtype(spec.dtype).newbyteorder("<")
    table = np.memmap(bundle.path(spec.file), file_dtype, "r", shape=spec.shape)
    return table if same_encoding(spec, wanted) else encode(decode(table, spec), wanted)


def _session_options(target: str, threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if target == "qdq":
        # The graph says what the NPU computes, and is run as written: fused QDQ groups round
        # elsewhere, and even folded weights move integers (by up to 11, for a step 4x as fast).
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options
