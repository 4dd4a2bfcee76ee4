"""A rotation leaves the function and spreads what stuck out."""

from collections.abc import Callable

import pytest
import torch

from autoneural.compress.fake_quant import quantize
from autoneural.compress.fold import fold, untie_head
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.rotate import hadamard, rotate
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from tests.compress.helpers import SAME, distance


@pytest.mark.parametrize("values", [True, False])
def test_the_function_stays(
    uneven: VLM, values: bool, answers: Callable[..., list[torch.Tensor]]
) -> None:
    before = answers(uneven)
    untie_head(uneven)
    fold(uneven)
    table = uneven.language_model.model.embed_tokens.weight.clone()
    record = rotate(uneven, values=values)
    assert distance(before, answers(uneven)) < SAME
    assert (table - uneven.language_model.model.embed_tokens.weight).norm() > table.norm()
    turned = dict(record.pairs)
    assert "projector.linear_2" in turned["language_model.model.embed_tokens"]
    assert ("language_model.model.layers.1.self_attn.v_proj" in turned) == values
    assert "language_model.model.layers.1.self_attn.q_layernorm" in record.skipped


def test_a_tied_head_turns_with_the_table_where_the_closing_norm_is_even(
    uneven: VLM, answers: Callable[..., list[torch.Tensor]]
) -> None:
    uneven.language_model.model.embedding_norm.weight.fill_(1.7)
    fold(uneven)
    before = answers(uneven)
    rotate(uneven)
    assert uneven.language_model.is_tied
    assert distance(before, answers(uneven)) < SAME


def test_an_outlying_channel_is_spread(uneven: VLM) -> None:
    table = uneven.language_model.model.embed_tokens.weight
    table[:, 3] *= 100
    untie_head(uneven)
    fold(uneven)
    rotate(uneven)
    columns = table.abs().amax(0)
    assert columns.max() < 2 * columns.min()


def test_norms_that_are_not_folded_are_named(uneven: VLM) -> None:
    with pytest.raises(UserError, match=r"layers\.0\.operator_norm: its weight is not folded"):
        rotate(uneven)
    fold(uneven)
    with pytest.raises(UserError, match=r"embedding_norm: its weight is not folded; untie_head"):
        rotate(uneven)


def test_a_decoder_alone_and_a_quantised_model_are_refused(model: VLM) -> None:
    with pytest.raises(UserError, match="image tokens must turn too"):
        rotate(model.language_model)
    quantize(model, PRECISIONS["w8a16"])
    with pytest.raises(UserError, match="quantised already"):
        rotate(model)


@pytest.mark.parametrize("width", [1, 8, 24, 7, 64])
def test_hadamard_is_orthogonal_and_flat(width: int) -> None:
    matrix = hadamard(width)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(width, dtype=torch.float64))
    if width in (8, 64):
        torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, width**-0.5))
    assert torch.equal(matrix, hadamard(width))
    assert width == 1 or not torch.equal(matrix, hadamard(width, seed=1))
