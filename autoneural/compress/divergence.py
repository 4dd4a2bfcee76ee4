"""How far the answers of a changed model are from those of the model it came from.

    nats       mean over answer tokens of KL(p || q) = sum p (log p - log q), p the original's
    agreement  mean share of the original's 5 likeliest tokens among the other's 5 likeliest
    sqnr_db    of the logits, 10 log10(sum l^2 / sum (l' - l)^2)

Read where answers are: at the positions whose next token is one of an answer's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from autoneural.compress.quantize import Sample
from autoneural.errors import UserError
from autoneural.model.vlm import VLM

TOP = 5
_IGNORE = -100


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """`nats` per token, `agreement` from 0 to 1; `sqnr_db` is infinite where nothing changed."""

    nats: float
    agreement: float
    sqnr_db: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; an infinite SQNR is null."""
        found = asdict(self)
        return found if math.isfinite(self.sqnr_db) else {**found, "sqnr_db": None}


@torch.inference_mode()
def answer_logits(model: VLM, sample: Sample) -> Tensor:
    """Logits [A, V] that predict the A tokens of the sample's answers; all of them without labels.

    Raises UserError where the sample has labels and no answer.
    """
    hidden_BTD = model.hidden_states(sample.input_ids_BT, sample.pixels_BCHW, sample.image_token_id)
    hidden_AD = hidden_BTD[0, :-1]
    if sample.labels_BT is not None:
        hidden_AD = hidden_AD[sample.labels_BT[0, 1:] != _IGNORE]
    if len(hidden_AD) == 0:
        raise UserError("calibration: a sample without an answer; give rows with assistant turns")
    return model.language_model.lm_head(hidden_AD).float()


@torch.inference_mode()
def divergence(reference: Sequence[Tensor], found: Iterable[Tensor]) -> Divergence:
    """Of all tokens of all samples, each sample's logits [A, V] in one tensor."""
    tokens = nats = shared = signal = noise = 0.0
    for l_AV, m_AV in zip(reference, found, strict=True):
        p_AV, q_AV = l_AV.double().log_softmax(-1), m_AV.double().log_softmax(-1)
        tokens += len(l_AV)
        nats += float((p_AV.exp() * (p_AV - q_AV)).sum())
        top_A51, other_A15 = l_AV.topk(TOP).indices[..., None], m_AV.topk(TOP).indices[:, None]
        shared += float((top_A51 == other_A15).sum()) / TOP
        signal += float(l_AV.double().square().sum())
        noise += float((m_AV.double() - l_AV.double()).square().sum())
    return Divergence(
        nats=max(nats / tokens, 0.0),
        agreement=shared / tokens,
        sqnr_db=10 * math.log10(signal / noise) if noise else math.inf,
    )
