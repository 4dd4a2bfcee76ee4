"""Draws the packaged example pictures and their questions: autoneural/examples/.

    python runs/demo_pictures.py

Every task once, a dialogue of two turns, what cannot be told, two pictures, and a clip of four.
Held-out scenes chosen by what they show, with a seed of their own, never by whether the model is
right.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from PIL import Image

from autoneural.data.cockpit import TASKS, Question, Scene, render
from autoneural.data.cockpit.base import CANNOT_TELL, which_picture
from autoneural.data.cockpit.clips import FRAMES, clip, clip_questions
from autoneural.demo import EXAMPLES

SEED = 77_000
Case = dict[str, Any]


def find(task: str, skip: int = 0, **wanted: str) -> Scene:
    """The first held-out scene, after `skip` others, whose attributes are `wanted`."""
    for seed in range(SEED, SEED + 10_000):
        scene = TASKS[task].sample(seed, "test")
        if all(scene.attributes[key.replace("_", " ")] == value for key, value in wanted.items()):
            if skip == 0:
                return scene
            skip -= 1
    raise SystemExit(f"{task}: no scene with {wanted}")


def find_clip(closed: int) -> tuple[Scene, ...]:
    """The first held-out clip with closed eyes in so many pictures."""
    for seed in range(SEED, SEED + 1000 * FRAMES, FRAMES):
        frames = clip(seed, "test")
        if {q.kind: q.answer for q in clip_questions(frames)}["closed"] == str(closed):
            return frames
    raise SystemExit(f"no clip with closed eyes in {closed} pictures")


def turns(questions: Sequence[Question], *kinds: str) -> list[dict[str, str]]:
    """Those of these kinds."""
    asked = {question.kind: question for question in questions}
    return [{"prompt": asked[kind].prompt, "expected": asked[kind].answer} for kind in kinds]


def save(scenes: Sequence[Scene], name: str) -> list[str]:
    """Draw them; the file names."""
    names = [f"{name}-{k}.jpg" if len(scenes) > 1 else f"{name}.jpg" for k in range(len(scenes))]
    for scene, file in zip(scenes, names, strict=True):
        Image.fromarray(render(scene)).save(EXAMPLES / file, quality=92)
    return names


def case(title: str, name: str, scenes: Sequence[Scene], asked: list[dict[str, str]]) -> Case:
    return {"title": title, "images": save(scenes, name), "turns": asked}


def about(scene: Scene, name: str, *kinds: str, note: str = "") -> Case:
    """One picture, asked about in turns."""
    task = TASKS[scene.task]
    return case(f"{task.title}{note}", name, [scene], turns(task.questions(scene), *kinds))


def several() -> list[Case]:
    """About more than one picture."""
    awake = find("fatigue", state="alert", eyewear="none")
    asleep = find("fatigue", skip=1, state="asleep", eyes="closed")
    which = which_picture(TASKS["fatigue"], awake.attributes, asleep.attributes)
    frames = find_clip(closed=2)
    return [
        case("Two pictures in one question", "pair", [awake, asleep], turns(which[:1], "compare")),
        case("A clip of four pictures", "clip", frames,
             turns(clip_questions(frames), "closed", "perclos")),
    ]  # fmt: skip


def cases() -> list[Case]:
    hidden = ", and what cannot be told"
    return [
        about(find("fatigue", state="drowsy", mouth="yawning"), "driver", "state", "break"),
        about(find("hmi", manoeuvre="turn left", gear="D"), "cluster", "speed", "manoeuvre"),
        about(find("boarding", object="cyclist", distance="near"), "door", "object", "action"),
        about(find("child", emotion="crying", buckled="not fastened"), "child", "buckled",
              "advice"),
        about(find("greeter", who="courier", carrying="box"), "greeter", "who", "open"),
        about(find("plate", light="day", plate_lines="one"), "plate", "plate", "brand"),
        about(find("plate", skip=1, char_1=CANNOT_TELL), "dirt", "plate", "colour", note=hidden),
        about(find("finder", view="map", level="3"), "map", "bay", "way"),
        about(find("sentinel", event="tampering"), "sentinel", "event", "touched"),
        *several(),
    ]  # fmt: skip


def main() -> None:
    EXAMPLES.mkdir(exist_ok=True)
    for old in EXAMPLES.glob("*.jpg"):
        old.unlink()
    drawn = cases()
    text = json.dumps(drawn, indent=2) + "\n"
    (EXAMPLES / "demo.json").write_text(text, encoding="utf-8")
    print(f"{EXAMPLES}: {len(drawn)} cases")


if __name__ == "__main__":
    main()
