"""Fatigue as a clip: four pictures of a driver, a moment apart, and how long the eyes were closed.

PERCLOS is the share of time that the eyes are closed (Wierwille and others, 1994): here the share
of the four pictures. A driver whose eyes are closed in half of them or more is dozing off. What
sunglasses, a mask or a hand hide cannot be told in any of the four.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoneural.data.cockpit.base import (
    CANNOT_TELL,
    Question,
    Rng,
    Scene,
    Split,
    ask,
    chance,
    rng_for,
    uniform,
)
from autoneural.data.cockpit.fatigue import Fatigue, state_of

FRAMES = 4
PROMPTS = {
    "closed": (
        "In how many of the four pictures are the driver's eyes closed?",
        "How many of these four pictures show closed eyes?",
    ),
    "perclos": (
        "What is the PERCLOS of these four pictures?",
        "In what share of the four pictures are the eyes closed?",
    ),
    "dozing": (
        "Does the driver doze off in these four pictures?",
        "Are the driver's eyes closed at least half of the time?",
    ),
    "yawns": (
        "In how many of the four pictures does the driver yawn?",
        "How many of these four pictures show a yawn?",
    ),
}
KINDS = tuple(PROMPTS)


def clip(seed: int, split: Split) -> tuple[Scene, ...]:
    """The pictures of one driver; they have the seeds from `seed` on."""
    base = Fatigue().sample(seed, split)
    rng = rng_for(base.task, split, seed, "clip")
    closed, yawning = (_some_of(rng, most) for most in (FRAMES, 2))
    still = {**base.params, "tilt": uniform(rng, -7, 7)}
    return tuple(
        Scene(
            base.task,
            seed + number,
            split,
            _moment(rng, base.attributes, closed=closed[number], yawning=yawning[number]),
            {**still, **{key: still[key] + uniform(rng, -3, 3) for key in ("dx", "dy", "tilt")}},
        )
        for number in range(FRAMES)
    )


def clip_questions(frames: Sequence[Scene]) -> list[Question]:
    """One question per kind about all pictures of a clip."""
    rng = rng_for(frames[0].task, frames[0].split, frames[0].seed, "clip questions")
    eyes, mouths = ([frame.attributes[key] for frame in frames] for key in ("eyes", "mouth"))
    closed = eyes.count("closed")
    answers = {
        "closed": str(closed),
        "perclos": f"{100 * closed // len(frames)} %",
        "dozing": "yes" if 2 * closed >= len(frames) else "no",
        "yawns": str(mouths.count("yawning")),
    }
    hidden = {kind: mouths if kind == "yawns" else eyes for kind in KINDS}
    return [
        ask(rng, kind, PROMPTS[kind], CANNOT_TELL if CANNOT_TELL in hidden[kind] else answers[kind])
        for kind in KINDS
    ]


def _some_of(rng: Rng, most: int) -> list[bool]:
    """Which of the pictures, at most so many; every number is as likely."""
    count = int(rng.integers(most + 1))
    return [place < count for place in rng.permutation(FRAMES).tolist()]


def _moment(rng: Rng, truth: dict[str, str], *, closed: bool, yawning: bool) -> dict[str, str]:
    """The attributes of one picture: all but eyes, mouth and gaze are those of the clip."""
    eyes, mouth, gaze = truth["eyes"], truth["mouth"], truth["gaze"]
    if eyes != CANNOT_TELL:
        eyes = "closed" if closed else "half closed" if chance(rng, 0.3) else "open"
        gaze = "none" if closed else "road" if gaze == "none" else gaze
    if mouth != CANNOT_TELL:
        mouth = "yawning" if yawning else "neutral" if mouth == "yawning" else mouth
    state = state_of(eyes, mouth, gaze, truth["phone"])
    rest = "yes" if state in ("asleep", "drowsy") else "no"
    return {**truth, "eyes": eyes, "mouth": mouth, "gaze": gaze, "state": state, "break": rest}
