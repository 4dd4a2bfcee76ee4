"""Other formats as canonical rows, read in place and at random. Torch-free.

| ending     | format                                                                             |
|------------|------------------------------------------------------------------------------------|
| `.jsonl`   | canonical rows                                                                     |
| `.parquet` | canonical rows; `images` holds bytes or paths for image parts without one          |
| `.json`    | LLaVA / ShareGPT: `{"image", "conversations": [{"from": "human", "value"}, ...]}`  |
| `.tar`     | WebDataset: `KEY.json` (canonical or LLaVA) or caption `KEY.txt`, with `KEY.jpg`...|
"""

from __future__ import annotations

import bisect
import functools
import itertools
import json
import re
import tarfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoneural.data.dataset import JsonlRows, Row, Source, check_row
from autoneural.data.messages import image_parts, normalise_messages
from autoneural.errors import UserError

CAPTION_PROMPT = "Describe the picture."
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif")


def open_source(path: str | Path, name: str | None = None) -> Source:
    """Open a data file by its ending (table above). Relative image paths start at its folder.

    A `*` in the file's name opens all shards that fit, in the order of their names. Raises
    UserError, naming the row and key, for the first row that is not usable (of a parquet file:
    when it is read).
    """
    path = Path(path)
    if path.suffix not in _OPENERS:
        raise UserError(f"{path}: unknown ending, expected one of {', '.join(_OPENERS)}")
    shards = [_OPENERS[path.suffix](file) for file in data_files(path)]
    rows = shards[0] if len(shards) == 1 else ShardedRows(shards)
    return Source(name or path.stem, rows, path.parent)


def data_files(path: Path) -> list[Path]:
    """The file `path`, or those that its `*` stands for. UserError when there is none."""
    files = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    if not files or not files[0].is_file():
        raise UserError(f"{path}: no such file")
    return files


class ShardedRows(Sequence[Row]):
    """The rows of several files, one after the other."""

    def __init__(self, shards: Sequence[Sequence[Row]]) -> None:
        self._shards = shards
        self._ends = list(itertools.accumulate(len(shard) for shard in shards))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[index]
        shard = bisect.bisect_right(self._ends, place)
        return self._shards[shard][place - self._ends[shard]]


class LlavaRows(Sequence[Row]):
    """Rows of a LLaVA or ShareGPT JSON list."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._entries = json.loads(self.path.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: not JSON ({error})") from error
        if not isinstance(self._entries, list):
            raise UserError(f"{self.path}: expected a list of conversations")
        for index in range(len(self)):
            self[index]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: Any) -> Any:
        where = f"{self.path}[{index}]"
        return check_row(llava_row(self._entries[index], where), where)


def llava_row(entry: Any, where: str) -> Row:
    """One LLaVA / ShareGPT entry as a canonical row (images still relative paths)."""
    row = _llava_messages(entry, where)
    images = entry.get("image", entry.get("images")) or []
    return fill_images(row, [images] if isinstance(images, str) else images, where)


def fill_images(row: Row, images: Sequence[str | bytes], where: str) -> Row:
    """Give `images`, in order, to the image parts that have none.

    With no such part at all the images go in front of the first user text, as LLaVA does.
    """
    messages = normalise_messages(row["messages"], f"{where}: messages")
    holes: list[dict[str, Any]]
    holes = [part for part in image_parts(messages) if part["image"] is None]
    users = [message for message in messages if message["role"] == "user"]
    if not holes and users and not list(image_parts(messages)):
        holes = [{"type": "image"} for _ in images]
        users[0]["content"][:0] = holes
    if len(holes) != len(images):
        raise UserError(f"{where}: {len(holes)} <image> places but {len(images)} images")
    for part, image in zip(holes, images, strict=True):
        part["image"] = image
    return {**_without(row, "image", "images"), "messages": messages}


def _llava_messages(entry: Any, where: str) -> Row:
    turns = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(turns, list):
        raise UserError(f"{where}: key messages or conversations is missing")
    messages = [_llava_turn(turn, f"{where}: conversations[{i}]") for i, turn in enumerate(turns)]
    checked = normalise_messages(messages, f"{where}: conversations")
    return {**_without(entry, "conversations", "image", "images"), "messages": checked}


def _llava_turn(turn: Any, where: str) -> dict[str, Any]:
    if not isinstance(turn, dict) or turn.get("from") not in _ROLES:
        raise UserError(f"{where}.from: expected one of {', '.join(_ROLES)}")
    if not isinstance(turn.get("value"), str):
        raise UserError(f"{where}.value: expected a string")
    role = _ROLES[turn["from"]]
    if role != "user":
        return {"role": role, "content": turn["value"]}
    first, *rest = re.split(r"\n?<image>\n?", turn["value"])
    parts: list[dict[str, Any]] = [{"type": "text", "text": first}]
    for text in rest:
        parts += [{"type": "image", "image": None}, {"type": "text", "text": text}]
    kept = [part for part in parts if part["type"] == "image" or part["text"]]
    return {"role": role, "content": kept or [parts[0]]}


def _without(row: Row, *keys: str) -> Row:
    return {key: value for key, value in row.items() if key not in keys}


class ParquetRows(Sequence[Row]):
    """Rows of a parquet file; columns may be nested or JSON strings.

    One row group is decoded per access and a few are kept: small row groups keep it quick.
    """

    def __init__(self, path: str | Path) -> None:
        # Optional at install time; only this class reads parquet.
        import pyarrow.lib
        import pyarrow.parquet

        self.path = Path(path)
        try:
            self._file = pyarrow.parquet.ParquetFile(self.path)
        except (OSError, pyarrow.lib.ArrowException) as error:
            raise UserError(f"{self.path}: not a parquet file") from error
        if "messages" not in self._file.schema_arrow.names:
            raise UserError(f"{self.path}: column messages is missing")
        metadata = self._file.metadata
        self._places = [
            (group, row)
            for group in range(metadata.num_row_groups)
            for row in range(metadata.row_group(group).num_rows)
        ]
        self._lock = threading.Lock()
        self._group = functools.lru_cache(maxsize=8)(self._file.read_row_group)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        group, place = self._places[index]
        with self._lock:
            table = self._group(group)
        where = f"{self.path}[{index}]"
        row = {k: _plain(v) for k, v in table.slice(place, 1).to_pylist()[0].items()}
        for key in ("messages", "kinds", "attributes", "boxes"):
            row[key] = _from_json(row.get(key), f"{where}: {key}")
        if isinstance(row["attributes"], list):
            # An arrow map arrives as pairs.
            row["attributes"] = dict(row["attributes"])
        images = row.get("images", row.get("image")) or []
        images = images if isinstance(images, list) else [images]
        filled = fill_images(row, [_arrow_image(image) for image in images], where)
        return check_row({k: v for k, v in filled.items() if v is not None}, where)


def _plain(value: Any) -> Any:
    """Without the nulls that arrow writes for keys a struct does not use."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _from_json(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from error


def _arrow_image(image: Any) -> str | bytes:
    """The hub's image feature is {"bytes", "path"}; bytes win."""
    return image.get("bytes") or image.get("path", "") if isinstance(image, dict) else image


@dataclass(frozen=True)
class _Member:
    name: str
    offset: int
    size: int


class TarRows(Sequence[Row]):
    """Samples of an uncompressed WebDataset tar, indexed once and read by offset.

    An image part names its member (`KEY.jpg`, or just `jpg`), or names none and gets the next one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        samples: dict[str, dict[str, _Member]] = {}
        try:
            # "r:" is uncompressed only: offsets into a compressed stream would mean nothing.
            with tarfile.open(self.path, "r:") as tar:
                for member in tar:
                    if member.isreg():
                        key, ending = _tar_key(member.name)
                        place = _Member(member.name, member.offset_data, member.size)
                        samples.setdefault(key, {})[ending] = place
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"{self.path}: not an uncompressed tar ({error})") from error
        self._samples = list(samples.items())
        for index in range(len(self)):
            self._row(index)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        row = self._row(index)
        for part in image_parts(row["messages"]):
            part["image"] = self._read(self._member(index, part["image"]))
        return row

    def _row(self, index: int) -> Row:
        """The row with every image part naming an existing member."""
        key, members = self._samples[index]
        where = f"{self.path}:{key}"
        row = self._text_row(members, where)
        listed = {part["image"] for part in image_parts(row["messages"])} - {None}
        free = [m.name for ending, m in members.items() if ending.lower() in _IMAGE_ENDINGS]
        checked = check_row(row if listed else fill_images(row, free, where), where)
        for part in image_parts(checked["messages"]):
            self._member(index, part["image"])
        return checked

    def _text_row(self, members: dict[str, _Member], where: str) -> Row:
        if "json" in members:
            row = _from_json(self._read(members["json"]).decode("utf-8", "replace"), where)
            if not isinstance(row, dict) or "messages" not in row:
                return _llava_messages(row, where)
            return {**row, "messages": normalise_messages(row["messages"], f"{where}: messages")}
        if "txt" in members:
            caption = self._read(members["txt"]).decode("utf-8", "replace").strip()
            image = {"type": "image", "image": None}
            question = [image, {"type": "text", "text": CAPTION_PROMPT}]
            turns = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": caption},
            ]
            return {"messages": normalise_messages(turns, where)}
        raise UserError(f"{where}: sample without .json or .txt")

    def _member(self, index: int, name: str) -> _Member:
        key, members = self._samples[index]
        for ending, member in members.items():
            if name in (ending, member.name, Path(member.name).name):
                return member
        raise UserError(f"{self.path}:{key}: no member {name}")

    def _read(self, member: _Member) -> bytes:
        # A descriptor per read: worker threads share this object.
        with self.path.open("rb") as file:
            file.seek(member.offset)
            return file.read(member.size)


def _tar_key(name: str) -> tuple[str, str]:
    """'a/b.left.jpg' -> ('a/b', 'left.jpg'), WebDataset's rule."""
    folder, _, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), ending


_OPENERS: dict[str, Callable[[Path], Sequence[Row]]] = {
    ".jsonl": JsonlRows,
    ".parquet": ParquetRows,
    ".json": LlavaRows,
    ".tar": TarRows,
}
