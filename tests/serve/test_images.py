"""Pictures of requests: what is read, from where, and every refusal."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest

from autoneural.serve.app import create_app
from autoneural.serve.errors import ApiError
from autoneural.serve.images import ImageReader
from autoneural.serve.models import Models
from autoneural.serve.settings import Settings
from tests.serve.helpers import ask, call, data_url, picture_bytes

PICTURE = picture_bytes(3)


@pytest.fixture
def read(served):
    def with_path(url: str, media_path: Path | None = None):
        return ImageReader(media_path)(url, served.processor, "messages[0].content[1].image_url")

    return with_path


def refusal(read, url: str, media_path: Path | None = None) -> tuple[str | None, str]:
    with pytest.raises(ApiError) as caught:
        read(url, media_path)
    error = caught.value.to_dict()["error"]
    assert caught.value.status == 400
    assert error["param"] == "messages[0].content[1].image_url"
    return error["code"], error["message"]


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises more than its few bytes hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_data_url_becomes_what_the_model_sees(read, served) -> None:
    size = served.processor.image_size
    assert read(data_url(PICTURE)).size == (size, size)
    assert read(data_url(PICTURE).replace("data:image/png", "DATA:image/PNG")).size == (size, size)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://example.org/a.png", "remote_image_refused"),
        ("https://example.org/a.png", "remote_image_refused"),
        ("HTTP://169.254.169.254/latest", "remote_image_refused"),
        ("ftp://example.org/a.png", "remote_image_refused"),
        ("gopher:x", "remote_image_refused"),
        ("javascript:alert(1)", "remote_image_refused"),
        ("file:///etc/passwd", "local_file_refused"),
        ("/etc/passwd", "local_file_refused"),
        ("a.png", "local_file_refused"),
        ("", "local_file_refused"),
        ("data:", None),
        ("data:image/png,abc", None),
        ("data:image/png;base64", None),
        ("data:image/svg+xml;base64,PHN2Zz4=", None),
        ("data:text/html;base64,PHN2Zz4=", None),
        ("data:;base64,PHN2Zz4=", None),
        ("data:image/png;base64,", None),
        ("data:image/png;base64,!!!!", None),
        ("data:image/png;base64,aGVsbG8", None),
        ("data:image/png;base64,aGVs bG8=", None),
        ("data:image/png;base64,é", None),
        (data_url(b"hello"), None),
        (data_url(PICTURE[:60]), None),
        (data_url(b"%PDF-1.4 hello"), None),
        (data_url(png(0, 10)), None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refusals(read, url: str, code: str | None) -> None:
    found, message = refusal(read, url)
    assert found == code or (code is None and found in ("invalid_image", None))
    assert len(message) < 300  # what was sent is not sent back


def test_bombs_are_refused_by_their_header(read) -> None:
    for size in ((32_000, 32_000), (7000, 7000)):
        assert "too many pixels" in refusal(read, data_url(png(*size)))[1]


def test_formats_by_their_content_not_by_their_name(read) -> None:
    tiff = picture_bytes(form="TIFF")
    code, message = refusal(read, data_url(tiff, "image/png"))
    assert (code, "not a JPEG, PNG, WebP, BMP or GIF" in message) == ("invalid_image", True)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(PICTURE)
    (folder / "sub" / "b c.png").write_bytes(PICTURE)
    (tmp_path / "secret.png").write_bytes(PICTURE)
    (tmp_path / "media-2").mkdir()
    (tmp_path / "media-2" / "x.png").write_bytes(PICTURE)
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "up").symlink_to(tmp_path)
    (folder / "in.png").symlink_to(folder / "a.png")
    os.mkfifo(folder / "pipe.png")
    return folder


@pytest.mark.parametrize("name", ["a.png", "sub/b c.png", "sub/../a.png", "in.png"])
def test_files_below_the_media_path(read, media: Path, name: str) -> None:
    wanted = read(data_url(PICTURE)).tobytes()
    assert read(name, media).tobytes() == wanted
    quoted = (media / name).as_posix().replace(" ", "%20")
    assert read(f"file://{quoted}", media).tobytes() == wanted
    assert read(f"file://localhost{quoted}", media).tobytes() == wanted
    assert read(str(media / name), media).tobytes() == wanted


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "sub/../../secret.png",
        "out.png",
        "up/secret.png",
        "../media-2/x.png",
        "/etc/passwd",
        "pipe.png",
        "sub",
        "",
        ".",
        "nothing.png",
        "a.png\0",
        "a" * 5000,
        "file://server/a.png",
        "file:///etc/passwd",
        "file:///%2e%2e/secret.png",
        "file://[/a.png",
    ],
)
def test_nothing_else_is_read_and_all_refusals_are_alike(read, media: Path, name: str) -> None:
    code, message = refusal(read, name, media)
    assert code == "image_not_found"
    assert message == "messages[0].content[1].image_url: no such picture below the media path"


def test_a_file_that_is_no_picture(read, media: Path) -> None:
    (media / "text.png").write_text("root:x:0:0")
    message = refusal(read, "text.png", media)[1]
    assert "not a JPEG" in message
    assert str(media) not in message
    assert "root" not in message


def test_a_request_may_name_a_file_where_the_server_has_a_media_path(served, media: Path) -> None:
    app = create_app(Models([served]), Settings(media_path=media))
    urls = {
        "a.png": 200,
        (media / "a.png").as_uri(): 200,
        "../secret.png": 400,
        (media / "out.png").as_uri(): 400,
    }
    for url, status in urls.items():
        body = {"messages": [ask("what?", url)], "max_tokens": 1}
        assert call(app, "POST", "/v1/chat/completions", json=body).status_code == status


def test_pictures_leave_no_files(served, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    app = create_app(Models([served]), Settings())
    body = {"messages": [ask("what?", data_url(PICTURE))], "max_tokens": 1}
    assert call(app, "POST", "/v1/chat/completions", json=body).status_code == 200
    assert list(tmp_path.iterdir()) == []
