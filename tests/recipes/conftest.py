"""Eight fatigue pictures with their rows, as `data cockpit` writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoneural.data.cockpit import export


@pytest.fixture(scope="session")
def cockpit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cockpit") / "data"
    export.write(folder, ["fatigue"], 8, size=64, workers=1)
    return folder
