"""White-box distillation: a student that computes what a float teacher computes.

    logits      T^2 KL(teacher || student) at temperature T, over the assistant's tokens
    labels      cross-entropy of the data's own answers, over the same tokens
    hidden      relative error of the hidden states behind each layer, at the same positions
    attention   KL of the attention maps, the rows of the same positions, mean over heads
    vision, projector   relative error of the visual tokens behind the encoder, the projector

Relative error is |s - t|^2 / |t|^2; where the widths differ, a linear map that is learned along and
thrown away takes s to the width of t. Hinton et al. 2015 (arXiv 1503.02531); hidden states and
attention: Jiao et al. 2020 (TinyBERT, arXiv 1909.10351); 0.99 KL + 0.01 CE is the usual start for
recovering from quantisation. Positions are those whose prediction is learned, so that every term
accumulates over batches exactly as the language loss does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoneural.config import ModelConfig
from autoneural.data.cells import BoxVocabulary
from autoneural.data.loader import Batch
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.train.curriculum import HEADS
from autoneural.train.loss import language_loss
from autoneural.train.objectives import answer_weights

TERMS = ("logits", "labels", "hidden", "attention", "vision", "projector")
_LAYERS = "language_model.model.layers"


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How much each term counts, at which temperature, and which layers answer to which."""

    logits: float = 0.99
    labels: float = 0.01
    hidden: float = 0.0
    attention: float = 0.0
    vision: float = 0.0
    projector: float = 0.0
    temperature: float = 1.0
    layers: tuple[int, ...] = ()
    """For each layer of the student the teacher's; empty: as far up in proportion."""

    def __post_init__(self) -> None:
        weights = [getattr(self, term) for term in TERMS]
        if not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
            raise UserError(
                f"distillation: weights of {', '.join(TERMS)}: expected numbers from 0 on, "
                "and one above it"
            )
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UserError(f"distillation: temperature {self.temperature}: expected more than 0")

    @property
    def looks_inside(self) -> bool:
        """Whether more is compared than logits."""
        return bool(self.hidden or self.attention or self.vision or self.projector)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for recipe.json."""
        return asdict(self) | {"layers": list(self.layers)}


class DistillObjective:
    """All terms of `how` over whole conversations; `student` is the config of what will train.

    `teacher` is a float model in eval mode, on the device of the training. Raises UserError when
    the two cannot be compared.
    """

    def __init__(
        self, student: ModelConfig, teacher: VLM, how: Distillation, image_token_id: int
    ) -> None:
        check_comparable(student, teacher.config, how)
        self._teacher, self._how, self._image_token_id = teacher, how, image_token_id
        self._layers = layer_pairs(student, teacher.config, how.layers) if how.hidden else []
        self._maps = _attention_pairs(student, teacher.config, how.layers) if how.attention else []
        self._linear = _linear_maps(student, teacher.config, how, len(self._layers))
        self.modules = nn.ModuleDict({HEADS: self._linear} if len(self._linear) else {})
        self.attributes: Mapping[str, tuple[str, ...]] | None = None
        self.boxes: BoxVocabulary | None = None
        self._means = _RunningMeans([term for term in TERMS if getattr(how, term)])
        self.buffers = {"means": self._means.sums}

    def normaliser(self, batch: Batch) -> Tensor:
        return answer_weights(batch).sum()

    def loss(self, model: VLM, batch: Batch) -> Tensor:
        weights_BT = answer_weights(batch)
        keep_BT = weights_BT > 0
        weights_K = weights_BT[keep_BT]
        own, hidden_BTD = self._forward(model, batch, 0)
        with torch.no_grad():
            theirs, expected_BTD = self._forward(self._teacher, batch, 1)
        terms = self._compare_inside(own, theirs, keep_BT, weights_K)
        logits_KV = model.language_model.lm_head(hidden_BTD[:, :-1][keep_BT])
        if self._how.labels:
            terms["labels"] = language_loss(logits_KV, batch.labels[:, 1:][keep_BT], weights_K)
        if self._how.logits:
            with torch.no_grad():
                expected_KV = self._teacher.language_model.lm_head(expected_BTD[:, :-1][keep_BT])
            divergence_K = kl_divergence(logits_KV, expected_KV, self._how.temperature)
            terms["logits"] = (divergence_K * weights_K).sum()
        self._means.update(terms, weights_K.sum())
        return _weighted(self._how, terms, hidden_BTD.device)

    def figures(self) -> dict[str, Any]:
        return self._means.read()

    def _forward(self, model: VLM, batch: Batch, side: int) -> tuple[dict[str, Tensor], Tensor]:
        """What is compared, by name, and the last hidden states; `side` 0 is the student's."""
        paths: dict[str, str] = {}
        for number, pair in enumerate(self._layers):
            paths[f"hidden.{number}"] = f"{_LAYERS}.{pair[side]}.ffn_add"
        for number, pair in enumerate(self._maps):
            paths[f"attention.{number}"] = f"{_LAYERS}.{pair[side]}.self_attn.softmax"
        if len(batch.pixel_values):
            paths |= {
                name: path
                for name, path in (("vision", "vision_encoder"), ("projector", "projector"))
                if getattr(self._how, name)
            }
        with _recorded(model, paths) as outputs:
            hidden_BTD = model.hidden_states(
                batch.input_ids, batch.pixel_values, self._image_token_id
            )
        return outputs, hidden_BTD

    def _compare_inside(
        self,
        own: Mapping[str, Tensor],
        theirs: Mapping[str, Tensor],
        keep_BT: Tensor,
        weights_K: Tensor,
    ) -> dict[str, Tensor]:
        """Each term as a sum that the weights' sum normalises."""
        terms: dict[str, Tensor] = {}
        for number in range(len(self._layers)):
            name = f"hidden.{number}"
            s_KD, t_KD = (side[name][:, :-1][keep_BT] for side in (own, theirs))
            error = (relative_error(self._mapped("hidden", s_KD, number), t_KD) * weights_K).sum()
            terms["hidden"] = terms.get("hidden", 0.0) + error / len(self._layers)
        for number in range(len(self._maps)):
            s_KhS, t_KhS = (_rows(side[f"attention.{number}"], keep_BT) for side in (own, theirs))
            error = (map_divergence(s_KhS, t_KhS) * weights_K).sum()
            terms["attention"] = terms.get("attention", 0.0) + error / len(self._maps)
        for name in ("vision", "projector"):
            if name in own:
                error = relative_error(self._mapped(name, own[name]), theirs[name])
                terms[name] = error.mean() * weights_K.sum()
        return terms

    def _mapped(self, name: str, x: Tensor, number: int | None = None) -> Tensor:
        key = name if number is None else f"{name}_{number}"
        return self._linear[key](x) if key in self._linear else x


class VisionDistillObjective:
    """The terms `vision` and `projector` alone, per picture: the decoder does not even run."""

    def __init__(self, student: ModelConfig, teacher: VLM, how: Distillation) -> None:
        if not (how.vision or how.projector):
            raise UserError("distillation of vision alone: give weight to vision or projector")
        check_comparable(student, teacher.config, how)
        self._teacher, self._how = teacher, how
        self._linear = _linear_maps(student, teacher.config, how, 0)
        self.modules = nn.ModuleDict({HEADS: self._linear} if len(self._linear) else {})
        self.attributes: Mapping[str, tuple[str, ...]] | None = None
        self.boxes: BoxVocabulary | None = None
        self._means = _RunningMeans([t for t in ("vision", "projector") if getattr(how, t)])
        self.buffers = {"means": self._means.sums}

    def normaliser(self, batch: Batch) -> Tensor:
        return torch.tensor(len(batch.pixel_values), device=batch.pixel_values.device)

    def loss(self, model: VLM, batch: Batch) -> Tensor:
        if not len(batch.pixel_values):
            return torch.zeros((), device=batch.pixel_values.device)
        pixels = batch.pixel_values.float().div(255).contiguous(memory_format=torch.channels_last)
        own = self._features(model, pixels)
        with torch.no_grad():
            theirs = self._features(self._teacher, pixels)
        terms = {
            name: relative_error(
                self._linear[name](own[name]) if name in self._linear else own[name], theirs[name]
            ).mean()
            * len(pixels)
            for name in own
        }
        self._means.update(terms, self.normaliser(batch))
        return _weighted(self._how, terms, pixels.device)

    def figures(self) -> dict[str, Any]:
        return self._means.read()

    def _features(self, model: VLM, pixels_BCHW: Tensor) -> dict[str, Tensor]:
        tokens_BNC = model.vision_encoder(pixels_BCHW)
        features = {"vision": tokens_BNC} if self._how.vision else {}
        if self._how.projector:
            features["projector"] = model.projector(tokens_BNC)
        return features


def kl_divergence(logits_KV: Tensor, expected_KV: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(expected / T) || softmax(logits / T)), [K]."""
    log_q, log_p = (F.log_softmax(x.float() / temperature, -1) for x in (logits_KV, expected_KV))
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1) * temperature**2


def relative_error(own: Tensor, theirs: Tensor) -> Tensor:
    """Mean square of (own - theirs) over the last dimension, in mean squares of all of theirs."""
    theirs = theirs.float()
    return (own.float() - theirs).square().mean(-1) / theirs.square().mean().clamp(min=1e-12)


def map_divergence(own_KhS: Tensor, theirs_KhS: Tensor) -> Tensor:
    """KL(theirs || own) of rows of attention, mean over heads [K]; other numbers of heads: of
    their mean."""
    if own_KhS.shape[1] != theirs_KhS.shape[1]:
        own_KhS, theirs_KhS = own_KhS.mean(1, keepdim=True), theirs_KhS.mean(1, keepdim=True)
    q, p = own_KhS.float().clamp(min=1e-7), theirs_KhS.float().clamp(min=1e-7)
    return (p * (p.log() - q.log())).sum(-1).mean(-1)


def layer_pairs(
    student: ModelConfig, teacher: ModelConfig, layers: Sequence[int] = ()
) -> list[tuple[int, int]]:
    """(student's layer, teacher's layer). UserError when `layers` is not one for each."""
    count, of = len(student.text.layer_types), len(teacher.text.layer_types)
    if not layers:
        layers = [-(-(i + 1) * of // count) - 1 for i in range(count)]
    if len(layers) != count or not all(0 <= layer < of for layer in layers):
        raise UserError(
            f"distillation: layers: expected {count} numbers from 0 to {of - 1}, one for each "
            "layer of the student"
        )
    return list(enumerate(layers))


def check_comparable(student: ModelConfig, teacher: ModelConfig, how: Distillation) -> None:
    """UserError when the terms of `how` cannot be computed between these two."""
    if student.text.vocab_size != teacher.text.vocab_size:
        raise UserError(
            f"distillation: the teacher's vocabulary has {teacher.text.vocab_size} entries, the "
            f"student's {student.text.vocab_size}; both need the same tokenizer"
        )
    own, theirs = ((c.vision.image_size, c.vision.num_tokens, c.resize) for c in (student, teacher))
    if own != theirs:
        raise UserError(
            f"distillation: the teacher sees pictures of {theirs[0]} px as {theirs[1]} tokens "
            f"({theirs[2]}), the student of {own[0]} px as {own[1]} ({own[2]}); they must agree"
        )
    if how.attention and not _attention_pairs(student, teacher, how.layers):
        raise UserError("distillation: attention: no layer of both is attention; leave it out")


def _attention_pairs(
    student: ModelConfig, teacher: ModelConfig, layers: Sequence[int]
) -> list[tuple[int, int]]:
    kinds = student.text.layer_types, teacher.text.layer_types
    pairs = layer_pairs(student, teacher, layers)
    return [(s, t) for s, t in pairs if kinds[0][s] == kinds[1][t] == "full_attention"]


def _linear_maps(
    student: ModelConfig, teacher: ModelConfig, how: Distillation, layers: int
) -> nn.ModuleDict:
    """A map for each compared output whose widths differ."""
    hidden = (student.text.hidden_size, teacher.text.hidden_size)
    widths = {f"hidden_{number}": hidden for number in range(layers)}
    if how.vision:
        widths["vision"] = (student.vision.out_channels, teacher.vision.out_channels)
    if how.projector:
        widths["projector"] = hidden
    return nn.ModuleDict(
        {name: nn.Linear(a, b, bias=False) for name, (a, b) in widths.items() if a != b}
    )


def _weighted(how: Distillation, terms: Mapping[str, Tensor], device: torch.device) -> Tensor:
    loss = torch.zeros((), device=device)
    for name, term in terms.items():
        loss = loss + getattr(how, name) * term
    return loss


def _rows(map_BhTS: Tensor, keep_BT: Tensor) -> Tensor:
    """[K,h,S]: the rows of the positions kept."""
    return map_BhTS.transpose(1, 2)[:, :-1][keep_BT]


@contextmanager
def _recorded(model: nn.Module, paths: Mapping[str, str]) -> Iterator[dict[str, Tensor]]:
    """Name -> output of the module at its path, of the forward that runs inside."""
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: outputs.__setitem__(name, output)

    handles = [
        model.get_submodule(path).register_forward_hook(record(name))
        for name, path in paths.items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


class _RunningMeans:
    """Decaying means of the terms; `sums` [terms + 1] is all they remember."""

    def __init__(self, names: Sequence[str], decay: float = 0.98) -> None:
        self._names, self._decay = names, decay
        self.sums = torch.zeros(len(names) + 1)

    @torch.no_grad()
    def update(self, terms: Mapping[str, Tensor], weight: Tensor) -> None:
        now = [terms[name].float() if name in terms else weight * 0.0 for name in self._names]
        self.sums.mul_(self._decay).add_(torch.stack([*now, weight.float()]).to(self.sums))

    def read(self) -> dict[str, float]:
        *sums, weight = self.sums.tolist()
        return {name: s / weight for name, s in zip(self._names, sums, strict=True) if weight}
