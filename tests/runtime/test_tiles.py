"""A picture cut into tiles, from the conversation to the answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tokenizers
from PIL import Image
from tokenizers import AddedToken

from autoneural.bundle import Bundle
from autoneural.config import TilingConfig
from autoneural.data.processor import Processor
from autoneural.data.tokenizer import Tokenizer, train_tokenizer
from autoneural.errors import UserError
from autoneural.runtime.engine import Engine
from tests.data.test_tiles import noise
from tests.runtime.helpers import answer, ask, reply

TILING = TilingConfig(tile_size=64, min_image_tokens=1, max_image_tokens=4, max_tiles=4)
"""Of the tiny model: 64 px, a token per 32 px."""


@pytest.fixture
def engine(tiny_bundle: Bundle) -> Engine:
    """The tiny model as if it had been made for tiles, with a token for each."""
    plain = train_tokenizer(["what is it? a red lamp is on."] * 4, 300)
    backend = tokenizers.Tokenizer.from_str(plain._backend.to_str())
    names = [f"<|img_row_{r}_col_{c}|>" for r in range(1, 5) for c in range(1, 5)]
    backend.add_special_tokens([AddedToken(name, special=True) for name in names])
    model = replace(tiny_bundle.model, resize="tile", tiling=TILING)
    bundle = replace(
        tiny_bundle, model=model, processor=replace(tiny_bundle.processor, resize="tile")
    )
    made = Engine(bundle, "float", threads=1)
    made.tokenizer = Tokenizer(backend, plain._template_text)
    made.processor = replace(made.processor, tokenizer=made.tokenizer)
    return made


def test_a_bundle_cuts_as_its_model_says(engine: Engine) -> None:
    assert engine.processor == Processor(engine.tokenizer, 64, 4, "tile", TILING)


def test_tokens_are_those_of_the_reference(engine: Engine, reference) -> None:
    messages = [ask("what is it?", noise(300, 200), noise(60, 50))]
    inputs = engine.processor(messages)
    assert len(inputs.pixel_values) == 6  # four tiles, a thumbnail; the second picture whole
    result = answer(engine, messages, max_tokens=12)
    assert list(result.token_ids) == reference(engine, messages, 12)
    assert result.timings.image_n == 6


def test_only_what_changed_is_encoded_again(engine: Engine) -> None:
    pixels = np.asarray(noise(300, 200)).copy()
    answer(engine, [ask("what is it?", noise(300, 200))], max_tokens=1)
    pixels[150:, 200:] = 0  # inside the last tile
    after = answer(engine, [ask("what is it?", Image.fromarray(pixels))], max_tokens=1)
    assert after.timings.image_n == 2  # that tile and the thumbnail


def test_too_many_tiles_for_the_context_say_how_many_pictures(engine: Engine) -> None:
    pictures = [noise(300, 200)] * 6
    with pytest.raises(UserError, match="30 x 4 of them for images"):
        answer(engine, [ask("what is it?", *pictures), reply("a"), ask("b")], max_tokens=1)
