"""Every field's limits: what is refused, with which status and `param`; what is ignored."""

from __future__ import annotations

import json

import pytest

from autoneural.serve import settings
from tests.serve.helpers import ask, call, data_url, error_of, picture_bytes

URL = data_url(picture_bytes())
CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"


def parts(*content) -> dict:
    return {"messages": [{"role": "user", "content": list(content)}]}


WRONG_CHAT = [
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [{"content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "  "}]}, "messages[0].content"),
    ({"messages": [ask("a")] * (settings.MAX_MESSAGES + 1)}, "messages"),
    (parts({"type": "video"}), "messages[0].content[0].type"),
    (parts({"type": "text"}), "messages[0].content[0].text"),
    (
        parts({"type": "text", "text": "a"}, {"type": "text", "text": 1}),
        "messages[0].content[1].text",
    ),
    (parts({"type": "image_url"}), "messages[0].content[0].image_url"),
    (parts({"type": "image_url", "image_url": {}}), "messages[0].content[0].image_url.url"),
    (
        parts({"type": "text", "text": "a"})
        | {
            "messages": [
                ask("a"),
                {"role": "assistant", "content": [{"type": "input_image", "image_url": URL}]},
                ask("b"),
            ]
        },
        "messages[1].content",
    ),
    ({"model": 3}, "model"),
    ({"model": "m" * 300}, "model"),
    ({"temperature": "0.5"}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": 0.5}, "top_k"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": -1}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"presence_penalty": "1"}, "presence_penalty"),
    ({"frequency_penalty": -2.1}, "frequency_penalty"),
    ({"seed": 2**64}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"n": 0}, "n"),
    ({"n": settings.MAX_CHOICES + 1}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**400}, "max_tokens"),
    ({"max_completion_tokens": -5}, "max_completion_tokens"),
    ({"max_completion_tokens": True}, "max_completion_tokens"),
    ({"stop": ""}, "stop[0]"),
    ({"stop": []}, "stop"),
    ({"stop": ["a"] * (settings.MAX_STOPS + 1)}, "stop"),
    ({"stop": ["a" * (settings.MAX_STOP_LETTERS + 1)]}, "stop[0]"),
    ({"stop": {"a": 1}}, "stop"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"logprobs": 3}, "logprobs"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logit_bias": {"50256": -100}}, "logit_bias"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {"voice": "a"}}, "audio"),
]
WRONG_PLAIN = [
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": ["a"] * 9}, "prompt"),
    ({"prompt": ["a"] * 3, "n": 3}, "prompt"),
    ({"prompt": [5000]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": "<image> what?"}, "prompt"),
    ({"prompt": "a " * 5000}, "prompt"),
    ({"prompt": [5] * 1024}, "prompt"),
    ({"logprobs": 6}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"echo": True}, "echo"),
    ({"best_of": 2}, "best_of"),
    ({"suffix": "end"}, "suffix"),
]


def ident(value) -> str:
    return json.dumps(value)[:40] if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("fields", "param"), WRONG_CHAT, ids=ident)
def test_a_wrong_chat_field_is_named(http, fields: dict, param: str) -> None:
    response = http.post(CHAT, json={"messages": [ask("a")], **fields})
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert param.split("[")[0].split(".")[0] in error["message"]


@pytest.mark.parametrize(("fields", "param"), WRONG_PLAIN, ids=ident)
def test_a_wrong_completion_field_is_named(http, fields: dict, param: str) -> None:
    response = http.post(PLAIN, json={"prompt": "a", **fields})
    assert response.status_code == 400
    assert error_of(response)["param"].split("[")[0].split(".")[0] == param


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": 5}, "content"),
        ("/tokenize", {"content": "a" * (settings.MAX_TEXT_LETTERS + 1)}, "content"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [1.5]}, "tokens[0]"),
        ("/detokenize", {"tokens": [1024]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
    ],
    ids=ident,
)
def test_wrong_text_and_ids(http, path: str, body: dict, param: str) -> None:
    response = http.post(path, json=body)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


def test_unknown_and_empty_fields_are_ignored(http) -> None:
    nothing = dict.fromkeys(
        ("model", "n", "stop", "seed", "tools", "response_format", "logit_bias", "user", "top_p")
    )
    more = {"store": True, "metadata": {"a": "b"}, "reasoning_effort": "low", "never_heard_of": [1]}
    more |= {"response_format": {"type": "text"}, "tool_choice": "auto", "tools": []}
    more |= {"presence_penalty": 0, "frequency_penalty": 0.0, "modalities": ["text"]}
    plain = http.post(CHAT, json={"messages": [ask("a")], "max_tokens": 2})
    full = http.post(CHAT, json={"messages": [ask("a")], "max_tokens": 2, **nothing, **more})
    assert plain.status_code == full.status_code == 200
    assert plain.json()["choices"] == full.json()["choices"]


def test_a_prompt_beyond_the_context(http) -> None:
    # Long enough to be refused unread, and short enough to be counted.
    for text in ("word " * 3000, "w " * 1100):
        error = error_of(http.post(CHAT, json={"messages": [ask(text)]}))
        assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
        assert "1024" in error["message"]
    sixteen = [ask("a", *[URL] * 16)]
    error = error_of(http.post(CHAT, json={"messages": sixteen}))
    assert error["code"] == "context_length_exceeded"


def test_too_many_images_are_refused_undecoded(http) -> None:
    bad = data_url(b"no picture")
    messages = [ask("a", *[bad] * 16), {"role": "assistant", "content": "b"}, ask("c", bad)]
    error = error_of(http.post(CHAT, json={"messages": messages}))
    assert (error["code"], error["param"]) == ("too_many_images", "messages[2].content[0]")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", None),
        ("{", "invalid_json"),
        ('{"messages": [}', "invalid_json"),
        ('{"messages": NaN, "temperature": }', "invalid_json"),
        ("[" * 60_000, None),
        ("null", None),
        ("[1, 2]", None),
        ('"text"', None),
        ("1" * 6000, None),
        ("\ud800".encode("utf-8", "surrogatepass"), None),
        (b"\xff\xfe\x00", None),
        ("[" + "[]," * 200_000 + "[]]", "too_many_items"),
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("path", [CHAT, PLAIN, "/tokenize", "/detokenize"])
def test_malformed_json(http, path: str, text: str | bytes, code: str | None) -> None:
    response = http.post(path, content=text, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    if code:
        assert error_of(response)["code"] == code


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(http, value: str) -> None:
    body = f'{{"messages": [{{"role": "user", "content": "a"}}], "temperature": {value}}}'
    response = http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert error_of(response)["param"] == "temperature"


def test_half_a_surrogate_breaks_nothing(http) -> None:
    for body in (
        r'{"messages": [{"role": "user", "content": "a\ud800"}], "max_tokens": 1}',
        r'{"messages": [{"role": "user", "content": "a"}], "model": "\udfff"}',
        r'{"messages": [{"role": "user", "content": "a"}], "\ud800": 1, "max_tokens": 1}',
    ):
        response = http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code < 500


def test_other_paths_and_methods_have_openais_form_too(http) -> None:
    assert error_of(http.get("/v1/nothing"))["type"] == "invalid_request_error"
    response = http.get(CHAT)
    assert response.status_code == 405
    assert error_of(response)["message"].startswith("GET /v1/chat/completions")


def test_text_and_tokens_round_trip(http, served) -> None:
    text = "Is the driver <|im_end|> awake? é 🚗"
    tokens = http.post("/tokenize", json={"content": text}).json()["tokens"]
    tokenizer = served.processor.tokenizer
    assert tokens == tokenizer.encode(text)
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"content": text}
    as_text = http.post("/tokenize", json={"content": text, "parse_special": False}).json()[
        "tokens"
    ]
    assert tokenizer.eos_id not in as_text
    assert http.post("/detokenize", json={"tokens": as_text}).json() == {"content": text}
    pieces = http.post("/tokenize", json={"content": "é a", "with_pieces": True}).json()["tokens"]
    data = b"".join(
        p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"]) for p in pieces
    )
    assert data.decode() == "é a"
    first = http.post("/tokenize", json={"content": "a", "add_special": True}).json()["tokens"][0]
    assert first == tokenizer.bos_id
    assert http.post("/tokenize", json={"content": ""}).json() == {"tokens": []}


def test_props_and_health(http) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    props = http.get("/props").json()
    assert props["modalities"]["vision"] is True
    assert props["default_generation_settings"]["n_ctx"] == 1024
    assert props["limits"]["images"] == settings.MAX_IMAGES
    assert http.get("/props", params={"model": "other"}).status_code == 404


def test_the_document_of_the_routes_names_them_all(app) -> None:
    paths = set(call(app, "GET", "/openapi.json").json()["paths"])
    assert {CHAT, PLAIN, "/v1/models", "/v1/models/{model_id}", "/health", "/metrics"} <= paths
    # Pages that would load scripts from elsewhere.
    assert call(app, "GET", "/docs").status_code == 404
    assert call(app, "GET", "/redoc").status_code == 404


def test_metrics_count(http) -> None:
    def value(name: str) -> float:
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before = value("autoneural_completion_tokens_total"), value("autoneural_images_encoded_total")
    body = {"messages": [ask("a", data_url(picture_bytes(777)))], "max_tokens": 1}
    assert http.post(CHAT, json=body).status_code == 200
    assert value("autoneural_completion_tokens_total") == before[0] + 1
    assert value("autoneural_images_encoded_total") == before[1] + 1
    assert value('autoneural_requests_total{end="ok"') >= 1
    assert value("autoneural_loaded") == 1
    assert value("autoneural_requests_in_flight") == 0
