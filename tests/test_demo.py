"""The demo: every case asked, right and wrong answers told apart, costs printed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from autoneural.bundle import Bundle
from autoneural.demo import load_demo, run_demo
from autoneural.errors import UserError
from autoneural.runtime.engine import Engine
from tests.runtime.helpers import answer, ask, picture


@pytest.fixture
def examples(tmp_path: Path, tiny_bundle: Bundle) -> Path:
    """Two cases: the answer to the first is the expected one."""
    for seed in (1, 2):
        picture(seed).save(tmp_path / f"{seed}.png")
    engine = Engine(tiny_bundle, "float", threads=1)
    said = answer(engine, [ask("what [b]is[/b] it?", picture(1), picture(2))]).text
    turns = [{"prompt": "what [b]is[/b] it?", "expected": said}]
    cases = [
        {"title": "two", "images": ["1.png", "2.png"], "turns": turns},
        {"title": "one", "images": ["1.png"], "turns": [{"prompt": "why?", "expected": "no"}]},
    ]
    (tmp_path / "demo.json").write_text(json.dumps(cases))
    return tmp_path


def test_demo(examples: Path, tiny_bundle: Bundle) -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    assert run_demo(tiny_bundle, "float", folder=examples, console=console) == 1
    printed = out.getvalue()
    assert "two  1.png, 2.png" in printed
    assert "what [b]is[/b] it?" in printed
    assert printed.count("ttft") == 2
    assert printed.count("expected no") == 1
    assert "1 of 2 as expected" in printed


def test_damaged_demo_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text('[{"title": 1}]')
    with pytest.raises(UserError, match=r"demo.json: missing or damaged \('images'\)"):
        load_demo(tmp_path)
