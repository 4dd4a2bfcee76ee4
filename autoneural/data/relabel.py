"""Black-box distillation: rows answered anew by a teacher of which only the answers are known.

    rows -> FileTeacher (answers.jsonl) or EndpointTeacher (POST URL/chat/completions) -> rows

Questions, pictures and attributes stay, every assistant turn is the teacher's; later questions of a
conversation are asked behind its own earlier answers. Torch-free.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from autoneural.data.dataset import Row, Source
from autoneural.data.image import ImageSource, load_image
from autoneural.data.messages import Message
from autoneural.errors import UserError
from autoneural.files import write_text

_MOST_BYTES = 1 << 22  # of an answer
_LONGEST_WAIT = 30.0


class Teacher(Protocol):
    """Answers the questions of a row."""

    def answers(self, row: Row) -> list[str] | None:
        """One text per assistant turn; None where the teacher has nothing to say."""
        ...


class Relabelled(NamedTuple):
    """Rows with the teacher's answers, and how many it had none for."""

    rows: list[Row]
    unanswered: int


def relabel(
    source: Source,
    teacher: Teacher,
    *,
    workers: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Relabelled:
    """All rows of `source` as `teacher` answers them, in order; `workers` of them at a time.

    `progress` is called with (done, total). Errors of the teacher are raised here.
    """
    rows: list[Row] = []
    pool = ThreadPoolExecutor(workers, thread_name_prefix="teacher")
    try:
        asked = pool.map(lambda index: _answered(source.row(index), teacher), range(len(source)))
        for done, row in enumerate(asked, start=1):
            rows += [] if row is None else [row]
            if progress is not None:
                progress(done, len(source))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return Relabelled(rows, len(source) - len(rows))


def _answered(row: Row, teacher: Teacher) -> Row | None:
    answers = teacher.answers(row)
    if answers is None or not all(answer.strip() for answer in answers):
        return None
    left = iter(answers)
    messages = [
        _turn(next(left).strip()) if message["role"] == "assistant" else message
        for message in row["messages"]
    ]
    return {**row, "messages": messages}


def _turn(text: str) -> Message:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


class FileTeacher:
    """Answers from a JSONL file of {"id": of the row, "answers": [one per assistant turn]}."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.path}: cannot be read ({error})") from error
        self._answers: dict[str, list[str]] = {}
        for number, line in enumerate(lines, start=1):
            if line.strip():
                name, answers = self._parse(line, f"{self.path}:{number}")
                self._answers[name] = answers

    def answers(self, row: Row) -> list[str] | None:
        found = self._answers.get(str(row.get("id")))
        turns = sum(message["role"] == "assistant" for message in row["messages"])
        if found is not None and len(found) != turns:
            raise UserError(
                f"{self.path}: {row['id']}: {len(found)} answers, the row has {turns} questions"
            )
        return found

    def _parse(self, line: str, where: str) -> tuple[str, list[str]]:
        try:
            entry = json.loads(line)
            answers = entry["answers"]
            if not (isinstance(answers, list) and all(isinstance(a, str) for a in answers)):
                raise ValueError("answers is not a list of texts")
            return str(entry["id"]), answers
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{where}: expected an id and answers ({error})") from error


class EndpointTeacher:
    """Answers from an OpenAI-compatible endpoint; `url` ends before /chat/completions.

    What was answered is kept in the file `cache`, so a run that was stopped asks only for the rest.
    Each question is tried `tries` times, `timeout_s` each, `wait_s` and then twice as long apart.
    Raises UserError when the server refuses a question, or fails every time.
    """

    def __init__(
        self,
        url: str,
        model: str,
        cache: str | Path,
        *,
        api_key: str | None = None,
        max_tokens: int = 256,
        tries: int = 5,
        timeout_s: float = 120.0,
        wait_s: float = 1.0,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UserError(f"teacher: {url!r}: expected an address that starts with http")
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._model, self._max_tokens, self._api_key = model, max_tokens, api_key
        self._tries, self._timeout_s, self._wait_s = max(1, tries), timeout_s, wait_s
        self._cache = _Cache(Path(cache))

    def answers(self, row: Row) -> list[str] | None:
        said: list[str] = []
        history: list[dict[str, Any]] = []
        for message in row["messages"]:
            if message["role"] == "assistant":
                said.append(self._ask(history))
                history.append({"role": "assistant", "content": said[-1]})
                if not said[-1].strip():
                    return None
            else:
                history.append(_as_openai(message))
        return said

    def _ask(self, history: list[dict[str, Any]]) -> str:
        question = {
            "model": self._model,
            "messages": history,
            "max_tokens": self._max_tokens,
            "temperature": 0,
        }
        body = json.dumps(question).encode()
        key = hashlib.sha256(body).hexdigest()
        answer = self._cache.get(key)
        if answer is None:
            answer = self._request(body)
            self._cache.add(key, answer)
        return answer

    def _request(self, body: bytes) -> str:
        problem = ""
        for attempt in range(self._tries):
            if attempt:
                time.sleep(min(self._wait_s * 2 ** (attempt - 1), _LONGEST_WAIT))
            try:
                return self._request_once(body)
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {_first_line(error)}"
                if error.code != 429 and error.code < 500:
                    raise UserError(f"{self._url}: refused: {problem}") from error
            except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
                # A server that breaks off, takes too long or answers with something else.
                problem = str(error) or type(error).__name__
        raise UserError(
            f"{self._url}: no answer in {self._tries} tries ({problem}); {len(self._cache)} "
            "answers are kept, run again to go on"
        )

    def _request_once(self, body: bytes) -> str:
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        request = urllib.request.Request(self._url, body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
            content = json.loads(response.read(_MOST_BYTES))["choices"][0]["message"]["content"]
        if not isinstance(content, str):
            raise ValueError("the answer has no text")
        return content


class _Cache:
    """Append-only JSONL of {"key", "answer"}; the half line of a killed run is dropped."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._answers: dict[str, str] = dict(_kept(path))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Whole lines only from here on: what follows a half line would be lost with it.
            lines = [self._line(*entry) for entry in self._answers.items()]
            write_text(path, "".join(lines))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> str | None:
        return self._answers.get(key)

    def add(self, key: str, answer: str) -> None:
        with self._lock:
            self._answers[key] = answer
            with self._path.open("a", encoding="utf-8") as file:
                file.write(self._line(key, answer))

    def _line(self, key: str, answer: str) -> str:
        return json.dumps({"key": key, "answer": answer}) + "\n"


def _kept(path: Path) -> Iterator[tuple[str, str]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            yield entry["key"], entry["answer"]
        except (ValueError, KeyError, TypeError):
            continue


def _as_openai(message: Message) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": part["text"]}
        if part["type"] == "text"
        else {"type": "image_url", "image_url": {"url": _data_url(part["image"])}}
        for part in message["content"]
    ]
    return {"role": message["role"], "content": parts}


def _data_url(image: ImageSource) -> str:
    png = io.BytesIO()
    load_image(image).save(png, "PNG")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def _first_line(error: urllib.error.HTTPError) -> str:
    """What the server says of an error, short enough for one line."""
    try:
        said = error.read(500).decode("utf-8", errors="replace")
    except (OSError, http.client.HTTPException):
        said = ""
    return " ".join((said or str(error.reason)).split())[:200]
