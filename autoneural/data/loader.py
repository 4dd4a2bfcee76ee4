"""Mixture -> batches of tensors, built by threads in an order that never depends on them.

Threads, not processes: Pillow's decoder and the tokenizer run without Python's lock. Sequences are
padded on the right (causal models need no mask for that) to a multiple of 32, because every new
length makes oneDNN plan its kernels again.

B batch, T tokens, N images of the batch, S image size.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from autoneural.data.cells import BoxVocabulary, cell_targets
from autoneural.data.dataset import Mixture
from autoneural.data.hotspots import Hotspots, answer_weights, label_weights
from autoneural.data.messages import image_parts
from autoneural.data.processor import IGNORE, ModelInputs, Processor
from autoneural.errors import UserError

AttributeVocabulary = Mapping[str, tuple[str, ...]]
PAD_MULTIPLE = 32


@dataclass(frozen=True)
class Batch:
    """`input_ids`, `labels` int64 [B, T]; `pixel_values` uint8 [N, 3, S, S]; `targets` int64 [N].

    `targets` holds one entry per name of the attribute vocabulary: the index of the value, or -100
    where the image's row does not say. `cells` int64 [N, 2, G, G] is what stands where
    (`autoneural.data.cells`). `weights` float32 [B, T] is how much each label counts
    (`autoneural.data.hotspots`). Labels are not shifted.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    pixel_values: torch.Tensor
    targets: dict[str, torch.Tensor]
    cells: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class Example:
    """One row, ready for a batch: `targets` int64 per attribute, [N] for its N images, `cells`,
    and how much each label counts, float32 [T]."""

    inputs: ModelInputs
    labels: np.ndarray
    targets: dict[str, np.ndarray]
    cells: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Largest relative change of brightness, contrast and gamma, each drawn per image."""

    brightness: float = 0.2
    contrast: float = 0.2
    gamma: float = 0.2

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 in, uint8 out, one look-up table per call."""
        brightness, contrast, gamma = rng.uniform(-1, 1, 3)
        curve = np.linspace(0, 1, 256) ** (1 + self.gamma * gamma)
        curve = (curve - 0.5) * (1 + self.contrast * contrast) + 0.5
        curve *= 1 + self.brightness * brightness
        return np.rint(curve.clip(0, 1) * 255).astype(np.uint8)[pixels]


@dataclass(frozen=True, kw_only=True)
class BatchStream:
    """Endless batches of a mixture from sample `start` on: `for position, batch in stream`.

    `position` is the number of samples consumed so far, batch included: a run that saves it and
    later starts there reads on exactly. A row longer than `max_length` tokens loses its last
    turns; image tokens are never cut. `attributes` (name -> values) asks for `Batch.targets`,
    `boxes` for `Batch.cells`, `hotspots` for `Batch.weights` other than 1. Of `ranks` processes
    that share a batch, number `rank` builds its own rows of it.
    Errors of the workers, such as an unreadable image, are raised here.
    """

    mixture: Mixture
    processor: Processor
    batch_size: int
    start: int = 0
    max_length: int = 1024
    prefetch: int = 4
    workers: int = 1
    attributes: AttributeVocabulary | None = None
    boxes: BoxVocabulary | None = None
    jitter: Jitter | None = None
    hotspots: Hotspots = field(default_factory=dict)
    rank: int = 0
    ranks: int = 1

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="batch")
        pending: collections.deque[Future[Batch]] = collections.deque()
        position = queued = self.start
        try:
            while True:
                while len(pending) <= self.prefetch:
                    pending.append(pool.submit(self.batch, queued))
                    queued += self.batch_size
                batch = pending.popleft().result()
                position += self.batch_size
                yield position, batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def batch(self, position: int) -> Batch:
        """The batch whose first sample is `position`, built here and now."""
        first, end = (self.batch_size * r // self.ranks for r in (self.rank, self.rank + 1))
        examples = [self.example(position + i) for i in range(first, end)]
        return collate(examples, self.processor.tokenizer.pad_id, self.max_length)

    def example(self, position: int) -> Example:
        """The sample at `position`: the same at any time, in any thread."""
        row = self.mixture.row(position)
        try:
            inputs, labels = self.processor.training_example(row["messages"])
            inputs, labels = fit(inputs, labels, self.processor, self.max_length)
            kept = len(inputs.pixel_values)
            targets = attribute_targets(row, self.attributes or {}, kept)
            known = self.boxes or BoxVocabulary()
            size = self.processor.image_size
            cells = cell_targets(row if self.boxes else {}, known, kept, size)
        except UserError as error:
            source, number = self.mixture.locate(position)
            raise UserError(f"{self.mixture.sources[source].name}[{number}]: {error}") from error
        if self.jitter is not None and kept:
            rng = np.random.default_rng((self.mixture.seed, position))
            pixels = np.stack([self.jitter(image, rng) for image in inputs.pixel_values])
            inputs = ModelInputs(inputs.input_ids, pixels)
        answers = answer_weights(row, self.hotspots)
        weights = label_weights(labels, answers, self.processor.tokenizer.eos_id)
        return Example(inputs, labels, targets, cells, weights)


def fit(
    inputs: ModelInputs, labels: np.ndarray, processor: Processor, max_length: int
) -> tuple[ModelInputs, np.ndarray]:
    """At most `max_length` tokens: trailing turns go first, then the end of the first answer.

    Raises UserError when not even one token of an answer fits behind the prompt.
    """
    ids = inputs.input_ids
    if len(ids) <= max_length:
        return inputs, labels
    answers = np.flatnonzero(labels == processor.tokenizer.eos_id)
    whole = answers[answers < max_length]
    cut = int(whole[-1]) + 1 if len(whole) else max_length
    if (labels[:cut] == IGNORE).all():
        need = int(np.flatnonzero(labels != IGNORE)[0]) + 1
        raise UserError(f"messages: needs {need} tokens up to its first answer, not {max_length}")
    images = np.count_nonzero(ids[:cut] == processor.tokenizer.image_start)
    return ModelInputs(ids[:cut], inputs.pixel_values[:images]), labels[:cut]


def attribute_targets(
    row: Mapping[str, Any], vocabulary: AttributeVocabulary, num_images: int
) -> dict[str, np.ndarray]:
    """Class indices of the row's `attributes` for each image; -100 where it has none."""
    given: Mapping[str, str] = row.get("attributes") or {}
    if given and vocabulary and len(list(image_parts(row["messages"]))) != 1:
        raise UserError("attributes: only a row with one image can have them")
    targets = {name: np.full(num_images, IGNORE, dtype=np.int64) for name in vocabulary}
    for name in targets.keys() & given.keys():
        if given[name] not in vocabulary[name]:
            allowed = ", ".join(vocabulary[name])
            raise UserError(f"attributes.{name}: {given[name]!r} is not one of {allowed}")
        targets[name][:] = vocabulary[name].index(given[name])
    return targets


def collate(examples: Sequence[Example], pad_id: int, max_length: int | None = None) -> Batch:
    """Stack examples: right padding to a multiple of 32 tokens (to `max_length` at most)."""
    longest = max(len(example.labels) for example in examples)
    width = -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE
    if max_length is not None:
        width = max(longest, min(width, max_length))
    ids = np.full((len(examples), width), pad_id, dtype=np.int64)
    labels = np.full((len(examples), width), IGNORE, dtype=np.int64)
    weights = np.ones((len(examples), width), dtype=np.float32)
    for row, example in enumerate(examples):
        ids[row, : len(example.labels)] = example.inputs.input_ids
        labels[row, : len(example.labels)] = example.labels
        weights[row, : len(example.labels)] = example.weights
    pixels = np.concatenate([example.inputs.pixel_values for example in examples])
    targets = {
        name: torch.from_numpy(np.concatenate([example.targets[name] for example in examples]))
        for name in examples[0].targets
    }
    cells = torch.from_numpy(np.concatenate([example.cells for example in examples]))
    ids_BT, labels_BT, images = (torch.from_numpy(array) for array in (ids, labels, pixels))
    return Batch(ids_BT, labels_BT, images, targets, cells, torch.from_numpy(weights))


def with_blank(batch: Batch, processor: Processor) -> Batch:
    """`batch`, which has no picture, and a row with a grey one and nothing to learn from."""
    size, tokens = processor.image_size, processor.tokens_per_image
    rows, width = batch.input_ids.shape
    more = max(0, tokens - width)

    def padded(tensor_BT: torch.Tensor, value: float) -> torch.Tensor:
        return torch.nn.functional.pad(tensor_BT, (0, more, 0, 1), value=value)

    ids_BT = padded(batch.input_ids, processor.tokenizer.pad_id)
    ids_BT[rows, :tokens] = processor.tokenizer.image_id
    return Batch(
        ids_BT,
        padded(batch.labels, IGNORE),
        batch.pixel_values.new_full((1, 3, size, size), 127),
        {name: known.new_full((1,), IGNORE) for name, known in batch.targets.items()},
        batch.cells.new_full((1, *batch.cells.shape[1:]), IGNORE),
        padded(batch.weights, 1.0),
    )
