"""Counts of threads that were measured here: kept apart from the bundle, used, and forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from autoneural.bundle import Bundle
from autoneural.runtime import threads
from autoneural.runtime.engine import Engine
from autoneural.runtime.threads import read_threads, threads_file, write_threads
from tests.runtime.helpers import answer, ask


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two processors, so that two threads are not too many, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(threads, "usable_processors", lambda: 2)
    return tmp_path / "autoneural"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Threads of every session, by file, as it is opened."""
    found: dict[str, int] = {}
    original = ort.InferenceSession

    def open_session(path: Path, options: ort.SessionOptions, **how: Any) -> ort.InferenceSession:
        found[Path(path).name] = options.intra_op_num_threads
        return original(path, options, **how)

    monkeypatch.setattr(ort, "InferenceSession", open_session)
    return found


def test_engines_use_what_was_measured_for_each_graph(
    tiny_bundle: Bundle, opened: dict[str, int], cache: Path
) -> None:
    files = sorted({graph.file for graph in tiny_bundle.target("float").graphs})
    wanted = {file: 1 + index % 2 for index, file in enumerate(files)}
    assert set(wanted.values()) == {1, 2}
    assert read_threads(tiny_bundle, "float") == {}
    kept = write_threads(tiny_bundle, "float", wanted)
    assert kept.parent == cache
    assert read_threads(tiny_bundle, "float") == wanted
    assert read_threads(tiny_bundle, "qdq") == {}
    engine = Engine(tiny_bundle, "float")
    assert opened == {Path(file).name: count for file, count in wanted.items()}
    assert len(answer(engine, [ask("what?")], max_tokens=2).token_ids) == 2
    Engine(tiny_bundle, "float", threads=1)
    assert set(opened.values()) == {1}


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.setattr(threads, "processor", lambda: ("another", ("avx2",))),
        lambda m: m.setattr(threads, "physical_cores", lambda: 64),
        lambda m: m.setattr(threads.ort, "__version__", "0.0.0"),
    ],
    ids=["processor", "cores", "version"],
)
def test_of_another_machine_nothing_is_known(
    tiny_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
) -> None:
    write_threads(tiny_bundle, "float", {"float/head.onnx": 1})
    change(monkeypatch)
    assert read_threads(tiny_bundle, "float") == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"threads": []}',
        '{"threads": {"float/head.onnx": "many"}}',
        '{"threads": {"float/head.onnx": 0}}',
        '{"threads": {"float/head.onnx": -1}}',
        '{"threads": {"float/head.onnx": 3}}',
        "\xff",
    ],
)
def test_a_damaged_record_is_as_good_as_none(
    tiny_bundle: Bundle, text: str, opened: dict[str, int]
) -> None:
    write_threads(tiny_bundle, "float", {"float/head.onnx": 1})
    threads_file(tiny_bundle, "float").write_bytes(text.encode("latin-1"))
    assert read_threads(tiny_bundle, "float") == {}
    Engine(tiny_bundle, "float")
    assert set(opened.values()) == {threads.physical_cores()}


def test_the_record_says_whose_it_is(tiny_bundle: Bundle) -> None:
    record = json.loads(write_threads(tiny_bundle, "float", {"float/head.onnx": 1}).read_text())
    assert record == {
        "bundle": tiny_bundle.name,
        "target": "float",
        "threads": {"float/head.onnx": 1},
    }
