"""Integer graphs of a preset's shapes around random weights: what compiling costs is in the shapes.

    seeded model -> weights to the nearest integer, ranges of random inputs -> traced -> ONNX, QDQ

Everything but the weights is what `compress` and `export` make of a trained model. Only the part
that is asked for is built. `python -m autoneural.bench.random_graphs REQUEST.json` does it in a
process of its own, whose memory can be measured and is given back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoneural.bench.piece import Piece
from autoneural.checkpoint import Checkpoint
from autoneural.compress.fake_quant import output_quantizers
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import calibrate, frozen_tensors
from autoneural.compress.report import Run
from autoneural.config import MobileNetV5Config, ModelConfig
from autoneural.export.graphs import GraphKey, build_graph
from autoneural.export.onnx import WeightFile, export_graph, save_model
from autoneural.export.qdq import load_quantization, quantize_graph
from autoneural.manifest import Role
from autoneural.model.language_model import LanguageModel
from autoneural.model.projector import Projector
from autoneural.model.vision_encoder import build_vision_encoder
from autoneural.model.vlm import VLM, num_parameters
from autoneural.npu.worker import peak_rss_gb

_PRECISION = PRECISIONS["w4a16"]  # of the language model; the vision encoder has 8 bits in it
_CALIBRATION_SIZE = 256  # the ranges need not be those of the full size
_CALIBRATION_TOKENS = 32
_SAMPLES = 2


def write_graphs(piece: Piece, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Write `<stem>.onnx` for every graph of the piece to `folder`, their weights shared.

    Returns {"graphs": [stem, ...], "parameters": count}.
    """
    torch.manual_seed(seed)
    vlm = random_model(piece)
    graphs = {stem: build_graph(vlm, key) for stem, key in graph_keys(piece).items()}
    module = next(iter(graphs.values())).module
    parameters = num_parameters(module)
    encodings = calibrate(module, _runs(piece), _PRECISION, rounding="nearest")
    for _, quantizer in output_quantizers(module):
        quantizer.mode = "off"  # the exporter rounds activations itself
    quantization = load_quantization(Checkpoint(vlm.config, frozen_tensors(module), {}, encodings))
    weights = WeightFile(folder / "weights.data")
    for stem, graph in graphs.items():
        model = export_graph(graph)
        quantize_graph(model, quantization)
        model.graph.name = stem
        save_model(model, folder / f"{stem}.onnx", weights)
    return {"graphs": list(graphs), "parameters": parameters}


def graph_keys(piece: Piece) -> dict[str, GraphKey]:
    """The piece's graphs by file stem: `vision`, or `ar128` and `ar1`."""
    if piece.part == "vision":
        return {"vision": GraphKey(role="vision", image_size=piece.image_size)}
    return {
        f"ar{width}": GraphKey(role=_role(width, piece.widths), width=width, context=piece.context)
        for width in piece.widths
    }


def _role(width: int, widths: Sequence[int]) -> Role:
    if width == 1:
        return "decode"
    return "prefill" if width == max(widths) else "verify"


def random_model(piece: Piece) -> VLM:
    """The model with the piece's part in memory; the rest of it is on the meta device, or gone.

    Vectors (norms, layer scales, biases) are disturbed: equal ones would be merged or folded away.
    """
    config = piece.config
    with torch.device("meta"):
        vlm = VLM(config)
    if piece.part == "vision":
        vision, width = config.vision, config.text.hidden_size
        vlm.vision_encoder = build_vision_encoder(vision)
        vlm.projector = Projector(vision.out_channels, width, config.projector)
    else:
        vlm.language_model = _decoder(config)
    for parameter in vlm.parameters():
        if parameter.ndim == 1 and not parameter.is_meta:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return vlm.eval().requires_grad_(False)


def _decoder(config: ModelConfig) -> LanguageModel:
    """Layers and closing norm, without embedding table and head: those are no part of a step."""
    language_model = LanguageModel(replace(config.text, vocab_size=1))
    language_model.model.embed_tokens = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    language_model.lm_head = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return language_model


def _runs(piece: Piece) -> list[Run]:
    """Random inputs that reach every module of the piece."""
    if piece.part == "vision":
        scalable = isinstance(piece.config.vision, MobileNetV5Config)
        size = min(piece.image_size, _CALIBRATION_SIZE) if scalable else piece.image_size
        return [partial(_see, torch.rand(1, 3, size, size)) for _ in range(_SAMPLES)]
    shape = (1, _CALIBRATION_TOKENS, piece.config.text.hidden_size)
    return [partial(_read, torch.randn(shape)) for _ in range(_SAMPLES)]


def _see(pixels_BCHW: Tensor, module: nn.Module) -> object:
    return module(pixels_BCHW)


def _read(embeds_BTD: Tensor, module: nn.Module) -> object:
    return module.get_submodule("language_model")(embeds_BTD)


def main(argv: list[str]) -> None:
    """{"piece", "folder"} in REQUEST.json -> REQUEST.result.json, with the peak memory in GiB."""
    file = Path(argv[1])
    request = json.loads(file.read_text(encoding="utf-8"))
    piece = Piece(**{**request["piece"], "widths": tuple(request["piece"]["widths"])})
    facts = write_graphs(piece, Path(request["folder"]))
    facts["peak_rss_gb"] = peak_rss_gb()
    file.with_suffix(".result.json").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv)
