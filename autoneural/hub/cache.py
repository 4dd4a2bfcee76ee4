"""The cache of huggingface_hub (`HF_HOME`): what is in it, and taking things out. Torch-free.

Other programs keep their models there too: `rm` and `clean` say what they took.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoneural.errors import UserError
from autoneural.files import expand

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo

# Nothing else is fetched: no pickles, no code. README.md states the licence.
WANTED = ("model.safetensors", "model-*.safetensors", "*.json", "*.jinja", "LICENSE*", "README.md")
UNWANTED = ("*/*",)
_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Cached:
    """A model in the cache: `refs` are the branches and tags that stand on its revisions."""

    name: str
    size: int
    revisions: int
    refs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What was taken out: a line for each thing, and bytes."""

    lines: tuple[str, ...]
    freed: int


def is_repo(name: str) -> bool:
    """Whether `name` could be a repository's: owner/name."""
    return _REPO.fullmatch(name) is not None


def find_model(name: str) -> Path:
    """The folder called `name`: a path, or a repository that was pulled."""
    path = expand(name)
    if path.is_dir():
        return path
    if not is_repo(name):
        raise UserError(f"{name}: no such folder")
    return find_snapshot(name, None)


def find_snapshot(name: str, revision: str | None) -> Path:
    """The whole snapshot of a repository in the cache. UserError where there is none."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            name,
            revision=revision,
            local_files_only=True,
            allow_patterns=list(WANTED),
            ignore_patterns=list(UNWANTED),
        )
    except (LocalEntryNotFoundError, HFValidationError) as error:
        at = f" at {revision}" if revision else ""
        raise UserError(
            f"{name}{at}: not, or not wholly, in {constants.HF_HUB_CACHE}; "
            f"fetch it with `autoneural pull {name}`"
        ) from error
    return Path(found)


def models() -> list[Cached]:
    """All models in the cache, by name."""
    info = _scan()
    if info is None:
        return []
    found = [
        Cached(
            name=repo.repo_id,
            size=repo.size_on_disk,
            revisions=len(repo.revisions),
            refs=tuple(sorted(repo.refs)),
        )
        for repo in info.repos
        if repo.repo_type == "model"
    ]
    return sorted(found, key=lambda model: model.name)


def remove(name: str) -> Removal:
    """Delete every revision of the model called `name`."""
    info = _scan()
    repos = [] if info is None else [r for r in info.repos if r.repo_type == "model"]
    for repo in repos:
        if repo.repo_id == name and info is not None:
            strategy = info.delete_revisions(*(r.commit_hash for r in repo.revisions))
            strategy.execute()
            return Removal(lines=(f"removed {name}",), freed=strategy.expected_freed_size)
    raise UserError(f"{name}: not in the cache; `autoneural list` shows what is")


def clean(*, dry_run: bool = False) -> Removal:
    """Delete unfinished downloads, and revisions of models that a newer one has replaced.

    A revision counts as replaced where no branch or tag stands on it and one stands on another of
    the same model. Downloads that are under way stay.
    """
    info = _scan()
    if info is None:
        return Removal(lines=(), freed=0)
    verb = "would remove" if dry_run else "removed"
    lines, freed = [], 0
    for file in sorted(info.incomplete_files, key=lambda f: f.file_path):
        if dry_run or _unlink(file.file_path):
            lines.append(f"{verb} an unfinished download of {_repo_of(file.file_path)}")
            freed += file.size_on_disk
    old = [
        (repo.repo_id, revision.commit_hash)
        for repo in sorted(info.repos, key=lambda r: r.repo_id)
        if repo.repo_type == "model" and repo.refs
        for revision in sorted(repo.revisions, key=lambda r: r.commit_hash)
        if not revision.refs
    ]
    strategy = info.delete_revisions(*(commit for _, commit in old))
    if not dry_run:
        strategy.execute()
    lines += [f"{verb} {name} at {commit[:12]}" for name, commit in old]
    return Removal(lines=tuple(lines), freed=freed + strategy.expected_freed_size)


def size_text(size: int) -> str:
    """Bytes as people read them: 2.34 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"


def _scan() -> HFCacheInfo | None:
    """What lies in the cache; None where there is no cache yet."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir()
    except CacheNotFound:
        return None
    except ValueError as error:
        raise UserError(str(error)) from error


def _unlink(path: Path) -> bool:
    """Delete an unfinished download unless a process holds its lock."""
    from huggingface_hub.utils import WeakFileLock

    try:
        with WeakFileLock(lock_path(path), timeout=0.1):
            path.unlink(missing_ok=True)
    except TimeoutError:
        return False
    return True


def lock_path(blob: Path) -> Path:
    """The lock that huggingface_hub holds while it writes `blob` or an unfinished one of it."""
    repo = blob.parent.parent
    folder = repo.parent / ".locks" / repo.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{blob.name.split('.')[0]}.lock"


def _repo_of(path: Path) -> str:
    return path.parent.parent.name.partition("--")[2].replace("--", "/")
