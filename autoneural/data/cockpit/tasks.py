"""The register of tasks: one line per task file. A drill is for training alone."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence

from autoneural.data.cockpit.base import Task
from autoneural.data.cockpit.boarding import Boarding
from autoneural.data.cockpit.child import Child
from autoneural.data.cockpit.fatigue import Fatigue
from autoneural.data.cockpit.finder import Finder
from autoneural.data.cockpit.greeter import Greeter
from autoneural.data.cockpit.hmi import Hmi
from autoneural.data.cockpit.page import Page
from autoneural.data.cockpit.plate import Plate
from autoneural.data.cockpit.sentinel import Sentinel
from autoneural.errors import UserError

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Fatigue(),
        Hmi(),
        Boarding(),
        Child(),
        Greeter(),
        Plate(),
        Finder(),
        Sentinel(),
    )
}

DRILLS: dict[str, Task] = {Page.name: Page()}
DRAWN = ChainMap(DRILLS, TASKS)  # lists the tasks first
"""Both, those that somebody adds to `TASKS` later with them."""


def check_tasks(names: Sequence[str] | None) -> list[str]:
    """The tasks meant: those named, once each, or all but the drills.

    UserError naming one that does not exist.
    """
    for name in names or ():
        if name not in DRAWN:
            raise UserError(f"no task {name!r}; one of {', '.join(DRAWN)}")
    return list(dict.fromkeys(names or TASKS))
