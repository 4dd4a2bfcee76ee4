"""`autoneural pull`: a model's files from the hub into the cache of huggingface_hub. Torch-free.

The library does the talking (`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`). One thing is
ours: it starts a broken file again from zero, so weights are fetched here, in a file that the next
pull goes on with, checked against their sha256, and put where the library looks first.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from autoneural.errors import UserError
from autoneural.files import expand, sha256
from autoneural.hub.cache import (
    UNWANTED,
    WANTED,
    find_snapshot,
    is_repo,
    lock_path,
    size_text,
)
from autoneural.hub.folder import INDEX, NOT_STATED, WEIGHTS, ModelFolder

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

Say = Callable[[str], None]


class Files(NamedTuple):
    """What a repository holds for us, at one commit."""

    commit: str
    licence: str
    sizes: dict[str, int]

    @property
    def size(self) -> int:
        return sum(self.sizes.values())


def pull(name: str, *, revision: str | None = None, offline: bool = False, say: Say) -> Path:
    """The folder of the model called `name`, fetched where it is not here yet.

    `name` is a repository (owner/name) or a local folder, which is only looked at. Licence and
    size are said before anything large moves. Raises UserError, one line, for whatever fails.
    """
    from huggingface_hub import constants, snapshot_download

    if expand(name).is_dir():
        return _say_local(name, expand(name), say)
    if not is_repo(name):
        raise UserError(f"{name}: neither a folder nor the name of a repository (owner/name)")
    if offline or constants.HF_HUB_OFFLINE:
        return _say_local(name, find_snapshot(name, revision), say)
    with _explained(name, revision):
        files = _look_up(name, revision)
        _refuse_useless(name, files)
        say(f"{name} at {files.commit[:12]}: licence {files.licence}, {size_text(files.size)}")
        _refuse_full(Path(constants.HF_HUB_CACHE), files)
        for file in files.sizes:
            if file.endswith(".safetensors"):
                _fetch_blob(name, file, files.commit)
        found = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(WANTED),
            ignore_patterns=list(UNWANTED),
        )
    return Path(found)


def _say_local(name: str, path: Path, say: Say) -> Path:
    folder = ModelFolder(path)
    files = folder.weights().files
    size = size_text(sum(file.stat().st_size for file in files))
    say(f"{name}: licence {folder.licence()}, {size} of weights, already here")
    return path


def _look_up(name: str, revision: str | None) -> Files:
    from huggingface_hub import HfApi

    info = HfApi().model_info(name, revision=revision, files_metadata=True)
    sizes = {
        file.rfilename: file.size or 0
        for file in info.siblings or ()
        if any(fnmatch(file.rfilename, pattern) for pattern in WANTED)
        and not any(fnmatch(file.rfilename, pattern) for pattern in UNWANTED)
    }
    return Files(info.sha or "main", _licence(info), sizes)


def _licence(info: ModelInfo) -> str:
    card = info.card_data.to_dict() if info.card_data else {}
    named = card.get("license")
    return str((card.get("license_name") if named == "other" else None) or named or NOT_STATED)


def _refuse_useless(name: str, files: Files) -> None:
    if WEIGHTS not in files.sizes and INDEX not in files.sizes:
        raise UserError(f"{name}: holds no safetensors weights, and nothing else is fetched")


def _refuse_full(cache: Path, files: Files) -> None:
    """UserError where the disk could not hold the files; what is here already counts as well."""
    existing = next(p for p in (cache, *cache.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if files.size > free and not any(cache.glob(f"*/snapshots/{files.commit}")):
        raise UserError(
            f"{cache}: {size_text(free)} free, {size_text(files.size)} needed; "
            f"make room or set HF_HOME to another disk"
        )


def _fetch_blob(name: str, file: str, commit: str) -> None:
    """Fetch one file into the cache's blobs, going on where an earlier pull stopped."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    url = hf_hub_url(name, file, revision=commit)
    there = get_hf_file_metadata(url)
    if there.etag is None or Path(there.etag).name != there.etag:
        raise UserError(f"{url}: the hub names no checksum for it")
    repo = repo_folder_name(repo_id=name, repo_type="model")
    blob = Path(constants.HF_HUB_CACHE) / repo / "blobs" / there.etag
    blob.parent.mkdir(parents=True, exist_ok=True)
    headers = build_hf_headers()
    if urlsplit(there.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # the token is the hub's, not the file server's
    part = blob.with_name(f"{blob.name}.resumable.incomplete")
    with WeakFileLock(lock_path(blob)):
        if blob.exists():
            return
        with part.open("ab") as stream:
            http_get(
                there.location,
                stream,
                resume_size=stream.tell(),
                headers=headers,
                expected_size=there.size,
                displayed_filename=file,
            )
        _keep(part, blob, file)


def _keep(part: Path, blob: Path, file: str) -> None:
    """Make a finished download a blob; large files are named by their sha256."""
    if len(blob.name) == 64 and sha256(part) != blob.name:
        part.unlink()
        raise UserError(f"{file}: arrived damaged (sha256); pull again")
    os.replace(part, blob)


@contextmanager
def _explained(name: str, revision: str | None) -> Iterator[None]:
    """Whatever the network does, as one line."""
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"{name}: gated; accept its terms at {constants.ENDPOINT}/{name}, then `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{name}: no such model at {constants.ENDPOINT}, or a private one (`hf auth login`)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{name}: has no revision {revision!r}") from error
    except errors.HFValidationError as error:
        raise UserError(f"{name}: not the name of a repository (owner/name)") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise UserError(f"{constants.ENDPOINT}: answered {status} for {name}; try later") from error
    except (errors.HTTPError, errors.LocalEntryNotFoundError) as error:
        raise UserError(
            f"{constants.ENDPOINT}: cannot be reached; what was pulled before works with --offline"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{constants.HF_HUB_CACHE}: the disk is full; make room, and pull again to go on"
            ) from error
        raise
