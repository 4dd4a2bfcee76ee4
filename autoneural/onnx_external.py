"""External files that an ONNX file names, found without the onnx package.

A minimal protobuf field walker: it follows only the messages that lead to a TensorProto (graphs,
nodes, attributes, functions, sparse tensors) and reads their `external_data` entries. Tensor bytes
are skipped, not read, so a file of any size costs little. The context binary of an EPContext node
(attribute `ep_cache_context`) is such a file too, unless the node says that it holds the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path

from autoneural.errors import UserError

_VARINT, _BYTES = 0, 2  # wire types
_NAME, _INT, _STRING, _ATTRIBUTE = 1, 3, 4, 5  # fields of an AttributeProto, and one of a NodeProto
_BINARY, _EMBEDDED = b"ep_cache_context", b"embed_mode"

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
    """All external files of an ONNX file, those of sub-graphs and functions included.

    Raises UserError where the file is not well-formed protobuf.
    """
    return {value for key, value in _entries(path) if key == "location"}


def external_bytes(path: Path) -> int:
    """Bytes in other files that the tensors of an ONNX file take: the weights a run reads.

    Raises UserError where the file is not well-formed protobuf.
    """
    return sum(int(value) for key, value in _entries(path) if key == "length" and value.isdecimal())


def _entries(path: Path) -> Iterator[tuple[str, str]]:
    """(key, value) of all `external_data`; a context binary counts as a location."""
    if path.stat().st_size == 0:
        raise UserError(f"{path}: empty, not an ONNX model")
    with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as data:
        pending = [("model", 0, len(data))]
        try:
            while pending:
                message, start, end = pending.pop()
                if message == "entry":
                    yield _entry(data, start, end)
                    continue
                if message == "node":
                    yield from (("location", name) for name in _binaries(data, start, end))
                children = _ONNX_FIELDS[message]
                for number, wire, first, last in _fields(data, start, end):
                    if wire == _BYTES and number in children:
                        pending.append((children[number], first, last))
        except (IndexError, ValueError) as error:
            raise UserError(f"{path}: not a well-formed ONNX model") from error


def _entry(data: mmap, start: int, end: int) -> tuple[str, str]:
    """A StringStringEntryProto."""
    pairs = {n: data[a:b] for n, wire, a, b in _fields(data, start, end) if wire == _BYTES}
    return pairs.get(1, b"").decode(errors="replace"), pairs.get(2, b"").decode()


def _binaries(data: mmap, start: int, end: int) -> list[str]:
    """Context binaries that a node names, whatever its operator is called.

    A node with `embed_mode` 1 holds the binary itself. One that does not say so clearly names one.
    """
    spans, embedded = [], []
    for number, wire, first, last in _fields(data, start, end):
        if (number, wire) != (_ATTRIBUTE, _BYTES):
            continue
        name, span, value = _attribute(data, first, last)
        if name == _BINARY:
            spans.append(span)
        elif name == _EMBEDDED:
            embedded.append(value)
    if embedded and all(embedded):
        return []
    return [data[first:last].decode() for first, last in spans]


def _attribute(data: mmap, start: int, end: int) -> tuple[bytes, tuple[int, int], int]:
    """(name, where its string lies, integer) of an AttributeProto; given twice, the last counts."""
    name, span, value = b"", (start, start), 0
    for number, wire, first, last in _fields(data, start, end):
        if (number, wire) == (_NAME, _BYTES):
            name = data[first:last]
        elif (number, wire) == (_STRING, _BYTES):
            span = first, last
        elif (number, wire) == (_INT, _VARINT):
            value, _ = _varint(data, first)
    return name, span, value


def _fields(data: mmap, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, wire type, start, end) of the fields in data[position:end].

    Of length-delimited fields and varints; those of fixed size carry nothing that we look for.
    """
    while position < end:
        tag, position = _varint(data, position)
        wire, start = tag & 7, position
        if wire == _VARINT:
            _, position = _varint(data, position)
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        elif wire == _BYTES:
            length, start = _varint(data, position)
            position = start + length
        else:
            raise ValueError(f"wire type {wire}")
        if position <= end and wire in (_VARINT, _BYTES):
            yield tag >> 3, wire, start, position
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
