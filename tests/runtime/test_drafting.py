"""Drafters alone: what they copy, what they learn, and that a picture is never part of it."""

from __future__ import annotations

import random

import pytest

from autoneural.runtime.drafting import DRAFTERS, Lookahead, PromptLookup

IMAGE = 99


@pytest.mark.parametrize(
    ("tokens", "most", "drafts"),
    [
        ([1, 2, 3, 4, 1, 2], 7, [3, 4, 1, 2, 3, 4, 1]),
        ([1, 2, 3, 4, 1, 2], 2, [3, 4]),
        ([7, 1, 2, 5, 8, 1, 2, 6, 7, 1, 2], 1, [5]),
        ([1, 2, 5, 1, 2, 6, 1, 2], 1, [6]),
        ([3, 4, 3], 2, [4, 3]),
        ([5, 5], 3, [5, 5, 5]),
        ([1, 2, 3], 7, []),
        ([1], 7, []),
    ],
    ids=["copy", "most", "longest", "latest", "single", "repeat", "new", "short"],
)
def test_lookup_copies_what_followed(tokens: list[int], most: int, drafts: list[int]) -> None:
    assert PromptLookup(IMAGE).propose(tokens, most) == drafts


def test_lookup_goes_on_where_it_was() -> None:
    rng = random.Random(0)
    text = [rng.randint(0, 5) for _ in range(200)]
    drafter = PromptLookup(IMAGE)
    for end in range(1, len(text), 3):
        wanted = PromptLookup(IMAGE).propose(text[:end], 7)
        assert drafter.propose(text[:end], 7) == wanted


def test_lookup_neither_matches_nor_copies_a_picture() -> None:
    assert PromptLookup(IMAGE).propose([1, 2, IMAGE, IMAGE, 1], 4) == [2]
    assert PromptLookup(IMAGE).propose([IMAGE, IMAGE, 5, IMAGE, IMAGE], 4) == []
    assert PromptLookup(IMAGE).propose([1, IMAGE, 2, 1], 4) == []


def test_lookahead_guesses_from_the_text_and_fills_up_with_jacobi_rows() -> None:
    drafter = Lookahead(IMAGE, window=5, ngram=3)
    assert drafter.propose([1, 2, 3, 4, 1], 7) == [2, 3, 3, 3, 3]
    assert drafter.propose([1, 2, 3, 4, 1], 1) == [2]


def test_lookahead_reads_ngrams_off_the_chain() -> None:
    drafter = Lookahead(IMAGE, window=3, ngram=3)
    assert drafter.propose([1], 3) == [1, 1, 1]
    # Rows 1 1 1 1 were answered with 2 3 4 5: the first draft was wrong, 2 was said.
    drafter.learn([1, 1, 1], 0, [2, 3, 4, 5])
    assert drafter.propose([1, 2], 3) == [3, 4, 5]  # one Jacobi iteration further
    drafter.learn([3, 4, 5], 1, [3, 6, 7, 8])
    # 2 3 6 was said; [3, 4] -> 7 and [4, 5] -> 8 were read off.
    assert drafter.propose([1, 2, 3, 6, 4], 3) == [5, 8, 8]
    assert drafter.propose([1, 2, 3, 6, 4, 3], 3)[:2] == [6, 4]


def test_lookahead_window_stays_at_its_place_over_plain_steps() -> None:
    drafter = Lookahead(IMAGE, window=3, ngram=6)
    drafter.propose([1], 3)
    drafter.learn([1, 1, 1], 0, [2, 3, 4, 5])
    assert drafter.propose([1, 2, 9], 3) == [4, 5, 5]


def test_lookahead_keeps_a_few_guesses_and_puts_wrong_ones_last() -> None:
    drafter = Lookahead(IMAGE, window=1, ngram=2, guesses=2)
    text = [1, 2, 1, 3, 1, 4, 1]
    assert drafter.propose(text, 1) == [4]
    drafter.learn([4], 0, [7, 7])
    assert drafter.propose([*text, 7, 1], 1) == [7]  # said last
    drafter.learn([7], 0, [8, 8])
    assert [tail[0] for tail in drafter._pool[1]] == [8, 3]  # 4 and 7 went last, then out


def test_lookahead_never_holds_a_picture() -> None:
    drafter = Lookahead(IMAGE, window=4, ngram=2)
    assert drafter.propose([1, IMAGE, IMAGE, 2, 1], 4) == [1, 1, 1, 1]
    drafter.learn([1, 1, 1, 1], 0, [5, 6, IMAGE, 7, IMAGE])
    assert drafter.propose([1, IMAGE, IMAGE, 2, 1, 5], 4) == [6, 6, 6, 6]
    assert drafter.propose([1, IMAGE, IMAGE, 2, 1, 5, IMAGE], 4) == []
    assert all(IMAGE not in (first, *t) for first, pool in drafter._pool.items() for t in pool)


@pytest.mark.parametrize("kind", DRAFTERS)
@pytest.mark.parametrize("seed", range(5))
def test_drafters_survive_any_text(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    drafter = DRAFTERS[kind](IMAGE)
    tokens = [rng.choice([1, 2, 3, IMAGE]) for _ in range(rng.randint(1, 20))]
    for _ in range(50):
        most = rng.randint(1, 7)
        drafts = drafter.propose(tokens, most)
        assert len(drafts) <= most
        assert IMAGE not in drafts
        accepted = rng.randint(0, len(drafts))
        answers = [*drafts[:accepted], 4, *rng.choices([1, 2, IMAGE], k=len(drafts) - accepted)]
        drafter.learn(drafts, accepted, answers)
        tokens += answers[: accepted + 1]
