import torch

from autoneural.train.loss import IGNORE, attribute_loss, language_loss, token_weights


def test_samples_weigh_with_the_square_root_of_their_length() -> None:
    labels = torch.full((2, 6), IGNORE)
    labels[0, 5] = 1
    labels[1, 2:6] = 1
    weights = token_weights(labels)
    # Position t predicts label t + 1: one token of weight 1, four of weight 1/2.
    assert weights.tolist() == [[0, 0, 0, 0, 1], [0, 0.5, 0.5, 0.5, 0.5]]
    assert weights[1].sum() == 2


def test_language_loss_is_the_weighted_sum() -> None:
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(3, 5), torch.tensor([1, 0, 4]), torch.tensor([1, 0.5, 2])
    by_hand = -(logits.log_softmax(-1)[torch.arange(3), targets] * weights).sum()
    torch.testing.assert_close(language_loss(logits, targets, weights), by_hand)


def test_sample_without_targets_weighs_nothing() -> None:
    assert token_weights(torch.full((1, 4), IGNORE)).sum() == 0


def test_attribute_loss_ignores_what_a_row_does_not_say() -> None:
    logits = torch.zeros(2, 2, 4)
    logits[..., 3] = float("-inf")
    targets = torch.tensor([[0, IGNORE], [IGNORE, 2]])
    loss = attribute_loss(logits, targets)
    torch.testing.assert_close(loss, 2 * torch.tensor(3.0).log())
