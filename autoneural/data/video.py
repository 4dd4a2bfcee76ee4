"""A clip -> its frames at so many a second, upright RGB pictures in order. Torch-free.

Animated GIF, WebP and PNG are read by Pillow; videos by PyAV (extra [video]), which brings FFmpeg.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from autoneural.data.image import MAX_PIXELS, load_image, read_animation
from autoneural.errors import UserError

Timed = tuple[float, Image.Image]
"""Until when a frame is shown, in seconds, and the frame."""

_PICTURES = (b"GIF8", b"\x89PNG")
_JPEG = b"\xff\xd8\xff"
# Containers of one file each: playlists, which name other files and addresses, are none of them.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,m4v,ivf,mjpeg,h264,hevc"
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
_SLACK = 1e-6


def read_frames(path: Path, fps: float) -> Iterator[Image.Image]:
    """What a clip shows at 0, 1/fps, 2/fps, ... seconds, one by one.

    Raises UserError, one line, where the file is missing, empty, damaged, no clip, or has frames of
    too many pixels; ModuleNotFoundError for a video where PyAV is not installed.
    """
    if not 0 < fps < math.inf:
        raise UserError(f"--fps {fps:g}: is not a number above 0")
    return _sampled(read_animation(path) if _is_picture(path) else _video(path), fps)


def _sampled(frames: Iterable[Timed], fps: float) -> Iterator[Image.Image]:
    number = 0
    for end, frame in frames:
        while number / fps < end - _SLACK:
            yield frame
            number += 1


def _is_picture(path: Path) -> bool:
    try:
        if not path.is_file():
            raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        with path.open("rb") as file:
            head = file.read(12)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not head:
        raise UserError(f"{path}: empty file (0 bytes)")
    if head.startswith(_JPEG):
        raise UserError(f"{path}: a picture, not a clip; --image takes it")
    return head[:4] in _PICTURES or (head[:4], head[8:]) == (b"RIFF", b"WEBP")


def _video(path: Path) -> Iterator[Timed]:
    """Times count from the first frame; the last stays for as long as one does on average."""
    with _opened(path) as (container, stream):
        frames = container.decode(stream)
        shown = next(frames, None)
        if shown is None:
            raise UserError(f"{path}: a video without frames")
        first = appeared = float(shown.time or 0)
        for frame in frames:
            time = float(frame.time or 0)
            yield time - first, _picture(shown)
            shown, appeared = frame, time
        rate = float(stream.average_rate or 1)
        yield appeared - first + 1 / rate, _picture(shown)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """(container, stream) of a video. What FFmpeg raises, here or later, comes as a UserError."""
    import av

    try:
        # An open file, not its name: names of FFmpeg may be addresses.
        with path.open("rb") as file, av.open(file, options=_OPTIONS) as container:
            if not container.streams.video:
                raise UserError(f"{path}: no video in it")
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                size = f"{stream.width}x{stream.height}"
                raise UserError(f"{path}: too many pixels: {size} is over {MAX_PIXELS}")
            yield container, stream
    except UserError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: not a readable video ({reason})") from error


def _picture(frame: Any) -> Image.Image:
    image = load_image(frame.to_image())
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
