"""A conversation with pictures -> what the model reads. One processor for training and runtime.

"<image>" in the rendered template -> <|image_start|> <image> * tokens_per_image <|image_end|>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from autoneural.data.image import ImageSource, Resize, load_image, to_pixels
from autoneural.data.messages import Message, image_parts, normalise_messages
from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError

IGNORE = -100


@dataclass(frozen=True)
class ModelInputs:
    """`input_ids` int64 [T]; `pixel_values` uint8 [N, 3, S, S], in the order of the images."""

    input_ids: np.ndarray
    pixel_values: np.ndarray


@dataclass(frozen=True)
class Processor:
    """Renders, tokenises, loads and resizes. The fields are what a bundle's manifest records."""

    tokenizer: Tokenizer
    image_size: int
    tokens_per_image: int
    resize: Resize = "squash"

    def __call__(
        self,
        messages: Sequence[Message],
        images: Sequence[ImageSource] | None = None,
        add_generation_prompt: bool = True,
        tools: Sequence[dict[str, Any] | str] | None = None,
    ) -> ModelInputs:
        """Inputs for `messages`. `images`, when given, fill the image parts in order.

        Raises UserError for a malformed message, an unreadable image or a wrong number of images.
        """
        conversation = normalise_messages(list(messages))
        sources = image_sources(conversation, images)
        text = self.tokenizer.apply_chat_template(conversation, add_generation_prompt, tools)
        token = self.tokenizer
        block = [token.image_start, *[token.image_id] * self.tokens_per_image, token.image_end]
        ids = expand_images(token.encode(text), token.image_id, [block] * len(sources))
        return ModelInputs(ids, self.pixels(sources))

    def training_example(
        self, messages: Sequence[Message], images: Sequence[ImageSource] | None = None
    ) -> tuple[ModelInputs, np.ndarray]:
        """Inputs and labels int64 [T]: assistant text and its `<|im_end|>`, -100 elsewhere."""
        inputs = self(messages, images, add_generation_prompt=False)
        return inputs, self.labels(inputs.input_ids)

    def labels(self, input_ids: np.ndarray) -> np.ndarray:
        """Labels of a tokenised conversation. Message texts cannot hold the ids searched for."""
        header = self.tokenizer.encode("<|im_start|>assistant\n")
        ends = np.flatnonzero(input_ids == self.tokenizer.eos_id)
        labels = np.full_like(input_ids, IGNORE)
        for start in np.flatnonzero(input_ids == self.tokenizer.turn_start):
            first = start + len(header)
            if list(input_ids[start:first]) == header:
                after = ends[np.searchsorted(ends, first)] + 1
                labels[first:after] = input_ids[first:after]
        return labels

    def pixels(self, sources: Sequence[ImageSource]) -> np.ndarray:
        """uint8 [N, 3, S, S] of N image sources; N may be 0."""
        out = np.empty((len(sources), 3, self.image_size, self.image_size), dtype=np.uint8)
        for slot, source in zip(out, sources, strict=True):
            slot[:] = self._pixels(source)
        return out

    def load(self, source: ImageSource) -> Image.Image:
        """The picture as the model sees it: what a conversation keeps, instead of a photograph."""
        return Image.fromarray(self._pixels(source).transpose(1, 2, 0))

    def _pixels(self, source: ImageSource) -> np.ndarray:
        # Twice the size leaves the bicubic filter enough to work with.
        image = load_image(source, min_size=2 * self.image_size)
        return to_pixels(image, self.image_size, self.resize)


def expand_images(ids: Sequence[int], image_id: int, blocks: Sequence[Sequence[int]]) -> np.ndarray:
    """`ids`, int64 [T], with the n-th image token replaced by the n-th block.

    Raises UserError when the chat template rendered more or fewer images than there are.
    """
    found = list(ids).count(image_id)
    if found != len(blocks):
        raise UserError(f"chat template: rendered {found} of {len(blocks)} images")
    rest = iter(blocks)
    flat: list[int] = []
    for i in ids:
        flat.extend(next(rest) if i == image_id else (i,))
    return np.array(flat, dtype=np.int64)


def image_sources(
    conversation: Sequence[Message], images: Sequence[ImageSource] | None
) -> list[ImageSource]:
    """`images`, or what the image parts hold, in order. UserError where one is missing."""
    parts = list(image_parts(conversation))
    if images is None:
        for number, part in enumerate(parts):
            if part["image"] is None:
                raise UserError(f"messages: image {number} has no picture; set its `image`")
        return [part["image"] for part in parts]
    if len(images) != len(parts):
        raise UserError(f"messages: {len(parts)} image parts but {len(images)} images given")
    return list(images)
