"""Static post-training quantisation of a checkpoint folder, and reading the result back.

    float checkpoint -> calibrate (inputs of layers) -> round weights
                     -> calibrate (ranges, with the rounded weights) -> freeze -> quantised folder

`load_quantized` runs the frozen integers with the frozen ranges: the reference for every QDQ graph.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoneural.checkpoint import Checkpoint, load_checkpoint
from autoneural.compress.chip import compute_as
from autoneural.compress.derive import build_model, open_float, refuse_itself, save_derived
from autoneural.compress.fake_quant import (
    VERSION,
    Calibration,
    WeightQuantizer,
    apply_encodings,
    attach_weight,
    freeze,
    output_quantizers,
    parse_encoding,
    quantize,
    round_weights,
    weight_quantizers,
)
from autoneural.compress.precision import PRECISIONS, Precision
from autoneural.compress.report import ModuleError, Report, Run, compare
from autoneural.compress.rounding import Rounding
from autoneural.compress.sequential import round_sequentially
from autoneural.compress.snap import snap_encodings
from autoneural.compress.wiring import trace
from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.target.chips import Chip
from autoneural.target.numerics import Encoding, dequantize_symmetric, pack_int4, unpack_int4

_SCALE = "_scale"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One whole conversation as the training forward reads it.

    `labels_BT`: the ids of its answers, -100 elsewhere, not shifted; None where nobody says.
    """

    input_ids_BT: Tensor
    pixels_BCHW: Tensor | None
    image_token_id: int
    labels_BT: Tensor | None = None

    def __call__(self, model: nn.Module, /) -> Tensor:
        return model(self.input_ids_BT, self.pixels_BCHW, self.image_token_id)


@dataclass(frozen=True, kw_only=True)
class IntegerWeight:
    """A frozen parameter in PyTorch's layout; `scale` is [out] or a single number."""

    values: NDArray[np.signedinteger]
    scale: NDArray[np.float32]
    bits: int

    def dequantize(self) -> NDArray[np.float32]:
        return dequantize_symmetric(self.values, self.scale)


def post_training_quantize(
    checkpoint: str | Path,
    samples: Sequence[Run],
    out: str | Path,
    *,
    precision: Precision = PRECISIONS["w4a16"],
    rounding: Rounding = "compensated",
    chip: Chip | None = None,
    compared: int = 8,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Quantise the float checkpoint called `checkpoint` into the folder `out`.

    `samples` should be training conversations, with images and without; each runs one forward
    of the model it is given. `compared` of them are used for the report, which says what `chip`
    makes of the model too. `rounding` as in `calibrate`. `progress` is called with (stage, done,
    total).
    Raises UserError for a checkpoint that is quantised already, or when no sample reaches a layer.
    """
    source = open_float(checkpoint)
    refuse_itself(out, source)
    if not samples:
        raise UserError("calibration: no samples; give training rows with images and text")
    reference, model = source.model(), source.model()
    encodings = calibrate(model, samples, precision, progress, rounding=rounding)
    report = build_report(reference, model, samples[:compared], precision, chip)
    facts = {
        "stage": "quantize",
        "precision": precision.to_dict(),
        "rounding": rounding,
        "calibration_samples": len(samples),
        "metrics": report_metrics(report, chip),
    }
    save_derived(out, frozen_tensors(model), source.config, source, facts, encodings)
    return report


def calibrate(
    model: nn.Module,
    samples: Sequence[Run],
    precision: Precision,
    progress: Callable[[str, int, int], None] | None = None,
    *,
    rounding: Rounding = "compensated",
    snap: bool = True,
) -> dict[str, Any]:
    """Quantise `model` in place with passes over `samples`; returns its encodings.

    `rounding` of weights: "nearest" looks at no inputs and takes seconds at any size, for models
    whose shapes matter and not their answers; "compensated" takes one pass more; "sequential" runs
    layer by layer beside a copy of the float model (`round_sequentially`). `snap` moves scales by a
    hair, to what the multipliers of old chips can hold (`snap_scales`).
    """
    if rounding not in get_args(Rounding):
        expected = ", ".join(get_args(Rounding))
        raise UserError(f"rounding {rounding!r}: expected one of {expected}")
    reference = copy.deepcopy(model) if rounding == "sequential" else None
    quantize(model, precision)
    if reference is not None:
        round_sequentially(model, reference, samples, progress)
    elif rounding == "compensated":
        _calibration_pass(model, samples, "inputs", progress)
    round_weights(model, rounding)
    _calibration_pass(model, samples, "ranges", progress)
    encodings = freeze(model, precision)
    if snap:
        snap_encodings(model, encodings, samples)
    return encodings


@torch.inference_mode()
def _calibration_pass(
    model: nn.Module,
    samples: Sequence[Run],
    stage: str,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    with Calibration(model):
        for done, run in enumerate(samples, start=1):
            run(model)
            if progress is not None:
                progress(stage, done, len(samples))


def build_report(
    reference: nn.Module,
    model: nn.Module,
    samples: Sequence[Run],
    precision: Precision,
    chip: Chip | None = None,
) -> Report:
    """Per-module error of `model` (frozen) against `reference` (float), worst first.

    With `chip` also as that chip computes the model, where it is worst.
    Masks are left out: the two models stand for minus infinity by different numbers.
    """
    mask = precision.mask
    hidden = () if mask is None else (mask.mask, mask.masked)
    outputs = {
        path: quantizer
        for path, quantizer in output_quantizers(model)
        if not any(fnmatchcase(path, pattern) for pattern in hidden)
    }
    bits = {path: q.bits for path, _, q in weight_quantizers(model)}
    plain = compare(reference, model, list(outputs), samples)
    on_chip: dict[str, tuple[float, float]] = {}
    if chip is not None:
        compute_as(model, chip.htp, trace(model, samples))
        on_chip = compare(reference, model, list(outputs), samples)
        compute_as(model, None)
    errors = [
        ModuleError(
            path=path,
            kind=type(model.get_submodule(path)).__name__,
            sqnr_db=sqnr,
            rms_error=rms,
            weight_bits=bits.get(path),
            activation_bits=outputs[path].bits,
            chip_sqnr_db=on_chip[path][0] if on_chip else None,
        )
        for path, (sqnr, rms) in plain.items()
    ]
    errors.sort(key=lambda error: error.lowest_db)
    return Report(tuple(errors), None if chip is None else chip.name)


def report_metrics(report: Report, chip: Chip | None) -> dict[str, Any]:
    """The report's summaries as recipe.json has them."""
    metrics: dict[str, Any] = {"sqnr_db": report.summary()}
    if chip is not None:
        metrics[f"sqnr_db_{chip.generation}"] = report.chip_summary()
    return metrics


def frozen_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What model.safetensors of a quantised checkpoint holds: integers, scales, fp32 biases."""
    tensors = {name: tensor.float() for name, tensor in model.state_dict().items()}
    for path, _, quantizer in weight_quantizers(model):
        name = f"{path}.{quantizer.parameter}"
        if quantizer.integers is None or quantizer.scale is None:
            raise UserError(f"{name}: not frozen yet; calibrate and freeze first")
        tensors[name] = _stored(quantizer.integers, quantizer.bits)
        tensors[name + _SCALE] = quantizer.scale.detach().float().reshape(quantizer.scale.shape)
    return tensors


def _stored(integers: Tensor, bits: int) -> Tensor:
    if bits == 4:
        return torch.from_numpy(pack_int4(integers.cpu().numpy()))
    return integers.to(torch.int8 if bits == 8 else torch.int16)


def integer_weights(checkpoint: Checkpoint) -> dict[str, IntegerWeight]:
    """Parameter name -> frozen integers of a quantised checkpoint.

    Raises UserError when it is not quantised or does not hold what its encodings promise.
    """
    weights = _encodings(checkpoint)["weights"]
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in VLM(checkpoint.config).state_dict().items()}
    found = {}
    for name, entry in weights.items():
        try:
            values = checkpoint.state_dict[name].numpy()
            scale = checkpoint.state_dict[name + _SCALE].numpy()
            if entry["bits"] == 4:
                values = unpack_int4(values, shapes[name])
            if values.shape != shapes[name] or scale.shape not in ((), shapes[name][:1]):
                raise ValueError(f"{list(values.shape)} with {list(scale.shape)} scales")
            found[name] = IntegerWeight(values=values, scale=scale, bits=entry["bits"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"encodings.json: {name}: not as stored ({error})") from error
    return found


def activation_encodings(checkpoint: Checkpoint) -> dict[str, Encoding]:
    """Module path -> encoding of its output, of a quantised checkpoint."""
    activations = _encodings(checkpoint)["activations"]
    return {path: parse_encoding(path, values) for path, values in activations.items()}


def load_quantized(name: str | Path, *, activations: bool = True, chip: Chip | None = None) -> VLM:
    """The model of a quantised checkpoint, in eval mode, fp32, on its frozen integers.

    With `activations` every output is rounded to its encoding, so that it computes what the QDQ
    graphs compute, `generate` included; without, only the weights are (what export traces). With
    `chip` it computes what that chip computes, as far as we know it (`compute_as` switches).
    Raises UserError when the checkpoint is damaged or not quantised.
    """
    checkpoint = load_checkpoint(name)
    encodings = _encodings(checkpoint)
    weights = integer_weights(checkpoint)
    state = {
        key: torch.from_numpy(weights[key].dequantize()) if key in weights else tensor
        for key, tensor in checkpoint.state_dict.items()
        if key.removesuffix(_SCALE) == key or key.removesuffix(_SCALE) not in weights
    }
    model = build_model(checkpoint.config, state, name)
    if activations or chip is not None:
        apply_encodings(model, encodings["activations"])
    if chip is not None:
        _hold_weights(model, weights)
        compute_as(model, chip.htp, trace(model, [_shortest_sample(checkpoint.config)]))
    return model


def _hold_weights(model: VLM, weights: Mapping[str, IntegerWeight]) -> None:
    """Give every module its integers back, which it has computed with since it was read."""
    for name, weight in weights.items():
        path, _, parameter = name.rpartition(".")
        quantizer = WeightQuantizer(parameter, weight.bits, 0 if weight.scale.ndim else None)
        quantizer.integers = torch.from_numpy(weight.values.astype(np.int16))
        quantizer.scale = torch.from_numpy(weight.scale)
        attach_weight(model.get_submodule(path), quantizer)


def _shortest_sample(config: ModelConfig) -> Sample:
    """Reaches every module: a black picture and two tokens."""
    image_id = 1
    ids = torch.tensor([[image_id] * config.vision.num_tokens + [0, 0]])
    pixels = torch.zeros(1, 3, config.vision.image_size, config.vision.image_size)
    return Sample(input_ids_BT=ids, pixels_BCHW=pixels, image_token_id=image_id)


def _encodings(checkpoint: Checkpoint) -> dict[str, Any]:
    encodings = checkpoint.encodings
    if encodings is None:
        raise UserError("checkpoint: no encodings.json, it is not quantised; quantise it first")
    if encodings.get("version") != VERSION:
        found = encodings.get("version")
        raise UserError(f"encodings.json: version {found!r}, this program reads {VERSION}")
    for key, kind in (("activations", dict), ("weights", dict), ("mask_value", float)):
        if not isinstance(encodings.get(key), kind):
            raise UserError(f"encodings.json: {key} is missing")
    return encodings
