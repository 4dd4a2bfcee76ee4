"""Large activations divided down in a norm, and multiplied back by the weights that read it.

    g / s  in the norm,   W * s  in its readers,   s = max|x| ^ alpha / max|W| ^ (1 - alpha)

SmoothQuant (Xiao et al. 2022, arXiv 2211.10438): alpha 0 looks at weights only, 1 at activations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from autoneural.compress.report import Run
from autoneural.compress.rewrite import (
    Norm,
    Reading,
    Rewrite,
    matrix,
    readings,
    refuse_quantized,
    scale_inputs,
)
from autoneural.errors import UserError
from autoneural.model.layers import RMSNorm2d


def smooth(model: nn.Module, runs: Sequence[Run], alpha: float = 0.5) -> Rewrite:
    """Move the difficulty of activations into weights, in place, at every norm linears read.

    `runs` show how large each channel becomes. Raises UserError for an alpha outside [0, 1], a
    quantised model, or a norm that no run reaches.
    """
    if not 0 <= alpha <= 1:
        raise UserError(f"smooth: alpha {alpha} is not between 0 and 1")
    refuse_quantized(model)
    found, others = readings(model)
    largest = _largest_outputs(model, found, runs)
    done = Rewrite(method="smooth", skipped=others)
    for reading in found:
        if reading.path not in largest:
            raise UserError(f"{reading.path}: no calibration data reached it; give more runs")
        _smooth(reading, largest[reading.path], alpha)
        done.pairs.append((reading.path, tuple(reading.readers)))
    return done


@torch.inference_mode()
def _largest_outputs(
    model: nn.Module, found: Sequence[Reading], runs: Sequence[Run]
) -> dict[str, Tensor]:
    """Path of a norm -> largest magnitude of each of its channels."""
    largest: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for reading in found:
            hook = _watch(reading.path, largest)
            stack.callback(reading.norm.register_forward_hook(hook).remove)
        for run in runs:
            run(model)
    return largest


def _watch(path: str, largest: dict[str, Tensor]) -> Callable[..., None]:
    def watch(norm: nn.Module, _: object, output: Tensor) -> None:
        channels_last = output.movedim(1, -1) if isinstance(norm, RMSNorm2d) else output
        seen = channels_last.detach().abs().flatten(0, -2).amax(0)
        largest[path] = torch.maximum(largest[path], seen) if path in largest else seen

    return watch


@torch.no_grad()
def _smooth(reading: Reading, largest_C: Tensor, alpha: float) -> None:
    readers = [_largest_weights(m, len(largest_C)) for m in reading.readers.values()]
    weights_C = torch.stack(readers).amax(0)
    alive = (largest_C > 0) & (weights_C > 0)
    factor_C = largest_C**alpha / weights_C ** (1 - alpha)
    factor_C = torch.where(alive, factor_C, torch.ones_like(factor_C))
    for reader in reading.readers.values():
        scale_inputs(reader, factor_C)
    _divide(reading.norm, factor_C)


def _largest_weights(module: nn.Module, channels: int) -> Tensor:
    """Per channel of the norm, the largest weight that reads it."""
    weight = matrix(module).abs()
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        return weight.flatten(1).amax(1)
    return weight.transpose(0, 1).flatten(1).amax(1).view(-1, channels).amax(0)


def _divide(norm: Norm, factor_C: Tensor) -> None:
    norm.weight.div_(factor_C)
    if isinstance(norm, nn.LayerNorm) and norm.bias is not None:
        norm.bias.div_(factor_C)
