"""Procedural, labelled cockpit pictures: one file per task (see `base` for what they are).

scene = TASKS["fatigue"].sample(seed=7, split="train")
pixels = render(scene)                      # uint8 [256, 256, 3]
turns = TASKS["fatigue"].questions(scene)   # prompt, answer, kind
for row, scenes in rows("fatigue", "train", 0, 100): ...
"""

from __future__ import annotations

import numpy as np

from autoneural.data.cockpit.base import Question, Scene, Split, Task
from autoneural.data.cockpit.render import draw
from autoneural.data.cockpit.rows import (
    Row,
    about_two,
    conversation,
    describe,
    eval_clips,
    eval_pairs,
    eval_rows,
    image_name,
    rows,
)
from autoneural.data.cockpit.tasks import DRAWN, DRILLS, TASKS, check_tasks

__all__ = [
    "DRILLS",
    "TASKS",
    "Question",
    "Row",
    "Scene",
    "Split",
    "Task",
    "about_two",
    "check_tasks",
    "conversation",
    "describe",
    "eval_clips",
    "eval_pairs",
    "eval_rows",
    "image_name",
    "render",
    "rows",
]


def render(scene: Scene, size: int = 256) -> np.ndarray:
    """Pixels [size, size, 3] uint8 of a scene: the same within 2/255 on every machine."""
    return draw(scene, DRAWN[scene.task].svg(scene), size)
