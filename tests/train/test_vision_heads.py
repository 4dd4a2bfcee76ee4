import pytest
import torch

from autoneural.errors import UserError
from autoneural.train.loss import cell_loss
from autoneural.train.vision_heads import (
    AttributeHeads,
    CellHead,
    RunningAccuracy,
    attribute_vocabulary,
)


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


def test_cells_lie_where_their_token_looks() -> None:
    torch.manual_seed(0)
    head = CellHead(labels=2, channels=8, tokens=4, cells=4)
    tokens = torch.randn(1, 4, 8)
    changed = tokens.clone()
    changed[0, 1, 0] += 1  # top right
    differs = (head(tokens) != head(changed)).any(-1)[0]
    assert head(tokens).shape == (1, 4, 4, 3)
    assert differs[:2, 2:].all()
    assert int(differs.sum()) == 4
    with pytest.raises(UserError, match="9 tokens do not divide 4 x 4 cells"):
        CellHead(labels=2, channels=8, tokens=9, cells=4)


def test_the_cell_loss_weighs_the_background_down_and_leaves_out_the_unknown() -> None:
    logits = torch.zeros(1, 1, 3, 2, requires_grad=True)
    loss = cell_loss(logits, torch.tensor([[[0, -1, -100]]]))
    assert loss.item() == pytest.approx(1.01 * torch.log(torch.tensor(2.0)).item())
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 0, 2].tolist() == [0.0, 0.0]
