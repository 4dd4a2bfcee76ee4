"""Writes cockpit rows and pictures to disk in the formats other trainers read.

    messages    <split>.jsonl + images/*.jpg         the canonical row (paths from the folder)
    llava       <split>.json  + images/*.jpg         id, image(s), conversations[{from, value}]
    parquet     <split>.parquet                      images (bytes) and the columns of a row
    webdataset  <split>-000000.tar ...               <key>.jpg (<key>.1.jpg) + <key>.json per row

The folder appears whole or not at all.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import Progress

from autoneural.data.cockpit.base import SPLITS, Split
from autoneural.data.cockpit.render import draw
from autoneural.data.cockpit.rows import Row, image_name, rows
from autoneural.data.cockpit.tasks import DRAWN, TASKS, check_tasks
from autoneural.errors import UserError
from autoneural.files import replace_folder

JPEG_QUALITY = 92
SHARD_ROWS = 1000
GROUP_ROWS = 64
"""Of a parquet file; one row read at random costs a whole group."""
CHUNK = 64
Made = tuple[Row, dict[str, bytes]]
"""A row and its encoded pictures by name."""


@dataclass
class Drawn:
    """Pictures so far, and the seconds of one core that they and their rows took."""

    pictures: int = 0
    core_seconds: float = 0.0


@dataclass(frozen=True)
class _Job:
    task: str
    split: Split
    start: int
    stop: int
    seed: int
    size: int


def _jpeg(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _make(job: _Job) -> tuple[list[Made], float]:
    """The job's rows, and the seconds of one core they took."""
    made: list[Made] = []
    start = time.process_time()
    for row, scenes in rows(job.task, job.split, job.start, job.stop, job.seed):
        pictures = {
            image_name(scene): _jpeg(draw(scene, DRAWN[scene.task].svg(scene), job.size))
            for scene in scenes
        }
        made.append((row, pictures))
    return made, time.process_time() - start


def _jobs(tasks: Sequence[str], n: int, seed: int, split: Split, size: int) -> list[_Job]:
    """`n` rows in all, shared out over the tasks."""
    shares = [n // len(tasks) + (i < n % len(tasks)) for i in range(len(tasks))]
    return [
        _Job(task, split, start, min(start + CHUNK, share), seed, size)
        for task, share in zip(tasks, shares, strict=True)
        for start in range(0, share, CHUNK)
    ]


def _produce(jobs: Sequence[_Job], workers: int, drawn: Drawn) -> Iterator[Made]:
    """Rows in job order, whatever the number of workers, with a progress bar; `drawn` counts."""
    total = sum(job.stop - job.start for job in jobs)
    with Progress(transient=True) as progress, ExitStack() as stack:
        bar = progress.add_task("pictures", total=total)
        if workers <= 1:
            chunks: Iterable[tuple[list[Made], float]] = map(_make, jobs)
        else:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers))
            chunks = pool.imap(_make, jobs)
        for chunk, seconds in chunks:
            drawn.pictures += sum(len(pictures) for _, pictures in chunk)
            drawn.core_seconds += seconds
            progress.advance(bar, len(chunk))
            yield from chunk


def _save_pictures(folder: Path, pictures: dict[str, bytes]) -> None:
    for name, data in pictures.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


def _write_messages(folder: Path, split: Split, made: Iterable[Made]) -> None:
    with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as lines:
        for row, pictures in made:
            _save_pictures(folder, pictures)
            lines.write(json.dumps(row) + "\n")


def _llava(row: Row, names: Sequence[str]) -> dict[str, Any]:
    speaker = {"user": "human", "assistant": "gpt"}
    turns = []
    for message in row["messages"]:
        parts = ["<image>" if p["type"] == "image" else p["text"] for p in message["content"]]
        turns.append({"from": speaker[message["role"]], "value": "\n".join(parts)})
    image = names[0] if len(names) == 1 else list(names)
    rest = {key: value for key, value in row.items() if key != "messages"}
    return {**rest, "image": image, "conversations": turns}


def _write_llava(folder: Path, split: Split, made: Iterable[Made]) -> None:
    items = []
    for row, pictures in made:
        _save_pictures(folder, pictures)
        items.append(_llava(row, list(pictures)))
    (folder / f"{split}.json").write_text(json.dumps(items, indent=1), encoding="utf-8")


def _write_parquet(folder: Path, split: Split, made: Iterable[Made]) -> None:
    """Nested `messages` as the hub has them: an image part means the next of `images`.

    `attributes` and `boxes` are JSON text, since tasks differ.
    """
    import pyarrow as pa  # of the extra [train], which the other formats do without
    import pyarrow.parquet as pq

    part = pa.struct([("type", pa.string()), ("text", pa.string())])
    schema = pa.schema([
        ("id", pa.string()), ("task", pa.string()), ("source", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(part))]))),
        ("kinds", pa.list_(pa.string())), ("attributes", pa.string()), ("boxes", pa.string()),
        ("images", pa.list_(pa.struct([("path", pa.string()), ("bytes", pa.binary())]))),
    ])  # fmt: skip
    with pq.ParquetWriter(folder / f"{split}.parquet", schema) as writer:
        batch: list[dict[str, Any]] = []
        for row, pictures in made:
            images = [{"path": name, "bytes": data} for name, data in pictures.items()]
            texts = {
                key: json.dumps(row[key]) if key in row else None for key in ("attributes", "boxes")
            }
            batch.append({**row, **texts, "images": images})
            if len(batch) == GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema))


def _tar_add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _tar_row(tar: tarfile.TarFile, index: int, row: Row, pictures: dict[str, bytes]) -> None:
    """Files that share a key are one sample; the row inside names the files of the tar."""
    key, names = f"{index:08d}", {}
    for number, (name, data) in enumerate(pictures.items()):
        names[name] = f"{key}.jpg" if number == 0 else f"{key}.{number}.jpg"
        _tar_add(tar, names[name], data)
    text = json.dumps(row)
    for old, new in names.items():
        text = text.replace(json.dumps(old), json.dumps(new))
    _tar_add(tar, f"{key}.json", text.encode())


def _write_webdataset(folder: Path, split: Split, made: Iterable[Made]) -> None:
    tar: tarfile.TarFile | None = None
    for index, (row, pictures) in enumerate(made):
        if tar is None or index % SHARD_ROWS == 0:
            if tar is not None:
                tar.close()
            tar = tarfile.open(folder / f"{split}-{index // SHARD_ROWS:06d}.tar", "w")  # noqa: SIM115
        _tar_row(tar, index, row, pictures)
    if tar is not None:
        tar.close()


WRITERS: dict[str, Callable[[Path, Split, Iterable[Made]], None]] = {
    "messages": _write_messages,
    "llava": _write_llava,
    "parquet": _write_parquet,
    "webdataset": _write_webdataset,
}


def _check(out: Path, tasks: Sequence[str], n: int, split: str, format: str) -> None:
    check_tasks(tasks)
    if not tasks:
        raise UserError(f"no task given; choose from {', '.join(TASKS)}")
    if n < 1:
        raise UserError(f"--n: {n} rows asked for; give 1 or more")
    if split not in SPLITS:
        raise UserError(f"--split: unknown split {split!r}; choose from {', '.join(SPLITS)}")
    if format not in WRITERS:
        raise UserError(f"--format: unknown format {format!r}; choose from {', '.join(WRITERS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not an empty folder; choose another output folder or empty it")


def write(
    out: Path,
    tasks: Sequence[str],
    n: int,
    seed: int = 0,
    split: Split = "train",
    format: str = "messages",
    *,
    size: int = 256,
    workers: int | None = None,
) -> Drawn:
    """Writes `n` rows of `split`, shared out over `tasks`, into the new or empty folder `out`.

    `workers` are processes, one per core unless told; the files do not depend on them. Returns what
    it cost. UserError for an unknown task, split or format, `n` < 1, or an output folder that is
    not empty.
    """
    out = Path(out)
    _check(out, tasks, n, split, format)
    if seed < 0:
        raise UserError(f"--seed: {seed} is negative; give 0 or more")
    drawn = Drawn()
    with replace_folder(out) as temporary:
        jobs = _jobs(tasks, n, seed, split, size)
        workers = min(workers or os.cpu_count() or 1, len(jobs))
        WRITERS[format](temporary, split, _produce(jobs, workers, drawn))
    return drawn
