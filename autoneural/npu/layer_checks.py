"""Every layer of every graph on the same integers: QDQ reference, prediction, emulator, and float.

tapped graph, emulator            all integers of a real run of the chip's arithmetic
severed graph, CPU                what the QDQ reference makes of those inputs, layer by layer
severed and simulated, CPU        what we predict that the chip makes of them
tapped graph / floating graph     the QDQ reference along its own run, and the same in floats
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from autoneural.errors import UserError
from autoneural.manifest import TensorSpec
from autoneural.npu.causes import likely_cause
from autoneural.npu.certificate import LayerCheck, OutputCheck
from autoneural.npu.simulate import EngineNode, encoding_of, engine_nodes, simulate
from autoneural.npu.taps import GIVEN, Layer, floating, layers_of, severed, tapped
from autoneural.npu.traces import Trace
from autoneural.npu.worker import run_job
from autoneural.target.chips import Chip
from autoneural.target.numerics import Encoding, dequantize_affine, rms_error, sqnr_db

Arrays = dict[str, NDArray]


@dataclass(frozen=True, kw_only=True)
class GraphFindings:
    """One graph: its layers, its outputs, and the integers the emulator gave for the outputs."""

    layers: list[LayerCheck]
    outputs: list[OutputCheck]
    emulated: Arrays


def check_graph(path: Path, traces: Sequence[Trace], chip: Chip) -> GraphFindings:
    """Check the qdq graph at `path` on the inputs of `traces` (arrays get a leading run axis).

    Raises JobFailed when the emulator fails.
    """
    feeds = {n: np.stack([t.feeds[n] for t in traces]) for n in traces[0].feeds}
    with tempfile.TemporaryDirectory(prefix="autoneural-verify-") as scratch:
        sides = _Sides(path, feeds, chip, Path(scratch))
        graph = ir.load(path).graph
        engine = {str(item.quantize.outputs[0].name): item for item in engine_nodes(graph)}
        layers = [
            _check_layer(traces[0].graph, depth, layer, sides, engine.get(layer.tensor))
            for depth, layer in enumerate(layers_of(graph))
        ]
        encodings = {t.name: _encoding(t) for t in traces[0].spec.outputs}
        outputs = [_check_output(name, encoding, sides) for name, encoding in encodings.items()]
        emulated = {name: sides.emulated[name] for name in encodings}
    return GraphFindings(layers=layers, outputs=outputs, emulated=emulated)


class _Sides:
    """All integers (or reals) of one graph as each side computes them, by tensor name."""

    def __init__(self, path: Path, feeds: Arrays, chip: Chip, scratch: Path) -> None:
        self.runs = len(next(iter(feeds.values())))
        self.chip, self._scratch = chip, scratch
        tapped_file = _saved(tapped(path), scratch / "tapped.onnx")
        self.emulated = self._emulate(tapped_file, feeds)
        self.chained = self._run(tapped_file, feeds)
        given = {**feeds, **{GIVEN + name: array for name, array in self.emulated.items()}}
        self.local = self._run(_saved(severed(path), scratch / "severed.onnx"), given)
        predicted = severed(path)
        simulate(predicted, chip.htp)
        self.predicted = self._run(_saved(predicted, scratch / "predicted.onnx"), given)
        self.predicted_run = self._predict(path, feeds)
        self.real = self._float(path, feeds)

    def _emulate(self, file: Path, feeds: Arrays) -> Arrays:
        source, result = self._scratch / "feeds.npz", self._scratch / "emulated.npz"
        np.savez(source, **feeds)  # pyright: ignore[reportArgumentType]
        graph = {"name": file.stem, "file": str(file), "runs": self.runs}
        graph |= {"feeds": str(source), "outputs": str(result)}
        run_job({"do": "run", "soc_model": self.chip.soc_model, "graphs": [graph]})
        with np.load(result) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def _predict(self, path: Path, feeds: Arrays) -> Arrays:
        model = ir.load(path)
        simulate(model, self.chip.htp)
        return self._run(_saved(model, self._scratch / "chip.onnx"), feeds)

    def _float(self, path: Path, feeds: Arrays) -> Arrays:
        """The floating graph on the real numbers that the integers stand for."""
        encodings = input_encodings(ir.load(path).graph)
        reals = {name: dequantize_affine(q, encodings[name]) for name, q in feeds.items()}
        return self._run(_saved(floating(path), self._scratch / "floating.onnx"), reals)

    def _run(self, file: Path, feeds: Arrays) -> Arrays:
        session = reference_session(file)
        names = [output.name for output in session.get_outputs()]
        wanted = [tensor.name for tensor in session.get_inputs()]
        runs = [
            session.run(names, {name: feeds[name][i] for name in wanted}) for i in range(self.runs)
        ]
        return {
            name: np.stack([np.asarray(values[k]) for values in runs])
            for k, name in enumerate(names)
        }


def reference_session(file: Path) -> ort.InferenceSession:
    """A CPU session that computes a graph node by node, as written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def input_encodings(graph: ir.Graph) -> Mapping[str, Encoding]:
    """Encoding of every integer graph input: that of the DequantizeLinear which reads it."""
    names = {str(value.name) for value in graph.inputs}
    return {
        str(node.inputs[0].name): encoding_of(node)
        for node in graph
        if node.op_type == "DequantizeLinear"
        and node.inputs[0] is not None
        and str(node.inputs[0].name) in names
    }


def _saved(model: ir.Model, file: Path) -> Path:
    ir.save(model, file, external_data=f"{file.stem}.data")
    return file


def _check_layer(
    graph: str, depth: int, layer: Layer, sides: _Sides, engine: EngineNode | None
) -> LayerCheck:
    name, encoding = layer.tensor, layer.encoding
    emulated, local = sides.emulated[name], sides.local[name]
    steps = emulated.astype(np.int64) - local.astype(np.int64)
    reals = {k: dequantize_affine(v, encoding) for k, v in (("e", emulated), ("l", local))}
    predicted = dequantize_affine(sides.predicted[name], encoding)
    chained = dequantize_affine(sides.chained[name], encoding)
    check = LayerCheck(
        graph=graph,
        depth=depth,
        name=layer.name,
        op=layer.op,
        precision=layer.precision,
        sqnr_float_db=_finite(sqnr_db(sides.real[name], chained)),
        sqnr_qdq_db=_finite(sqnr_db(reals["l"], reals["e"])),
        predicted_db=_finite(sqnr_db(predicted, reals["e"])),
        rms_float=_finite(rms_error(sides.real[name], chained)),
        rms_qdq=_finite(rms_error(reals["l"], reals["e"])),
        rms_lsb=float(np.sqrt(np.square(steps, dtype=np.float64).mean())),
        max_lsb=int(np.abs(steps).max(initial=0)),
        fill=float((int(local.max()) - int(local.min())) / (2**encoding.bits - 1)),
    )
    cause = likely_cause(check, layer, steps, engine=engine, htp=sides.chip.htp)
    return LayerCheck(**{**vars(check), "cause": cause})


def _check_output(name: str, encoding: Encoding, sides: _Sides) -> OutputCheck:
    emulated, chained = sides.emulated[name], sides.chained[name]
    real = dequantize_affine(emulated, encoding)
    steps = emulated.astype(np.int64) - chained.astype(np.int64)
    return OutputCheck(
        name=name,
        sqnr_float_db=_finite(sqnr_db(sides.real[name], dequantize_affine(chained, encoding))),
        sqnr_qdq_db=_finite(sqnr_db(dequantize_affine(chained, encoding), real)),
        predicted_db=_finite(sqnr_db(dequantize_affine(sides.predicted_run[name], encoding), real)),
        rms_lsb=float(np.sqrt(np.square(steps, dtype=np.float64).mean())),
        max_lsb=int(np.abs(steps).max(initial=0)),
    )


def _finite(figure: float) -> float | None:
    """None where there is no signal to compare with: -inf dB, or an infinite error."""
    return None if figure == -np.inf or np.isnan(figure) else figure


def _encoding(tensor: TensorSpec) -> Encoding:
    if tensor.scale is None:
        raise UserError(f"{tensor.name}: a graph of the qdq target has a float output")
    bits = 8 * np.dtype(tensor.dtype).itemsize
    return Encoding(bits=bits, scale=tensor.scale, zero_point=tensor.zero_point)
