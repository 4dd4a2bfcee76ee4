"""The same tokens all the way: what the chain makes must say what its reference says.

Over the shipped model and 100 held-out questions, greedily:

    PyTorch float checkpoint        == runtime over the float graphs exported from it
    PyTorch fake-quant checkpoint   == runtime over the qdq graphs of the embedded bundle
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autoneural.bench.answer_checkpoint import load_model
from autoneural.bench.held_out import held_out
from autoneural.bench.quality import Item
from autoneural.bundle import Bundle
from autoneural.checkpoint import find_checkpoint
from autoneural.data.cockpit import TASKS
from autoneural.data.processor import Processor
from autoneural.export.bundle import build_bundle
from autoneural.model.vlm import VLM
from autoneural.runtime import Engine

QUESTIONS = 100
MAX_TOKENS = 48


@pytest.fixture(scope="module")
def questions() -> list[Item]:
    """As many of each task, every kind of question among them."""
    tasks = held_out(None, -(-QUESTIONS // len(TASKS)), seed=1)
    return [item for items in zip(*tasks.values(), strict=True) for item in items][:QUESTIONS]


def reference(model: VLM, processor: Processor, item: Item) -> list[int]:
    tokenizer, inputs = processor.tokenizer, processor(item.messages)
    return model.generate(
        torch.from_numpy(inputs.input_ids),
        torch.from_numpy(inputs.pixel_values),
        image_token_id=tokenizer.image_id,
        eos_id=tokenizer.eos_id,
        max_new_tokens=MAX_TOKENS,
    )


def runtime(engine: Engine, item: Item) -> list[int]:
    engine.reset()
    generation = engine.generate(item.messages, max_tokens=MAX_TOKENS)
    for _ in generation:
        pass
    return [i for i in generation.result.token_ids if i != engine.tokenizer.eos_id]


@pytest.mark.parametrize(
    ("checkpoint", "target"), [("cockpit-tiny", "float"), ("cockpit-tiny-w4a16", "qdq")]
)
def test_the_runtime_says_what_the_checkpoint_says(
    checkpoint: str, target: str, questions: list[Item], tmp_path: Path
) -> None:
    bundle = "cockpit-tiny"
    if target not in Bundle.load(bundle).targets:
        bundle = build_bundle(find_checkpoint(checkpoint), tmp_path / "bundle", (target,)).folder
    engine = Engine(bundle, target)
    model = load_model(checkpoint).eval()
    differing = [
        (item.id, item.prompt, said, wanted)
        for item in questions
        if (said := runtime(engine, item)) != (wanted := reference(model, engine.processor, item))
    ]
    assert not differing
    assert len(questions) == QUESTIONS
