"""The terminal chat: what counts as a picture in a line, and a conversation over two streams."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoneural.chat import Chat, Settings, load_clip, run_once, split_images
from autoneural.data.processor import Processor
from autoneural.errors import UserError
from autoneural.runtime.constraint import Constraint
from autoneural.runtime.engine import Engine

HOME = str(Path.home())


@pytest.mark.parametrize(
    ("line", "text", "paths"),
    [
        ("what is in cat.png", "what is in", ["cat.png"]),
        ("cat.png what is it?", "what is it?", ["cat.png"]),
        ("what is in cat.png?", "what is in?", ["cat.png"]),
        ("is it (cat.png), or ./dog.JPG.", "is it, or.", ["cat.png", "./dog.JPG"]),
        ("'/a b/c d.png' what's it?", "what's it?", ["/a b/c d.png"]),
        ('"/a b/it\'s.webp" and "x.bmp"', "and", ["/a b/it's.webp", "x.bmp"]),
        (r"/a\ b/c\(1\).jpeg now", "now", ["/a b/c(1).jpeg"]),
        ("~/pics/cat.gif go", "go", [f"{HOME}/pics/cat.gif"]),
        ("file:///tmp/my%20cat.png what?", "what?", ["/tmp/my cat.png"]),
        ("file://localhost/tmp/a.png", "", ["/tmp/a.png"]),
        ("'file:///tmp/a%20b.png'", "", ["/tmp/a b.png"]),
        ("a.png b.png c.png", "", ["a.png", "b.png", "c.png"]),
        (r"C:\Users\me\cat.png what?", "what?", [r"C:\Users\me\cat.png"]),
        (r'"C:\My Pics\cat.png" what?', "what?", [r"C:\My Pics\cat.png"]),
        ("file:///C:/My%20Pics/cat.png", "", ["C:/My Pics/cat.png"]),
        ("~nobody-of-this-name/cat.png", "", ["~nobody-of-this-name/cat.png"]),
        ("'tis cat.png, isn't it", "'tis, isn't it", ["cat.png"]),
        ("(1).png and x(2).png", "and", ["(1).png", "x(2).png"]),
        ("photo.heic what?", "what?", ["photo.heic"]),
        ("fotos/gato_ñ.png qué?", "qué?", ["fotos/gato_ñ.png"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_paths_in_a_line(line: str, text: str, paths: list[str]) -> None:
    assert split_images(line) == (text, [Path(path) for path in paths])


@pytest.mark.parametrize(
    "line",
    [
        "what's this? it's 3.14 e.g. v1.2.3, see README.md...",
        "is .png better than .jpg?",
        "is a png better than a jpeg",
        "don't say 'cat' or \"dog\"",
        "an unclosed ' quote and \" another",
        "a\\b \\ c \\\\",
        "tabs\tand  two spaces stay",
        "cat.pngs archive.png.zip",
        r"\\server\share",
        "",
    ],
)
def test_lines_without_images_stay_as_they_are(line: str) -> None:
    assert split_images(line) == (line, [])


class Script(io.StringIO):
    """An input whose lines may be an interrupt."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines) + "\n")

    def readline(self, size: int = -1, /) -> str:
        line = super().readline(size)
        if line == "^C\n":
            raise KeyboardInterrupt
        return line


@pytest.fixture(scope="module")
def chat_engine(tiny_bundle) -> Engine:
    return Engine(tiny_bundle, "float", threads=1)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two pictures."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), "red").save("cat.png")
    Image.new("RGB", (30, 40), "blue").save("my dog.png")
    return tmp_path


def talk(engine: Engine, *lines: str) -> tuple[str, Chat]:
    """What the chat printed."""
    engine.reset()
    out = io.StringIO()
    chat = Chat(engine, Settings(max_tokens=4), Script(*lines), out)
    chat.run()
    return out.getvalue(), chat


def test_pictures_are_acknowledged_and_sent_with_the_question(
    chat_engine: Engine, pictures: Path
) -> None:
    printed, chat = talk(chat_engine, "compare cat.png 'my dog.png' please", "and now?")
    assert "Added image 'cat.png'\nAdded image 'my dog.png'\n" in printed
    question, _, again, _ = chat._history
    assert [part["type"] for part in question["content"]] == ["image", "image", "text"]
    assert question["content"][2]["text"] == "compare please"
    assert [part["type"] for part in again["content"]] == ["text"]
    assert chat._last is not None
    assert chat._last.usage.prompt_tokens > chat._last.usage.cached_tokens > 8


def test_history_keeps_the_pixels_of_a_file_that_changed(
    chat_engine: Engine, pictures: Path
) -> None:
    out = io.StringIO()
    chat = Chat(chat_engine, Settings(max_tokens=4), Script("cat.png what?"), out)
    chat.run()
    Path("cat.png").unlink()
    chat._source = Script("and now?")
    chat.run()
    assert "error" not in out.getvalue()


def test_missing_picture_is_an_error_and_nothing_is_sent(
    chat_engine: Engine, pictures: Path
) -> None:
    printed, chat = talk(chat_engine, "compare cat.png and nope.png")
    assert "error: nope.png: no such file\n" in printed
    assert "Added" not in printed
    assert chat._history == []
    assert chat._pending == []


def test_damaged_picture_is_an_error_line(chat_engine: Engine, pictures: Path) -> None:
    Path("bad.png").write_bytes(b"not a picture")
    printed, chat = talk(chat_engine, "what is bad.png")
    assert "error: bad.png: not a JPEG, PNG, WebP, BMP or GIF picture\n" in printed
    assert chat._history == []


def test_image_command_takes_paths_as_they_are(chat_engine: Engine, pictures: Path) -> None:
    printed, chat = talk(chat_engine, "/image my dog.png", "/image 'cat.png'", "/image", "what?")
    assert "Added image 'my dog.png'" in printed
    assert "Added image 'cat.png'" in printed
    assert "error: /image: give the path of a picture" in printed
    assert [part["type"] for part in chat._history[0]["content"]] == ["image", "image", "text"]


def test_clear_forgets_conversation_and_pictures(chat_engine: Engine, pictures: Path) -> None:
    _, chat = talk(chat_engine, "hello", "cat.png", "/clear")
    assert (chat._history, chat._pending) == ([], [])


def test_commands(chat_engine: Engine) -> None:
    printed, _ = talk(chat_engine, "/stats", "hello", "/stats", "/?", "/help", "/nonsense", "/exit")
    assert "No answer yet." in printed
    assert printed.count("ttft") == 1
    assert printed.count("/image PATH") == 2
    assert "error: /nonsense: no such command" in printed


def test_exit_leaves_before_the_next_line(chat_engine: Engine) -> None:
    _, chat = talk(chat_engine, "/exit", "hello")
    assert chat._history == []


def test_interrupt_at_the_prompt_does_not_leave(chat_engine: Engine) -> None:
    printed, chat = talk(chat_engine, "^C", "hello")
    assert "(/exit or Ctrl-D to leave)" in printed
    assert len(chat._history) == 2


def test_interrupt_stops_the_answer_not_the_chat(
    chat_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = chat_engine._decoder.run
    calls = []

    def interrupted(rows, width=1):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(rows, width)

    monkeypatch.setattr(chat_engine._decoder, "run", interrupted)
    printed, chat = talk(chat_engine, "hello", "hello again")
    assert "(stopped)" in printed
    assert chat._last is not None
    assert chat._last.finish_reason == "length"
    assert chat._history[-2]["content"][0]["text"] == "hello again"


def test_interrupt_while_a_picture_loads_stays_in_the_chat(
    chat_engine: Engine, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: object, source: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Processor, "load", interrupted)
    printed, chat = talk(chat_engine, "what is cat.png", "hello")
    assert "(stopped)" in printed
    assert [m["role"] for m in chat._history] == ["user", "assistant"]


def test_a_photograph_is_seen_alike_in_chat_and_in_one_shot(
    chat_engine: Engine, pictures: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 900, 3), np.uint8)
    Image.fromarray(noise).save("photo.jpg")
    processor = chat_engine.processor
    kept = processor.load("photo.jpg")
    assert kept.size == (64, 64)
    np.testing.assert_array_equal(processor.pixels([kept]), processor.pixels(["photo.jpg"]))


def test_a_name_beyond_the_file_system_is_an_error_line(
    chat_engine: Engine, pictures: Path
) -> None:
    printed, chat = talk(chat_engine, "a" * 300 + ".png what?", "~nobody-here/a.png what?")
    assert printed.count("error: ") == 2
    assert chat._history == []


def test_bytes_that_are_no_utf8_reach_the_file_system(chat_engine: Engine, pictures: Path) -> None:
    name = b"caf\xe9.png"
    Image.new("RGB", (8, 8)).save("x.png")
    try:
        os.rename(b"x.png", name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    source = io.TextIOWrapper(io.BytesIO(name + b" what?\n"), encoding="utf-8")
    out = io.StringIO()
    Chat(chat_engine, Settings(max_tokens=4), source, out).run()
    assert "Added image" in out.getvalue()


def test_too_long_a_conversation_is_an_error_line(chat_engine: Engine) -> None:
    printed, chat = talk(chat_engine, "1" * 2000, "hello")
    assert "error: prompt: 20" in printed
    assert len(chat._history) == 2


def test_system_message_leads_the_history(chat_engine: Engine) -> None:
    chat = Chat(chat_engine, Settings(system="be brief"), Script(), io.StringIO())
    assert chat._history == [{"role": "system", "content": "be brief"}]


def test_every_answer_of_a_conversation_follows_the_constraint(chat_engine: Engine) -> None:
    constraint = Constraint.regex("yes|no", chat_engine.tokenizer)
    chat = Chat(chat_engine, Settings(constraint=constraint), Script("red?", "on?"), io.StringIO())
    chat.run()
    answers = [turn["content"] for turn in chat._history if turn["role"] == "assistant"]
    assert len(answers) == 2
    assert {*answers} <= {"yes", "no"}


def test_run_once_streams_text_and_puts_timings_on_stderr(
    chat_engine: Engine, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 48), "green").save("new.png")  # not in the cache of features
    result = run_once(chat_engine, "what?", ["new.png"], Settings(max_tokens=4))
    printed = capsys.readouterr()
    assert printed.out == result.text + "\n"
    assert printed.err.startswith("ttft ")
    assert "image encode" in printed.err


def test_run_once_as_json(chat_engine: Engine, pictures: Path) -> None:
    out = io.StringIO()
    settings = Settings(max_tokens=4, system="be brief")
    result = run_once(chat_engine, "what?", ["cat.png"], settings, as_json=True, out=out)
    answer = json.loads(out.getvalue())
    assert list(answer) == ["text", "token_ids", "finish_reason", "usage", "timings"]
    assert answer["text"] == result.text
    assert answer["usage"]["completion_tokens"] == answer["timings"]["predicted_n"] == 4


def test_run_once_with_an_empty_prompt_is_refused(chat_engine: Engine) -> None:
    with pytest.raises(UserError, match="prompt: empty; write a question"):
        run_once(chat_engine, "")


def test_edge_half_imports_without_torch() -> None:
    code = (
        "import sys, autoneural.runtime, autoneural.chat, autoneural.demo, autoneural.cli\n"
        "print([n for n in ('torch', 'onnx', 'safetensors') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def clip(path: Path, frames: int) -> Path:
    """An animated GIF whose frames differ, one a second."""
    first, *rest = [Image.new("RGB", (8, 8), (9 * n, 77, 13)) for n in range(frames)]
    first.save(path, save_all=True, append_images=rest, duration=1000)
    return path


def test_frames_of_a_clip_are_pictures_in_order(chat_engine: Engine, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.gif", 3)
    found = load_clip(chat_engine, path, 1.0)
    assert [frame.getpixel((1, 1))[0] for frame in found.frames] == [0, 9, 18]
    result = run_once(chat_engine, "what?", found.frames, Settings(max_tokens=2), as_json=True)
    assert result.timings.image_n == 3
    again = run_once(chat_engine, "and?", found.frames, Settings(max_tokens=2), as_json=True)
    assert again.timings.image_n == 0  # kept by their pixels
    out = io.StringIO()
    chat = Chat(chat_engine, Settings(max_tokens=2), Script("what?"), out)
    chat.attach_clip(found)
    chat.run()
    assert "Added 3 frames of 'a.gif'" in out.getvalue()


def test_a_clip_beyond_the_context_is_refused(chat_engine: Engine, tmp_path: Path) -> None:
    most = chat_engine.context // chat_engine.bundle.processor.tokens_per_image
    path = clip(tmp_path / "a.gif", 20)
    with pytest.raises(UserError, match=f"over {most} frames at 1000 a second, and the context"):
        load_clip(chat_engine, path, 1000)
