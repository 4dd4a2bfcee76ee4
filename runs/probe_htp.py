"""Probe: one decoder layer of each kind, W4A16, on Qualcomm's HTP emulator (x86, no device).

    python runs/probe_htp.py FOLDER [--soc 39] [--widths 1 8 128] [--vision]

Exports with our own exporter, compiles with CPU fallback disabled, runs in the compiling process,
then reloads the context binary in a new process and runs again. Prints, per graph: compile time,
size, identical integers or not, and how far the emulator is from the QDQ graph on the CPU.
Needs the `npu` extra beside `train`. Emulator figures, not hardware.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


def export_graphs(folder: Path, widths: list[int], vision: bool) -> list[str]:
    """Write NAME.onnx, NAME.npz (integer feeds) and NAME.cpu.npz (what the CPU computes)."""
    import torch

    from autoneural.compress.fake_quant import Calibration, freeze, quantize, weight_quantizers
    from autoneural.compress.precision import PRECISIONS
    from autoneural.compress.quantize import IntegerWeight
    from autoneural.config import preset
    from autoneural.export.graphs import GraphKey, build_graph
    from autoneural.export.onnx import export_graph, model_bytes
    from autoneural.export.parity import exact_session, sample_inputs
    from autoneural.export.qdq import Quantization, quantize_graph
    from autoneural.model.vlm import VLM
    from autoneural.target.numerics import Encoding, quantize_affine

    torch.manual_seed(0)
    tiny, names = preset("cockpit-tiny"), []
    keys = [GraphKey(role="verify", width=w, context=1024) for w in widths]
    jobs: list[tuple[str, Any, list[GraphKey]]] = [
        (kind, replace(tiny, text=replace(tiny.text, layer_types=(kind,))), keys)
        for kind in ("conv", "full_attention")
    ]
    if vision:
        size = tiny.vision.image_size
        jobs.append(("vision", tiny, [GraphKey(role="vision", image_size=size)]))
        jobs.append(("head", tiny, [GraphKey(role="head", width=1)]))
    for name, config, job_keys in jobs:
        model, plain = VLM(config).eval().requires_grad_(False), VLM(config).eval()
        precision = quantize(model, PRECISIONS["w4a16"]) and PRECISIONS["w4a16"]
        with Calibration(model):
            for _ in range(4):
                ids = torch.randint(20, config.text.vocab_size, (1, 100))
                ids[0, 5 : 5 + config.vision.num_tokens] = 14
                model(ids, torch.rand(1, 3, tiny.vision.image_size, tiny.vision.image_size), 14)
        encodings = freeze(model, precision)
        weights = {
            f"{path}.{q.parameter}": IntegerWeight(
                values=q.integers.numpy(), scale=q.scale.numpy(), bits=q.bits
            )
            for path, _, q in weight_quantizers(model)
            if q.integers is not None and q.scale is not None
        }
        table = weights["language_model.model.embed_tokens.weight"]
        weights["language_model.lm_head.weight"] = table
        state = {k: v for k, v in model.state_dict().items() if k in plain.state_dict()}
        plain.load_state_dict(state)
        quantization = Quantization(
            activations={k: Encoding(**v) for k, v in encodings["activations"].items()},
            weights=weights,
        )
        for key in job_keys:
            graph = build_graph(plain, key)
            onnx_model = export_graph(graph)
            ends = quantize_graph(onnx_model, quantization)
            data = model_bytes(onnx_model)
            inputs = sample_inputs(graph, plain.language_model.model.embed_tokens.weight)
            rng = np.random.default_rng(key.width)
            feeds = {n: quantize_affine(x.numpy(), ends[n]) for n, x in inputs.items()}
            for past in (n for n in feeds if n.startswith("past")):
                feeds[past] = rng.integers(16384, 49152, feeds[past].shape).astype(np.uint16)
            if "mask" in feeds:  # half of the past is committed
                feeds["mask"][..., :512] = ends["mask"].zero_point
            session = exact_session(data)
            outputs = [o.name for o in session.get_outputs()]
            stem = f"{name}-{key.width}" if key.width > 1 or name != "head" else name
            (folder / f"{stem}.onnx").write_bytes(data)
            np.savez(folder / f"{stem}.npz", **feeds)
            expected = dict(zip(outputs, session.run(outputs, feeds), strict=True))
            np.savez(folder / f"{stem}.cpu.npz", **expected)
            zeros = {n: ends[n].zero_point for n in outputs}
            (folder / f"{stem}.json").write_text(json.dumps(zeros))
            names.append(stem)
    return names


def htp_session(model: Path, soc: str, context: Path | None) -> ort.InferenceSession:
    """Compile `model` (writing the context binary), or load one when `context` is None."""
    import onnxruntime_qnn as qnn

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


def run_one(folder: Path, name: str, soc: str, reload: bool) -> None:
    """One process: compile and run, or reload and run; results to NAME.{htp,ctx}.npz."""
    context = folder / f"{name}.{soc}.ctx.onnx"
    start = time.perf_counter()
    if reload:
        session = htp_session(context, soc, None)
    else:
        for stale in folder.glob(f"{name}.{soc}.ctx*"):
            stale.unlink()
        session = htp_session(folder / f"{name}.onnx", soc, context)
    seconds = time.perf_counter() - start
    feeds = dict(np.load(folder / f"{name}.npz"))
    outputs = [o.name for o in session.get_outputs()]
    arrays = dict(zip(outputs, session.run(outputs, feeds), strict=True))
    np.savez(folder / f"{name}.{'ctx' if reload else 'htp'}.npz", **arrays)
    print(f"{seconds:.1f}")


def report(folder: Path, name: str, soc: str) -> str:
    """One line per output."""
    cpu, htp, ctx = (dict(np.load(folder / f"{name}.{k}.npz")) for k in ("cpu", "htp", "ctx"))
    zeros = json.loads((folder / f"{name}.json").read_text())
    same = all(np.array_equal(htp[n], ctx[n]) for n in htp)
    size = sum(p.stat().st_size for p in folder.glob(f"{name}.{soc}.ctx*.bin"))
    lines = [f"{name}: {size / 2**20:.2f} MiB, reloaded == in process: {same}"]
    for output in cpu:
        reference = cpu[output].astype(np.float64) - zeros[output]
        error = htp[output].astype(np.float64) - zeros[output] - reference
        power = np.square(error).sum()
        sqnr = 10 * np.log10(np.square(reference).sum() / power) if power else np.inf
        rms = np.sqrt(np.square(error).mean())
        lines.append(f"    {output}: {sqnr:.1f} dB, rms {rms:.1f} LSB, max {np.abs(error).max():.0f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--soc", default="39", help="QNN soc_model (39: SA8295P, 52: SA8775P)")
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 8, 128])
    parser.add_argument("--vision", action="store_true", help="also the vision and head graphs")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if arguments.one:
        run_one(folder, arguments.one[0], arguments.soc, arguments.one[1] == "reload")
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, str(folder), "--soc", arguments.soc, "--one"]
    for name in export_graphs(folder, arguments.widths, arguments.vision):
        for mode in ("compile", "reload"):
            done = subprocess.run([*command, name, mode], capture_output=True, text=True)
            if done.returncode:
                print(f"{name}: {mode} failed: {done.stderr.strip().splitlines()[-1][:300]}")
                break
            print(f"{name}: {mode} {done.stdout.split()[-1]} s", flush=True)
        else:
            print(report(folder, name, arguments.soc), flush=True)


if __name__ == "__main__":
    main()
