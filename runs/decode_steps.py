"""CPU time of decoder steps by depth, bundles (or random graphs) in turn, one thread.

    python runs/decode_steps.py BUNDLE... [--depth 128 500 880]
    python runs/decode_steps.py --random FOLDER

Steps run again and again at one position, and commit nothing; masks and bindings count, the head
does not. CPU time and ratios of the same round: other work on the machine changes them little.
--random: the decoder of lfm2-vl-450m (350M) around random 4-bit weights, a row at a time, context
4096, with a static past, one that grows, and one that grows with `--fast` weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch

from autoneural.bench.piece import Piece
from autoneural.bench.random_graphs import random_model
from autoneural.bundle_graphs import growing_axes
from autoneural.compress.quantize import IntegerWeight
from autoneural.export.bundle import ExportOptions
from autoneural.export.graphs import GraphKey, build_graph
from autoneural.export.onnx import WeightFile, export_graph, save_model
from autoneural.export.passes.any_past import AnyPast
from autoneural.export.qdq import pack_graph
from autoneural.manifest import LayerState
from autoneural.model.vlm import VLM
from autoneural.runtime.backend import cpu_options
from autoneural.runtime.engine import Engine

CONTEXT = 4096
VARIANTS = ("static", "growing", "fast")
_BYTES = 4  # the accuracy level of MatMulNBits that `--fast` asks for


def compare(title: str, works: Mapping[str, Callable[[], object]], rounds: int, runs: int) -> None:
    """Print the median of each, and how many times as fast as the first it is."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(2 + rounds):
        for name, work in works.items():
            start = time.process_time()
            for _ in range(runs):
                work()
            times[name].append((time.process_time() - start) * 1e3 / runs)
    first = next(iter(times.values()))[2:]
    cells = []
    for name, own in times.items():
        ratio = statistics.median(a / b for a, b in zip(first, own[2:], strict=True))
        cells.append(f"{name} {statistics.median(own[2:]):.2f} ms, x{ratio:.2f}")
    print(f"{title}: {'; '.join(cells)}", flush=True)


def bundles(names: list[str], depths: list[int]) -> None:
    """Steps of 1, 8 and 128 rows behind so many tokens."""
    engines = {name: Engine(name, "cpu", threads=1) for name in names}
    for depth in depths:
        for engine in engines.values():
            go_to(engine, depth)
        for width in (1, 8, 128):
            works = {
                name: partial(engine._decoder.run, engine._embedding[[7] * width])
                for name, engine in engines.items()
            }
            rounds, runs = (30, 10) if width < 128 else (12, 1)
            compare(f"{width} rows behind {depth}", works, rounds, runs)


def go_to(engine: Engine, depth: int) -> None:
    """Commit so many random tokens."""
    engine.reset()
    decoder = engine._decoder
    ids = np.random.default_rng(0).integers(5, engine.tokenizer.vocab_size, depth)
    while (at := decoder.position) < depth:
        chunk = ids[at : at + decoder.chunk_size(depth - at)]
        decoder.step(engine._embedding[chunk], chunk.tolist())


def random_graphs(folder: Path) -> None:
    """One traced graph, saved in each of the variants."""
    torch.manual_seed(0)
    piece = Piece(preset="lfm2-vl-450m", part="decoder", layers=16, context=CONTEXT, widths=(1,))
    vlm = random_model(piece)
    model = export_graph(build_graph(vlm, GraphKey(role="decode", width=1, context=CONTEXT)))
    pack_graph(model, random_weights(vlm))
    folder.mkdir(parents=True, exist_ok=True)
    weights = WeightFile(folder / "weights.data")
    save_model(model, folder / "static.onnx", weights)
    state = [
        LayerState(layer=i, kind="attention", past=f"past_key_values.{i}", present="")
        for i, kind in enumerate(piece.config.text.layer_types)
        if kind != "conv"
    ]
    AnyPast(growing_axes(state))(model)
    save_model(model, folder / "growing.onnx", weights)
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", _BYTES)
    save_model(model, folder / "fast.onnx", weights)


def random_weights(vlm: VLM) -> dict[str, IntegerWeight]:
    """4 bits for linears, 8 for convolutions."""
    random, found = np.random.default_rng(0), {}
    for name, parameter in vlm.named_parameters():
        if not parameter.is_meta and parameter.ndim > 1:
            bits = 8 if parameter.ndim == 3 else 4
            most = 2 ** (bits - 1)
            values = random.integers(1 - most, most, tuple(parameter.shape), dtype=np.int8)
            scale = np.full(len(values), 0.01, np.float32)
            found[name] = IntegerWeight(values=values, scale=scale, bits=bits)
    return found


def step(session: ort.InferenceSession, depth: int, past: int) -> Callable[[], object]:
    """A step over `past` rows, those from `depth` on masked; the inputs stay bound."""
    binding, random = session.io_binding(), np.random.default_rng(0)
    for tensor in session.get_inputs():
        sizes = {"past": past, "past_and_new": past + 1}
        values = (
            random.standard_normal([sizes.get(str(n)) or int(n or 0) for n in tensor.shape]) * 0.1
        )
        if tensor.name == "mask":
            values[:] = 0.0
            values[..., depth:-1] = -1e4
        array = values.astype(np.float32)
        # The value keeps the array, and the binding the value.
        binding.bind_ortvalue_input(tensor.name, ort.OrtValue.ortvalue_from_numpy(array))
    for tensor in session.get_outputs():
        binding.bind_output(tensor.name)
    return lambda: session.run_with_iobinding(binding)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE")
    parser.add_argument("--depth", type=int, nargs="+", default=[128, 500, 880])
    parser.add_argument("--random", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    if args.bundles:
        bundles(args.bundles, args.depth)
    if args.random is None:
        return
    random_graphs(args.random)
    options, block = cpu_options("cpu", 1), ExportOptions.past_block
    sessions = {
        name: ort.InferenceSession(
            args.random / f"{name}.onnx", options, providers=["CPUExecutionProvider"]
        )
        for name in VARIANTS
    }
    for depth in (128, 900, 2000, 3900):
        grown = block * -(-depth // block)
        works = {
            name: step(session, depth, CONTEXT if name == "static" else grown)
            for name, session in sessions.items()
        }
        compare(f"350M, 1 row behind {depth}", works, rounds=12, runs=1)


if __name__ == "__main__":
    main()
