"""Writes docs/datasheet.md from the cockpit tasks: `make docs`. A test fails when it is stale."""

from __future__ import annotations

import inspect
import re
import textwrap
from itertools import groupby
from pathlib import Path

from autoneural.data.cockpit import TASKS, Task
from autoneural.data.cockpit.tasks import DRAWN

PAGE = Path(__file__).with_name("datasheet.md")
HEAD = """# Datasheet of the cockpit pictures

Printed by `make docs` from `autoneural/data/cockpit/`; change that, not this page. The questions
are those of *Datasheets for Datasets* (arXiv 1803.09010).

**What it is.** {count} families of pictures in and around a car, drawn by a program from a seed,
with every attribute of every picture, boxes of what is visible, questions with their only right
answer, and a caption. `autoneural data cockpit -o DATA --n 48000` makes as many as asked for:
rows of `messages` (JSONL, LLaVA, Parquet or WebDataset) and JPEG pictures of 256 x 256 pixels.

**Why.** To train and to measure a small vision-language model where nothing can be downloaded and
no person need be filmed: a demonstration, and a test bed that compression can lose something on.

**What it is not.** Not photographs, and not a sample of the world: faces, cars and streets are
drawings, their variety is what somebody wrote down, and a model that is right here is not thereby
right in a car. Nobody's safety may rest on it. No real person, maker or plate is shown; brands
are invented. A PERCLOS of four drawn pictures is arithmetic, not a measurement of sleepiness.

**Several pictures.** 8 % of the rows ask what tells two pictures of a task apart. A fifth of the
rows about fatigue are clips of {frames} pictures:

```
{clips}```

**How answers come about.** Attributes are drawn first, from closed vocabularies and nearly
independent; the picture and all texts follow from them. In most tasks something hides what a
question asks for in 7 to 16 % of the scenes, and the right answer is "cannot tell": the same
words are asked where it can be told. Shares of the commonest answer are tested (under 0.6 each,
0.42 on average per task).

**Splits.** `train`, `val` and `test` share no random stream. `test` has fonts, shades, layouts
and places that the others never show, and scenes of styles of its own. Evaluation draws it; it is
never written. Of plate grammars, cluster layouts, plans and colours the others show any that are
not the test's (no colour within 24 of 255 of one of its own): a model that is shown eight grammars
learns these eight. `train` also asks for steps that lead to an answer (which way the arrow points,
where the car lies from there): `steps.py` has them.

**Formats.** `{{"id", "task", "source", "messages", "kinds", "attributes": {{"task.name": value}},
"boxes": {{"task.name": [left, top, right, bottom]}}}}`, boxes as fractions of the picture from
its top left corner.

**Licence and care.** Apache-2.0, like the program. Fonts come from packages (OFL or Apache-2.0).
Version {version} of the test pictures: another version gives others from the same seed. Training's
change with any release.

![Contact sheet](contact-sheet.jpg)
"""


def page() -> str:
    """The whole page as Markdown."""
    from autoneural.data.cockpit.base import VERSION
    from autoneural.data.cockpit.clips import FRAMES
    from autoneural.data.cockpit.clips import __doc__ as clips

    head = HEAD.format(count=len(TASKS), version=VERSION, frames=FRAMES, clips=clips)
    return "\n".join([head, *map(_section, DRAWN.values())])


def _section(task: Task) -> str:
    module = inspect.getmodule(type(task))
    rules = textwrap.dedent((module and module.__doc__) or "").strip()
    return "\n".join(
        [
            f"## {task.title} (`{task.name}`)\n",
            f"```\n{rules}\n```\n",
            f"Asked: {', '.join(task.kinds)}.\n",
            "| attribute | values |\n|---|---|",
            *_attributes(task),
            "",
        ]
    )


def _attributes(task: Task) -> list[str]:
    """A row each; numbered ones with the same values share one."""
    rows: list[str] = []
    alike = groupby(task.attributes.items(), lambda item: (re.sub(r"\d+", "", item[0]), item[1]))
    for (_, values), group in alike:
        names = [name for name, _ in group]
        name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        rows.append(f"| {name} | {', '.join(values)} |")
    return rows


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
