"""Pictures from outside: right pixels, and one line for each thing that can be wrong."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoneural.data.image import load_image, to_pixels
from autoneural.errors import UserError


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "GIF", "JPEG"])
def test_formats_load(picture: Image.Image, kind: str, tmp_path: Path) -> None:
    data = encoded(picture, kind)
    path = tmp_path / "picture.bin"
    path.write_bytes(data)
    for source in (data, path, str(path)):
        image = load_image(source)
        assert (image.mode, image.size) == ("RGB", (64, 48))
    if kind in ("PNG", "BMP"):
        np.testing.assert_array_equal(np.asarray(load_image(data)), np.asarray(picture))


def huge_png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\0" * 4


def bad_pictures() -> dict[str, tuple[bytes, str]]:
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    png, jpeg = encoded(image, "PNG"), encoded(image, "JPEG")
    return {
        "zero": (b"", "empty"),
        "text": (b"hello, I am a text file\n", "not a JPEG"),
        "tiff": (encoded(image, "TIFF"), "not a JPEG"),
        "truncated-jpeg": (jpeg[: len(jpeg) // 2], "damaged"),
        "truncated-png": (png[: len(png) // 2], "damaged"),
        "flipped-png": (png[:200] + bytes(50) + png[250:], "damaged"),
        "header-only": (png[:10], "not a JPEG|damaged"),
        "over-limit": (huge_png(7000, 7000), "too many pixels"),
        "bomb-warning": (huge_png(11000, 11000), "too many pixels"),
        "bomb-error": (huge_png(65000, 65000), "too many pixels"),
    }


@pytest.mark.parametrize(("name", "case"), bad_pictures().items())
def test_bad_pictures_are_one_line(name: str, case: tuple[bytes, str], tmp_path: Path) -> None:
    data, message = case
    path = tmp_path / f"{name}.png"
    path.write_bytes(data)
    for source in (data, path):
        with pytest.raises(UserError, match=message) as caught:
            load_image(source)
        assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_folder_and_pipe(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(UserError, match="not a file"):
        load_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="not a file"):
        load_image(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="cannot be read|no such file"):
        load_image("a\0b.png")


def test_pil_image_obeys_the_limit(picture: Image.Image) -> None:
    assert load_image(picture, max_pixels=64 * 48).size == (64, 48)
    with pytest.raises(UserError, match="too many pixels: 64x48"):
        load_image(picture, max_pixels=64 * 48 - 1)


def test_damaged_pil_image_is_refused_too() -> None:
    data, message = bad_pictures()["truncated-jpeg"]
    with pytest.raises(UserError, match=message):
        load_image(Image.open(io.BytesIO(data)))


def test_exif_rotation(tmp_path: Path) -> None:
    array = np.zeros((32, 64, 3), dtype=np.uint8)
    array[:, :32] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated 90 degrees clockwise: the left half becomes the top
    image = load_image(encoded(Image.fromarray(array), "PNG", exif=exif))
    assert image.size == (32, 64)
    assert image.getpixel((16, 8)) == (255, 0, 0)
    assert image.getpixel((16, 56)) == (0, 0, 0)


def test_transparency_comes_out_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert load_image(encoded(clear, "PNG")).getpixel((0, 0)) == (255, 255, 255)


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    grey = Image.fromarray(np.full((4, 4), 0x80FF, dtype=np.uint16))
    assert load_image(encoded(grey, "PNG")).getpixel((0, 0)) == (128, 128, 128)


def test_cmyk_jpeg_and_animated_gif() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert load_image(encoded(cmyk, "JPEG")).getpixel((0, 0)) == (255, 255, 255)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    animated = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(animated).getpixel((0, 0)) == (255, 0, 0)


def test_jpeg_is_decoded_smaller_but_never_below_min_size() -> None:
    photo = encoded(Image.new("RGB", (1600, 1200), "green"), "JPEG")
    assert load_image(photo).size == (1600, 1200)
    assert load_image(photo, min_size=512).size == (800, 600)


def test_to_pixels_squash_and_pad() -> None:
    wide = Image.new("RGB", (64, 32), (200, 100, 50))
    squashed, padded = to_pixels(wide, 16), to_pixels(wide, 16, pad=True)
    assert squashed.shape == padded.shape == (3, 16, 16)
    assert squashed.dtype == np.uint8
    assert (squashed == np.array([200, 100, 50])[:, None, None]).all()
    assert (padded[:, 4:12] == np.array([200, 100, 50])[:, None, None]).all()
    assert (padded[:, :4] == 127).all()
    assert (padded[:, 12:] == 127).all()


def test_picture_of_the_right_size_is_untouched(picture: Image.Image) -> None:
    square = picture.crop((0, 0, 48, 48))
    np.testing.assert_array_equal(to_pixels(square, 48).transpose(1, 2, 0), np.asarray(square))


def test_bombs_in_threads_leave_the_warning_filters_alone() -> None:
    import warnings

    before = list(warnings.filters)
    bomb = huge_png(11000, 11000)
    refused: list[bool] = []

    def attempt() -> None:
        for _ in range(20):
            try:
                load_image(bomb)
            except UserError:
                refused.append(True)

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 80
    assert list(warnings.filters) == before
