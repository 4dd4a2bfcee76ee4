"""Speed of bundles side by side: rounds, ratios, medians."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from autoneural.bench.cpu_speed import compare_speed, speed
from autoneural.bench.quality import Item
from autoneural.bundle import Bundle
from autoneural.errors import UserError


def item(number: int) -> Item:
    noise = torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(number))
    picture = Image.fromarray(noise.to(torch.uint8).numpy())
    text = {"type": "text", "text": "what is it?"}
    content = [{"type": "image", "image": picture}, text]
    return Item(
        id=str(number),
        task="t",
        kind="k",
        messages=[{"role": "user", "content": content}],
        expected="a" * number,
    )


def test_ratios_are_of_the_same_round() -> None:
    first = [(10.0, 8.0), (20.0, 4.0), (10.0, 8.0)]
    own = [(20.0, 4.0), (40.0, 2.0), (None, 80.0)]
    found = speed(own, first)
    assert (found.tokens_per_second, found.encode_ms) == (30.0, 4.0)
    assert (found.tokens_ratio, found.encode_ratio) == (2.0, 0.5)
    nothing = speed([(None, None)], [(1.0, 1.0)])
    assert nothing.tokens_ratio is nothing.encode_ratio is nothing.tokens_per_second is None


def test_bundles_answer_in_turn(tiny_bundle: Bundle) -> None:
    bundles = {name: (tiny_bundle.folder, "float") for name in ("a", "b")}
    said: list[tuple[str, int, int]] = []
    found = compare_speed(bundles, [item(n) for n in range(4)], 2, lambda *a: said.append(a))
    assert list(found) == ["a", "b"]
    assert found["a"].tokens_ratio == found["a"].encode_ratio == 1.0
    for one in found.values():
        assert one.encode_ms
        assert one.tokens_per_second
    assert said[-1] == ("speed", 2, 2)


def test_every_round_needs_a_question_of_its_own(tiny_bundle: Bundle) -> None:
    with pytest.raises(UserError, match="speed: 2 repeats need 3 questions, not 2"):
        compare_speed({"a": (tiny_bundle.folder, "float")}, [item(0), item(1)], 2)
