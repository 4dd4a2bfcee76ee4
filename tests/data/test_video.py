"""Frames of clips: which ones, when, and what is no clip."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoneural.data.video import read_frames
from autoneural.errors import UserError

GREYS = (0, 60, 120, 180, 240)


def frame(grey: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("RGB", size, (grey,) * 3)


def animation(path: Path, durations: Sequence[int], **options) -> Path:
    """One frame per grey, shown for `durations` milliseconds."""
    first, *rest = [frame(grey) for grey in GREYS[: len(durations)]]
    first.save(path, save_all=True, append_images=rest, duration=list(durations), **options)
    return path


def video(path: Path, frames: int = 20, rate: int = 10, codec: str = "mpeg4", **options) -> Path:
    """Frame n is of the grey 10 n."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            pixels = np.full((48, 64, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def greys(path: Path, fps: float) -> list[int]:
    """The grey in the middle of every frame, to the nearest 10."""
    pictures = list(read_frames(path, fps))
    assert {picture.mode for picture in pictures} == {"RGB"}
    return [round(np.asarray(picture)[20, 30].mean() / 10) * 10 for picture in pictures]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_by_the_times_of_its_frames(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = animation(tmp_path / f"a.{suffix}", (500, 1000, 500, 1500, 200), **options)
    assert greys(path, 1) == [0, 60, 180, 180]  # at 0, 1, 2 and 3 of 3.7 seconds
    assert greys(path, 2) == [0, 60, 60, 120, 180, 180, 180, 240]
    assert greys(path, 0.1) == [0]


def test_frames_without_times_are_shown_as_browsers_do(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.gif", (0, 0, 0))
    assert greys(path, 10) == [0, 60, 120]


def test_a_still_picture_is_one_frame(tmp_path: Path) -> None:
    frame(60).save(tmp_path / "a.png")
    assert greys(tmp_path / "a.png", 1) == [60]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_video_by_its_clock(tmp_path: Path, suffix: str) -> None:
    path = video(tmp_path / f"a.{suffix}")
    assert greys(path, 1) == [0, 100]
    assert greys(path, 5) == list(range(0, 200, 20))
    assert len(greys(path, 20)) == 40  # every frame twice


def test_what_is_no_clip_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("av")
    good = video(tmp_path / "good.mp4")
    (tmp_path / "text.mp4").write_bytes(b"hello world" * 100)
    (tmp_path / "empty.mp4").touch()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    gif = animation(tmp_path / "a.gif", (100,) * 5).read_bytes()
    (tmp_path / "cut.gif").write_bytes(gif[:200])
    wrong = {
        "text.mp4": "not a readable video",
        "empty.mp4": "empty file",
        "cut.mp4": "not a readable video",
        "cut.gif": "picture",
        "a.jpg": "a picture, not a clip; --image takes it",
        "none.mp4": "no such file",
        ".": "not a file",
    }
    for name, message in wrong.items():
        with pytest.raises(UserError, match=message) as error:
            list(read_frames(tmp_path / name, 1))
        assert str(error.value).startswith(str(tmp_path))
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="--fps"):
            read_frames(good, fps)


def test_a_playlist_opens_nothing_else(tmp_path: Path) -> None:
    path = video(tmp_path / "secret.mp4")
    lists = {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n",
        "a.ffconcat": f"ffconcat version 1.0\nfile '{path}'\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match="not a readable video"):
            list(read_frames(tmp_path / name, 1))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UserError, match="not a file"):
        read_frames(tmp_path / "pipe.mp4", 1)
