"""Eight fatigue pictures with their rows, as `data cockpit` writes them, and a dozen coloured ones
with short conversations."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoneural.data.cockpit import export
from tests.train.conftest import write_rows


@pytest.fixture(scope="session")
def cockpit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cockpit") / "data"
    export.write(folder, ["fatigue"], 8, size=64, workers=1)
    return folder


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("coloured"))
