"""Perplexity of answers: how surprised a model is by what it should have said.

    perplexity   exp(sum of -log p(token) / tokens), over the answers of whole conversations, each
                 token after the pictures and the words before it
    increase     perplexity of one model over that of another on the same rows, less one; its 95 %
                 interval is that of a ratio of sums over rows (the delta method), because the
                 tokens of one row are no independent draws

Any checkpoint that reads the same answers as the same tokens can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from autoneural.bench.answer_checkpoint import load_model
from autoneural.bench.scoring import Z95
from autoneural.checkpoint import find_checkpoint
from autoneural.compress.divergence import answer_logits
from autoneural.compress.quantize import Sample
from autoneural.config import ModelConfig
from autoneural.data.cockpit import Row
from autoneural.data.loader import fit
from autoneural.data.processor import IGNORE, Processor
from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.recipes.quantizing import to_sample


@dataclass(frozen=True, kw_only=True)
class RowLoss:
    """One conversation: the sum of -log p of its `tokens` answer tokens, in nats."""

    id: str
    nats: float
    tokens: int


def row_samples(folder: str | Path, config: ModelConfig, rows: Sequence[Row]) -> list[Sample]:
    """The rows as the checkpoint in `folder` reads them; what is too long loses its last turns."""
    tokenizer = Tokenizer.load(find_checkpoint(folder))
    processor = Processor.of(tokenizer, config)
    limit = config.text.max_position_embeddings
    examples = (processor.training_example(row["messages"]) for row in rows)
    return [to_sample(*fit(*e, processor, limit), tokenizer.image_id) for e in examples]


@torch.inference_mode()
def row_losses(
    model: VLM,
    rows: Sequence[Row],
    samples: Sequence[Sample],
    on_row: Callable[[], None] = lambda: None,
) -> list[RowLoss]:
    """The loss of every row, of which the model reads `samples`. Calls `on_row` for each."""
    losses = []
    for row, sample in zip(rows, samples, strict=True):
        assert sample.labels_BT is not None
        labels_T = sample.labels_BT[0, 1:]
        labels_A1 = labels_T[labels_T != IGNORE][:, None]
        log_p_AV = answer_logits(model, sample).double().log_softmax(-1)
        nats = -float(log_p_AV.gather(-1, labels_A1).sum())
        losses.append(RowLoss(id=str(row["id"]), nats=nats, tokens=len(labels_A1)))
        on_row()
    return losses


def perplexity(losses: Sequence[RowLoss]) -> float:
    """exp of the mean nats per token. UserError where there is no token."""
    tokens = sum(loss.tokens for loss in losses)
    if not tokens:
        raise UserError("perplexity: no rows with answers")
    return math.exp(sum(loss.nats for loss in losses) / tokens)


def paired_increase(a: Sequence[RowLoss], b: Sequence[RowLoss]) -> dict[str, Any]:
    """How much higher `b` is than `a`, in per cent, with its 95 % interval.

    Raises UserError where the two are not of the same rows in the same tokens.
    """
    if [(x.id, x.tokens) for x in a] != [(y.id, y.tokens) for y in b]:
        raise UserError("perplexity: the two read other rows, or split them into other tokens")
    before, after = perplexity(a), perplexity(b)
    tokens, rows = sum(x.tokens for x in a), len(a)
    mean = math.log(after / before)
    spread = sum((y.nats - x.nats - mean * x.tokens) ** 2 for x, y in zip(a, b, strict=True))
    half = Z95 * math.sqrt(spread * rows / max(rows - 1, 1)) / tokens if rows > 1 else math.inf
    return {
        "perplexity": [before, after],
        "increase": _per_cent(mean),
        "ci95": [_per_cent(mean - half), _per_cent(mean + half)],
    }


def _per_cent(nats: float) -> float:
    return 100 * math.expm1(nats) if nats < 700 else math.inf


def measure_perplexity(
    checkpoints: Sequence[str],
    rows: Sequence[Row],
    on_row: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Every checkpoint on the same rows, compared with the first one.

    {"rows", "tokens", "checkpoints": [{"name", "perplexity", "increase", "ci95"}, ...]}: the first
    has no increase. `on_row` is called for each row of each. Raises UserError naming a checkpoint
    that cannot be read.
    """
    found: list[list[RowLoss]] = []
    for name in checkpoints:
        model = load_model(name)
        found.append(row_losses(model, rows, row_samples(name, model.config, rows), on_row))
    table: list[dict[str, Any]] = []
    for name, losses in zip(checkpoints, found, strict=True):
        pair = paired_increase(found[0], losses) if table else {"increase": None, "ci95": None}
        table.append({"name": name, **pair, "perplexity": perplexity(losses)})
    tokens = sum(loss.tokens for loss in found[0])
    return {"rows": len(rows), "tokens": tokens, "checkpoints": table}


def print_perplexity(report: dict[str, Any], console: Console) -> None:
    """One line per checkpoint."""
    table = Table(title=f"{report['tokens']} answer tokens of {report['rows']} conversations")
    table.add_column("checkpoint", overflow="fold")
    for name in ("perplexity", "increase", "95 % interval"):
        table.add_column(name, justify="right")
    for row in report["checkpoints"]:
        increase = interval = "-"
        if row["increase"] is not None:
            increase = f"{row['increase']:+.2f} %"
            interval = " to ".join(f"{edge:+.2f}" for edge in row["ci95"])
        table.add_row(row["name"], f"{row['perplexity']:.4f}", increase, interval)
    console.print(table)
