"""Probe: one decoder layer of each kind, W4A16, on Qualcomm's HTP emulator (x86, no device).

    python runs/probe_htp.py FOLDER [--soc 39] [--widths 1 8 128]

Exports with our own exporter (random weights of cockpit-tiny's width), compiles with CPU fallback
disabled, runs in the compiling process, then reloads the context binary in a new process and runs
again. Prints, per graph: seconds, size, identical integers or not, and how far the emulator is
from the QDQ graph on the CPU; the vision and head graphs as well. Needs the `train` and `npu`
extras. Emulator figures, not hardware.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

IMAGE_TOKEN = 14


def make_checkpoint(folder: Path, kind: str) -> Path:
    """A random one-layer model, calibrated on noise and quantised."""
    import torch

    from autoneural.checkpoint import TOKENIZER_FILES, save_checkpoint
    from autoneural.compress.fake_quant import Calibration, freeze, quantize
    from autoneural.compress.precision import PRECISIONS
    from autoneural.compress.quantize import frozen_tensors
    from autoneural.config import preset
    from autoneural.model.vlm import VLM

    torch.manual_seed(0)
    tiny = preset("cockpit-tiny")
    config = replace(tiny, text=replace(tiny.text, layer_types=(kind,)))
    model, precision = VLM(config).eval().requires_grad_(False), PRECISIONS["w4a16"]
    quantize(model, precision)
    size, tokens = config.vision.image_size, config.vision.num_tokens
    with Calibration(model):
        for _ in range(4):
            ids = torch.randint(IMAGE_TOKEN + 1, config.text.vocab_size, (1, tokens + 40))
            ids[0, 5 : 5 + tokens] = IMAGE_TOKEN
            model(ids, torch.rand(1, 3, size, size), IMAGE_TOKEN)
    encodings = freeze(model, precision)
    for name in TOKENIZER_FILES:
        (folder / name).write_text("{}")
    out = folder / f"{kind}.checkpoint"
    return save_checkpoint(out, frozen_tensors(model), config, folder, {}, encodings)


def export_graphs(folder: Path, kind: str, widths: list[int]) -> list[str]:
    """Write NAME.onnx, NAME.npz (integer feeds) and NAME.cpu.npz (what the CPU computes)."""
    from autoneural.checkpoint import load_checkpoint
    from autoneural.compress.quantize import load_quantized
    from autoneural.export.graphs import GraphKey, build_graph
    from autoneural.export.onnx import export_graph, model_bytes
    from autoneural.export.parity import exact_session, sample_inputs
    from autoneural.export.qdq import load_quantization, quantize_graph
    from autoneural.target.numerics import quantize_affine

    checkpoint = make_checkpoint(folder, kind)
    model = load_quantized(checkpoint, activations=False)
    quantization = load_quantization(load_checkpoint(checkpoint))
    keys = {f"{kind}-{w}": GraphKey(role="verify", width=w, context=1024) for w in widths}
    if kind == "conv":
        keys["vision"] = GraphKey(role="vision", image_size=model.config.vision.image_size)
        keys["head"] = GraphKey(role="head", width=1)
    for name, key in keys.items():
        graph = build_graph(model, key)
        onnx_model = export_graph(graph)
        ends = quantize_graph(onnx_model, quantization)
        inputs = sample_inputs(graph, model.language_model.model.embed_tokens.weight)
        feeds = {n: quantize_affine(x.numpy(), ends[n]) for n, x in inputs.items()}
        _fill_past(feeds, key.width)
        data = model_bytes(onnx_model)
        (folder / f"{name}.onnx").write_bytes(data)
        _save(folder / f"{name}.npz", feeds)
        _save(folder / f"{name}.cpu.npz", _run(exact_session(data), feeds))
        outputs = [n for n in ends if n not in feeds]
        _save(folder / f"{name}.zero.npz", {n: np.int64(ends[n].zero_point) for n in outputs})
    return list(keys)


def _fill_past(feeds: dict[str, Any], seed: int) -> None:
    """Random history, half of it committed."""
    rng = np.random.default_rng(seed)
    for name in [name for name in feeds if name.startswith("past")]:
        feeds[name] = rng.integers(16384, 49152, feeds[name].shape).astype(np.uint16)
    if "mask" in feeds:
        feeds["mask"][..., :512] = feeds["mask"].max()


def _save(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


def _run(session: ort.InferenceSession, feeds: dict[str, Any]) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def htp_session(model: Path, soc: str, context: Path | None) -> ort.InferenceSession:
    """Compile `model` (writing the context binary), or load one when `context` is None."""
    import onnxruntime_qnn as qnn  # pyright: ignore[reportMissingImports]

    ort.set_default_logger_severity(3)
    ort.register_execution_provider_library("QNNExecutionProvider", qnn.get_library_path())
    devices = [d for d in ort.get_ep_devices() if d.ep_name == "QNNExecutionProvider"]
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if context is not None:
        options.add_session_config_entry("ep.context_enable", "1")
        options.add_session_config_entry("ep.context_embed_mode", "0")
        options.add_session_config_entry("ep.context_file_path", str(context))
    provider = {"backend_path": qnn.get_qnn_htp_path(), "soc_model": soc}
    options.add_provider_for_devices(devices[:1], provider)
    return ort.InferenceSession(str(model), options)


def run_one(folder: Path, name: str, soc: str, mode: str) -> None:
    """One process: compile and run, or reload and run; results to NAME.{compile,reload}.npz."""
    context = folder / f"{name}.{soc}.ctx.onnx"
    start = time.perf_counter()
    if mode == "reload":
        session = htp_session(context, soc, None)
    else:
        for stale in folder.glob(f"{name}.{soc}.ctx*"):
            stale.unlink()
        session = htp_session(folder / f"{name}.onnx", soc, context)
    print(f"{time.perf_counter() - start:.1f}")
    feeds = dict(np.load(folder / f"{name}.npz"))
    _save(folder / f"{name}.{mode}.npz", _run(session, feeds))


def report(folder: Path, name: str, soc: str) -> str:
    """One line for the graph, one per output."""
    kinds = ("cpu", "compile", "reload", "zero")
    cpu, htp, again, zero = (dict(np.load(folder / f"{name}.{kind}.npz")) for kind in kinds)
    same = all(np.array_equal(htp[output], again[output]) for output in htp)
    size = sum(path.stat().st_size for path in folder.glob(f"{name}.{soc}.ctx*.bin"))
    lines = [f"{name}: {size / 2**20:.2f} MiB, reloaded == in process: {same}"]
    for output in cpu:
        reference = cpu[output].astype(np.float64) - zero[output]
        error = htp[output].astype(np.float64) - zero[output] - reference
        power = np.square(error).sum()
        sqnr = 10 * np.log10(np.square(reference).sum() / power) if power else np.inf
        rms, largest = np.sqrt(np.square(error).mean()), np.abs(error).max()
        lines.append(f"    {output}: {sqnr:.1f} dB, rms {rms:.1f} LSB, max {largest:.0f}")
    return "\n".join(lines)


def probe(folder: Path, name: str, soc: str) -> None:
    """Compile and reload `name` in two processes, then report."""
    for mode in ("compile", "reload"):
        command = [sys.executable, __file__, str(folder), "--soc", soc, "--one", name, mode]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{name}: {mode} failed: {done.stderr.strip()[-300:] or done.returncode}")
            return
        print(f"{name}: {mode} {done.stdout.split()[-1]} s", flush=True)
    print(report(folder, name, soc), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--soc", default="39", help="QNN soc_model (39: SA8295P, 52: SA8775P)")
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 8, 128])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.folder, arguments.one[0], arguments.soc, arguments.one[1])
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for kind in ("conv", "full_attention"):
        for name in export_graphs(arguments.folder, kind, arguments.widths):
            probe(arguments.folder, name, arguments.soc)


if __name__ == "__main__":
    main()
