"""Draws the packaged example pictures and their questions: autoneural/examples/.

    python runs/demo_pictures.py

One picture per task, two pictures in one question, two questions about one picture. Held-out scenes
chosen by what they show, with a seed of their own, never by whether the model is right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from autoneural.data.cockpit import TASKS, Scene, render
from autoneural.data.cockpit.base import which_picture
from autoneural.demo import EXAMPLES

SEED = 77_000


def find(task: str, skip: int = 0, **wanted: str) -> Scene:
    """The first held-out scene, after `skip` others, whose attributes are `wanted`."""
    for seed in range(SEED, SEED + 10_000):
        scene = TASKS[task].sample(seed, "test")
        if all(scene.attributes[key.replace("_", " ")] == value for key, value in wanted.items()):
            if skip == 0:
                return scene
            skip -= 1
    raise SystemExit(f"{task}: no scene with {wanted}")


def turns(scene: Scene, *kinds: str) -> list[dict[str, str]]:
    """The scene's questions of these kinds."""
    asked = {question.kind: question for question in TASKS[scene.task].questions(scene)}
    return [{"prompt": asked[kind].prompt, "expected": asked[kind].answer} for kind in kinds]


def save(scene: Scene, name: str, folder: Path) -> str:
    Image.fromarray(render(scene)).save(folder / name, quality=92)
    return name


def main() -> None:
    EXAMPLES.mkdir(exist_ok=True)
    driver = find("fatigue", state="drowsy", mouth="yawning", eyewear="none")
    asleep = find("fatigue", skip=1, state="asleep", eyes="closed")
    cluster = find("hmi", manoeuvre="turn left", gear="D")
    warning = find("hmi", skip=2, lights="1", manoeuvre="turn right")
    door = find("boarding", object="cyclist", distance="near")
    pair = which_picture(TASKS["fatigue"], driver.attributes, asleep.attributes)[0]
    cases: list[dict[str, Any]] = [
        {
            "title": "Fatigue driving",
            "images": [save(driver, "driver.jpg", EXAMPLES)],
            "turns": turns(driver, "state"),
        },
        {
            "title": "HMI understanding",
            "images": [save(cluster, "cluster.jpg", EXAMPLES)],
            "turns": turns(cluster, "speed"),
        },
        {
            "title": "Safety when getting on or off",
            "images": [save(door, "door.jpg", EXAMPLES)],
            "turns": turns(door, "action"),
        },
        {
            "title": "Two pictures in one question",
            "images": ["driver.jpg", save(asleep, "asleep.jpg", EXAMPLES)],
            "turns": [{"prompt": pair.prompt, "expected": pair.answer}],
        },
        {
            "title": "Two questions about one picture",
            "images": [save(warning, "warning.jpg", EXAMPLES)],
            "turns": turns(warning, "light", "manoeuvre"),
        },
    ]
    text = json.dumps(cases, indent=2) + "\n"
    (EXAMPLES / "demo.json").write_text(text, encoding="utf-8")
    print(f"{EXAMPLES}: {len(cases)} cases")


if __name__ == "__main__":
    main()
