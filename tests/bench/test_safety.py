"""Recall of what must not be missed, false alarms, and answers made up."""

from __future__ import annotations

import pytest
from rich.console import Console

from autoneural.bench.quality import evaluate
from autoneural.bench.report import _alarm, print_quality
from autoneural.bench.safety import alarm_scores, unanswerable
from autoneural.data.cockpit import TASKS


def record(kind: str, expected: str, answer: str) -> dict[str, str]:
    return {"kind": kind, "expected": expected, "answer": answer}


RECORDS = [
    record("state", "asleep", "asleep"),
    record("state", "asleep", "alert"),
    record("state", "drowsy", "Asleep."),
    record("state", "alert", "alert"),
    record("state", "alert", "drowsy"),
    record("eyes", "cannot tell", "closed"),
    record("eyes", "cannot tell", "cannot tell"),
    record("eyes", "open", "cannot tell"),
]


def test_an_alarm_without_a_case_recalls_nothing() -> None:
    (score,) = alarm_scores(RECORDS, {"state": ("never",)}).values()
    assert score["n"] == 0
    assert "recalled" not in _alarm("fatigue, state", score)


def test_an_alarm_is_recalled_or_missed_or_false() -> None:
    (score,) = alarm_scores(RECORDS, {"state": ("asleep",), "never asked": ("x",)}).values()
    assert (score["recall"], score["n"]) == (0.5, 2)
    assert (score["false_alarms"], score["clear"]) == (pytest.approx(1 / 3), 3)
    assert score["ci95"][0] < 0.5 < score["ci95"][1]


def test_one_of_several_answers_raises_the_alarm() -> None:
    asked = [record("object", "car", "scooter"), record("object", "nothing", "nothing")]
    (score,) = alarm_scores(asked, {"object": ("car", "scooter")}).values()
    assert (score["recall"], score["false_alarms"]) == (1.0, 0.0)


def test_answers_are_made_up_or_refused() -> None:
    found = unanswerable(RECORDS)
    assert (found["n"], found["made_up"]) == (2, 0.5)
    assert (found["answerable"], found["refused"]) == (6, pytest.approx(1 / 6))


def test_the_alarms_of_tasks_are_answers_of_theirs() -> None:
    for task in TASKS.values():
        for kind, answers in task.alarms.items():
            scenes = [task.sample(seed, "val") for seed in range(200)]
            given = {q.answer for s in scenes for q in task.questions(s) if q.kind == kind}
            assert set(answers) < given, (task.name, kind)


def test_the_report_prints_both() -> None:
    report, _ = evaluate(Nobody(), {}, alarms={})
    report["tasks"]["fatigue"] = {
        "accuracy": 0.5,
        "ci95": [0.1, 0.9],
        "blind": None,
        "majority": 0.2,
        "n": 8,
        "questions": {},
        "alarms": alarm_scores(RECORDS, {"state": ("asleep",)}),
    }
    report["unanswerable"] = unanswerable(RECORDS)
    console = Console(width=200)
    with console.capture() as captured:
        print_quality(report, console)
    assert "fatigue, state: asleep recalled 0.500" in captured.get()
    assert "false alarms 0.333 (of 3)" in captured.get()
    assert "of 2 questions 0.500 were answered all the same" in captured.get()


class Nobody:
    """Is asked nothing."""

    def answer(self, items: object) -> list[str]:
        return []
