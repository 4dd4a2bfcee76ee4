"""External-data locations inside an ONNX file, found without the onnx package.

A minimal protobuf field walker: it follows only the messages that lead to a TensorProto (graphs,
nodes, attributes, functions, sparse tensors) and reads their `external_data` entries. Tensor bytes
are skipped, not read, so a file of any size costs little.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path

from autoneural.errors import UserError

# Message -> field number -> message, from onnx.proto: all ways that lead to a TensorProto.
_ONNX_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "tensor": {13: "entry"},
}


def external_locations(path: Path) -> set[str]:
    """All external-data locations in an ONNX file, those in sub-graphs and functions included.

    Raises UserError where the file is not well-formed protobuf.
    """
    locations: set[str] = set()
    if path.stat().st_size == 0:
        raise UserError(f"{path}: empty, not an ONNX model")
    with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as data:
        pending = [("model", 0, len(data))]
        try:
            while pending:
                message, start, end = pending.pop()
                if message == "entry":
                    locations.update(_location(data, start, end))
                    continue
                children = _ONNX_FIELDS[message]
                for number, first, last in _fields(data, start, end):
                    if number in children:
                        pending.append((children[number], first, last))
        except (IndexError, ValueError) as error:
            raise UserError(f"{path}: not a well-formed ONNX model") from error
    return locations


def _location(data: mmap, start: int, end: int) -> list[str]:
    """The value of a StringStringEntryProto whose key is "location"; else nothing."""
    pairs = {number: data[first:last] for number, first, last in _fields(data, start, end)}
    return [pairs.get(2, b"").decode()] if pairs.get(1) == b"location" else []


def _fields(data: mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end) of the length-delimited fields in data[position:end]."""
    while position < end:
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == 0:
            _, position = _varint(data, position)
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        elif wire == 2:
            length, position = _varint(data, position)
            position += length
            if position <= end:
                yield tag >> 3, position - length, position
        else:
            raise ValueError(f"wire type {wire}")
    if position != end:
        raise ValueError("a field is longer than its message")


def _varint(data: mmap, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("varint of more than ten bytes")
