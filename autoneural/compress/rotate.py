"""Rotations that the model does not notice and quantisation does: no channel sticks out.

    residual stream   x -> x R        R^T R = 1: an RMSNorm without weights passes a rotation on
        writers       embedding table, projector (image tokens), out_proj, w2      W -> R^T W
        readers       in_proj, q k v, w1 w3, head                                  W -> W R
    values            v -> v R_d      in every head, undone by out_proj

QuaRot (Ashkboos et al. 2024, arXiv 2404.00456): randomised Hadamard matrices, where weights can
take them. Not rotated: queries and keys (a norm with weights and rotary positions are between)
and what runs through gates (a product of channels is not the same after a rotation).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoneural.compress.rewrite import Rewrite, refuse_quantized
from autoneural.errors import UserError
from autoneural.model import language_model as lm
from autoneural.model.layers import RMSNorm
from autoneural.model.vlm import VLM

_DECODER = "language_model.model"


def rotate(model: VLM, *, values: bool = True, seed: int = 0) -> Rewrite:
    """Rotate the residual stream of the decoder, and with `values` what its caches hold, in place.

    Raises UserError when the model is quantised, or naming a norm whose weight is not folded yet
    (`fold`, and `untie_head` before it for the closing norm).
    """
    if not isinstance(model, VLM):
        raise UserError(
            f"rotate: a {type(model).__name__} is not a whole VLM; image tokens must turn too"
        )
    refuse_quantized(model)
    _require_plain_norms(model)
    done = Rewrite(method="rotate")
    rotation_DD = hadamard(model.config.text.hidden_size, seed)
    _rotate_residual(model, rotation_DD, done)
    for path, module in model.named_modules():
        if isinstance(module, lm.Attention):
            if values:
                _rotate_values(path, module, hadamard(module.head_dim, seed), done)
            done.skipped[f"{path}.q_layernorm"] = "queries and keys: a norm is between"
        elif isinstance(module, lm.ShortConv | lm.FeedForward):
            done.skipped[path] = "inside: a gate multiplies channel by channel"
    return done


def _require_plain_norms(model: VLM) -> None:
    decoder = model.language_model.model
    for name, norm in decoder.named_modules():
        if not isinstance(norm, RMSNorm) or ".self_attn." in name:
            continue
        even = bool((norm.weight == norm.weight[0]).all())
        if not even:
            how = "fold() first"
            if name == "embedding_norm" and model.language_model.is_tied:
                how = "untie_head() and fold() first: a head tied to the table cannot take it"
            raise UserError(f"{_DECODER}.{name}: its weight is not folded; {how}")


@torch.no_grad()
def _rotate_residual(model: VLM, rotation_DD: Tensor, done: Rewrite) -> None:
    language = model.language_model
    writers: dict[str, nn.Module] = {"projector.linear_2": model.projector.linear_2}
    readers: dict[str, nn.Module] = {}
    for index, layer in enumerate(language.model.layers):
        path = f"{_DECODER}.layers.{index}"
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                writes = name.endswith(("out_proj", "w2"))
                (writers if writes else readers)[f"{path}.{name}"] = module
    table = language.model.embed_tokens.weight
    table.copy_(table.double() @ rotation_DD.to(table.device))
    if not language.is_tied:
        readers["language_model.lm_head"] = language.lm_head
    for module in writers.values():
        _turn_outputs(module, rotation_DD)
    for module in readers.values():
        _turn_inputs(module, rotation_DD)
    done.pairs.append((f"{_DECODER}.embed_tokens", (*writers, *readers)))


@torch.no_grad()
def _turn_inputs(module: nn.Module, rotation_DD: Tensor) -> None:
    assert isinstance(module, nn.Linear)
    module.weight.copy_(module.weight.double() @ rotation_DD.to(module.weight.device))


@torch.no_grad()
def _turn_outputs(module: nn.Module, rotation_DD: Tensor) -> None:
    assert isinstance(module, nn.Linear)
    rotation_DD = rotation_DD.to(module.weight.device)
    module.weight.copy_(rotation_DD.T @ module.weight.double())
    if module.bias is not None:
        module.bias.copy_(module.bias.double() @ rotation_DD)


@torch.no_grad()
def _rotate_values(path: str, attention: lm.Attention, rotation_dd: Tensor, done: Rewrite) -> None:
    width, value, out = attention.head_dim, attention.v_proj.weight, attention.out_proj.weight
    rotation_dd = rotation_dd.to(value.device)
    heads_hdD = value.double().unflatten(0, (-1, width))
    value.copy_((rotation_dd.T @ heads_hdD).flatten(0, 1))
    heads_Dhd = out.double().unflatten(1, (-1, width))
    out.copy_((heads_Dhd @ rotation_dd).flatten(1))
    done.pairs.append((f"{path}.v_proj", (f"{path}.out_proj",)))


def hadamard(width: int, seed: int = 0) -> Tensor:
    """An orthogonal matrix [width, width] in double with entries of one size, signs by `seed`.

    A width with an odd factor m has a random orthogonal m x m in place of a Hadamard matrix there.
    """
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.ones(1, 1, dtype=torch.float64)
    odd = width
    while odd % 2 == 0:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
        odd //= 2
    normal = torch.randn(odd, odd, generator=generator, dtype=torch.float64)
    matrix = torch.kron(matrix / len(matrix) ** 0.5, torch.linalg.qr(normal).Q.contiguous())
    signs = torch.randint(0, 2, (width,), generator=generator) * 2 - 1
    return signs[:, None] * matrix
