"""cockpit-tiny and its ViT twin from nothing; the embedded one came in parts (docs/log.md)."""

from __future__ import annotations

from dataclasses import replace

from autoneural.data.cockpit import TASKS
from autoneural.recipes.recipe import DataSource, Recipe
from autoneural.train.curriculum import PARTS, Stage

_ASKED, _READ = tuple(TASKS), ("page", "plate")
# A picture and its first dozen questions, which stand in random order: with the longest rows whole,
# four tenths of every batch would be padding.
_LENGTH = 384
# The tasks with the most to find out several times as often as another: a question is bound to what
# is seen suddenly, and after so many of its kind (docs/log.md).
_GENERAL = {
    "chat": 0.22, "hmi": 0.15, "finder": 0.18, "sentinel": 0.08, "greeter": 0.06, "plate": 0.16,
    "read": 0.06, "pairs": 0.04, "captions": 0.05,
}  # fmt: skip
_DOMAIN = {
    "chat": 0.28, "hmi": 0.13, "finder": 0.20, "plate": 0.20, "sentinel": 0.06, "greeter": 0.06,
    "read": 0.02, "pairs": 0.05,
}  # fmt: skip
_READING = {
    **dict.fromkeys(TASKS, 0.08), "hmi": 0.12, "finder": 0.12, "pairs": 0.12, "read": 0.2,
}  # fmt: skip


def tiny() -> Recipe:
    """cockpit-tiny from nothing, over the folder of `autoneural data cockpit --drills`."""
    return Recipe(
        name="tiny",
        preset="cockpit-tiny",
        data={
            "captions": DataSource(form="caption", tasks=_ASKED),
            "text": DataSource(form="text", tasks=_ASKED),
            "chat": DataSource(tasks=_ASKED),
            "pairs": DataSource(form="pair", tasks=_ASKED),
            "pair texts": DataSource(form="pair text", tasks=_ASKED),
            # Pages and plates alone: what there is to read takes longest to learn.
            "read": DataSource(tasks=_READ),
            "spell": DataSource(form="caption", tasks=_READ),
            # Descriptions with the most to see; the decoder finds these facts last.
            "dense": DataSource(form="caption", tasks=("hmi", "finder", "greeter", "sentinel")),
            **{name: DataSource(tasks=(name,)) for name in TASKS},
        },
        stages=(*_tiny_towers(), *_tiny_curriculum()),
    )


def tiny_vit() -> Recipe:
    """The twin with a ViT for an encoder: all else, data and steps included, is the same."""
    return replace(tiny(), name="tiny-vit", preset="vit-tiny")


def _tiny_towers() -> tuple[Stage, ...]:
    """Each half alone, in place of pretrained weights; then the paper's first stage."""
    return (
        Stage(
            name="vision",
            objective="vision",
            train=("vision_encoder",),
            mixture={"captions": 0.55, "read": 0.45},
            steps=6000,
            batch_size=32,
            lr={"vision_encoder": 2e-3},
            warmup=100,
            jitter=0.15,
        ),
        Stage(
            name="language",
            train=("language_model",),
            mixture={"text": 0.7, "pair texts": 0.3},
            steps=450,
            batch_size=32,
            lr={"language_model": 2e-3},
        ),
        Stage(
            # Not the projector alone: there is no pretrained decoder to keep as it is, and in a
            # description every word has to be seen, in a third of the time of a conversation.
            name="align",
            train=("projector", "language_model"),
            mixture={"captions": 0.4, "dense": 0.3, "spell": 0.3},
            steps=4000,
            batch_size=32,
            lr={"projector": 1e-3, "language_model": 1e-3},
            warmup=50,
            final_lr=0.4,
            jitter=0.15,
        ),
    )


def _tiny_curriculum() -> tuple[Stage, ...]:
    """The paper's other three: everything trains, on what comes closer to the car."""
    return (
        Stage(
            name="general",
            train=PARTS,
            mixture=_GENERAL,
            steps=3000,
            batch_size=24,
            lr={"vision_encoder": 5e-4, "projector": 1e-3, "language_model": 1e-3},
            warmup=100,
            final_lr=0.4,
            max_length=_LENGTH,
            jitter=0.15,
        ),
        Stage(
            name="instruct",
            train=PARTS,
            mixture=_READING,
            steps=400,
            batch_size=24,
            lr={"vision_encoder": 2e-4, "projector": 4e-4, "language_model": 4e-4},
            final_lr=0.4,
            max_length=_LENGTH,
            jitter=0.15,
        ),
        Stage(
            name="domain",
            train=PARTS,
            mixture=_DOMAIN,
            steps=500,
            batch_size=24,
            lr={"vision_encoder": 1.5e-4, "projector": 3e-4, "language_model": 3e-4},
            warmup=10,
            final_lr=0.01,
            ema=0.995,
            max_length=_LENGTH,
            jitter=0.1,
        ),
    )


def shortened(full: Recipe) -> Recipe:
    steps = {"vision": 30, "language": 20, "align": 5, "general": 20, "instruct": 5, "domain": 5}
    return replace(
        full,
        name=f"{full.name}-smoke",
        stages=tuple(
            replace(stage, steps=steps[stage.name], batch_size=8, warmup=2, accumulate=1)
            for stage in full.stages
        ),
    )
