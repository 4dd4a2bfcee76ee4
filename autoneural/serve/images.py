"""Pictures of a request: data URLs, files below the media path, URLs of trusted hosts."""

from __future__ import annotations

import base64
import binascii
import os
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image

from autoneural.data.processor import Processor
from autoneural.errors import UserError
from autoneural.serve.errors import ApiError, invalid, of_user_error
from autoneural.serve.remote import MEDIA_TYPES, SCHEMES, Fetcher
from autoneural.serve.settings import MAX_BODY_BYTES

DECODING = 2
"""Pictures that are decoded at once: each may take 40 megapixels of memory."""
_INVALID = "invalid_image"
_SHOWN = 40


@dataclass(frozen=True)
class ImageReader:
    """Turns the URL of an image part into a picture, as small as the model sees it.

    Without `fetch` nothing is fetched.
    """

    media_path: Path | None = None
    fetch: Fetcher | None = None
    _decoding: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(DECODING))

    def __call__(self, url: str, processor: Processor, param: str) -> Image.Image:
        """Raises ApiError (400) with `param` where it is no picture or may not be read."""
        data = self._bytes(url, param)
        try:
            with self._decoding:
                return processor.load(data)
        except UserError as error:
            raise of_user_error(error, param, "invalid_image") from error

    def fetches(self, url: str) -> bool:
        """Whether reading `url` means waiting for another machine."""
        return self.fetch is not None and _scheme(url) in SCHEMES

    def _bytes(self, url: str, param: str) -> bytes:
        scheme = _scheme(url)
        if scheme == "data":
            return _of_data_url(url, param)
        if scheme in ("", "file"):
            return self._of_file(url, param)
        if self.fetch is not None and self.fetches(url):
            return self.fetch(url, param)
        message = "only data URLs are read; send the picture itself, base64-encoded"
        raise invalid(param, message, "remote_image_refused")

    def _of_file(self, url: str, param: str) -> bytes:
        if self.media_path is None:
            message = "files are refused (the server has no --media-path); send a data URL"
            raise invalid(param, message, "local_file_refused")
        try:
            return _read_below(self.media_path, _file_name(url))
        except (OSError, ValueError) as error:
            # One text for all: what lies outside the folder is not to be found out.
            raise _not_there(param) from error


def _scheme(url: str) -> str:
    scheme, colon, _ = url[:_SHOWN].partition(":")
    return scheme.lower() if colon else ""


def _of_data_url(url: str, param: str) -> bytes:
    head, comma, data = url[len("data:") :].partition(",")
    media_type, *rest = head.lower().split(";")
    if not comma or rest[-1:] != ["base64"]:
        raise invalid(param, "expected data:image/...;base64,...", _INVALID)
    if media_type not in MEDIA_TYPES:
        allowed = ", ".join(MEDIA_TYPES)
        raise invalid(param, f"the media type is not one of {allowed}", _INVALID)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(param, "damaged base64", _INVALID) from error


def _file_name(url: str) -> str:
    if url[:5].lower() != "file:":
        return url
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ValueError("a file on another machine")
    return unquote(parts.path)


def _read_below(folder: Path, name: str) -> bytes:
    """A regular file whose real place is inside `folder`. OSError or ValueError otherwise."""
    root = folder.resolve(strict=True)
    path = (root / name).resolve(strict=True)
    if not path.is_relative_to(root):
        raise ValueError("outside the media path")
    # The path is resolved: a link at its end was put there since. A pipe must not be waited for.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_BODY_BYTES:
            raise ValueError("no regular file, or too large")
        return file.read(MAX_BODY_BYTES)


def _not_there(param: str) -> ApiError:
    return invalid(param, "no such picture below the media path", "image_not_found")
