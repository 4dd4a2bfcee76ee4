"""The datasheet says what the tasks are now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_datasheet_is_current() -> None:
    spec = importlib.util.spec_from_file_location("make_datasheet", DOCS / "make_datasheet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "datasheet.md").read_text(encoding="utf-8") == module.page(), "run `make docs`"
