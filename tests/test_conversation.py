"""Conversations on disk: what comes back, what is refused, and what a kill -9 leaves behind."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoneural import cli
from autoneural.bundle import DEFAULT_BUNDLE
from autoneural.chat import Chat, Settings
from autoneural.conversation import load_conversation, save_conversation
from autoneural.data.processor import Processor
from autoneural.errors import UserError
from autoneural.runtime import Engine

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(DEFAULT_BUNDLE, threads=1)


@pytest.fixture(scope="module")
def processor(engine: Engine) -> Processor:
    return engine.processor


def picture(processor: Processor, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    return processor.load(Image.fromarray(noise))


def test_all_of_it_comes_back(processor: Processor, tmp_path: Path) -> None:
    shown = picture(processor, 1)
    parts = [{"type": "image", "image": shown}, {"type": "text", "text": 'ü \ud83d "x"\n'}]
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "yes"},
    ]
    save_conversation(tmp_path / "a.json", messages)
    system, user, assistant = load_conversation(tmp_path / "a.json", processor)
    assert system == {"role": "system", "content": [{"type": "text", "text": "be brief"}]}
    assert assistant["content"] == [{"type": "text", "text": "yes"}]
    assert user["content"][1] == parts[1]
    assert user["content"][0]["image"].tobytes() == shown.tobytes()
    assert os.listdir(tmp_path) == ["a.json"]
    save_conversation(tmp_path / "a.json", [])
    assert load_conversation(tmp_path / "a.json", processor) == []


def talk(engine: Engine, *lines: str, **options) -> str:
    out = io.StringIO()
    source = io.StringIO("\n".join(lines) + "\n")
    Chat(engine, Settings(max_tokens=6), source, out, **options).run()
    return out.getvalue()


def test_a_chat_that_goes_on_says_what_it_would_have_said(engine: Engine, tmp_path: Path) -> None:
    picture(engine.processor, 2).save(tmp_path / "a.png")
    first, second = f"{tmp_path}/a.png What is the plate?", "And the brand?"
    engine.reset()
    whole = talk(engine, first, second)
    saved = tmp_path / "talk.json"
    engine.reset()
    head = talk(engine, first, save=saved)
    engine.reset()
    tail = talk(engine, second, save=saved, history=load_conversation(saved, engine.processor))
    assert head + tail.partition("\n")[2] == whole
    assert len(load_conversation(saved, engine.processor)) == 4
    talk(engine, "/clear", save=saved)
    assert load_conversation(saved, engine.processor) == []


def test_what_cannot_be_saved_is_an_error_line_and_the_chat_goes_on(
    engine: Engine, tmp_path: Path
) -> None:
    printed = talk(engine, "What?", "/help", save=tmp_path / "gone" / "talk.json")
    assert "talk.json: the conversation cannot be saved (No such file or directory)" in printed
    assert "/clear" in printed


def stored(**changes) -> bytes:
    good = {"format": "autoneural-conversation", "version": 1, "messages": []}
    return json.dumps({**good, **changes}).encode()


def shown(url: object) -> bytes:
    return stored(messages=[{"role": "user", "content": [{"type": "image", "image": url}]}])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read as a conversation"),
        (b"\xff", "cannot be read as a conversation"),
        (b"[" * 100_000, "cannot be read as a conversation"),
        (b"[]", "not a conversation of ours"),
        (stored()[:-2], "cannot be read as a conversation"),
        (stored(format="x"), "not a conversation of ours"),
        (stored(version=2), "version 2 is not 1"),
        (stored(messages=3), "messages: expected a list"),
        (stored(messages=[{"role": "king", "content": "a"}]), "role: 'king' is not one of"),
        (shown("/etc/passwd"), "picture 0 is not a PNG as a data URL"),
        (shown(None), "picture 0 is not a PNG as a data URL"),
        (shown("data:image/png;base64,####"), "picture 0 is damaged"),
        (shown("data:image/png;base64,aGVsbG8="), "picture 0 is damaged"),
    ],
    ids=str,
)
def test_what_is_no_conversation(
    processor: Processor, tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "talk.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        load_conversation(path, processor)
    assert str(path) in str(error.value)


def test_what_does_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "talk.json"
    there.write_bytes(stored())
    wrong = {
        ("--save", str(there)): "is there already",
        ("--save", str(tmp_path / "no" / "talk.json")): "no such folder",
        ("--resume", str(tmp_path / "none.json")): "cannot be read as a conversation",
        ("--resume", str(there), "-p", "a"): "are for a chat",
        ("--resume", str(there), "--system", "a"): "brings its own system message",
    }
    for argv, message in wrong.items():
        assert cli.main(["infer", *argv]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    assert there.read_bytes() == stored()


# A child that saves and kills itself where it is told to, as `kill -9` would.
CHILD = """
import os, signal, sys
from pathlib import Path
from PIL import Image
from autoneural import conversation, files

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

path, where = Path(sys.argv[1]), sys.argv[2]

def conversation_of(name):
    picture = Image.effect_noise((256, 256), 80).convert("RGB")
    parts = [{"type": "image", "image": picture}] * 3 + [{"type": "text", "text": name}]
    return [{"role": "user", "content": parts}]

new = conversation_of("new")
if where == "loop":
    print("ready", flush=True)
    while True:
        conversation.save_conversation(path, new)
real_open, real_replace = Path.open, os.replace

def breaks_in_the_middle(self, *args, **kwargs):
    file = real_open(self, *args, **kwargs)
    file.write('{"format": "autoneural-conversation", "version": 1, "mess')
    file.flush()
    die()

if where == "before":
    Path.open = die
elif where == "middle":
    Path.open = breaks_in_the_middle
elif where == "fsync":
    os.fsync = die
elif where == "replace":
    os.replace = die
elif where == "after":
    os.replace = lambda *args: (real_replace(*args), die())
conversation.save_conversation(path, new)
"""


def child(path: Path, where: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(path), where]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def text_of(path: Path, processor: Processor) -> str:
    """What a complete conversation says at its end."""
    (message,) = load_conversation(path, processor)
    return message["content"][-1]["text"]


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("before", "old"),
        ("middle", "old"),
        ("fsync", "old"),
        ("replace", "old"),
        ("after", "new"),
    ],
)
def test_kill_9_leaves_the_old_file_or_the_new_one(
    processor: Processor, tmp_path: Path, where: str, left: str
) -> None:
    path = tmp_path / "talk.json"
    save_conversation(path, [{"role": "user", "content": "old"}])
    process = child(path, where)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert text_of(path, processor) == left
    save_conversation(path, [{"role": "user", "content": "later"}])
    assert text_of(path, processor) == "later"


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
@pytest.mark.parametrize("seed", range(3))
def test_kill_9_at_any_moment(processor: Processor, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "talk.json"
    save_conversation(path, [{"role": "user", "content": "old"}])
    process = child(path, "loop")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(random.Random(seed).uniform(0, 0.4))
    process.kill()
    process.communicate()
    assert text_of(path, processor) in ("old", "new")
