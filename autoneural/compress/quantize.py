"""Static post-training quantisation of a checkpoint folder, and reading the result back.

    float checkpoint -> calibrate (inputs of 4-bit linears) -> round weights
                     -> calibrate (ranges, with the rounded weights) -> freeze -> quantised folder

`load_quantized` runs the frozen integers with the frozen ranges: the reference for every QDQ graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoneural.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    weights_hash,
)
from autoneural.compress.fake_quant import (
    VERSION,
    Calibration,
    apply_encodings,
    freeze,
    output_quantizers,
    parse_encoding,
    quantize,
    round_weights,
    weight_quantizers,
)
from autoneural.compress.precision import PRECISIONS, Precision
from autoneural.compress.report import ModuleError, Report, Run, compare
from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.target.numerics import Encoding, dequantize_symmetric, pack_int4, unpack_int4

_SCALE = "_scale"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One whole conversation as the training forward reads it."""

    input_ids_BT: Tensor
    pixels_BCHW: Tensor | None
    image_token_id: int

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
    compared: int = 8,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Quantise the float checkpoint called `checkpoint` into the folder `out`.

    `samples` should be training conversations, with images and without; each runs one forward
    of the model it is given. `compared` of them are used for
    the report. `progress` is called with (stage, done, total).
    Raises UserError for a checkpoint that is quantised already, or when no sample reaches a layer.
    """
    source = load_checkpoint(checkpoint)
    if source.encodings is not None:
        raise UserError(f"{checkpoint}: is quantised already; start from the float checkpoint")
    if not samples:
        raise UserError("calibration: no samples; give training rows with images and text")
    folder = find_checkpoint(checkpoint)
    if Path(out).resolve() == folder.resolve():
        raise UserError(f"{out}: is the float checkpoint itself; write to another folder")
    reference = _float_model(source.config, source.state_dict, folder)
    model = _float_model(source.config, source.state_dict, folder)
    encodings = calibrate(model, samples, precision, progress)
    report = build_report(reference, model, samples[:compared], precision)
    save_checkpoint(
        out,
        frozen_tensors(model),
        source.config,
        folder,
        recipe={
            "stage": "quantize",
            "precision": precision.to_dict(),
            "calibration_samples": len(samples),
            "parent": weights_hash(folder),
            "parent_recipe": source.recipe,
            "licences": source.recipe.get("licences", {}),
            "metrics": {"sqnr_db": report.summary()},
        },
        encodings=encodings,
    )
    return report


def calibrate(
    model: nn.Module,
    samples: Sequence[Run],
    precision: Precision,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Quantise `model` in place with two passes over `samples`; returns its encodings."""
    quantize(model, precision)
    _calibration_pass(model, samples, "inputs", progress)
    round_weights(model)
    _calibration_pass(model, samples, "ranges", progress)
    return freeze(model, precision)


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
    reference: nn.Module, model: nn.Module, samples: Sequence[Run], precision: Precision
) -> Report:
    """Per-module error of `model` (frozen) against `reference` (float), worst first.

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
    errors = [
        ModuleError(
            path=path,
            kind=type(model.get_submodule(path)).__name__,
            sqnr_db=sqnr,
            rms_error=rms,
            weight_bits=bits.get(path),
            activation_bits=outputs[path].bits,
        )
        for path, (sqnr, rms) in compare(reference, model, list(outputs), samples).items()
    ]
    return Report(tuple(sorted(errors, key=lambda error: error.sqnr_db)))


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


def load_quantized(name: str | Path, *, activations: bool = True) -> VLM:
    """The model of a quantised checkpoint, in eval mode, fp32, on its frozen integers.

    With `activations` every output is rounded to its encoding, so that it computes what the QDQ
    graphs compute, `generate` included; without, only the weights are (what export traces).
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
    model = _float_model(checkpoint.config, state, name)
    if activations:
        apply_encodings(model, encodings["activations"])
    return model


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


def _float_model(config: ModelConfig, state: dict[str, Tensor], where: str | Path) -> VLM:
    model = VLM(config)
    load_weights(model, state, where)
    return model.eval().requires_grad_(False)
