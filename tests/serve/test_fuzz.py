"""Malformed requests, many of them: refused or answered, never a 5xx, nothing left behind."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from tests.serve.helpers import ask, data_url, picture_bytes

REQUESTS = 400
PICTURE = picture_bytes(5)
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
    "/v1/chat/completions": {
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


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Where something stands in a JSON value, the whole of it left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[tuple] = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += places(item, (*path, key))
    return found


def mutate(rng: random.Random, body: dict) -> dict:
    """A copy with a few places removed, replaced, doubled or renamed."""
    body = json.loads(json.dumps(body))
    for _ in range(rng.randint(1, 3)):
        *path, key = rng.choice(places(body) or [("x",)])
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


@pytest.mark.parametrize("part", range(4))
def test_malformed_requests_are_never_our_fault(http, served, part: int) -> None:
    rng = random.Random(part)
    seen: dict[int, int] = {}
    for _ in range(REQUESTS // 4):
        path = rng.choices(list(PATHS), weights=(6, 2, 1, 1))[0]
        data = json.dumps(mutate(rng, PATHS[path])).encode()
        if rng.random() < 0.25:
            data = damage(rng, data)
        response = http.post(path, content=data, headers={"Content-Type": "application/json"})
        seen[response.status_code] = seen.get(response.status_code, 0) + 1
        assert response.status_code < 500, data[:2000]
        if response.status_code != 200:
            assert response.json()["error"]["message"], data[:2000]
    assert seen[400] > 20  # most are wrong,
    assert seen[200] > 5  # and some go all the way
    assert served.requests == 0


def test_damaged_pictures_are_never_our_fault(http) -> None:
    rng = random.Random(7)
    forms = {form: picture_bytes(8, form) for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF")}
    for _ in range(60):
        form = rng.choice(list(forms))
        url = data_url(damage(rng, forms[form]), f"image/{form.lower()}")
        body = {"messages": [ask("what?", url)], "max_tokens": 1}
        response = http.post("/v1/chat/completions", json=body)
        assert response.status_code in (200, 400), url


def test_the_server_still_answers(http) -> None:
    body = PATHS["/v1/chat/completions"] | {"stop": None}
    assert http.post("/v1/chat/completions", json=body).status_code == 200
