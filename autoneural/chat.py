"""`autoneural infer`: one question and out, or a conversation with pictures in the terminal.

> 'what is it?' ~/my\\ car.png "b c.jpg" file:///tmp/d%20e.png      text and three pictures
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote

from PIL import Image

from autoneural.conversation import save_conversation
from autoneural.data.image import ImageSource
from autoneural.data.messages import Message
from autoneural.data.video import read_frames
from autoneural.errors import UserError
from autoneural.files import expand
from autoneural.runtime import Engine, Generation, Result
from autoneural.runtime.constraint import Constraint
from autoneural.runtime.drafting import Speculate
from autoneural.runtime.sampling import Sampling

HELP = """\
Type a question and press Enter. Pictures: drop files into the terminal, or type their paths in the
line (quoted, with escaped spaces, ~, file:// or relative), as many as you like.
  /image PATH   attach a picture to the next question
  /clear        forget the conversation and its pictures
  /stats        timings of the last answer
  /help, /?     this text
  /exit         leave (also Ctrl-D); Ctrl-C stops an answer"""

# Formats that Pillow could not open here are listed too: better an error line than silent text.
_SUFFIXES = "png|jpg|jpeg|jpe|jfif|webp|bmp|gif|tif|tiff|tga|heic|heif|avif|jxl|svg"
_IMAGE_PATH = re.compile(rf".*[^\s/\\]\.(?:{_SUFFIXES})", re.IGNORECASE | re.DOTALL)
# A quoted path, a word with backslash escapes, or blanks. Other quotes are part of words: it's.
_PART = re.compile(
    rf"""'([^'\n]+\.(?:{_SUFFIXES}))'|"([^"\n]+\.(?:{_SUFFIXES}))"|((?:\\.|[^\s\\]|\\$)+)|\s+""",
    re.IGNORECASE | re.DOTALL,
)
_ESCAPED = re.compile(r"""\\([\s'"()\[\]{}&;!?*#$`|<>~\\])""")
_CLOSING = ",;:.!?)"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What stays the same over a conversation."""

    system: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    speculate: Speculate = "off"
    beams: int = 1
    constraint: Constraint | None = None

    def generate(self, engine: Engine, messages: Sequence[Message]) -> Generation:
        """An answer with these settings."""
        return engine.generate(
            messages,
            self.sampling,
            self.max_tokens,
            self.stop,
            speculate=self.speculate,
            beams=self.beams,
            constraint=self.constraint,
        )


def split_images(line: str) -> tuple[str, list[Path]]:
    """The text of a line without its image paths, and the paths, `~` and `file://` resolved.

    A path is what ends in an image suffix: quoted, or a word in which backslashes escape spaces.
    Whether it exists is not looked at.
    """
    text: list[str] = []
    paths: list[Path] = []
    for match in _PART.finditer(line):
        raw = match[0]
        path, rest = _image_path(match)
        if path is None:
            text.append(raw)
            continue
        paths.append(path)
        # One of the two spaces around the path goes with it.
        if text and text[-1].isspace():
            text.pop()
        text.append(rest)
    return "".join(text).strip(), paths


def _image_path(match: re.Match[str]) -> tuple[Path | None, str]:
    """(path or None, punctuation after it) of one quoted stretch or word."""
    if quoted := match[1] or match[2]:
        return _resolve(quoted), ""
    word = match[3] or ""
    bare = word.rstrip(_CLOSING)
    rest = word[len(bare) :]
    if bare.startswith("(") and ")" in rest:
        bare, rest = bare[1:], rest.replace(")", "", 1)
    name = _ESCAPED.sub(r"\1", bare)
    return (_resolve(name), rest) if _IMAGE_PATH.fullmatch(name) else (None, "")


def _resolve(name: str) -> Path:
    if name.lower().startswith("file://"):
        name = unquote(re.sub(r"^file://(localhost(?=/))?", "", name, flags=re.IGNORECASE))
        # file:///C:/x.png names C:/x.png.
        name = re.sub(r"^/([A-Za-z]:)", r"\1", name)
    return expand(name)


def user_message(text: str, images: Sequence[Any]) -> Message:
    """A user turn: the images first, as in training, then the text."""
    parts: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
    if text or not parts:
        parts.append({"type": "text", "text": text})
    return {"role": "user", "content": parts}


@dataclass(frozen=True)
class Clip:
    """Frames of a video, in order, as the model sees them."""

    name: str
    frames: list[Image.Image]


def load_clip(engine: Engine, path: Path, fps: float) -> Clip:
    """The frames of a video, `fps` a second. Raises UserError where the context is too small.

    That is found out before more frames are decoded than could ever fit.
    """
    most = engine.context // engine.bundle.processor.tokens_per_image
    frames: list[Image.Image] = []
    for frame in read_frames(path, fps):
        if len(frames) == most:
            raise UserError(
                f"{path}: over {most} frames at {fps:g} a second, and the context holds no more; "
                "give a lower --fps or a shorter clip"
            )
        frames.append(engine.processor.load(frame))
    return Clip(path.name, frames)


def opening(settings: Settings) -> list[Message]:
    """The turns before the first question."""
    return [{"role": "system", "content": settings.system}] if settings.system else []


def stats_line(result: Result) -> str:
    """Timings in one line, for people."""
    timings = result.timings
    rates = timings.to_dict()
    cached = f", {timings.cache_n} cached" if timings.cache_n else ""
    prefill = f"prefill {timings.prompt_ms:.0f} for {timings.prompt_n} tok{cached}"
    image = f"image encode {timings.image_encode_ms:.0f}, " if timings.image_n else ""
    speed = rates["predicted_per_second"]
    decode = f"{timings.predicted_n} tok" + (f" at {speed:.0f} tok/s" if speed else "")
    if timings.draft_n:
        decode += f", {timings.draft_n_accepted} of {timings.draft_n} drafts right"
    return (
        f"ttft {timings.ttft_ms or 0:.0f} ms ({image}{prefill}) | {decode} | {result.finish_reason}"
    )


def run_once(
    engine: Engine,
    prompt: str,
    images: Sequence[ImageSource] = (),
    settings: Settings | None = None,
    *,
    as_json: bool = False,
    out: TextIO | None = None,
) -> Result:
    """Answer one question on `out` (stdout): streamed, with timings on stderr, or one JSON object.

    Raises UserError as `Engine.generate` does.
    """
    settings, out = settings or Settings(), out or sys.stdout
    messages = [*opening(settings), user_message(prompt, images)]
    generation = settings.generate(engine, messages)
    for piece in generation:
        if not as_json:
            print(piece.text, end="", file=out, flush=True)
    result = generation.result
    if as_json:
        print(json.dumps(result.to_dict(), ensure_ascii=False), file=out)
    else:
        print(file=out)
        print(stats_line(result), file=sys.stderr)
    return result


class Chat:
    """A conversation over two streams. One bad line never ends it."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings | None = None,
        source: TextIO | None = None,
        out: TextIO | None = None,
        *,
        save: Path | None = None,
        history: Sequence[Message] | None = None,
    ) -> None:
        """`save` is written after every answer; `history` is what was said before."""
        self._engine = engine
        self._settings = settings or Settings()
        self._source = source or sys.stdin
        if isinstance(self._source, io.TextIOWrapper):
            # A path may hold any bytes; this way they come through as the file system has them.
            self._source.reconfigure(errors="surrogateescape")
        self._out = out or sys.stdout
        self._last: Result | None = None
        self._save = save
        self._clear()
        if history is not None:
            self._history = list(history)

    def run(self) -> None:
        """Read lines until /exit or the end of the input."""
        self._say(f"{self._engine.bundle.name} ({self._engine.placement.label}). /help for help.")
        for line in self._lines():
            try:
                if line in ("/exit", "/quit", "/bye"):
                    return
                self._handle(line)
            except UserError as error:
                self._say(f"error: {error}")
            except KeyboardInterrupt:
                self._say("\n(stopped)")

    def _lines(self) -> Iterator[str]:
        """Stripped lines that are not blank. Ctrl-C throws a line away, Ctrl-D ends."""
        interactive = self._source is sys.stdin and sys.stdin.isatty()
        if interactive:
            _enable_line_editing()
        while True:
            try:
                line = input("> ") if interactive else self._source.readline()
            except KeyboardInterrupt:
                self._say("\n(/exit or Ctrl-D to leave)")
                continue
            except EOFError:
                self._say("")
                return
            if not line and not interactive:
                return
            if line.strip():
                yield line.strip()

    def _handle(self, line: str) -> None:
        command, _, argument = line.partition(" ")
        if command in ("/help", "/?", "/h"):
            self._say(HELP)
        elif command == "/clear":
            self._clear()
            self._keep()
            self._say("Conversation cleared.")
        elif command == "/stats":
            self._say(stats_line(self._last) if self._last else "No answer yet.")
        elif command == "/image":
            self.attach(self._named_image(argument.strip()))
        elif re.fullmatch(r"/[a-z]+", command):
            raise UserError(f"{command}: no such command; /help lists them")
        else:
            text, paths = split_images(line)
            self.attach(paths)
            if text:
                self._ask(text)

    def _named_image(self, argument: str) -> list[Path]:
        """The path after /image: any quoting of `split_images`, or the rest of the line as is."""
        if not argument:
            raise UserError("/image: give the path of a picture")
        text, paths = split_images(argument)
        return [_resolve(argument)] if text or not paths else paths

    def attach(self, paths: Sequence[Path]) -> None:
        """Load pictures for the next question: all of them, or none and an error."""
        images = [self._engine.processor.load(path) for path in paths]
        for path in paths:
            self._say(f"Added image {path.name!r}")
        self._pending += images

    def attach_clip(self, clip: Clip) -> None:
        """Frames for the next question."""
        count = len(clip.frames)
        self._say(f"Added {count} frame{'s' if count > 1 else ''} of {clip.name!r}")
        self._pending += clip.frames

    def _ask(self, text: str) -> None:
        """Send a question and stream the answer; both join the history if there is an answer."""
        question = user_message(text, self._pending)
        generation = self._settings.generate(self._engine, [*self._history, question])
        try:
            for piece in generation:
                self._say(piece.text, end="")
            self._say("")
        except KeyboardInterrupt:
            self._say("\n(stopped)")
        generation.close()
        self._last = generation.result
        if self._last.text:
            self._history += [question, {"role": "assistant", "content": self._last.text}]
            self._pending = []
            self._keep()

    def _keep(self) -> None:
        if self._save is not None:
            save_conversation(self._save, self._history)

    def _clear(self) -> None:
        self._history = opening(self._settings)
        self._pending: list[Image.Image] = []

    def _say(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self._out, flush=True)


def _enable_line_editing() -> None:
    """Arrow keys and history, where Python was built with them."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return
