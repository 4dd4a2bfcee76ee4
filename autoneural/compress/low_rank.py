"""Low rank: a linear or 1x1 convolution becomes two smaller ones where that is cheaper.

    model, config, record = factorise(model, config, runs, energy=0.95)

The error that counts is that of the output: with X^T X = L L^T of the layer's inputs, the truncated
SVD of W L, divided by L again, has the least |X (W - W')^T| of its rank (SVD-LLM, Wang et al. 2024,
arXiv 2403.07378). A pair of rank r has r (in + out) parameters and multiply-accumulates against
in * out: a layer whose pair is not cheaper stays whole. Ranks are multiples of the chip's tile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from autoneural.compress.derive import rebuild
from autoneural.compress.fake_quant import check_layers
from autoneural.compress.input_statistics import second_moments
from autoneural.compress.nmf import nmf_pair
from autoneural.compress.precision import PRECISIONS, Precision
from autoneural.compress.rank_choice import Candidate, by_budget, by_energy
from autoneural.compress.report import Run
from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.model.low_rank import Factorised, Layer, is_factorisable
from autoneural.model.vlm import VLM, num_parameters

Method = Literal["svd", "nmf"]
_DAMPING = 1e-6


@dataclass(frozen=True)
class _Spectrum:
    """Of one layer: its weight [O,I], L [I,I] of its inputs, and the SVD of W L."""

    weight_OI: Tensor
    lower_II: Tensor
    u_OK: Tensor
    s_K: Tensor
    v_KI: Tensor

    def svd_pair(self, rank: int) -> tuple[Tensor, Tensor]:
        """up [O,R] and down [R,I]; each middle channel's size is shared out between the two."""
        root_R = self.s_K[:rank].sqrt()
        down_RI = torch.linalg.solve_triangular(
            self.lower_II, self.v_KI[:rank], upper=False, left=False
        )
        return self.u_OK[:, :rank] * root_R, down_RI * root_R[:, None]

    def nmf_pair(self, rank: int) -> tuple[Tensor, Tensor]:
        """The same by NMF of W with its columns weighed by the size of their inputs."""
        size_I = self.lower_II.square().sum(1).sqrt()
        up_OR, down_RI = nmf_pair((self.weight_OI * size_I).float(), rank)
        return up_OR, down_RI / size_I

    def error(self, up_OR: Tensor, down_RI: Tensor) -> float:
        """RMS error of the layer's output, relative to the output."""
        off_OI = (up_OR.double() @ down_RI.double() - self.weight_OI) @ self.lower_II
        return float(off_OI.norm() / (self.weight_OI @ self.lower_II).norm().clamp_min(1e-30))


def factorise(
    model: VLM,
    config: ModelConfig,
    runs: Sequence[Run],
    *,
    rank: int | Mapping[str, int] | None = None,
    energy: float | None = None,
    budget: int | None = None,
    layers: Iterable[str] = ("language_model.model.layers.*",),
    method: Method = "svd",
    tile: int = 32,
    precision: Precision = PRECISIONS["w4a16"],
) -> tuple[VLM, ModelConfig, dict[str, Any]]:
    """A copy of float `model` with layers that match the globs `layers` as pairs.

    Exactly one of: `rank`, for all or by glob in place of `layers`; `energy`, the share of the
    output's energy over `runs` that every layer keeps; `budget`, bytes in `precision` for all
    matching layers together, spent where they buy the most energy. Ranks are rounded up to
    multiples of `tile`.
    The record is JSON-ready: for each layer rank (0: whole), relative output error, and that of an
    SVD of the same rank, which is the verdict on `nmf`. Raises UserError for a rank, energy or
    budget that cannot be, no runs, globs that match nothing, and a quantised model.
    """
    if sum(given is not None for given in (rank, energy, budget)) != 1:
        raise UserError("low rank: give one of rank, energy and budget")
    if method not in get_args(Method):
        raise UserError(f"method {method!r}: expected {' or '.join(get_args(Method))}")
    if tile < 1:
        raise UserError(f"tile {tile}: a tile has at least one channel")
    check_layers(model)
    globs = tuple(rank) if isinstance(rank, Mapping) else tuple(layers)
    chosen = _layers(model, globs)
    spectra = _spectra(model, chosen, runs)
    candidates = {
        path: Candidate(
            path=path, shape=tuple(s.weight_OI.shape), energies=s.s_K.square().tolist(), tile=tile
        )
        for path, s in spectra.items()
    }
    ranks = _ranks(candidates, rank, energy, budget, precision)
    small, facts = _with_pairs(model, config, spectra, ranks, method)
    record = {
        "method": method,
        "tile": tile,
        "samples": len(runs),
        "parameters": [num_parameters(model), num_parameters(small)],
        "layers": facts,
    }
    return small, small.config, record


def _layers(model: VLM, globs: Sequence[str]) -> dict[str, Layer]:
    found: dict[str, Layer] = {}
    for glob in globs:
        matching = {
            path: module
            for path, module in model.named_modules()
            if fnmatchcase(path, glob)
            and is_factorisable(path, module)
            and not _is_half(model, path)
        }
        if not matching:
            raise UserError(f"layers {glob}: no linear layer or 1x1 convolution is called so")
        found |= matching  # pyright: ignore[reportAssignmentType]
    return found


def _is_half(model: VLM, path: str) -> bool:
    return isinstance(model.get_submodule(path.rpartition(".")[0]), Factorised)


def _spectra(model: VLM, layers: Mapping[str, Layer], runs: Sequence[Run]) -> dict[str, _Spectrum]:
    moments = second_moments(model, layers, runs)
    spectra = {}
    for path, layer in layers.items():
        weight_OI = layer.weight.detach().double().flatten(1)
        lower_II = _cholesky(path, moments[path])
        u_OK, s_K, v_KI = torch.linalg.svd(weight_OI @ lower_II, full_matrices=False)
        spectra[path] = _Spectrum(weight_OI, lower_II, u_OK, s_K, v_KI)
    return spectra


def _cholesky(path: str, moment_II: Tensor) -> Tensor:
    # Channels that never varied, or fewer rows than channels, leave nothing to divide by.
    size = moment_II.diagonal().mean().clamp_min(1e-30)
    damped_II = moment_II + _DAMPING * size * torch.eye(len(moment_II)).to(moment_II)
    lower_II, failed = torch.linalg.cholesky_ex(damped_II)
    if failed or not torch.isfinite(lower_II).all():
        raise UserError(f"{path}: its inputs are not finite; the float model overflows here")
    return lower_II


def _ranks(
    candidates: Mapping[str, Candidate],
    rank: int | Mapping[str, int] | None,
    energy: float | None,
    budget: int | None,
    precision: Precision,
) -> dict[str, int]:
    """Path -> rank, 0 for whole."""
    if energy is not None:
        if not 0 < energy < 1:
            raise UserError(f"energy {energy}: not between 0 and 1, the share to keep")
        return {path: by_energy(c, energy) for path, c in candidates.items()}
    if budget is not None:
        return by_budget(candidates.values(), budget, precision)
    asked = rank if isinstance(rank, Mapping) else {"*": rank or 0}
    found = {}
    for path, candidate in candidates.items():
        wanted = next(r for glob, r in asked.items() if fnmatchcase(path, glob))
        most = min(candidate.shape)
        if wanted < 1:
            raise UserError(f"{path}: rank {wanted}: not a whole number from 1 up")
        if wanted > most:
            raise UserError(f"{path}: rank {wanted} is too high, its matrix has {most}")
        found[path] = candidate.usable(wanted)
    return found


def _with_pairs(
    model: VLM,
    config: ModelConfig,
    spectra: Mapping[str, _Spectrum],
    ranks: Mapping[str, int],
    method: Method,
) -> tuple[VLM, dict[str, dict[str, Any]]]:
    state, facts = dict(model.state_dict()), {}
    for path, spectrum in spectra.items():
        if not ranks[path]:
            facts[path] = {"rank": 0, "error": 0.0, "svd_error": 0.0}
            continue
        svd = spectrum.svd_pair(ranks[path])
        pair = svd if method == "svd" else spectrum.nmf_pair(ranks[path])
        facts[path] = {
            "rank": ranks[path],
            "error": spectrum.error(*pair),
            "svd_error": spectrum.error(*svd),
        }
        weight = state.pop(f"{path}.weight")
        extra = (1,) * (weight.ndim - 2)
        for half, matrix in zip(("up", "down"), pair, strict=True):
            state[f"{path}.{half}.weight"] = matrix.to(weight).reshape(*matrix.shape, *extra)
        if f"{path}.bias" in state:
            state[f"{path}.up.bias"] = state.pop(f"{path}.bias")
    config = replace(config, ranks={**config.ranks, **{p: r for p, r in ranks.items() if r}})
    return rebuild(model, config, state, "factorised model"), facts


def merge(
    model: VLM, config: ModelConfig, paths: Collection[str] | None = None
) -> tuple[VLM, ModelConfig, list[str]]:
    """A copy with pairs multiplied out again: the named ones, or all that are not cheaper.

    Computes what the pairs compute. For pairs that stopped paying when their layer was pruned, or
    that a chip does not run faster. Returns also the paths that were merged. Raises UserError for a
    path that is no pair, and a quantised model.
    """
    check_layers(model)
    pairs = {p: m for p, m in model.named_modules() if isinstance(m, Factorised)}
    unknown = [path for path in paths or () if path not in pairs]
    if unknown:
        raise UserError(f"{unknown[0]}: is not factorised; pairs: {', '.join(pairs) or 'none'}")
    merged = [p for p, pair in pairs.items() if (not _pays(pair) if paths is None else p in paths)]
    state = dict(model.state_dict())
    for path in merged:
        up, down = (state.pop(f"{path}.{half}.weight") for half in ("up", "down"))
        product_OI = (up.double().flatten(1) @ down.double().flatten(1)).to(up)
        state[f"{path}.weight"] = product_OI.reshape(*product_OI.shape, *up.shape[2:])
        if f"{path}.up.bias" in state:
            state[f"{path}.bias"] = state.pop(f"{path}.up.bias")
    config = replace(config, ranks={p: r for p, r in config.ranks.items() if p not in merged})
    return rebuild(model, config, state, "factorised model"), config, merged


def _pays(pair: Factorised) -> bool:
    """Fewer parameters, which is also fewer multiply-accumulates, than the layer it stands for."""
    outputs, inputs = pair.up.weight.shape[0], pair.down.weight.shape[1]
    return pair.rank * (outputs + inputs) < outputs * inputs
