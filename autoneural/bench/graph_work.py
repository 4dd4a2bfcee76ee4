"""Where the time of each graph goes, and how much work it is: from ONNX Runtime's own profiler.

    time    of every node, the median of some runs that follow one that warms up: on a machine with
            other work, a mean is mostly what that work took
    MACs    of products and convolutions, from the shapes that the profiler saw
    bytes   of weights, inputs and outputs: what must move at least; MACs per byte say which roof
            a graph stands under

Inputs are zeros: the kernels ask for shapes, not for values. A past that grows is a whole context.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort

from autoneural.bundle import Bundle
from autoneural.bundle_graphs import state_names
from autoneural.config import TextConfig
from autoneural.manifest import DTYPE_BYTES, GraphSpec, TensorSpec
from autoneural.onnx_external import external_bytes
from autoneural.runtime.backend import cpu_options

_RUNS = 7
_END = "_kernel_time"


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """Milliseconds of a run that the nodes of one class take together."""

    operator: str
    nodes: int
    ms: float


@dataclass(frozen=True, kw_only=True)
class GraphWork:
    """One graph: MACs of a run, bytes that it must move at least, and where its time goes.

    A decoder ran behind a whole context; `macs_per_key` are those of a token for each key it sees.
    """

    graph: str
    role: str
    width: int
    context: int
    macs: int
    macs_per_key: int
    weight_bytes: int
    kv_bytes: int
    conv_bytes: int
    bytes: int
    ms: float
    operators: tuple[OperatorTime, ...]

    @property
    def intensity(self) -> float:
        """MACs per byte."""
        return self.macs / self.bytes

    def past_bytes(self, depth: int) -> int:
        """The state that a step behind `depth` tokens needs; more of it has no meaning yet."""
        return self.conv_bytes + self.kv_bytes * depth // max(self.context, 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "intensity": self.intensity}


def profile_graphs(bundle: Bundle, target: str, threads: int) -> list[GraphWork]:
    """The graphs of a target on this CPU, one after another, each in a session of its own."""
    size = bundle.processor.image_size
    graphs = bundle.target(target).graphs
    return [
        _profile(bundle, spec, target, threads)
        for spec in graphs
        if spec.role != "vision" or spec.image_size == size
    ]


def _profile(bundle: Bundle, spec: GraphSpec, target: str, threads: int) -> GraphWork:
    path = bundle.path(spec.file)
    with tempfile.TemporaryDirectory(prefix="autoneural-profile-") as folder:
        options = cpu_options(target, threads)
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/run"
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feeds = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in spec.inputs}
        for _ in range(1 + _RUNS):
            session.run(None, feeds)
        file = Path(session.end_profiling())
        events = json.loads(file.read_text(encoding="utf-8"))
    weights = external_bytes(path)
    return GraphWork(
        graph=spec.role if spec.any_width else path.stem,
        role=spec.role,
        width=spec.width,
        macs=macs(events),
        macs_per_key=_macs_per_key(bundle.model.text) if spec.width and spec.context else 0,
        weight_bytes=weights,
        context=spec.context,
        kv_bytes=_state_bytes(bundle, spec, "attention"),
        conv_bytes=_state_bytes(bundle, spec, "conv"),
        bytes=weights + _bytes(spec.inputs) + _bytes(spec.outputs),
        ms=_run_ms(events),
        operators=operator_times(events),
    )


def _macs_per_key(text: TextConfig) -> int:
    """Scores and mix of every attention layer."""
    shared = text.num_attention_heads // text.num_key_value_heads
    layers = [n for n, kind in enumerate(text.layer_types) if kind == "full_attention"]
    return 2 * text.head_dim * shared * sum(text.kv_heads(n) for n in layers)


def prompt_macs(graphs: Sequence[GraphWork], tokens: int) -> int:
    """Multiply-accumulates that a prompt from a fresh state needs, without the head's.

    A token sees those before it and itself: what a graph computes behind a mask is not needed.
    """
    prefill = max((graph for graph in graphs if graph.width), key=lambda graph: graph.width)
    rows, per_key = prefill.width, prefill.macs_per_key
    linear = prefill.macs - rows * (prefill.context + rows) * per_key
    return linear * tokens // rows + per_key * tokens * (tokens + 1) // 2


def bytes_per_token(graphs: Sequence[GraphWork], depth: int) -> int:
    """What a decoding step must read: its weights, the head's, and the state up to `depth`.

    State that a graph reads beyond it, to the end of a block or of a static past, is not needed.
    """
    steps = [graph for graph in graphs if graph.role == "decode"]
    weights = sum(graph.weight_bytes for graph in graphs if graph.role in ("decode", "head"))
    return weights + sum(graph.past_bytes(depth) for graph in steps)


def _state_bytes(bundle: Bundle, spec: GraphSpec, kind: str) -> int:
    layers = [layer for layer in bundle.state if layer.kind == kind]
    names = {past for layer in layers for past, _ in state_names(layer)}
    return _bytes([tensor for tensor in spec.inputs if tensor.name in names])


def _bytes(tensors: Sequence[TensorSpec]) -> int:
    return sum(prod(tensor.shape) * DTYPE_BYTES[tensor.dtype] for tensor in tensors)


def operator_times(events: Sequence[Mapping[str, Any]]) -> tuple[OperatorTime, ...]:
    """Of a profile, per run after the first; the most expensive class first."""
    nodes = _kernels(events)
    times: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for runs in nodes.values():
        operator = runs[0]["args"]["op_name"]
        counts[operator] += 1
        times[operator] += median(event["dur"] for event in runs[1:])
    ranked = sorted(times.items(), key=lambda item: -item[1])
    return tuple(
        OperatorTime(operator=operator, nodes=counts[operator], ms=spent / 1e3)
        for operator, spent in ranked
    )


def macs(events: Sequence[Mapping[str, Any]]) -> int:
    """Multiply-accumulates of one run: of all products and convolutions in a profile."""
    return sum(_macs(runs[0]["args"]) for runs in _kernels(events).values())


def _kernels(events: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Node -> its executions in order."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_END):
            found.setdefault(event["args"]["node_index"], []).append(event)
    return found


def _macs(node: Mapping[str, Any]) -> int:
    """0 for what is no product. Weights that a kernel repacked are not among its inputs."""
    operator = node["op_name"]
    shapes = [next(iter(tensor.values())) for tensor in node["input_type_shape"]]
    out = next(iter(node["output_type_shape"][0].values()))
    if "Conv" in operator:
        kernel = next(shape for shape in shapes[1:] if len(shape) == len(out))
        return prod(out) * prod(kernel[1:])
    if "MatMul" in operator or "Gemm" in operator:
        # The first input has K per row of the output, whichever way round it is stored.
        return prod(shapes[0]) * out[-1]
    return 0


def _run_ms(events: Sequence[Mapping[str, Any]]) -> float:
    return median([event["dur"] for event in events if event["name"] == "model_run"][1:]) / 1e3
