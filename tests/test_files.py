"""Folders and files appear whole, and what was there survives a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autoneural import files
from autoneural.errors import UserError
from autoneural.files import expand, replace_folder, write_text


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_folder_is_made_and_replaced_whole(tmp_path: Path) -> None:
    place = tmp_path / "shelf" / "thing"
    for text in ("first", "second"):
        with replace_folder(place) as new:
            (new / text).write_text(text)
            assert not (place / text).exists()
        assert names(place) == [text]
    assert names(place.parent) == ["thing"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    with replace_folder(tmp_path / "thing") as new:
        (new / "old").touch()
    with pytest.raises(ZeroDivisionError), replace_folder(tmp_path / "thing") as new:
        (new / "half").write_text(str(1 / 0))
    assert names(tmp_path) == ["thing"]
    assert names(tmp_path / "thing") == ["old"]


def test_a_failed_rename_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "thing"
    with replace_folder(place) as new:
        (new / "old").touch()
    rename, calls = os.replace, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError("the disk is gone")
        rename(source, target)

    monkeypatch.setattr(files.os, "replace", second_fails)
    with pytest.raises(OSError, match="the disk is gone"), replace_folder(place) as new:
        (new / "new").touch()
    assert names(tmp_path) == ["thing"]
    assert names(place) == ["old"]


@pytest.mark.parametrize("name", [".", "..", "../inner"])
def test_the_current_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    with pytest.raises(UserError, match="is the folder you are in"), replace_folder(Path(name)):
        pass


def test_a_text_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text"
    write_text(path, "old")
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["text"]


def test_a_home_that_does_not_exist_stays_as_written() -> None:
    assert expand("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")
    assert expand("~/x") == Path.home() / "x"
