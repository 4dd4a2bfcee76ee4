from collections import Counter
from itertools import pairwise

import numpy as np

from autoneural.data.cockpit import TASKS, eval_clips, image_name, render, rows
from autoneural.data.cockpit.base import CANNOT_TELL
from autoneural.data.cockpit.clips import FRAMES, KINDS, clip, clip_questions
from autoneural.data.cockpit.fatigue import ATTRIBUTES, state_of

SEEN = {"closed": ("eyes", "closed"), "yawns": ("mouth", "yawning")}


def test_answers_count_what_the_pictures_show() -> None:
    given: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for seed in range(0, 400 * FRAMES, FRAMES):
        frames = clip(seed, "train")
        answers = {q.kind: q.answer for q in clip_questions(frames)}
        for kind, (key, value) in SEEN.items():
            shown = [frame.attributes[key] for frame in frames]
            hidden = CANNOT_TELL in shown
            assert answers[kind] == (CANNOT_TELL if hidden else str(shown.count(value)))
        if answers["closed"] != CANNOT_TELL:
            closed = int(answers["closed"])
            assert answers["perclos"] == f"{25 * closed} %"
            assert answers["dozing"] == ("yes" if closed >= 2 else "no")
        for kind, answer in answers.items():
            given[kind][answer] += 1
    assert set(given["closed"]) == {*"01234", CANNOT_TELL}
    assert all(max(count.values()) < 0.6 * 400 for count in given.values())


def test_frames_differ_only_in_what_a_moment_changes() -> None:
    for seed in range(0, 200, FRAMES):
        frames = clip(seed, "test")
        for frame in frames:
            truth = frame.attributes
            assert all(truth[key] in values for key, values in ATTRIBUTES.items())
            drawn = (truth[key] for key in ("eyes", "mouth", "gaze", "phone"))
            assert truth["state"] == state_of(*drawn)
            assert frame.params["skin"] == frames[0].params["skin"]
        for key in set(ATTRIBUTES) - {"eyes", "mouth", "gaze", "state", "break"}:
            assert len({frame.attributes[key] for frame in frames}) == 1


def test_no_two_pictures_of_a_clip_are_the_same() -> None:
    pictures = [render(frame) for frame in clip(4, "train")]
    assert all(np.abs(a.astype(int) - b).mean() > 1 for a, b in pairwise(pictures))


def test_rows_about_fatigue_hold_clips_and_pictures_of_no_other_row() -> None:
    names, clips = Counter[str](), 0
    for row, scenes in rows("fatigue", "train", 0, 300):
        names.update(image_name(scene) for scene in scenes)
        clips += row["kinds"] == list(KINDS)
    assert 40 < clips < 80
    assert set(names.values()) == {1}


def test_eval_clips_ask_once_per_clip_round_robin() -> None:
    asked = list(eval_clips(2 * len(KINDS)))
    assert [row["kinds"] for row, _ in asked] == [[kind] for kind in KINDS] * 2
    trained = {s.seed for _, scenes in rows("fatigue", "train", 0, 100) for s in scenes}
    seeds = [scene.seed for _, scenes in asked for scene in scenes]
    assert len(set(seeds)) == len(seeds)
    assert not trained & set(seeds)
    assert {scene.task for _, scenes in asked for scene in scenes} <= set(TASKS)
