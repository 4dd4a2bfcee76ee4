"""Each filter against its definition, written down as plainly as it can be."""

from __future__ import annotations

import numpy as np
import pytest

from autoneural.errors import UserError
from autoneural.runtime.sampling import Sampler, Sampling, discourage, penalise, probabilities

SEEDS = range(8)


def random_logits(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, 40).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    chances = np.exp(logits - logits.max())
    return chances / chances.sum()


def keep(chances: np.ndarray, kept: list[int]) -> np.ndarray:
    out = np.zeros(len(chances))
    out[kept] = chances[kept] / sum(chances[kept])
    return out


def ranked(chances: np.ndarray) -> list[int]:
    return sorted(range(len(chances)), key=lambda i: (-chances[i], i))


@pytest.mark.parametrize("seed", SEEDS)
def test_temperature(seed: int) -> None:
    logits = random_logits(seed).astype(np.float64)
    wanted = softmax(logits / 0.7)
    np.testing.assert_allclose(probabilities(logits, Sampling(temperature=0.7)), wanted)


@pytest.mark.parametrize("seed", SEEDS)
def test_top_k(seed: int) -> None:
    logits = random_logits(seed).astype(np.float64)
    chances = softmax(logits)
    wanted = keep(chances, ranked(chances)[:5])
    np.testing.assert_allclose(probabilities(logits, Sampling(temperature=1, top_k=5)), wanted)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9])
def test_top_p(seed: int, top_p: float) -> None:
    logits = random_logits(seed).astype(np.float64)
    chances = softmax(logits)
    # The smallest set of likeliest tokens whose probabilities sum to top_p.
    size = next(n for n in range(1, 41) if sum(chances[ranked(chances)[:n]]) >= top_p)
    wanted = keep(chances, ranked(chances)[:size])
    np.testing.assert_allclose(probabilities(logits, Sampling(temperature=1, top_p=top_p)), wanted)


@pytest.mark.parametrize("seed", SEEDS)
def test_min_p(seed: int) -> None:
    logits = random_logits(seed).astype(np.float64)
    chances = softmax(logits)
    wanted = keep(chances, [i for i in range(40) if chances[i] >= 0.1 * max(chances)])
    np.testing.assert_allclose(probabilities(logits, Sampling(temperature=1, min_p=0.1)), wanted)


@pytest.mark.parametrize("seed", SEEDS)
def test_filters_apply_in_the_stated_order(seed: int) -> None:
    logits = random_logits(seed).astype(np.float64)
    chances = keep(softmax(logits / 1.5), ranked(logits)[:12])
    size = next(n for n in range(1, 13) if sum(chances[ranked(chances)[:n]]) >= 0.8)
    chances = keep(chances, ranked(chances)[:size])
    wanted = keep(chances, [i for i in range(40) if chances[i] >= 0.2 * max(chances)])
    sampling = Sampling(temperature=1.5, top_k=12, top_p=0.8, min_p=0.2)
    np.testing.assert_allclose(probabilities(logits, sampling), wanted)


def test_ties_keep_an_exact_number_of_tokens() -> None:
    chances = probabilities(np.zeros(10), Sampling(temperature=1, top_k=3))
    assert np.flatnonzero(chances).tolist() == [0, 1, 2]


def test_repetition_penalty_divides_positive_and_multiplies_negative() -> None:
    logits = np.array([2.0, -2.0, 1.0, -1.0], np.float32)
    assert penalise(logits, {0, 1}, 2.0).tolist() == [1.0, -4.0, 1.0, -1.0]
    assert penalise(logits, {0, 1}, 1.0) is logits


def test_penalty_counts_the_prompt_and_what_was_said() -> None:
    sampler = Sampler(Sampling(repetition_penalty=10.0), prompt=[0])
    logits = np.array([9.0, 8.0, 7.0, 6.0])
    assert [sampler.sample(logits) for _ in range(3)] == [1, 2, 3]


def test_presence_is_taken_off_once_and_frequency_every_time() -> None:
    logits = np.array([4.0, 3.0, -2.0, 1.0], np.float32)
    assert discourage(logits, {0: 3, 2: 1}, 0.5, 1.0).tolist() == [0.5, 3.0, -3.5, 1.0]
    assert discourage(logits, {0: 3, 2: 1}, -2.0, 0.0).tolist() == [6.0, 3.0, 0.0, 1.0]
    assert discourage(logits, {0: 3}, 0.0, 0.0) is logits
    assert discourage(logits, {}, 2.0, 2.0) is logits


def test_presence_and_frequency_count_the_answer_and_not_the_prompt() -> None:
    logits = np.array([3.0, 2.5, 0.0])
    said = Sampler(Sampling(frequency_penalty=0.3), prompt=[0, 0, 0, 0])
    # 3.0; 2.7; 2.4 < 2.5; 2.4 > 2.2; 2.1 < 2.2
    assert [said.sample(logits) for _ in range(5)] == [0, 0, 1, 0, 1]
    once = Sampler(Sampling(presence_penalty=0.3), prompt=[0, 0, 0, 0])
    assert [once.sample(logits) for _ in range(5)] == [0] * 5
    both = Sampler(Sampling(presence_penalty=0.3, frequency_penalty=0.3))
    assert [both.sample(logits) for _ in range(3)] == [0, 1, 0]


def test_a_masked_token_stays_out_however_it_is_invited() -> None:
    masked = np.array([-np.inf, 1.0])
    assert discourage(masked, {0: 5}, -2.0, -2.0).tolist() == [-np.inf, 1.0]


def test_greedy_takes_the_first_of_equals() -> None:
    assert Sampler(Sampling()).sample(np.array([1.0, 3.0, 3.0])) == 1


def test_draws_follow_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    sampler = Sampler(Sampling(temperature=1.0, seed=0))
    counts = np.bincount([sampler.sample(logits) for _ in range(4000)], minlength=3)
    np.testing.assert_allclose(counts / 4000, [0.5, 0.3, 0.2], atol=0.03)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"repetition_penalty": 0.0},
        {"presence_penalty": 2.1},
        {"presence_penalty": float("nan")},
        {"frequency_penalty": -2.1},
        {"seed": -1},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Sampling(**wrong)


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1.0])
@pytest.mark.parametrize("penalty", [5e-324, 1e300])
def test_the_smallest_and_largest_values_still_choose_a_token(
    temperature: float, penalty: float
) -> None:
    sampling = Sampling(temperature=temperature, repetition_penalty=penalty, seed=0)
    logits = np.array([3.0, 2.0, -1.0, 5.0], dtype=np.float32)
    wanted = 1 if penalty < 1 else 3
    assert Sampler(sampling, [1, 2]).sample(logits) == wanted
