"""Canonical rows, where they come from, and the order in which training reads them. Torch-free.

A row is the hub's `messages` schema:
    {"id", "task", "source", "messages": [...], "kinds": [...], "attributes": {"task.name": value},
     "boxes": {"task.name": [left, top, right, bottom]}}
`autoneural.data.importers` opens files of this and other formats.

The data position of a training run is one integer i. `Mixture` computes (source, row) from
(seed, i) and keeps nothing, so resuming is starting at i:

    i -> block i // 1000, slot i % 1000 -> slot permuted within the block
         quotas per block (weights)      -> source s, its draw number k
         epoch k // len(s)               -> row = k % len(s) permuted within the epoch
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from autoneural.data.cells import check_boxes
from autoneural.data.messages import image_parts, normalise_messages
from autoneural.errors import UserError

Row = dict[str, Any]
BLOCK = 1000
_MASK = (1 << 64) - 1


def check_row(row: Any, where: str) -> Row:
    """The row with normalised messages. UserError naming `where` and the first wrong key."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object with a messages key")
    if "messages" not in row:
        raise UserError(f"{where}: key messages is missing")
    messages = normalise_messages(row["messages"], f"{where}: messages")
    turns = sum(message["role"] == "assistant" for message in messages)
    if not turns:
        raise UserError(f"{where}: messages: no assistant turn, nothing to learn from")
    kinds = row.get("kinds")
    if kinds is not None and (not isinstance(kinds, list) or len(kinds) != turns):
        raise UserError(f"{where}: kinds: expected a list of {turns}, one per assistant turn")
    for number, part in enumerate(image_parts(messages)):
        if not isinstance(part["image"], str | bytes | Path | Image.Image) or part["image"] == "":
            raise UserError(f"{where}: messages: image {number} has no path")
    _check_attributes(row, where)
    if row.get("boxes") is not None:
        check_boxes(row["boxes"], where)
    return {**row, "messages": messages}


def _check_attributes(row: Row, where: str) -> None:
    attributes = row.get("attributes")
    if attributes is None:
        return
    if not isinstance(attributes, dict):
        raise UserError(f"{where}: attributes: expected an object of strings")
    for key, value in attributes.items():
        if "." not in key:
            raise UserError(f"{where}: attributes.{key}: expected a key like task.{key}")
        if not isinstance(value, str):
            raise UserError(f"{where}: attributes.{key}: expected a string, got {value!r}")


class JsonlRows(Sequence[Row]):
    """Rows of a `.jsonl` file: every line checked once on opening, then read by offset.

    Blank lines are skipped. Raises UserError with file, line and key of the first bad row.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lines: list[tuple[int, int]] = []
        offset = 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        self._parse(line, number)
                        self._lines.append((offset, number))
                    offset += len(line)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from error
        if len(self) == 0:
            raise UserError(f"{self.path}: no rows")

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: Any) -> Any:
        offset, number = self._lines[index]
        # A descriptor per read: worker threads share this object.
        with self.path.open("rb") as file:
            file.seek(offset)
            return self._parse(file.readline(), number)

    def _parse(self, line: bytes, number: int) -> Row:
        where = f"{self.path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: not JSON ({error})") from error
        return check_row(row, where)


@dataclass(frozen=True)
class Source:
    """Named rows. Relative image paths start at `root`; lists, `JsonlRows` and importers fit."""

    name: str
    rows: Sequence[Row]
    root: Path | None = None

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise UserError(f"source {self.name}: no rows")

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Row:
        """Row `index`, checked, with image paths that open from anywhere."""
        row = check_row(self.rows[index], f"{self.name}[{index}]")
        if self.root is not None:
            for part in image_parts(row["messages"]):
                if isinstance(part["image"], str):
                    part["image"] = str(self.root / part["image"])
        return row


@dataclass(frozen=True)
class Mixture:
    """Weighted sources in a seeded endless order: `locate(i)` depends on nothing but (seed, i).

    Of every 1000 positions a source gets its weight's share; each of its rows comes once per epoch
    of its own. Weights need not add up to 1.
    """

    sources: tuple[Source, ...]
    weights: tuple[float, ...]
    seed: int = 0
    _starts: tuple[int, ...] = field(init=False, repr=False)
    _keys: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.sources or len(self.sources) != len(self.weights):
            raise UserError(f"mixture: {len(self.sources)} sources, {len(self.weights)} weights")
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise UserError(f"mixture: two sources share a name: {', '.join(names)}")
        starts = (0, *itertools.accumulate(_quotas(names, self.weights)))
        object.__setattr__(self, "_starts", starts)
        object.__setattr__(self, "_keys", tuple(_key(self.seed, name) for name in names))

    @classmethod
    def of(cls, parts: Sequence[tuple[Source, float]], seed: int = 0) -> Mixture:
        """Mixture of (source, weight) pairs."""
        sources, weights = zip(*parts, strict=True) if parts else ((), ())
        return cls(sources, weights, seed)

    def locate(self, position: int) -> tuple[int, int]:
        """(source number, row number) at a position >= 0."""
        block, offset = divmod(position, BLOCK)
        slot = permuted(offset, BLOCK, _mix(_key(self.seed, "blocks") + block))
        source = next(s for s, end in enumerate(self._starts[1:]) if slot < end)
        quota = self._starts[source + 1] - self._starts[source]
        draw = block * quota + slot - self._starts[source]
        epoch, place = divmod(draw, len(self.sources[source]))
        row = permuted(place, len(self.sources[source]), _mix(self._keys[source] + epoch))
        return source, row

    def row(self, position: int) -> Row:
        """The row at a position, checked and with absolute image paths."""
        source, row = self.locate(position)
        return self.sources[source].row(row)

    def epochs(self, samples: int) -> dict[str, float]:
        """How often each source is read in `samples` positions: the report before a run."""
        quotas = [end - start for start, end in itertools.pairwise(self._starts)]
        return {
            source.name: samples * quota / BLOCK / len(source)
            for source, quota in zip(self.sources, quotas, strict=True)
        }


def permuted(index: int, size: int, key: int) -> int:
    """Place of `index` in a pseudo-random permutation of range(size): O(1), nothing stored.

    A Feistel network over the next even power of two, walked until it lands inside.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    rounds = _round_keys(key)
    while True:
        left, right = index >> half, index & mask
        for round_key in rounds:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        index = left << half | right
        if index < size:
            return index


@functools.lru_cache(maxsize=256)
def _round_keys(key: int) -> tuple[int, ...]:
    return tuple(_mix(key + n * 0x9E3779B97F4A7C15) for n in range(1, 7))


def _mix(value: int) -> int:
    """splitmix64's finaliser."""
    value &= _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


@functools.lru_cache(maxsize=256)
def _key(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _quotas(names: Sequence[str], weights: Sequence[float]) -> Iterator[int]:
    """Positions per block: largest remainders, so they add up to BLOCK exactly."""
    for name, weight in zip(names, weights, strict=True):
        if not weight > 0:
            raise UserError(f"mixture: weight of {name} is {weight}, expected more than 0")
    shares = [weight / sum(weights) * BLOCK for weight in weights]
    quotas = [int(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda s: quotas[s] - shares[s])
    for s in order[: BLOCK - sum(quotas)]:
        quotas[s] += 1
    for name, quota in zip(names, quotas, strict=True):
        if not quota:
            raise UserError(f"mixture: weight of {name} is under 1/{BLOCK} of the whole")
    return iter(quotas)
