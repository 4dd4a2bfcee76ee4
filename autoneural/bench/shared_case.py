"""One float graph and the samples for it, on disk: what several quantisers are compared on.

    float.onnx         a part of the model, opset 23, static shapes
    calibration.npz    its inputs by name, one run after another along a leading axis
    held_out.npz       the same, of questions that no training row holds
    case.json          `Case`

The vision part is pixels to visual tokens. The language part reads the first tokens of
conversations, from an empty past, and returns hidden states; no row of it is padding.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoneural.compress.fake_quant import quantize, weight_quantizers
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import Sample
from autoneural.compress.report import Run
from autoneural.errors import UserError
from autoneural.export.graphs import GraphKey, TorchGraph, build_graph
from autoneural.export.onnx import WeightFile, export_graph, module_of, save_model
from autoneural.files import write_text
from autoneural.model.language_model import causal_mask, rotary_tables
from autoneural.model.state import DecoderState
from autoneural.model.vlm import VLM

Part = Literal["vision", "language"]
Arrays = dict[str, NDArray[np.float32]]

PRECISION: Mapping[Part, str] = {"vision": "w8a16", "language": "w4a16"}
FLOAT, CALIBRATION, HELD_OUT = "float.onnx", "calibration.npz", "held_out.npz"
_CASE = "case.json"
_WIDTH = 128
# What a mask adds: far below every score, and -1e4 would leave a range of 16 bits no step to spare.
_MASKED = -100.0
_PARAMETERS = ("weight", "gamma")


@dataclass(frozen=True, kw_only=True)
class Case:
    """`bits`: of every weight of the graph by its initialiser's name, so that all sides have the
    same; activations have 16. `width`: tokens of a run, 0 for the vision part; `image_size`: pixels
    a side."""

    checkpoint: str
    part: Part
    precision: str
    output: str
    width: int
    image_size: int
    bits: dict[str, int]

    @property
    def key(self) -> GraphKey:
        """That of the part's graph."""
        if self.part == "vision":
            return GraphKey(role="vision", image_size=self.image_size)
        return GraphKey(role="prefill", width=self.width, context=self.width)

    @classmethod
    def load(cls, folder: Path) -> Case:
        return cls(**json.loads((folder / _CASE).read_text(encoding="utf-8")))


def write_case(
    folder: Path,
    checkpoint: str,
    model: VLM,
    part: Part,
    calibration: Sequence[Sample],
    held_out: Sequence[Sample],
    count: int,
) -> Case:
    """Write the case of a part of the float `model`: `count` runs, and as many held-out ones.

    Raises UserError where there are not that many pictures, or conversations of two tokens.
    """
    both = (calibration, held_out)
    width = 0 if part == "vision" else min(_common_width(samples, count) for samples in both)
    case = Case(
        checkpoint=checkpoint,
        part=part,
        precision=PRECISION[part],
        output="image_features" if part == "vision" else "hidden_states",
        width=width,
        image_size=model.config.vision.image_size,
        bits={},
    )
    read = partial(_beginnings, model, key=case.key)
    for name, samples in zip((CALIBRATION, HELD_OUT), both, strict=True):
        runs = (_pictures if part == "vision" else read)(samples)[:count]
        if len(runs) < count:
            raise UserError(f"{part}: the data has {len(runs)} of the {count} samples asked for")
        arrays = {key: np.stack([run[key] for run in runs]) for key in runs[0]}
        np.savez(folder / name, allow_pickle=False, **arrays)
    graph = part_graph(model, case)
    float_graph = export_graph(graph)
    case.bits.update(_weight_bits(float_graph, graph.module, case.precision))
    save_model(float_graph, folder / FLOAT, WeightFile(folder / "float.data"))
    write_text(folder / _CASE, json.dumps(asdict(case)) + "\n")
    return case


def part_graph(model: VLM, case: Case) -> TorchGraph:
    """The part as a module, sharing the weights of `model`; a decoder comes without its ends."""
    if case.part == "language":
        model.language_model.model.embed_tokens = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        model.language_model.lm_head = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return build_graph(model, case.key)


def load_runs(file: Path) -> list[Arrays]:
    """The graph's inputs by name, run by run."""
    with np.load(file) as arrays:
        stacked = {name: arrays[name] for name in arrays.files}
    count = len(next(iter(stacked.values())))
    return [{name: array[i] for name, array in stacked.items()} for i in range(count)]


def as_runs(graph: TorchGraph, runs: Sequence[Arrays]) -> list[Run]:
    """The same as forward passes of the graph's module."""
    tensors = [[torch.from_numpy(run[name]) for name in graph.inputs] for run in runs]
    return [partial(_forward, inputs) for inputs in tensors]


def _forward(inputs: Sequence[Tensor], module: nn.Module) -> Any:
    return module(*inputs)


def _pictures(samples: Sequence[Sample]) -> list[Arrays]:
    found = [s.pixels_BCHW for s in samples if s.pixels_BCHW is not None]
    pictures = [picture for pixels in found for picture in pixels.split(1)]
    return [{"pixel_values": picture.float().div(255).numpy()} for picture in pictures]


def _common_width(samples: Sequence[Sample], count: int) -> int:
    """Tokens that `count` of the conversations have, the longest ones."""
    lengths = sorted((s.input_ids_BT.shape[1] for s in samples), reverse=True)[:count]
    width = min([_WIDTH, *lengths])
    if width < 2:
        raise UserError("language: conversations of one token")
    return width


@torch.inference_mode()
def _beginnings(model: VLM, samples: Sequence[Sample], *, key: GraphKey) -> list[Arrays]:
    """The first tokens of every conversation that has as many, as the decoder reads them."""
    config = model.config.text
    cos, sin = rotary_tables(config, torch.arange(key.width))
    past = DecoderState.zeros(config, 1, key.context).tensors()
    fixed = {
        "cos": cos,
        "sin": sin,
        "mask": causal_mask(key.width, 0, key.context).clamp(min=_MASKED),
        **dict(zip(DecoderState.past_names(config), past, strict=True)),
    }
    found = []
    for sample in samples:
        if sample.input_ids_BT.shape[1] >= key.width:
            embeds_BTD = model.embed(sample.input_ids_BT, sample.pixels_BCHW, sample.image_token_id)
            run = {"inputs_embeds": embeds_BTD[:, : key.width], **fixed}
            found.append({name: tensor.numpy() for name, tensor in run.items()})
    return found


def _weight_bits(graph: ir.Model, module: nn.Module, precision: str) -> dict[str, int]:
    """Initialiser -> the bits that `precision` gives the parameter it is."""
    rounded = quantize(copy.deepcopy(module), PRECISIONS[precision])
    bits = {f"{path}.{q.parameter}": q.bits for path, _, q in weight_quantizers(rounded)}
    found = {}
    for node in graph.graph:
        for value in node.inputs[:2]:  # the third is a bias, which has the accumulator's 32 bits
            if value is not None and value.is_initializer() and value.dtype == ir.DataType.FLOAT:
                names = (*(f"{module_of(node)}.{p}" for p in _PARAMETERS), str(value.name))
                known = [bits[name] for name in names if name in bits]
                found |= {str(value.name): bit for bit in known[:1]}
    return found
