"""The scorer on a fake answerer, against numbers worked out by hand."""

import json

import pytest

from autoneural.bench.quality import (
    Item,
    evaluate,
    items_of,
    load_records,
    majority,
    normalise,
    paired_difference,
    save_records,
    shuffled,
    wilson,
)
from autoneural.errors import UserError


class Lookup:
    """Answers what is written on the (first) picture; 'blank' when there is none."""

    def answer(self, items):
        for item in items:
            yield item.images[0] if item.images else "blank"


def row(number: int, kind: str, picture: str, expected: str) -> dict:
    user = [{"type": "image", "image": picture}, {"type": "text", "text": f"{kind}?"}]
    return {
        "id": f"r{number}",
        "task": "toy",
        "kinds": [kind],
        "messages": [
            {"role": "user", "content": user},
            {"role": "assistant", "content": [{"type": "text", "text": expected}]},
        ],
    }


@pytest.fixture
def items() -> list[Item]:
    # The picture says the right answer in three of four; the fourth expects something else.
    return items_of(
        [
            row(0, "eyes", "open", "Open."),
            row(1, "eyes", "closed", "closed"),
            row(2, "eyes", "Open", "open"),
            row(3, "belt", "yes", "no"),
        ]
    )


@pytest.mark.parametrize("text", ["Open.", " open ", "OPEN", "open .", "open.\n"])
def test_normalise_forgives_case_space_and_full_stop(text):
    assert normalise(text) == "open"


def test_normalise_keeps_words_and_inner_stops():
    assert normalise("3.5 km") == "3.5 km"
    assert normalise("not open") != normalise("open")


def test_wilson_matches_the_textbook():
    # Newcombe (1998), method 3: 81 of 263 -> 0.2553 to 0.3662.
    assert wilson(81, 263) == pytest.approx([0.2553, 0.3662], abs=1e-4)
    assert wilson(0, 0) == [0.0, 1.0]


def test_a_conversation_gives_one_item_per_answer():
    first, second = row(0, "eyes", "open", "open"), row(0, "belt", "-", "yes")
    both = {
        **first,
        "kinds": ["eyes", "belt"],
        "messages": first["messages"] + second["messages"],
    }
    one, two = items_of([both])
    assert (one.id, one.kind, one.expected, len(one.messages)) == ("r0#0", "eyes", "open", 1)
    assert (two.id, two.kind, two.expected, len(two.messages)) == ("r0#1", "belt", "yes", 3)
    assert two.prompt == "belt?"


def test_shuffled_pictures_never_stay_and_all_are_used(items):
    mixed = shuffled(items, seed=3)
    assert [m.prompt for m in mixed] == [i.prompt for i in items]
    assert sorted(m.images[0] for m in mixed) == sorted(i.images[0] for i in items)
    assert all(m.images[0] != i.images[0] for m, i in zip(mixed, items, strict=True))
    assert mixed == shuffled(items, seed=3)


def test_a_question_without_a_partner_has_no_blind_twin(items):
    assert shuffled(items[:1], seed=0) == []


def test_majority_is_the_best_constant_per_kind(items):
    # eyes: open, closed, open -> 2 of 3 by "open"; belt: no -> 1 of 1.
    assert majority(items) == 3 / 4


def test_report_by_hand(items):
    count = []
    report, records = evaluate(Lookup(), {"toy": items}, on_answer=lambda: count.append(1))
    toy = report["tasks"]["toy"]
    assert (report["mean"], toy["accuracy"], toy["n"]) == (0.75, 0.75, 4)
    assert toy["questions"] == {
        "belt": {"accuracy": 0.0, "n": 1},
        "eyes": {"accuracy": 1.0, "n": 3},
    }
    expected = [m.images[0].lower() == normalise(m.expected) for m in shuffled(items, 0)]
    assert toy["blind"] == sum(expected) / 4
    assert [r["correct"] for r in records] == [True, True, True, False]
    assert len(count) == 8


def test_mean_is_over_tasks_not_questions(items):
    report, _ = evaluate(Lookup(), {"a": items, "b": items[:1]}, blind=False)
    assert report["mean"] == (0.75 + 1.0) / 2
    assert report["tasks"]["a"]["blind"] is None


def test_an_answerer_that_drops_an_answer_is_caught(items):
    class Lazy:
        def answer(self, items):
            return ["open"]

    with pytest.raises(ValueError, match="shorter"):
        evaluate(Lazy(), {"toy": items})


def record(number: int, correct: bool) -> dict:
    return {"id": f"r{number}", "prompt": "eyes?", "correct": correct}


def test_paired_difference_by_hand():
    a = [record(i, i < 6) for i in range(10)]  # right: 0-5
    b = [record(i, i < 4 or i == 9) for i in range(10)]  # loses 4 and 5, wins 9
    result = paired_difference(a, b)
    assert (result["n"], result["lost"], result["won"]) == (10, 2, 1)
    assert result["accuracy"] == [0.6, 0.5]
    assert result["difference"] == pytest.approx(-0.1)
    half = 1.959964 * ((0.3 - 0.01) / 10) ** 0.5
    assert result["ci95"] == pytest.approx([-0.1 - half, -0.1 + half])


def test_runs_over_other_questions_are_not_compared():
    with pytest.raises(UserError, match="different questions"):
        paired_difference([record(0, True)], [record(1, True)])


def test_records_round_trip_and_name_the_damaged_line(tmp_path, items):
    _, records = evaluate(Lookup(), {"toy": items}, blind=False)
    path = tmp_path / "records.jsonl"
    records[0]["answer"] = "a\u0085b\u2028c"
    save_records(path, records)
    assert load_records(path) == records
    save_records(path, [])
    assert load_records(path) == []
    path.write_text(json.dumps(records[0]) + "\n{\n")
    with pytest.raises(UserError, match=r"records\.jsonl:2"):
        load_records(path)
