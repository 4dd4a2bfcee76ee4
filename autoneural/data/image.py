"""Pictures from outside: checked before they are decoded, then made square. Torch-free.

file | bytes | PIL  ->  header check  ->  decode  ->  EXIF rotation  ->  RGB  ->  [3, S, S]
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from autoneural.errors import UserError

ImageSource = str | Path | bytes | Image.Image

MAX_PIXELS = 40_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_UNTIMED_MS = 100
"""Of a frame that does not say how long it is shown: what browsers take."""
_PAD_COLOUR = (127, 127, 127)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# warnings.catch_warnings swaps process-wide state: without the lock, threads restore each other's.
_OPEN_LOCK = threading.Lock()


def load_image(
    source: ImageSource, max_pixels: int = MAX_PIXELS, min_size: int | None = None
) -> Image.Image:
    """Decode a JPEG, PNG, WebP, BMP or GIF (first frame) to an upright RGB picture.

    Transparent pixels come out on white. `min_size` lets a JPEG decode at a fraction of its size
    whose shorter edge is still at least that, which is several times faster for photographs.
    Raises UserError, one line, when the file is missing, empty, damaged, no picture, or has more
    than `max_pixels` (read from the header: a decompression bomb is never decoded).
    """
    if isinstance(source, Image.Image):
        return _decoded(source, "image", max_pixels, None)
    label, file = _opened(source)
    with file, _header(label, file) as image:
        return _decoded(image, label, max_pixels, min_size)


def read_animation(path: Path) -> Iterator[tuple[float, Image.Image]]:
    """The frames of an animated GIF, WebP or PNG, and until when each is shown, in seconds.

    A still picture is one frame. Raises UserError as `load_image` does.
    """
    label, file = _opened(path)
    end = 0.0
    with file, _header(label, file) as image:
        for number in range(getattr(image, "n_frames", 1)):
            try:
                image.seek(number)
            except Exception as error:
                raise UserError(f"{label}: damaged or incomplete picture ({error})") from error
            frame = _decoded(image, label, MAX_PIXELS, None)
            end += (image.info.get("duration") or _UNTIMED_MS) / 1e3
            yield end, frame


def to_pixels(image: Image.Image, size: int, pad: bool = False) -> np.ndarray:
    """RGB picture -> uint8 [3, size, size], bicubic.

    Squashed, whatever its aspect ratio (as Gemma 3n), or padded with mid-grey, which keeps it.
    """
    if pad:
        fitted = ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC, color=_PAD_COLOUR)
    else:
        fitted = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(fitted, dtype=np.uint8).transpose(2, 0, 1))


def _opened(source: str | Path | bytes) -> tuple[str, IO[bytes]]:
    if isinstance(source, bytes):
        if not source:
            raise UserError("image: empty (0 bytes)")
        return "image", io.BytesIO(source)
    path = Path(source)
    try:
        # is_file first: opening a pipe would wait for its writer.
        if path.is_file():
            if path.stat().st_size == 0:
                raise UserError(f"{path}: empty file (0 bytes)")
            return str(path), path.open("rb")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")


def _header(label: str, file: IO[bytes]) -> Image.Image:
    try:
        with _OPEN_LOCK, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(file, formats=FORMATS)
    except _BOMBS as error:
        raise UserError(f"{label}: too many pixels ({error})") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{label}: not a JPEG, PNG, WebP, BMP or GIF picture") from error
    except Exception as error:
        raise UserError(f"{label}: damaged picture header ({error})") from error


def _decoded(image: Image.Image, label: str, max_pixels: int, min_size: int | None) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise UserError(
            f"{label}: too many pixels: {width}x{height} is over {max_pixels}; make it smaller"
        )
    if not width * height:
        raise UserError(f"{label}: picture without pixels ({width}x{height})")
    # Pillow's plugins raise many types on hostile input: OSError, SyntaxError, struct.error.
    try:
        if min_size is not None and image.format == "JPEG":
            image.draft("RGB", _draft_size(image.size, min_size))
        return _upright_rgb(image)
    except Exception as error:
        raise UserError(f"{label}: damaged or incomplete picture ({error})") from error


def _draft_size(size: tuple[int, int], min_size: int) -> tuple[int, int]:
    scale = min_size / min(size)
    return (round(size[0] * scale), round(size[1] * scale))


def _upright_rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        # 16-bit greyscale: Pillow's own conversion clips at 255, which is nearly all white.
        grey = np.clip(np.asarray(upright).astype(np.int64) >> 8, 0, 255)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if upright.has_transparency_data:
        coloured = upright.convert("RGBA")
        canvas = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(canvas, coloured).convert("RGB")
    return upright.convert("RGB")
