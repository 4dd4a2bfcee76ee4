"""What `manifest.json` says: the typed records of a bundle, and the reader that checks them.

Every complaint is one line naming the key: a manifest comes from outside with its bundle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from autoneural.config import Resize
from autoneural.errors import UserError

FORMAT_VERSION = 3  # 2: graphs may have a `past_block`; 3: or take any width
MANIFEST = "manifest.json"

Role = Literal["vision", "prefill", "verify", "decode", "head"]
DECODERS: tuple[Role, ...] = ("decode", "verify", "prefill")
ROLES: tuple[str, ...] = get_args(Role)
DTYPE_BYTES = {"float32": 4, "float16": 2, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2}
DTYPE_BYTES |= {"int32": 4, "int64": 8}
_TARGET_NAME = re.compile(r"float|cpu|qdq|htp/[A-Za-z0-9._-]+")
_MAX_MANIFEST_BYTES = 16 << 20
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A graph input or output. With `scale`: real = (integer - zero_point) * scale."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True, kw_only=True)
class GraphSpec:
    """One graph. Its key is (role, part, width, context, image_size); batch is 1.

    `past_block`: a decoder's past, and with it the mask, comes in multiples of so many rows; shapes
    are those of the longest, `context`. 0: every shape is static.
    `any_width`: a decoder takes fewer tokens than `width` as well; shapes are those of `width`. The
    decoders of several widths may then be one file.
    """

    role: Role
    part: int
    width: int
    context: int
    image_size: int
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    past_block: int = 0
    any_width: bool = False

    def past_rows(self, position: int) -> int:
        """How many rows of keys and values a step behind `position` committed tokens is given."""
        if not self.past_block:
            return self.context
        blocks = -(-position // self.past_block)
        return min(blocks * self.past_block, self.context)


@dataclass(frozen=True, kw_only=True)
class EmbeddingSpec:
    """The token embedding table, raw little-endian rows [V, H], looked up on the host."""

    file: str
    dtype: str
    shape: tuple[int, int]
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """All graphs of one target and what the host needs to feed them."""

    name: str
    graphs: tuple[GraphSpec, ...]
    embedding: EmbeddingSpec
    mask_value: float
    precision: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LayerState:
    """State of one decoder layer: graph input `past`, graph output `present` (name prefixes)."""

    layer: int
    kind: Literal["conv", "attention"]
    past: str
    present: str


@dataclass(frozen=True, kw_only=True)
class ProcessorSpec:
    """How pictures meet the vision graph."""

    image_size: int
    tokens_per_image: int
    resize: Resize


class Fields:
    """A JSON object read key by key, so that every complaint names the key and its type."""

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, dict):
            raise UserError(f"{where}: expected an object, found {type(data).__name__}")
        self.data = cast(dict[str, Any], data)
        self.where = where

    def get(self, key: str, kind: type[_T]) -> _T:
        if key not in self.data:
            raise UserError(f"{self.where}: the key {key!r} is missing")
        value = self.data[key]
        if kind is float and type(value) is int:
            value = float(value)
        # bool is an int to isinstance, and never meant as one here.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            found = type(value).__name__
            raise UserError(f"{self.where}.{key}: expected {kind.__name__}, found {found}")
        return cast(_T, value)

    def natural(self, key: str) -> int:
        value = self.get(key, int)
        if value < 0:
            raise UserError(f"{self.where}.{key}: {value} is negative")
        return value

    def shape(self) -> tuple[int, ...]:
        shape = self.get("shape", list)
        if not all(type(n) is int and n >= 0 for n in shape):
            raise UserError(f"{self.where}.shape: {shape} is not a static shape")
        return tuple(shape)

    def choice(self, key: str, known: tuple[str, ...]) -> Any:
        value = self.get(key, str)
        if value not in known:
            raise UserError(f"{self.where}.{key}: unknown {value!r}; one of {', '.join(known)}")
        return value

    def objects(self, key: str) -> Iterator[Fields]:
        for index, item in enumerate(self.get(key, list)):
            yield Fields(item, f"{self.where}.{key}[{index}]")

    def child(self, key: str) -> Fields:
        return Fields(self.get(key, dict), f"{self.where}.{key}")

    def encoding(self) -> tuple[float | None, int]:
        """(scale, zero_point); no scale means real numbers."""
        if self.data.get("scale") is None:
            return None, 0
        scale = self.get("scale", float)
        if not 0.0 < scale < float("inf"):
            raise UserError(f"{self.where}.scale: {scale} is not a positive number")
        return scale, self.get("zero_point", int)


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise UserError(f"{path}: larger than {_MAX_MANIFEST_BYTES >> 20} MiB, not a manifest")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error
    version = Fields(manifest, str(path)).get("format_version", int)
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path}: bundle format {version} is newer than {FORMAT_VERSION}, the newest this "
            "version reads; upgrade autoneural"
        )
    if version < 1:
        raise UserError(f"{path}: bundle format {version} does not exist")
    return manifest


def parse_target(name: str, data: Fields) -> TargetSpec:
    if not _TARGET_NAME.fullmatch(name):
        raise UserError(f"{data.where}: unknown target; one of float, cpu, qdq, htp/<chip>")
    table = data.child("embedding")
    shape = table.shape()
    if len(shape) != 2:
        raise UserError(f"{table.where}.shape: expected [V, H], found {list(shape)}")
    scale, zero_point = table.encoding()
    return TargetSpec(
        name=name,
        graphs=tuple(_parse_graph(item) for item in data.objects("graphs")),
        embedding=EmbeddingSpec(
            file=table.get("file", str),
            dtype=table.choice("dtype", ("float32", "uint16")),
            shape=shape,
            scale=scale,
            zero_point=zero_point,
        ),
        mask_value=data.get("mask_value", float),
        precision=data.get("precision", dict),
    )


def _parse_graph(data: Fields) -> GraphSpec:
    return GraphSpec(
        role=data.choice("role", ROLES),
        part=data.natural("part"),
        width=data.natural("width"),
        context=data.natural("context"),
        image_size=data.natural("image_size"),
        file=data.get("file", str),
        inputs=tuple(_parse_tensor(item) for item in data.objects("inputs")),
        outputs=tuple(_parse_tensor(item) for item in data.objects("outputs")),
        past_block=data.natural("past_block") if "past_block" in data.data else 0,
        any_width=data.get("any_width", bool) if "any_width" in data.data else False,
    )


def _parse_tensor(data: Fields) -> TensorSpec:
    scale, zero_point = data.encoding()
    return TensorSpec(
        name=data.get("name", str),
        dtype=data.choice("dtype", tuple(DTYPE_BYTES)),
        shape=data.shape(),
        scale=scale,
        zero_point=zero_point,
    )


def parse_state(data: Fields) -> LayerState:
    return LayerState(
        layer=data.natural("layer"),
        kind=data.choice("kind", ("conv", "attention")),
        past=data.get("past", str),
        present=data.get("present", str),
    )
