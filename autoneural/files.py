"""Where things lie, and files and folders that appear whole or not at all.

Everything is written beside its final place and renamed. Over an earlier folder this takes two
renames: for an instant there is none, and if the second fails the earlier one comes back.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoneural.errors import UserError

SHIPPED = Path(__file__).resolve().parent.parent / "models"
"""Checkpoints of the clone this runs in; absent where only the package is installed."""


def cache_folder() -> Path:
    """Where what was measured or probed on this machine is kept for this user."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "autoneural"


@contextmanager
def replace_folder(folder: Path, work: Path | None = None) -> Iterator[Path]:
    """Give a temporary folder that becomes `folder` on success and disappears on failure.

    With `work` it is that one, on the same disk, and stays on failure: to go on from what it holds.
    Raises UserError where `folder` is the current folder or holds it: it could not be replaced.
    """
    refuse_current(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        _swap_in(work, folder)
        return
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        _swap_in(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_current(folder: Path) -> None:
    """UserError where `folder` is the current folder or one above it."""
    if Path.cwd().is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: is the folder you are in, or above it; name one to be made")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all, and flushed to the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hex digest of a file's contents."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def writable_folder(folder: Path, what: Path) -> Path:
    """`folder`, made where it was not there. UserError about `what` where it cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{what}: cannot be written ({error.strerror})") from error
    return folder


def expand(name: str | Path) -> Path:
    """`~` resolved where that user has a home; left as it is otherwise, where pathlib raises."""
    return Path(os.path.expanduser(name))


def _swap_in(new: Path, place: Path) -> None:
    if not place.exists():
        os.replace(new, place)
        return
    # A folder cannot be renamed over a full one: move the old one aside first.
    old = new.with_name(f"{new.name}.old")
    os.replace(place, old)
    try:
        os.replace(new, place)
    except OSError:
        os.replace(old, place)
        raise
    shutil.rmtree(old)
