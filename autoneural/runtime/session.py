"""The graphs of one target as ONNX Runtime sessions, and the encodings at their borders."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import onnxruntime as ort

from autoneural.bundle import Bundle
from autoneural.bundle_graphs import open_axes, state_names
from autoneural.errors import UserError
from autoneural.manifest import (
    DECODERS,
    DTYPE_BYTES,
    EmbeddingSpec,
    GraphSpec,
    Role,
    TargetSpec,
    TensorSpec,
)
from autoneural.runtime.backend import Backend
from autoneural.runtime.chain import Arrays, Graph, GraphChain
from autoneural.runtime.devices import Placement
from autoneural.runtime.threads import physical_cores, read_threads
from autoneural.target.numerics import Encoding, dequantize_affine, quantize_affine

_DTYPES = {f"tensor({name})": name for name in DTYPE_BYTES} | {"tensor(float)": "float32"}


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
    """One graph, ready to run; `inputs` and `outputs` are its tensors by name.

    `growing`: tensors and the axes along which they may be shorter than the manifest says.
    """

    def __init__(
        self,
        path: Path,
        spec: GraphSpec,
        backend: Backend,
        growing: Mapping[str, Collection[int]] = MappingProxyType({}),
    ) -> None:
        self.spec = spec
        self.inputs = {tensor.name: tensor for tensor in spec.inputs}
        self.outputs = {tensor.name: tensor for tensor in spec.outputs}
        self._seconds = 0.0
        self._call = backend.call
        try:
            self._session = backend.open(path)
        # ONNX Runtime's exceptions share no base class below Exception.
        except Exception as error:
            reason = str(error).split("\n", 1)[0]
            where = f" for {backend.placement.label}" if backend.placement.device != "cpu" else ""
            raise UserError(f"{path}: ONNX Runtime cannot load it{where} ({reason})") from error
        self._check_tensors(path, growing)
        self._bound: Arrays = {}
        self._binding = self._session.io_binding() if backend.binds else None

    @property
    def parts(self) -> tuple[Graph, ...]:
        """Itself: a graph in one piece."""
        return (self,)

    @property
    def seconds(self) -> float:
        """How long ONNX Runtime has run it so far."""
        return self._seconds

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """All outputs by name. An array that comes again, changed or not, is not handed over again.

        Raises ValueError where inputs are missing or unknown.
        """
        if feeds.keys() != self.inputs.keys():
            raise ValueError(f"{self.spec.file}: takes {list(self.inputs)}, not {list(feeds)}")
        start = time.perf_counter()
        outputs = self._call(lambda: self._run(feeds))
        self._seconds += time.perf_counter() - start
        return outputs

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        if self._binding is None:
            values = self._session.run(list(self.outputs), feeds)
        else:
            self._bind(self._binding, feeds)
            self._session.run_with_iobinding(self._binding)
            values = self._binding.copy_outputs_to_cpu()
        return dict(zip(self.outputs, cast(list[np.ndarray], values), strict=True))

    def _bind(self, binding: ort.IOBinding, feeds: Mapping[str, np.ndarray]) -> None:
        """Inputs share the memory of their arrays, which are kept as long as they are bound."""
        anew = False
        for name, given in feeds.items():
            array = np.ascontiguousarray(given)
            if self._bound.get(name) is not array:
                binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
                self._bound[name], anew = array, True
        if anew:  # outputs are bound to what the run before made: perhaps for another width
            binding.clear_binding_outputs()
            for name in self.outputs:
                binding.bind_output(name)

    def release(self) -> None:
        """Let go of the arrays of earlier runs."""
        if self._binding is not None:
            self._binding.clear_binding_inputs()
        self._bound.clear()

    def nodes_per_provider(self) -> dict[str, int]:
        """How many nodes of the optimised graph each execution provider took."""
        counts: Counter[str] = Counter()
        for part in self._session.get_provider_graph_assignment_info():
            counts[part.ep_name] += len(part.get_nodes())
        return dict(counts)

    def _check_tensors(self, path: Path, growing: Mapping[str, Collection[int]]) -> None:
        """The manifest speaks of this graph: the same names, types and shapes."""
        for promised, found in (
            (self.inputs, self._session.get_inputs()),
            (self.outputs, self._session.get_outputs()),
        ):
            graph = {t.name: (_DTYPES.get(t.type, t.type), _sizes(t.shape)) for t in found}
            manifest = {
                name: (spec.dtype, _sizes(spec.shape, growing.get(name, ())))
                for name, spec in promised.items()
            }
            for name in sorted(graph.keys() | manifest.keys()):
                if graph.get(name) != manifest.get(name):
                    raise UserError(
                        f"{path}: manifest and graph disagree on {name!r}: "
                        f"{manifest.get(name)} and {graph.get(name)}"
                    )


def _sizes(
    shape: Sequence[int | str | None], growing: Collection[int] = ()
) -> tuple[int | str, ...]:
    """A shape, with `any` for the sizes that a graph leaves open and for the axes that grow."""
    return tuple(
        n if isinstance(n, int) and axis not in growing else "any" for axis, n in enumerate(shape)
    )


@dataclass(frozen=True, kw_only=True)
class TargetSessions:
    """The sessions of one target: an encoder, the head, and the decoder at several widths."""

    target: TargetSpec
    placement: Placement
    vision: Graph
    head: Graph
    decoders: tuple[Graph, ...]

    @classmethod
    def load(
        cls, bundle: Bundle, placement: Placement, threads: int | None = None
    ) -> TargetSessions:
        """Open every graph of the target. `threads` of a CPU default to what was measured for each
        graph (see `threads`), else to its physical cores.

        The encoder is that of the target, and on the device, of `placement.vision`. Raises
        UserError when the bundle lacks the target or one of its roles.
        """

        own = _backend(bundle, placement, threads)
        seeing = _backend(bundle, placement.vision, threads) if placement.vision else own

        def graphs(backend: Backend, *roles: Role) -> list[Graph]:
            groups = _graphs_in_parts(bundle, bundle.target(backend.placement.target), roles)
            return [_open_graph(bundle, group, backend) for group in groups]

        decoders = sorted(graphs(own, *DECODERS), key=lambda g: g.spec.width)
        loaded = cls(
            target=bundle.target(placement.target),
            placement=placement,
            vision=graphs(seeing, "vision")[0],
            head=graphs(own, "head")[0],
            decoders=tuple(decoders),
        )
        loaded._check_shared_encodings(bundle)
        return loaded

    def decoder_for(self, tokens: int) -> Graph:
        """The narrowest decoder graph that takes `tokens` at once, else the widest there is."""
        wide_enough = (s for s in self.decoders if s.spec.width >= tokens)
        return next(wide_enough, self.decoders[-1])

    @property
    def seconds(self) -> float:
        """How long all graphs together have run so far, inside of ONNX Runtime."""
        return sum(graph.seconds for graph in (self.vision, *self.decoders, self.head))

    def provider_report(self) -> list[dict[str, Any]]:
        """What ran where: one row per graph or part, with its nodes per execution provider.

        `device` is cpu, npu, or emulated: Qualcomm's provider takes the nodes in both of the last.
        """
        seeing = self.placement.vision or self.placement
        language = [(graph, self.placement) for graph in (*self.decoders, self.head)]
        return [
            {
                "role": session.spec.role,
                "part": session.spec.part,
                "width": session.spec.width,
                "file": session.spec.file,
                "device": "emulated" if where.device == "htp-emulator" else where.device,
                "nodes": session.nodes_per_provider(),
            }
            for graph, where in [(self.vision, seeing), *language]
            for session in graph.parts
        ]

    def _check_shared_encodings(self, bundle: Bundle) -> None:
        """Integers travel from graph to graph unchanged, so all widths must read them alike."""
        first = self.decoders[0]
        for session in self.decoders:
            pairs = [(first.inputs[name], session.inputs[name]) for name in first.inputs]
            if self.placement.vision is None:  # of another target they are encoded anew
                features = self.vision.outputs["image_features"]
                pairs.append((features, session.inputs["inputs_embeds"]))
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
    # A memmap's own indexing is slow; an array on the same memory is not.
    table = np.asarray(np.memmap(bundle.path(spec.file), file_dtype, "r", shape=spec.shape))
    return table if same_encoding(spec, wanted) else encode(decode(table, spec), wanted)


def _backend(bundle: Bundle, placement: Placement, threads: int | None) -> Backend:
    tuned: dict[Path, int] = {}
    if threads is None and placement.device == "cpu":
        counts = read_threads(bundle, placement.target)
        tuned = {bundle.path(file): count for file, count in counts.items()}
    return Backend.of(placement, threads or physical_cores(), tuned)


def _graphs_in_parts(
    bundle: Bundle, target: TargetSpec, roles: Sequence[Role]
) -> list[list[GraphSpec]]:
    """The graphs of some roles, each a list of its parts in order."""
    groups: defaultdict[tuple[Role, int, int], list[GraphSpec]] = defaultdict(list)
    for graph in sorted(target.graphs, key=lambda g: g.part):
        elsewhere = graph.role == "vision" and graph.image_size != bundle.processor.image_size
        if graph.role in roles and not elsewhere:
            groups[graph.role, graph.width, graph.context].append(graph)
    if not groups:
        size = f" for {bundle.processor.image_size} px" if roles[0] == "vision" else ""
        raise UserError(f"bundle {bundle.name}: {target.name} has no {roles[0]} graph{size}")
    return list(groups.values())


def _open_graph(bundle: Bundle, parts: Sequence[GraphSpec], backend: Backend) -> Graph:
    sessions = [
        GraphSession(bundle.path(part.file), part, backend, open_axes(part, bundle.state))
        for part in parts
    ]
    return sessions[0] if len(sessions) == 1 else GraphChain(sessions)
