"""A contact sheet for looking: pictures with two questions and answers under each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from autoneural.data.cockpit.base import Question, Scene, Split, pick, rng_for
from autoneural.data.cockpit.fonts import font_file
from autoneural.data.cockpit.render import draw
from autoneural.data.cockpit.rows import scene_seed
from autoneural.data.cockpit.tasks import DRAWN
from autoneural.errors import UserError

CELL, TEXT, GAP = 256, 134, 10


def _two(scene: Scene) -> list[Question]:
    questions = DRAWN[scene.task].questions(scene)[:-2]
    rng = rng_for(scene.task, scene.split, scene.seed, "sheet")
    first = pick(rng, questions)
    return [first, pick(rng, [question for question in questions if question is not first])]


def _caption(pen: ImageDraw.ImageDraw, x: int, y: int, scene: Scene) -> None:
    plain = ImageFont.truetype(font_file("roboto-medium"), 13)
    bold = ImageFont.truetype(font_file("roboto-bold"), 13)
    for question in _two(scene):
        for line in textwrap.wrap(question.prompt, 40)[:3]:
            pen.text((x, y), line, font=plain, fill="#4a5058")
            y += 15
        pen.text((x, y), question.answer, font=bold, fill="#0b6bcb")
        y += 17


def contact_sheet(
    tasks: Sequence[str], split: Split, seed: int = 0, columns: int = 6
) -> Image.Image:
    """About eight rows of `columns` pictures, shared out over the tasks."""
    lines = max(1, 8 // len(tasks))
    height = len(tasks) * lines * (CELL + TEXT + GAP) + GAP
    page = Image.new("RGB", (columns * (CELL + GAP) + GAP, height), "#ffffff")
    pen = ImageDraw.Draw(page)
    for cell in range(len(tasks) * lines * columns):
        name, index = tasks[cell // (lines * columns)], cell % (lines * columns)
        scene = DRAWN[name].sample(scene_seed(seed, index), split)
        x = GAP + cell % columns * (CELL + GAP)
        y = GAP + cell // columns * (CELL + TEXT + GAP)
        page.paste(Image.fromarray(draw(scene, DRAWN[name].svg(scene), CELL)), (x, y))
        _caption(pen, x, y + CELL + 4, scene)
    return page


def write_sheet(path: Path, tasks: Sequence[str], split: Split, seed: int = 0) -> None:
    """Saves the contact sheet in the format of its name. UserError for a name that has none."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"{path}: a contact sheet is a .png or a .jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(tasks, split, seed).save(path)
