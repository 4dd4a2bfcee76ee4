import pytest
import torch

from autoneural.errors import UserError
from autoneural.train.vision_heads import AttributeHeads, RunningAccuracy, attribute_vocabulary


def test_vocabulary_is_sorted_and_complete() -> None:
    rows = [
        {"attributes": {"t.b": "y"}},
        {"attributes": None},
        {"attributes": {"t.b": "x", "t.a": "1"}},
    ]
    vocabulary = attribute_vocabulary(rows)
    assert list(vocabulary.items()) == [("t.a", ("1",)), ("t.b", ("x", "y"))]
    with pytest.raises(UserError, match="no row has attributes"):
        attribute_vocabulary([{"messages": []}])


def test_heads_give_no_chance_to_values_an_attribute_does_not_have() -> None:
    torch.manual_seed(0)
    heads = AttributeHeads([2, 5], channels=8, tokens=4, width=16)
    logits = heads(torch.randn(3, 4, 8))
    assert logits.shape == (3, 2, 5)
    assert torch.isneginf(logits[:, 0, 2:]).all()
    assert torch.isfinite(logits[:, 1]).all()


def test_queries_look_at_places() -> None:
    torch.manual_seed(0)
    heads = AttributeHeads([3], channels=8, tokens=4, width=16)
    tokens = torch.randn(1, 4, 8)
    assert not torch.allclose(heads(tokens), heads(tokens.flip(1)), atol=1e-6)


def test_running_accuracy_counts_only_what_is_known() -> None:
    accuracy = RunningAccuracy(("a", "b", "never"), decay=0.5)
    logits = torch.tensor([[[1.0, 0.0]] * 3, [[0.0, 1.0]] * 3])
    accuracy.update(logits, torch.tensor([[0, 0, -100], [1, -100, -100]]))
    assert accuracy.read() == {"a": 1.0, "b": 1.0}
    accuracy.update(logits, torch.tensor([[1, 0, -100], [0, -100, -100]]))
    assert accuracy.read() == {"a": 0.3333, "b": 1.0}
