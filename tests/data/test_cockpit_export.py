"""Cockpit export: every format read back, refusals, nothing left behind on failure."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autoneural.data.cockpit import export, rows
from autoneural.data.cockpit.sheet import write_sheet
from autoneural.data.image import load_image
from autoneural.data.importers import open_source
from autoneural.errors import UserError

TASKS = ("fatigue", "boarding")
N = 6


def _expected() -> list[dict[str, Any]]:
    return [row for task in TASKS for row, _ in rows(task, "val", 0, N // 2, seed=3)]


def _write(out: Path, format: str) -> Path:
    export.write(out, TASKS, N, 3, "val", format, size=64, workers=1)
    return out


def _names(row: dict[str, Any]) -> list[str]:
    return [p["image"] for m in row["messages"] for p in m["content"] if p["type"] == "image"]


def test_messages_read_back(tmp_path: Path) -> None:
    out = _write(tmp_path / "a", "messages")
    read = [json.loads(line) for line in (out / "val.jsonl").read_text().splitlines()]
    assert read == _expected()
    for row in read:
        for name in _names(row):
            with Image.open(out / name) as picture:
                assert picture.size == (64, 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    one = _write(tmp_path / "one", "messages")
    two = tmp_path / "two"
    drawn = export.write(two, TASKS, N, 3, "val", "messages", size=64, workers=2)
    assert drawn.pictures == len(list((two / "images").iterdir())) >= N
    assert drawn.core_seconds > 0
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) > N
    for name in files:
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_llava_reads_back(tmp_path: Path) -> None:
    out = _write(tmp_path / "a", "llava")
    items = json.loads((out / "val.json").read_text())
    assert [item["id"] for item in items] == [row["id"] for row in _expected()]
    for item, row in zip(items, _expected(), strict=True):
        turns = item["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * len(row["kinds"])
        assert "".join(t["value"] for t in turns).count("<image>") == len(_names(row))
        images = item["image"] if isinstance(item["image"], list) else [item["image"]]
        assert images == _names(row)
        assert all((out / name).is_file() for name in images)


def _without_pictures(row: dict[str, Any]) -> dict[str, Any]:
    """A row with every picture replaced by its format: paths differ between the formats."""
    kept = {k: v for k, v in row.items() if k in ("id", "task", "source", "kinds", "attributes")}
    messages = [
        {
            "role": message["role"],
            "content": [
                {"type": "image", "image": load_image(part["image"]).size}
                if part["type"] == "image"
                else part
                for part in message["content"]
            ],
        }
        for message in row["messages"]
    ]
    return {**kept, "messages": messages}


@pytest.mark.parametrize("format", ["messages", "llava", "parquet", "webdataset"])
def test_every_format_trains_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    monkeypatch.setattr(export, "SHARD_ROWS", 4)
    monkeypatch.setattr(export, "GROUP_ROWS", 4)
    file = {
        "messages": "val.jsonl",
        "llava": "val.json",
        "parquet": "val.parquet",
        "webdataset": "val-*.tar",
    }[format]
    plain = open_source(_write(tmp_path / "plain", "messages") / "val.jsonl")
    source = open_source(_write(tmp_path / "a", format) / file)
    assert len(source) == N
    for index in range(N):
        assert _without_pictures(source.row(index)) == _without_pictures(plain.row(index))


def test_webdataset_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "SHARD_ROWS", 4)
    out = _write(tmp_path / "a", "webdataset")
    assert [p.name for p in sorted(out.iterdir())] == ["val-000000.tar", "val-000001.tar"]
    read = []
    for shard in sorted(out.iterdir()):
        with tarfile.open(shard) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        for name in sorted(n for n in members if n.endswith(".json")):
            row = json.loads(members[name])
            assert all(members[image][:2] == b"\xff\xd8" for image in _names(row))
            read.append(row)
    assert [r["attributes"] for r in read if "attributes" in r] == [
        r["attributes"] for r in _expected() if "attributes" in r
    ]
    assert [r["id"] for r in read] == [r["id"] for r in _expected()]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": ("fatigue", "parking")}, "no task 'parking'; one of fatigue"),
        ({"tasks": ()}, "no task given"),
        ({"format": "csv"}, "--format: unknown format 'csv'"),
        ({"split": "dev"}, "--split: unknown split 'dev'"),
        ({"n": 0}, "--n: 0 rows"),
        ({"seed": -1}, "--seed: -1"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    arguments = {"tasks": TASKS, "n": 2, "seed": 0, "split": "val", **change}
    with pytest.raises(UserError, match=words) as caught:
        export.write(tmp_path / "a", **arguments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not an empty folder"):
        _write(tmp_path, "messages")
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setitem(export.WRITERS, "messages", broken)
    with pytest.raises(RuntimeError, match="disk full"):
        _write(tmp_path / "a", "messages")
    assert not list(tmp_path.iterdir())


def test_sheet_shows_every_task(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sheet.png"
    write_sheet(path, ("hmi",), "val")
    with Image.open(path) as picture:
        page = np.asarray(picture)
    assert page.shape[1] > 1500
    assert page.std() > 20


def test_a_sheet_is_a_picture(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sheet.txt: a contact sheet is a .png or a .jpg"):
        write_sheet(tmp_path / "sheet.txt", ("hmi",), "val")
