"""What a cockpit task is: labelled scenes drawn from a seed, and the questions they answer.

    (task, split, seed) --sample--> Scene --svg--> picture
                                      |--questions, caption--> text, from the attributes alone

Attributes are the ground truth, each with a closed vocabulary. `params` holds what only the drawing
needs (colours, poses, fonts, camera). Every random draw is a function of (VERSION, task, split,
seed, stream), so the splits never share a stream and a scene is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar
from zlib import crc32

import numpy as np

VERSION = 2
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
RARE_KINDS = ("sentence", "json")
CANNOT_TELL = "cannot tell"
"""The attribute value, and the answer, where the picture hides what is asked for."""
Rng = np.random.Generator
T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """One question about one picture (or two), with its only right answer."""

    prompt: str
    answer: str
    kind: str


@dataclass(frozen=True)
class Box:
    """Where a thing is in the picture: edges as fractions of the side, from the top left corner."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Scene:
    """Ground truth (`attributes`) and appearance (`params`) of one picture."""

    task: str
    seed: int
    split: Split
    attributes: dict[str, str]
    params: dict[str, Any]


class Task(Protocol):
    """A family of scenes. All methods are pure."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """The closed vocabulary of every attribute."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of single-picture questions, the two rare ones (sentence, JSON) last."""
        ...

    def sample(self, seed: int, split: Split) -> Scene: ...

    def svg(self, scene: Scene) -> str: ...

    def boxes(self, scene: Scene) -> dict[str, Box]:
        """The visible things of the picture that a question or a detector may want, by name.

        A box that shows an attribute's value is called as the attribute is.
        """
        ...

    def questions(self, scene: Scene) -> list[Question]:
        """One question per kind that has an answer here, each in a phrasing drawn by the seed."""
        ...

    def caption(self, scene: Scene) -> str:
        """One or two sentences that state every attribute."""
        ...

    @property
    def alarms(self) -> Mapping[str, Sequence[str]]:
        """Kind of question -> answers that must not be missed."""
        ...

    @property
    def statements(self) -> Mapping[tuple[str, str], str]:
        """(attribute, value) -> the words after "In which picture"."""
        ...


def rng_for(task: str, split: Split, seed: int, stream: str) -> Rng:
    """The random stream of one scene for one purpose."""
    words = [VERSION, crc32(task.encode()), SPLITS.index(split), seed, crc32(stream.encode())]
    return np.random.default_rng(words)


def draw_scene(
    task: str,
    seed: int,
    split: Split,
    attributes: Callable[[Rng], dict[str, str]],
    params: Callable[[Rng, Split, dict[str, str]], dict[str, Any]],
) -> Scene:
    """A scene whose attributes and appearance come from a stream each."""
    truth = attributes(rng_for(task, split, seed, "attributes"))
    look = params(rng_for(task, split, seed, "params"), split, truth)
    return Scene(task, seed, split, truth, look)


def pick(rng: Rng, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def weighted(rng: Rng, weights: Mapping[T, float]) -> T:
    """A key, drawn in proportion to its value."""
    edge = rng.random() * sum(weights.values())
    for option, weight in weights.items():
        edge -= weight
        if edge < 0:
            return option
    return next(reversed(list(weights)))


def uniform(rng: Rng, low: float, high: float) -> float:
    """Rounded, so that a scene is the same after a trip through JSON."""
    return round(low + (high - low) * float(rng.random()), 3)


def uniforms(rng: Rng, n: int, low: float, high: float) -> list[float]:
    """`n` draws of `uniform`, at once."""
    return [round(value, 3) for value in (low + (high - low) * rng.random(n)).tolist()]


def chance(rng: Rng, probability: float) -> bool:
    return bool(rng.random() < probability)


def pool(split: Split, common: Sequence[T], held_out: Sequence[T]) -> Sequence[T]:
    """Choices of a split: `test` sees only the held-out ones, which the others never see."""
    return held_out if split == "test" else common


def ask(rng: Rng, kind: str, phrasings: Sequence[str], answer: str, **words: str) -> Question:
    return Question(pick(rng, phrasings).format(**words), answer, kind)


def which_picture(
    task: Task, attributes_a: Mapping[str, str], attributes_b: Mapping[str, str]
) -> list[Question]:
    """ "In which picture ...", for each statement that holds in exactly one of two pictures."""
    return [
        Question(
            f"In which picture {words}, the first or the second?",
            "the first" if attributes_a[key] == value else "the second",
            "compare",
        )
        for (key, value), words in task.statements.items()
        if (attributes_a[key] == value) != (attributes_b[key] == value)
    ]


def camera(
    rng: Rng,
    *,
    noise: float,
    exposure: float = 1.0,
    infrared: bool = False,
    veil: tuple[str, float, float] | None = None,
) -> dict[str, Any]:
    """Camera parameters that `render` applies: gains, vignette, blur and sensor noise.

    `veil` is a light or a darkness over the picture: a colour and its opacity at the left and right
    edge.
    """
    warm = uniform(rng, -0.06, 0.06)
    return {
        "infrared": infrared,
        "veil": list(veil) if veil else None,
        "exposure": round(exposure * uniform(rng, 0.88, 1.12), 3),
        "gain": [1 + warm, 1.0, 1 - warm],
        "vignette": uniform(rng, 0.0, 0.35),
        "blur": uniform(rng, 0.0, 0.7),
        "noise": round(noise * uniform(rng, 0.5, 1.5), 3),
    }
