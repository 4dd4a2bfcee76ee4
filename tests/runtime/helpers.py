"""Short forms that the runtime tests share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from autoneural.data.messages import Message
from autoneural.runtime import Engine, Result


def answer(engine: Engine, messages: Sequence[Message], **options) -> Result:
    """The result of a whole generation."""
    generation = engine.generate(messages, **options)
    pieces = [piece.text for piece in generation]
    assert "".join(pieces) == generation.result.text
    assert all(pieces)
    return generation.result


def picture(seed: int, size: tuple[int, int] = (70, 50)) -> Image.Image:
    """A picture of coloured blocks, another one for every seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size)


def ask(text: str, *images: Image.Image) -> Message:
    """A user turn."""
    parts = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def reply(text: str) -> Message:
    """An assistant turn."""
    return {"role": "assistant", "content": text}


CONVERSATIONS = [
    [ask("what is it?", picture(1))],
    [ask("a red lamp is on.")],
    [ask("is it on? " * 6, picture(2), picture(3))],
    [ask("what?", picture(4)), reply("a lamp"), ask("is it red? 42")],
]
