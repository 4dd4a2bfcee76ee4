"""A PyTorch model as an answerer of `quality`: greedy, questions of one length at a time.

Padding would make an answer depend on its neighbours through the short convolutions, so only
prompts of equal length share a batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from autoneural.bench.answer_bundle import MAX_TOKENS
from autoneural.bench.quality import Item
from autoneural.checkpoint import find_checkpoint, load_checkpoint, load_weights
from autoneural.compress.quantize import load_quantized
from autoneural.data.processor import ModelInputs, Processor
from autoneural.data.tokenizer import Tokenizer
from autoneural.model.state import DecoderState
from autoneural.model.vlm import VLM

BATCH = 16
WINDOW = 256  # questions looked at together; larger finds fuller batches, smaller answers sooner


class ModelAnswerer:
    """Answers with a float model, or with one whose modules are wrapped in fake quantisation."""

    def __init__(self, model: VLM, processor: Processor) -> None:
        self._model = model.eval()
        self._processor = processor

    def answer(self, items: Sequence[Item]) -> Iterator[str]:
        """Greedy answers in the order of the items."""
        for start in range(0, len(items), WINDOW):
            window = [self._processor(item.messages) for item in items[start : start + WINDOW]]
            answers = [""] * len(window)
            for indices in _batches(window):
                tokens = self._generate([window[i] for i in indices])
                for i, ids in zip(indices, tokens, strict=True):
                    answers[i] = self._processor.tokenizer.decode(ids)
            yield from answers

    @torch.inference_mode()
    def _generate(self, batch: list[ModelInputs]) -> list[list[int]]:
        """Ids without the closing one; `VLM.generate` for prompts of one length."""
        model, tokenizer = self._model.language_model, self._processor.tokenizer
        ids_BT = torch.from_numpy(np.stack([inputs.input_ids for inputs in batch]))
        pixels_BCHW = torch.from_numpy(np.concatenate([inputs.pixel_values for inputs in batch]))
        embeds_BTD = self._model.embed(ids_BT, pixels_BCHW, tokenizer.image_id)
        length = ids_BT.shape[1]
        state = DecoderState.zeros(self._model.config.text, len(batch), length + MAX_TOKENS)
        hidden_BTD = model.extend(embeds_BTD, state, 0, length)
        columns: list[torch.Tensor] = []
        done_B = torch.zeros(len(batch), dtype=torch.bool)
        while len(columns) < MAX_TOKENS:
            token_B = model.lm_head(hidden_BTD[:, -1]).argmax(-1)
            columns.append(token_B)
            done_B |= token_B == tokenizer.eos_id
            if bool(done_B.all()):
                break
            embed_BTD = model.model.embed_tokens(token_B)[:, None]
            hidden_BTD = model.extend(embed_BTD, state, length + len(columns) - 1, 1)
        rows = torch.stack(columns, dim=1).tolist()
        return [_until(row, tokenizer.eos_id) for row in rows]


def load_answerer(name: str) -> ModelAnswerer:
    """An answerer of the checkpoint called `name`."""
    model, tokenizer = load_model(name), Tokenizer.load(find_checkpoint(name))
    return ModelAnswerer(model, Processor.of(tokenizer, model.config))


def load_model(name: str) -> VLM:
    """The checkpoint's model: float in fp32, or quantised as its QDQ graphs compute."""
    checkpoint = load_checkpoint(name)
    if checkpoint.encodings is not None:
        return load_quantized(name)
    model = VLM(checkpoint.config)
    load_weights(model, checkpoint.state_dict, find_checkpoint(name))
    return model


def _batches(window: Sequence[ModelInputs]) -> Iterator[list[int]]:
    """Indices of at most BATCH prompts that have the same length and picture count."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, inputs in enumerate(window):
        groups[len(inputs.input_ids), len(inputs.pixel_values)].append(index)
    for group in groups.values():
        for start in range(0, len(group), BATCH):
            yield group[start : start + BATCH]


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids
