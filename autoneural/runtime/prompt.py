"""How a bundle reads a conversation: its own tokenizer, pictures as its vision graph takes them."""

from __future__ import annotations

from autoneural.bundle import Bundle
from autoneural.data.processor import Processor
from autoneural.data.tokenizer import Tokenizer


def load_processor(bundle: Bundle) -> Processor:
    """Messages -> token ids and pixels, as this bundle's manifest says."""
    spec = bundle.processor
    tokenizer = Tokenizer.load(bundle.folder)
    tiling = bundle.model.tiling
    return Processor(tokenizer, spec.image_size, spec.tokens_per_image, spec.resize, tiling)
