"""The register of tasks: one line per task file."""

from __future__ import annotations

from autoneural.data.cockpit.base import Task
from autoneural.data.cockpit.boarding import Boarding
from autoneural.data.cockpit.fatigue import Fatigue
from autoneural.data.cockpit.hmi import Hmi

TASKS: dict[str, Task] = {task.name: task for task in (Fatigue(), Hmi(), Boarding())}
