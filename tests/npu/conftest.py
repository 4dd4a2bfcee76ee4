"""A kit that several tests read, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoneural.bundle import Bundle
from autoneural.npu.kit import package
from tests.npu.kit_helpers import compiled_bundle


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The embedded bundle, in name compiled for SA8295P."""
    return compiled_bundle(tmp_path_factory.mktemp("compiled") / "bundle")


@pytest.fixture(scope="session")
def kit(compiled: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its kit, without the emulator's outputs."""
    folder = tmp_path_factory.mktemp("kits") / "kit"
    return package(compiled, "SA8295P", folder, emulator=False, progress=lambda line: None)
