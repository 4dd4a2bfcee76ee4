"""What a stage minimises. The trainer knows only this protocol, so that quantisation-aware training
and distillation can bring objectives of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autoneural.config import VisionConfig
from autoneural.data.cells import CELL, BoxVocabulary
from autoneural.data.loader import Batch
from autoneural.model.vlm import VLM, Pictures
from autoneural.train.curriculum import HEADS
from autoneural.train.loss import (
    IGNORE,
    attribute_loss,
    cell_loss,
    language_loss,
    token_weights,
)
from autoneural.train.vision_heads import AttributeHeads, CellHead, RunningAccuracy


class Objective(Protocol):
    """Loss of a batch as a sum, its normaliser, and what to show beside it."""

    modules: nn.ModuleDict
    """Modules that train along and are thrown away after the stage."""
    buffers: dict[str, Tensor]
    """Other tensors that an exact resume needs."""

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]] | None:
        """Attribute vocabulary asked of the loader."""
        ...

    @property
    def boxes(self) -> BoxVocabulary | None:
        """Labels and names of boxes asked of the loader."""
        ...

    def normaliser(self, batch: Batch) -> Tensor: ...

    def loss(self, model: VLM, batch: Batch) -> Tensor: ...

    def figures(self) -> dict[str, Any]: ...


class LanguageObjective:
    """Next-token loss over the assistant's tokens. `see` turns pixels into what the model is given;
    without it that is the pixels."""

    def __init__(
        self, image_token_id: int, see: Callable[[Tensor], Pictures] | None = None
    ) -> None:
        self.modules = nn.ModuleDict()
        self.buffers: dict[str, Tensor] = {}
        self.attributes: Mapping[str, tuple[str, ...]] | None = None
        self.boxes: BoxVocabulary | None = None
        self._image_token_id, self._see = image_token_id, see

    def normaliser(self, batch: Batch) -> Tensor:
        return answer_weights(batch).sum()

    def loss(self, model: VLM, batch: Batch) -> Tensor:
        pictures = batch.pixel_values if self._see is None else self._see(batch.pixel_values)
        hidden_BTD = model.hidden_states(batch.input_ids, pictures, self._image_token_id)
        weights_BT = answer_weights(batch)
        keep_BT = weights_BT > 0
        logits_KV = model.language_model.lm_head(hidden_BTD[:, :-1][keep_BT])
        return language_loss(logits_KV, batch.labels[:, 1:][keep_BT], weights_BT[keep_BT])

    def figures(self) -> dict[str, Any]:
        return {}


class VisionObjective:
    """Every attribute of every picture, and every box in its place, read off the encoder by heads.

    `vocabulary` is that of the attributes; there may be no boxes.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, tuple[str, ...]],
        boxes: BoxVocabulary,
        vision: VisionConfig,
    ) -> None:
        classes = [len(values) for values in vocabulary.values()]
        self.attributes, self.boxes = vocabulary, boxes if boxes.labels else None
        channels, tokens = vision.out_channels, vision.num_tokens
        self._heads = nn.ModuleDict({"attributes": AttributeHeads(classes, channels, tokens)})
        if boxes.labels:
            cells = vision.image_size // CELL
            self._heads["labels"] = CellHead(len(boxes.labels), channels, tokens, cells)
            self._heads["names"] = CellHead(len(boxes.names), channels, tokens, cells)
        self.modules = nn.ModuleDict({HEADS: self._heads})
        self._accuracy = RunningAccuracy(tuple(vocabulary))
        self._found = RunningAccuracy(("boxes",))
        self.buffers = {"accuracy": self._accuracy.counts, "found": self._found.counts}

    def normaliser(self, batch: Batch) -> Tensor:
        return (_targets(batch) != IGNORE).sum() + (batch.cells >= 0).sum()

    def loss(self, model: VLM, batch: Batch) -> Tensor:
        targets_BA = _targets(batch)
        pixels = batch.pixel_values.float().div(255).contiguous(memory_format=torch.channels_last)
        tokens_BNC = model.vision_encoder(pixels)
        logits_BAK = self._heads["attributes"](tokens_BNC)
        self._accuracy.update(logits_BAK, targets_BA)
        loss = attribute_loss(logits_BAK, targets_BA)
        if self.boxes is not None:
            labels_BGG, names_BGG = batch.cells.unbind(1)
            logits_BGGK = self._heads["labels"](tokens_BNC)
            held = labels_BGG >= 0
            self._found.update(logits_BGGK[held][:, None], labels_BGG[held][:, None])
            loss = loss + cell_loss(logits_BGGK, labels_BGG)
            loss = loss + cell_loss(self._heads["names"](tokens_BNC), names_BGG)
        return loss

    def figures(self) -> dict[str, Any]:
        return {"accuracy": self._accuracy.read() | self._found.read()}


def answer_weights(batch: Batch) -> Tensor:
    """Weight [B, T-1] of the prediction made at each position, hot spots included."""
    return token_weights(batch.labels) * batch.weights[:, 1:]


def _targets(batch: Batch) -> Tensor:
    return torch.stack(list(batch.targets.values()), dim=1)
