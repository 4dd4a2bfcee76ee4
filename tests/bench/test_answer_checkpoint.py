"""The batched answerer says what the reference `VLM.generate` says, question by question."""

import numpy as np
import pytest
import torch
from PIL import Image

from autoneural.bench.answer_checkpoint import ModelAnswerer
from autoneural.bench.quality import Item
from autoneural.config import ModelConfig, ProjectorConfig, TextConfig, ViTConfig
from autoneural.data.processor import Processor
from autoneural.data.tokenizer import train_tokenizer
from autoneural.model.vlm import VLM

CONFIG = ModelConfig(
    name="toy",
    vision=ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    ),
    projector=ProjectorConfig(hidden_size=16),
    text=TextConfig(
        hidden_size=16,
        intermediate_size=32,
        layer_types=("conv", "full_attention"),
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        vocab_size=300,
    ),
)


def question(number: int, text: str, pictures: int) -> Item:
    noise = np.random.default_rng(number)
    images = [
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        for _ in range(pictures)
    ]
    content = [{"type": "image", "image": image} for image in images]
    content.append({"type": "text", "text": text})
    messages = [{"role": "user", "content": content}]
    return Item(id=str(number), task="toy", kind="k", messages=messages, expected="")


@pytest.fixture(scope="module")
def processor() -> Processor:
    tokenizer = train_tokenizer(["Is the belt on? yes no"] * 4, 300)
    return Processor(tokenizer, 32, CONFIG.vision.num_tokens)


def test_batched_answers_are_the_reference(processor):
    torch.manual_seed(0)
    model = VLM(CONFIG).eval()
    texts = ["Is it on?", "Is it so?", "Which?", "Is the belt on, in this picture here?"]
    items = [question(i, texts[i % 4], pictures=(1, 0, 2)[i % 3]) for i in range(12)]
    tokenizer = processor.tokenizer
    expected = []
    for item in items:
        inputs = processor(item.messages)
        ids = model.generate(
            torch.from_numpy(inputs.input_ids),
            torch.from_numpy(inputs.pixel_values),
            image_token_id=tokenizer.image_id,
            eos_id=tokenizer.eos_id,
        )
        expected.append(tokenizer.decode(ids))
    assert len(set(expected)) > 1
    assert list(ModelAnswerer(model, processor).answer(items)) == expected
