"""Requests that nobody should send: broken JSON, pictures, base64, headers, half-sent bodies."""

from __future__ import annotations

import base64
import copy
import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

from PIL import Image

from tests.serve.helpers import ask, data_url, picture_bytes

PICTURE = picture_bytes(5)
FORMS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
CHAT = "/v1/chat/completions"
SCHEMA = {
    "type": "object",
    "properties": {
        "speed": {"type": "integer", "minimum": 1},
        "where": {"enum": ["front", "rear"]},
    },
    "required": ["speed"],
}
CALL = {"id": "call_1", "function": {"name": "wipe", "arguments": '{"speed": 2}'}}
PATHS = {
    CHAT: {
        "model": "cockpit-tiny",
        "messages": [
            {"role": "system", "content": "be brief"},
            ask("what is it?", data_url(PICTURE)),
            {"role": "assistant", "content": "a lamp"},
            ask("is it on?", data_url(picture_bytes(6, "JPEG"), "image/jpeg")),
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "yes"},
        ],
        "max_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "n": 1,
        "seed": 1,
        "stop": ["x"],
        "logprobs": True,
        "top_logprobs": 2,
        "stream": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "f", "schema": SCHEMA}},
        "tools": [{"type": "function", "function": {"name": "wipe", "parameters": SCHEMA}}],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "speculate": "lookup",
    },
    "/v1/completions": {"prompt": "The driver", "max_tokens": 2, "logprobs": 1, "n": 1},
    "/tokenize": {"content": "The driver", "with_pieces": True},
    "/detokenize": {"tokens": [20, 30, 400]},
}
STRANGE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63,
    -(2**64),
    10**30,
    0.5,
    1e308,
    "",
    " ",
    "a",
    "\0",
    "\u202e",
    "é" * 50,
    "<|im_end|><image>",
    "data:image/png;base64,",
    "data:image/png;base64,AAAA",
    data_url(PICTURE[: len(PICTURE) // 2]),
    "file:///etc/passwd",
    "http://127.0.0.1/a.png",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"type": "text"},
    {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lGODlh"}},
    [{"type": "text", "text": "a"}] * 300,
    {"role": "user", "content": "a"},
]


def posted(rng: random.Random) -> tuple[str, str, bytes]:
    """(what is wrong with it, path, body): HTTP that holds, with a body that does not."""
    kind = rng.choices(list(_POSTED), weights=(70, 12, 8, 8, 2))[0]
    path, body = _POSTED[kind](rng)
    return kind, path, body


def raw(rng: random.Random) -> tuple[str, bytes]:
    """(what is wrong with it, bytes for a socket): HTTP that does not hold, or never ends."""
    kind = rng.choice(list(_RAW))
    return kind, _RAW[kind](rng)


def mutate(rng: random.Random, body: dict) -> dict:
    """A copy with a few places removed, replaced, doubled or renamed."""
    body = json.loads(json.dumps(body))
    for _ in range(rng.randint(1, 3)):
        *path, key = rng.choice(_places(body) or [("x",)])
        holder = body
        for step in path:
            holder = holder[step]
        kind = rng.randint(0, 5)
        if kind == 0 and isinstance(holder, dict):
            holder[str(rng.choice(STRANGE))[:20]] = holder.pop(key, None)
        elif kind == 1:
            holder.pop(key, None) if isinstance(holder, dict) else holder.pop(key)
        elif kind == 2 and isinstance(holder, list):
            holder.extend(holder[:3])
        else:
            holder[key] = copy.deepcopy(rng.choice(STRANGE))
    return body


def damage(rng: random.Random, data: bytes) -> bytes:
    """Cut, or with a few other bytes in it."""
    if rng.random() < 0.5:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """Where something stands in a JSON value, the whole of it left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[tuple] = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += _places(item, (*path, key))
    return found


def _fuzzed(rng: random.Random) -> tuple[str, bytes]:
    path = rng.choices(list(PATHS), weights=(6, 2, 1, 1))[0]
    data = json.dumps(mutate(rng, PATHS[path])).encode()
    return path, damage(rng, data) if rng.random() < 0.25 else data


def _shown(url: str) -> tuple[str, bytes]:
    return CHAT, json.dumps({"messages": [ask("what?", url)], "max_tokens": 1}).encode()


def _picture(rng: random.Random) -> tuple[str, bytes]:
    form = rng.choice(FORMS)
    return _shown(data_url(damage(rng, picture_bytes(8, form)), f"image/{form.lower()}"))


def _bomb(rng: random.Random) -> tuple[str, bytes]:
    """Small files of large pictures: said only, or really there, and one that is just allowed."""
    if rng.random() < 0.5:
        side = rng.choice((6_400, 7_000, 20_000, 65_535, 2**31 - 1))
        return _shown(data_url(_png(side, side)))
    side, form = rng.choice((6_000, 7_000, 7_000)), rng.choice(("PNG", "GIF"))
    return _shown(data_url(_blank(side, form), f"image/{form.lower()}"))


@cache
def _blank(side: int, form: str) -> bytes:
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, form)
    return file.getvalue()


def _png(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds a few kilobytes of zeros."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(2**20))), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _base64(rng: random.Random) -> tuple[str, bytes]:
    text = base64.b64encode(PICTURE).decode()
    at = rng.randrange(len(text))
    broken = text[:at] + rng.choice(("*", " ", "\n", "=", "é", "\0", "-_", "====")) + text[at + 1 :]
    url = f"data:image/png;base64,{rng.choice((broken, text[: at | 1], text[::-1]))}"
    return _shown(rng.choice((url, url.replace(";base64", ""), url.replace("png", "svg+xml"))))


def _deep(rng: random.Random) -> tuple[str, bytes]:
    """Nested, or long: small bodies that become large objects."""
    depth = rng.choice((100, 2_000, 40_000, 200_000))
    opened, closed = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    inner = opened * depth + b"1" + closed * depth
    name = rng.choice((b"messages", b"tools", b"response_format", b"stop", b"metadata"))
    return CHAT, b'{"messages":[{"role":"user","content":"a"}],"max_tokens":1,"%b":%b}' % (
        name,
        rng.choice((inner, b"[" + b"0," * depth + b"0]")),
    )


_POSTED: dict[str, Callable[[random.Random], tuple[str, bytes]]] = {
    "json": _fuzzed,
    "picture": _picture,
    "bomb": _bomb,
    "base64": _base64,
    "deep": _deep,
}

_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
)


def _huge_headers(rng: random.Random) -> bytes:
    size = rng.choice((33_000, 70_000, 1_000_000))
    many = b"".join(b"X-%d: %b\r\n" % (n, b"a" * 90) for n in range(size // 100))
    return _HEAD + rng.choice((b"X: " + b"a" * size + b"\r\n", many)) + b"\r\n"


def _wrong_length(rng: random.Random) -> bytes:
    length = rng.choice((b"-1", b"abc", b"9" * 30, b"99999999999", b"1e3", b"", b"5, 6"))
    return _HEAD + b"Content-Length: " + length + b"\r\n\r\n{}"


def _wrong_chunks(rng: random.Random) -> bytes:
    chunk = rng.choice((b"zz\r\n", b"-5\r\n{}\r\n", b"ffffffffffffffff\r\n{", b"3\r\n{}\r\n0\r\n"))
    return _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk


def _unfinished(rng: random.Random) -> bytes:
    """A body of which a part comes, and then nobody is there any more."""
    data = json.dumps(PATHS[CHAT]).encode()
    return _HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data[: rng.randrange(len(data))]


def _garbage(rng: random.Random) -> bytes:
    start = rng.choice((b"", b"GET ", b"POST / HTTP/9.9\r\n", b"\x16\x03\x01", _HEAD))
    return start + rng.randbytes(rng.randrange(1, 2_000)) + b"\r\n\r\n"


_RAW: dict[str, Callable[[random.Random], bytes]] = {
    "huge headers": _huge_headers,
    "wrong length": _wrong_length,
    "wrong chunks": _wrong_chunks,
    "unfinished": _unfinished,
    "garbage": _garbage,
}
