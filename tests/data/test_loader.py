"""Batches: what is in them, the same whatever the workers do, and resumable from one integer."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autoneural.data.dataset import Mixture, Source
from autoneural.data.loader import Batch, BatchStream, Jitter, with_blank
from autoneural.data.processor import IGNORE, Processor
from autoneural.data.tokenizer import train_tokenizer
from autoneural.errors import UserError

VOCABULARY = {"fatigue.eyes": ("open", "closed"), "fatigue.mouth": ("shut", "yawn")}


@pytest.fixture(scope="module")
def processor() -> Processor:
    tokenizer = train_tokenizer(["Are the eyes open? Yes, open. No, closed."] * 20, 300)
    return Processor(tokenizer, image_size=16, tokens_per_image=4)


def row(number: int, folder: Path, turns: int = 1) -> dict:
    image = {"type": "image", "image": str(folder / f"{number}.png")}
    ask = {"role": "user", "content": [{"type": "text", "text": f"Number {number}?"}]}
    answer = {"role": "assistant", "content": "Yes, open." if number % 2 else "No, closed."}
    first = {"role": "user", "content": [image, *ask["content"]]}
    return {
        "messages": [first, answer, *[ask, answer] * (turns - 1)],
        "attributes": {"fatigue.eyes": "open" if number % 2 else "closed"},
    }


@pytest.fixture
def mixture(tmp_path: Path) -> Mixture:
    for number in range(10):
        Image.new("RGB", (16, 16), (number * 20, 100, 50)).save(tmp_path / f"{number}.png")
    rows = [row(number, tmp_path, turns=1 + number % 3) for number in range(10)]
    words = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    }
    return Mixture.of([(Source("eyes", rows), 0.8), (Source("words", [words]), 0.2)], seed=1)


def take(stream: BatchStream, count: int) -> list[tuple[int, Batch]]:
    return list(itertools.islice(stream, count))


def assert_same(first: list[tuple[int, Batch]], second: list[tuple[int, Batch]]) -> None:
    assert [position for position, _ in first] == [position for position, _ in second]
    for (_, one), (_, two) in zip(first, second, strict=True):
        assert torch.equal(one.input_ids, two.input_ids)
        assert torch.equal(one.labels, two.labels)
        assert torch.equal(one.pixel_values, two.pixel_values)
        assert one.targets.keys() == two.targets.keys()
        assert all(torch.equal(one.targets[name], two.targets[name]) for name in one.targets)


def test_batch_shapes_and_padding(mixture: Mixture, processor: Processor) -> None:
    stream = BatchStream(mixture=mixture, processor=processor, batch_size=5, attributes=VOCABULARY)
    position, batch = next(iter(stream))
    token = processor.tokenizer
    assert position == 5
    assert batch.input_ids.shape == batch.labels.shape
    assert batch.input_ids.shape[1] % 32 == 0
    assert batch.input_ids.dtype == batch.labels.dtype == torch.int64
    assert batch.pixel_values.dtype == torch.uint8
    images = int((batch.input_ids == token.image_start).sum())
    assert batch.pixel_values.shape == (images, 3, 16, 16)
    assert (batch.labels[batch.input_ids == token.pad_id] == IGNORE).all()
    for example, ids in zip((stream.example(i) for i in range(5)), batch.input_ids, strict=True):
        np.testing.assert_array_equal(ids[: len(example.labels)], example.inputs.input_ids)


def test_order_does_not_depend_on_workers(mixture: Mixture, processor: Processor) -> None:
    common = {"mixture": mixture, "processor": processor, "batch_size": 3, "jitter": Jitter()}
    one = take(BatchStream(**common, workers=1, prefetch=0), 8)
    many = take(BatchStream(**common, workers=4, prefetch=6), 8)
    assert_same(one, many)


def test_resume_equals_an_unbroken_run(mixture: Mixture, processor: Processor) -> None:
    common = {"mixture": mixture, "processor": processor, "batch_size": 3, "jitter": Jitter()}
    whole = take(BatchStream(**common), 8)
    assert_same(whole[3:], take(BatchStream(**common, start=whole[2][0]), 5))


def test_targets_follow_the_images(mixture: Mixture, processor: Processor) -> None:
    stream = BatchStream(mixture=mixture, processor=processor, batch_size=40, attributes=VOCABULARY)
    batch = stream.batch(0)
    numbers = batch.pixel_values[:, 0, 0, 0] // 20
    assert len(numbers) > 20
    assert torch.equal(batch.targets["fatigue.eyes"], torch.where(numbers % 2 == 1, 0, 1))
    assert (batch.targets["fatigue.mouth"] == IGNORE).all()


def test_attribute_mistakes(mixture: Mixture, processor: Processor) -> None:
    stream = BatchStream(
        mixture=mixture,
        processor=processor,
        batch_size=40,
        attributes={"fatigue.eyes": ("open",)},
    )
    with pytest.raises(UserError, match=r"eyes\[\d\]: attributes\.fatigue\.eyes: 'closed'"):
        stream.batch(0)


def test_long_rows_lose_their_last_turns(processor: Processor, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "1.png")
    mixture = Mixture.of([(Source("long", [row(1, tmp_path, turns=6)]), 1.0)])
    full = BatchStream(mixture=mixture, processor=processor, batch_size=1).example(0)
    answers = np.flatnonzero(full.labels == processor.tokenizer.eos_id)
    assert len(answers) == 6
    limit = int(answers[2]) + 5
    stream = BatchStream(mixture=mixture, processor=processor, batch_size=1, max_length=limit)
    cut = stream.example(0)
    assert len(cut.labels) == answers[2] + 1
    assert cut.labels[-1] == processor.tokenizer.eos_id
    assert stream.batch(0).input_ids.shape[1] <= limit


def test_dropped_turns_take_their_images_along(processor: Processor, tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"{number}.png")
    both = {"messages": row(0, tmp_path)["messages"] + row(1, tmp_path)["messages"]}
    mixture = Mixture.of([(Source("two", [both]), 1.0)])
    full = BatchStream(mixture=mixture, processor=processor, batch_size=1).example(0)
    second = np.flatnonzero(full.inputs.input_ids == processor.tokenizer.image_id)[5]
    stream = BatchStream(
        mixture=mixture,
        processor=processor,
        batch_size=1,
        max_length=int(second),
        attributes=VOCABULARY,
    )
    batch = stream.batch(0)
    assert batch.pixel_values.shape[0] == len(batch.targets["fatigue.eyes"]) == 1
    assert int((batch.input_ids == processor.tokenizer.image_id).sum()) == 4


def test_answer_is_cut_but_never_the_prompt(processor: Processor, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "1.png")
    mixture = Mixture.of([(Source("one", [row(1, tmp_path)]), 1.0)])
    full = BatchStream(mixture=mixture, processor=processor, batch_size=1).example(0)
    first = int(np.flatnonzero(full.labels != IGNORE)[0])
    common = {"mixture": mixture, "processor": processor, "batch_size": 1}
    assert len(BatchStream(**common, max_length=first + 2).example(0).labels) == first + 2
    with pytest.raises(UserError, match=rf"one\[0\]: .*needs {first + 1} tokens"):
        BatchStream(**common, max_length=first).example(0)


def test_bad_picture_reaches_the_reader(mixture: Mixture, processor: Processor, tmp_path) -> None:
    (tmp_path / "4.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"eyes\[4\]: .*4\.png: empty file"):
        take(BatchStream(mixture=mixture, processor=processor, batch_size=4, workers=2), 10)


def test_jitter_is_seeded_and_moderate(mixture: Mixture, processor: Processor) -> None:
    plain = BatchStream(mixture=mixture, processor=processor, batch_size=8).batch(0)
    shaken = BatchStream(mixture=mixture, processor=processor, batch_size=8, jitter=Jitter())
    pixels = shaken.batch(0).pixel_values
    assert torch.equal(pixels, shaken.batch(0).pixel_values)
    assert not torch.equal(pixels, plain.pixel_values)
    nothing = Jitter(brightness=0, contrast=0, gamma=0)
    image = plain.pixel_values[0].numpy()
    np.testing.assert_array_equal(nothing(image, np.random.default_rng(0)), image)


def test_processes_share_a_batch_row_by_row(mixture: Mixture, processor: Processor) -> None:
    pad = processor.tokenizer.pad_id

    def ids(**share: int) -> list[list[int]]:
        stream = BatchStream(mixture=mixture, processor=processor, batch_size=5, **share)
        position, batch = take(stream, 2)[1]
        assert position == 10
        return [[i for i in row if i != pad] for row in batch.input_ids.tolist()]

    parts = [ids(rank=rank, ranks=3) for rank in range(3)]
    assert [len(part) for part in parts] == [1, 2, 2]
    assert [row for part in parts for row in part] == ids()


def test_a_blank_row_has_a_picture_and_nothing_to_learn(processor: Processor) -> None:
    words = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    }
    mixture = Mixture.of([(Source("words", [words]), 1.0)])
    stream = BatchStream(mixture=mixture, processor=processor, batch_size=2, attributes=VOCABULARY)
    bare = stream.batch(0)
    batch = with_blank(bare, processor)
    assert torch.equal(batch.input_ids[:2], bare.input_ids)
    assert int((batch.input_ids[2] == processor.tokenizer.image_id).sum()) == 4
    assert batch.pixel_values.shape == (1, 3, 16, 16)
    assert (batch.labels[2] == IGNORE).all()
    assert all(targets.tolist() == [IGNORE] for targets in batch.targets.values())
    assert len(batch.cells) == 1
    assert batch.weights.shape == batch.labels.shape == batch.input_ids.shape
