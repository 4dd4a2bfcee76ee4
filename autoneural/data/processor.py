"""A conversation with pictures -> what the model reads. One processor for training and runtime.

"<image>" in the rendered template -> <|image_start|> <image> * tokens_per_image <|image_end|>;
a picture that is cut into tiles has a block of tokens for each, see `tiles`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from autoneural.config import ModelConfig, Resize, TilingConfig
from autoneural.data.image import ImageSource, load_image, to_pixels
from autoneural.data.messages import Message, image_parts, normalise_messages
from autoneural.data.tiles import Tiles, cut, image_tokens, num_tokens
from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError

IGNORE = -100


@dataclass(frozen=True)
class ModelInputs:
    """`input_ids` int64 [T]; `pixel_values` uint8 [N, 3, S, S], in the order of their tokens."""

    input_ids: np.ndarray
    pixel_values: np.ndarray


@dataclass(frozen=True)
class Processor:
    """Renders, tokenises, loads and resizes. The fields are what a bundle's manifest records."""

    tokenizer: Tokenizer
    image_size: int
    tokens_per_image: int
    resize: Resize = "squash"
    tiling: TilingConfig | None = None
    """How pictures are cut where `resize` is "tile"."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, config: ModelConfig) -> Processor:
        """What turns conversations into the inputs of a model of `config`."""
        vision = config.vision
        return cls(tokenizer, vision.image_size, vision.num_tokens, config.resize, config.tiling)

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
        tiles = [self._tiles(source) for source in sources]
        counts = [[self.tokens_per_image] * len(t.pictures) for t in tiles]
        return ModelInputs(_ids(text, tiles, counts, self.tokenizer), self._stack(tiles))

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
        """uint8 [N, 3, S, S] of image sources: one each, or as many as it has tiles."""
        return self._stack([self._tiles(source) for source in sources])

    def load(self, source: ImageSource) -> Image.Image:
        """The picture as the model sees it, which a conversation keeps instead of a photograph.

        What is cut into tiles stays whole: how it is cut depends on its size.
        """
        if self.resize == "tile":
            return load_image(source)
        return Image.fromarray(self._tiles(source).pictures[0].transpose(1, 2, 0))

    def _tiles(self, source: ImageSource) -> Tiles:
        if self.resize == "tile" and self.tiling is not None:
            return cut(load_image(source), self.tiling, square=True)
        # Twice the size leaves the bicubic filter enough to work with.
        image = load_image(source, min_size=2 * self.image_size)
        return Tiles(pictures=(to_pixels(image, self.image_size, self.resize == "pad"),))

    def _stack(self, tiles: Sequence[Tiles]) -> np.ndarray:
        pictures = [picture for each in tiles for picture in each.pictures]
        empty = np.empty((0, 3, self.image_size, self.image_size), dtype=np.uint8)
        return np.stack(pictures) if pictures else empty


@dataclass(frozen=True, kw_only=True)
class TiledInputs:
    """`input_ids` int64 [T]; `pictures` uint8 [3,H,W] each, in the order of their tokens."""

    input_ids: np.ndarray
    pictures: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class TilingProcessor:
    """`Processor` for a model whose positions follow the picture: nothing is made square."""

    tokenizer: Tokenizer
    tiling: TilingConfig

    def __call__(
        self,
        messages: Sequence[Message],
        images: Sequence[ImageSource] | None = None,
        add_generation_prompt: bool = True,
        tools: Sequence[dict[str, Any] | str] | None = None,
    ) -> TiledInputs:
        """Inputs for `messages`. `images`, when given, fill the image parts in order.

        Raises UserError for a malformed message, an unreadable image, a wrong number of images, or
        a tokenizer without the tokens of rows and columns that a cut picture needs.
        """
        conversation = normalise_messages(list(messages))
        sources = image_sources(conversation, images)
        text = self.tokenizer.apply_chat_template(conversation, add_generation_prompt, tools)
        tiles = [cut(load_image(source), self.tiling) for source in sources]
        counts = [num_tokens(t, self.tiling) for t in tiles]
        return TiledInputs(
            input_ids=_ids(text, tiles, counts, self.tokenizer),
            pictures=tuple(picture for t in tiles for picture in t.pictures),
        )


def _ids(
    text: str, tiles: Sequence[Tiles], counts: Sequence[Sequence[int]], tokenizer: Tokenizer
) -> np.ndarray:
    """Ids of a rendered conversation, int64 [T]; picture n has `counts[n]` tokens per tile."""
    blocks = [image_tokens(t, n, tokenizer) for t, n in zip(tiles, counts, strict=True)]
    return expand_images(tokenizer.encode(text), tokenizer.image_id, blocks)


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
