"""What must not be missed, and what must not be made up: two scores beside plain accuracy.

alarms         answers of a kind that must not be missed ("asleep"): recall, and how often the
               model says so where it is not
unanswerable   questions whose right answer is "cannot tell": how often another answer was made
               up, and how often "cannot tell" was said where it could be told
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoneural.bench.scoring import normalise, ratio, wilson
from autoneural.data.cockpit.base import CANNOT_TELL

Record = Mapping[str, Any]
Alarms = Mapping[str, Sequence[str]]
"""Kind of question -> answers that raise the alarm."""


def alarm_scores(records: Sequence[Record], alarms: Alarms) -> dict[str, dict[str, Any]]:
    """Per kind: {"answers", "recall", "n", "ci95", "false_alarms", "clear"}.

    `n` questions should raise the alarm and `clear` should not; `false_alarms` is the share of
    those that did. Kinds that were not asked are left out.
    """
    scores = {}
    for kind, answers in alarms.items():
        asked = [record for record in records if record["kind"] == kind]
        raised = [_says(r, "answer", answers) for r in asked if _says(r, "expected", answers)]
        quiet = [_says(r, "answer", answers) for r in asked if not _says(r, "expected", answers)]
        if asked:
            scores[kind] = {
                "answers": list(answers),
                "recall": ratio(sum(raised), len(raised)),
                "n": len(raised),
                "ci95": wilson(sum(raised), len(raised)),
                "false_alarms": ratio(sum(quiet), len(quiet)),
                "clear": len(quiet),
            }
    return scores


def unanswerable(records: Sequence[Record]) -> dict[str, Any]:
    """{"n", "made_up", "ci95", "answerable", "refused"}: shares of `n` and of `answerable`."""
    hidden = [not _says(r, "answer", (CANNOT_TELL,)) for r in records if _is_hidden(r)]
    plain = [_says(r, "answer", (CANNOT_TELL,)) for r in records if not _is_hidden(r)]
    return {
        "n": len(hidden),
        "made_up": ratio(sum(hidden), len(hidden)),
        "ci95": wilson(sum(hidden), len(hidden)),
        "answerable": len(plain),
        "refused": ratio(sum(plain), len(plain)),
    }


def _is_hidden(record: Record) -> bool:
    return _says(record, "expected", (CANNOT_TELL,))


def _says(record: Record, side: str, answers: Sequence[str]) -> bool:
    return normalise(record[side]) in answers
