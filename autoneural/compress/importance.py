"""How much hidden units and whole blocks matter, over sample runs.

activation   mean square of the unit * squared norm of its outgoing column, as a share of all:
             how much of the layer's output it makes
taylor       |sum of activation * gradient of the loss|, averaged over runs: how much the loss
             would change without it, to first order (Molchanov et al. 2017, arXiv 1611.06440)
block        1 - cosine similarity of what goes in and what comes out (ShortGPT's block
             influence, Men et al. 2024, arXiv 2403.03853)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoneural.compress.input_statistics import require_runs, rows_of, watching
from autoneural.compress.quantize import Sample
from autoneural.compress.report import Run
from autoneural.compress.widths import Width
from autoneural.errors import UserError
from autoneural.model.low_rank import Factorised

Loss = Callable[[nn.Module, Run], Tensor]


def activation_scores(
    model: nn.Module, widths: Iterable[Width], energies: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Width path -> share of the consumer's output of each unit [units]; sums to 1.

    `energies`: mean square of each input channel of the consumers (`mean_squares`).
    """
    scores = {}
    for width in widths:
        columns_CO = _weight(model, width.consumer).detach().double().transpose(0, 1).flatten(1)
        made_C = energies[width.consumer] * columns_CO.square().sum(1)
        scores[width.path] = _per_unit(made_C / made_C.sum().clamp_min(1e-30), width)
    return scores


def _weight(model: nn.Module, path: str) -> Tensor:
    """The weight [out, in, ...] that follows the channels; of a factorised layer the product."""
    parent = model.get_submodule(path.rpartition(".")[0])
    if isinstance(parent, Factorised):
        return parent.up.weight.flatten(1) @ parent.down.weight.flatten(1)
    return model.get_submodule(path).get_parameter("weight")


def taylor_scores(
    model: nn.Module, widths: Sequence[Width], runs: Sequence[Run], loss: Loss
) -> dict[str, Tensor]:
    """Width path -> expected change of the loss of each unit [units], in units of the loss."""
    require_runs(runs)
    paths = {width.consumer: width for width in widths}
    scores: dict[str, Tensor] = {}
    for run in runs:
        seen: dict[str, tuple[nn.Module, Tensor]] = {}
        with torch.enable_grad(), watching(dict.fromkeys(paths, _keep(seen)), model):
            value = loss(model, run)
        if not seen:  # a run without a picture says nothing about the encoder
            continue
        gradients = torch.autograd.grad(value, [x for _, x in seen.values()])
        for (path, (module, x)), gradient in zip(seen.items(), gradients, strict=True):
            width = paths[path]
            change_C = rows_of(module, x.detach() * gradient).sum(0).double()
            change = _per_unit(change_C, width).abs() / len(runs)
            scores[width.path] = scores.get(width.path, 0) + change
    missed = [width.path for width in widths if width.path not in scores]
    if missed:
        raise UserError(f"{missed[0]}: no sample reached it; give samples with images and text")
    return scores


def _keep(
    seen: dict[str, tuple[nn.Module, Tensor]],
) -> Callable[[str, nn.Module, Tensor], None]:
    def keep(path: str, module: nn.Module, x: Tensor) -> None:
        if not x.requires_grad:  # no parameter asks for gradients: the graph begins here
            x.requires_grad_()
        seen[path] = module, x

    return keep


def _per_unit(values_C: Tensor, width: Width) -> Tensor:
    return values_C.unflatten(0, (width.units, -1)).sum(1)


def next_token_loss(model: nn.Module, run: Run) -> Tensor:
    """Mean cross-entropy of a Sample's next tokens, image positions left out.

    Raises UserError for another kind of run: what its loss is, nobody knows here.
    """
    if not isinstance(run, Sample):
        raise UserError("importance: taylor: needs samples of a conversation, or a `loss`")
    logits_BTV: Any = run(model)
    targets_BT = run.input_ids_BT[:, 1:]
    ignored_BT = targets_BT.masked_fill(targets_BT == run.image_token_id, -100)
    return F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ignored_BT.flatten())


@torch.no_grad()
def block_scores(model: nn.Module, paths: Iterable[str], runs: Sequence[Run]) -> dict[str, float]:
    """Path -> mean of 1 - cosine similarity of what each block reads and returns, row by row."""
    require_runs(runs)
    sums: dict[str, list[float]] = {}

    def hook(path: str) -> Callable[..., None]:
        def compare(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            out = output[0] if isinstance(output, tuple) else output
            channels = 1 if out.ndim == 4 else -1
            change = 1 - F.cosine_similarity(inputs[0].float(), out.float(), dim=channels)
            sums.setdefault(path, []).append(float(change.mean()))

        return compare

    paths = list(paths)
    handles = [model.get_submodule(p).register_forward_hook(hook(p)) for p in paths]
    try:
        for run in runs:
            run(model)
    finally:
        for handle in handles:
            handle.remove()
    missed = [path for path in paths if path not in sums]
    if missed:
        raise UserError(f"{missed[0]}: no sample reached it; give samples with images and text")
    return {path: sum(values) / len(values) for path, values in sums.items()}
